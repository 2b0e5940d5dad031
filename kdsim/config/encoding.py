"""The JSON form of a configuration, and its digest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any

from kdsim import data_files
from kdsim.config.errors import ConfigError, shown
from kdsim.config.identity import is_own, kind_of, source_digest
from kdsim.config.values import as_float, hints_of, python_numbers

SCHEMA_VERSION = 2
"""Version of the stored form. It is part of every digest: a change of the schema reuses no old result."""

CLASS, SOURCE, FILES = "class", "source_sha256", "files_sha256"
"""Keys of the JSON form beside the fields. `class` is a keyword of Python: no field can have that name."""

MARKS = (CLASS, SOURCE, FILES)


def encode(config: Any) -> Any:
    """JSON form of a configuration: dataclasses become `{"class": name, **fields}`, defaults included.

    A class defined outside kdsim also carries the SHA-256 of the sources that it stands on (`source_digest`), so that
    an edited noise model is another configuration; and a configuration that names files of data carries theirs
    (`kdsim.data_files`). An int in a field annotated float is written as the float that it stands for: Dirichlet(3)
    and Dirichlet(3.0) are one configuration; a number of numpy counts as Python's.
    """
    config = python_numbers(config)
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        cls = type(config)
        hints = hints_of(cls)
        fields = {f.name: encode(as_float(getattr(config, f.name), hints[f.name])) for f in dataclasses.fields(cls)}
        return {CLASS: kind_of(cls), **fields, **marks_of(config)}
    if isinstance(config, PurePath):
        return str(config)
    if isinstance(config, (tuple, list)):
        return [encode(item) for item in config]
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    kind = type(config).__name__
    raise ConfigError(f"a {kind} cannot be part of a configuration: must be a number, a text, a tuple or a dataclass")


def marks_of(config: Any) -> dict[str, Any]:
    """What a configuration stands on beside its fields: sources outside kdsim, and files of data."""
    cls = type(config)
    try:
        files = data_files.files_of(config, texts=not is_own(cls))
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(f"files of {kind_of(cls)}: {_reason(error)}") from None
    return ({} if is_own(cls) else {SOURCE: source_digest(cls)}) | ({FILES: files} if files else {})


def _reason(error: Exception) -> str:
    """What the system says of a file, with its name."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{shown(os.fsdecode(error.filename))} cannot be read: {error.strerror}"
    return f"{error}"


def digest(config: Any) -> str:
    """Hex SHA-256 (first 20 digits) of the whole configuration, defaults and schema version included."""
    return digest_of_form(encode(config))


def digest_of_form(encoded: Any) -> str:
    """`digest` of a configuration in JSON form (`encode`), which may be a part of another's."""
    text = json.dumps([SCHEMA_VERSION, encoded], sort_keys=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def require_told_apart(configs: Iterable[Any], what: str) -> None:
    """Refuse configurations in which two classes have the same module and name, as those that a function makes.

    Refuse those as well that can change after they got their digest.

    Raises:
        ConfigError: there are two, or a class is not frozen; the message begins with `what`.
    """
    known: dict[tuple[str, str], type] = {}
    for cls in {type(part) for config in configs for part in _parts(config)}:
        if not cls.__dataclass_params__.frozen:
            raise ConfigError(f"{what}: {cls.__name__} must be a frozen dataclass (@dataclass(frozen=True))")
        if known.setdefault((cls.__module__, cls.__qualname__), cls) is not cls:
            raise ConfigError(
                f"{what}: there are several classes {cls.__qualname__}, which nobody can tell apart: what a function "
                "makes a class of must be a field of the class"
            )


def _parts(config: Any) -> Iterator[Any]:
    """The configuration and all configurations in it."""
    if isinstance(config, (tuple, list)):
        for item in config:
            yield from _parts(item)
    elif dataclasses.is_dataclass(config):
        yield config
        for name in config.__dataclass_fields__:
            yield from _parts(getattr(config, name))


def require_unchanged(config: Any, name: str) -> None:
    """Refuse a configuration of which a source or a file of data has changed since its digest was `name`.

    Raises:
        ConfigError: it has, or this process has another one than that which runs the study.
    """
    if digest(config) != name:
        raise ConfigError(
            f"a source or file of data of {name} is not the one with which the run began: nothing is stored under "
            "its name; run the study again, on workers that see the same files and were started after the change"
        )
