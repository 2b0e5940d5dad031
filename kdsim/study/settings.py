"""Settings as texts: keys of `--set` with their values and meanings, for people and from them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdsim.config import CLASS, MARKS, ConfigError, kind_of


@dataclass(frozen=True)
class Setting:
    """A key of `--set`: its value as one would type it, and what it means."""

    key: str
    value: str
    doc: str


def settings(config: Any, prefix: str = "") -> Iterator[Setting]:
    """The settings of a configuration and of its parts, in order of declaration."""
    docs = field_docs(type(config))
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        yield Setting(prefix + item.name, setting_text(value), docs.get(item.name, ""))
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{prefix}{item.name}.")


def setting_text(value: Any) -> str:
    """A value in the form in which `--set` takes it."""
    if dataclasses.is_dataclass(value):
        return kind_of(type(value))
    if isinstance(value, (tuple, list)):
        return ",".join(setting_text(item) for item in value)
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def settings_texts(encoded: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Stored settings (`kdsim.config.encode`) as key and text of `--set`."""
    texts: dict[str, str] = {}
    for key, value in encoded.items():
        if key in MARKS:
            continue
        if isinstance(value, Mapping):
            texts[prefix + key] = str(value.get(CLASS, "?"))  # "?" where the file says something else than kdsim wrote
            texts |= settings_texts(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            texts[prefix + key] = setting_text(
                [item.get(CLASS, "?") if isinstance(item, Mapping) else item for item in value]
            )
        else:
            texts[prefix + key] = setting_text(value)
    return texts


def changed_settings(encoded: Mapping[str, Any], usual: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Stored settings as KEY=VALUE; with `usual`, texts by key, those that differ from them."""
    usual = usual or {}
    return tuple(f"{key}={text}" for key, text in settings_texts(encoded).items() if usual.get(key) != text)


def settings_line(encoded: Mapping[str, Any], usual: Mapping[str, str] | None = None) -> str:
    """The same in one line."""
    return " ".join(changed_settings(encoded, usual)) or "all at their defaults"


def field_docs(cls: type) -> dict[str, str]:
    """Field name to its text in the "Attributes:" section of the class docstring, base classes included."""
    return attribute_docs(base.__doc__ or "" for base in reversed(cls.__mro__))


def attribute_docs(docstrings: Iterable[str]) -> dict[str, str]:
    """Field name to its text in the "Attributes:" sections of docstrings, of which a later one overrides."""
    docs: dict[str, str] = {}
    for docstring in docstrings:
        _, _, section = inspect.cleandoc(docstring).partition("Attributes:\n")
        for line in section.splitlines():
            if not line.strip():
                continue
            if entry := re.match(r"^ {4}(\w+(?:, \w+)*): (.*)", line):
                names = entry[1].split(", ")
                docs |= dict.fromkeys(names, entry[2].strip())
            elif line.startswith(" " * 8):
                docs |= {name: f"{docs[name]} {line.strip()}" for name in names}
            else:
                break
    return docs


def summary_line(docstring: str | None) -> str:
    """First line of a docstring."""
    return (docstring or "").strip().split("\n")[0]


def parse_settings(texts: Sequence[str]) -> dict[str, str]:
    """`["key=value", ...]` as a dictionary.

    Raises:
        ConfigError: no "=", no key, or a key that is given twice.
    """
    settings: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"--set {text!r} is not allowed: must be KEY=VALUE")
        if key in settings:
            raise ConfigError(f"key {key!r} is set twice: {settings[key]!r} and {value!r}")
        settings[key] = value.strip()
    return settings
