"""A configuration from its JSON form."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from kdsim.config.allowed import Misfit, fitted
from kdsim.config.encoding import CLASS, FILES, MARKS, SOURCE, marks_of
from kdsim.config.errors import ConfigError, choose, error_line, require, shown, unknown_name
from kdsim.config.identity import is_own, kind_of, source_digest
from kdsim.config.values import hints_of

DEEPEST = 40
"""Parts within parts of a configuration that is read."""


def decode(data: Any, classes: Iterable[type], hint: Any = Any) -> Any:
    """Inverse of `encode`: digest(decode(encode(x), classes)) = digest(x).

    Values are read by the types of the fields that they are for. No code is looked up by what the data say: they name
    classes among those that are given, and validation of these is all that runs.

    Args:
        data: the JSON form.
        classes: implementations of contracts, and any other configurations that the data may name. Classes from study
            files are told from others of their name by the SHA-256 of their file, which is part of the JSON form.
        hint: type of the result.

    Raises:
        ConfigError: a class or field is unknown or missing, or a value is not allowed.
    """
    return _decode(data, tuple(classes), hint, "the configuration", 0)


def _decode(data: Any, classes: tuple[type, ...], hint: Any, where: str, depth: int) -> Any:
    require(depth < DEEPEST, "depth", depth, f"below {DEEPEST} in {where}")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    options = args if origin in (typing.Union, types.UnionType) else (hint,)
    if isinstance(data, dict):
        return _decode_class(data, classes, options, where, depth)
    for option in options if isinstance(data, list) else ():
        if option in (Any, tuple, list) or typing.get_origin(option) in (tuple, list):
            data = _decode_items(data, classes, typing.get_args(option), where, depth)
            break
    try:
        return fitted(data, hint)
    except Misfit as misfit:
        raise misfit.error(where) from None


def _decode_items(data: list[Any], classes: tuple[type, ...], each: tuple[Any, ...], where: str, depth: int) -> Any:
    if each[1:] == (...,):
        each = each[:1] * len(data)
    elif len(each) != len(data):  # of any length and type, or refused by the type of all of them
        each = (Any,) * len(data)
    return tuple(_decode(item, classes, hint, where, depth + 1) for item, hint in zip(data, each, strict=True))


def _decode_class(
    data: dict[str, Any], classes: tuple[type, ...], options: tuple[Any, ...], where: str, depth: int
) -> Any:
    """A dataclass of one of the types; a type that is no contract stands for itself."""
    contracts = tuple(each for each in options if isinstance(each, type) and each is not Any) or (object,)
    plain = [each for each in contracts if dataclasses.is_dataclass(each) and not inspect.isabstract(each)]
    known: dict[str, type] = {
        kind_of(each): each
        for each in (*plain, *classes)
        if issubclass(each, contracts) and data.get(SOURCE) == (None if is_own(each) else source_digest(each))
    }
    name = str(data.get(CLASS))
    cls = choose("class", name, known)
    hints, names = hints_of(cls), [f.name for f in dataclasses.fields(cls)]
    for key in data:
        if key not in (*names, *MARKS):
            raise unknown_name(f"field of {name}", key, names)
    if missing := [key for key in names if key not in data]:
        raise ConfigError(f"{name} in {where} has no {', '.join(missing)}")
    values = {key: _decode(data[key], classes, hints[key], f"{cls.__name__}.{key}", depth + 1) for key in names}
    try:
        found = cls(**{f.name: values[f.name] for f in dataclasses.fields(cls) if f.init})
    except ConfigError:
        raise
    except Exception as error:  # a study file's own validation can raise anything
        raise ConfigError(f"{name} in {where}: {error_line(error)}") from error
    _require_files(name, data.get(FILES, {}), marks_of(found).get(FILES, {}))
    return found


def _require_files(name: str, stored: Any, now: Mapping[str, str]) -> None:
    """Refuse a configuration whose files of data are not those with which it was stored."""
    stored = stored if isinstance(stored, dict) else {}
    for path in dict.fromkeys([*stored, *now]):
        if stored.get(path) != now.get(path):
            words = [f"SHA-256 {str(files[path])[:12]}..." if path in files else "none" for files in (stored, now)]
            raise ConfigError(f"file {shown(path)} of {name}: it was stored with {words[0]}, now there is {words[1]}")
