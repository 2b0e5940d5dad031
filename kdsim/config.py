"""Configurations: frozen dataclasses with validation, a JSON form, a digest and `key=value` overrides.

A configuration is a frozen dataclass whose fields are numbers, strings, tuples or
other configurations. Implementations of a contract (a problem, a supervision, ...)
carry a class attribute `name`, which is their name in JSON and on the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import inspect
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

SCHEMA_VERSION = 1
"""Version of the stored form. It is part of every digest: a change of the schema reuses no old result."""

CLASS, SOURCE = "class", "source_sha256"
"""Keys of the JSON form beside the fields. `class` is a keyword of Python: no field can have that name."""

T = TypeVar("T")


class ConfigError(ValueError):
    """Bad input from a user: one line that says what, which value, and what is allowed."""


def require(condition: bool, what: str, value: object, allowed: str) -> None:
    """Raise `ConfigError` naming the argument, its value and what is allowed, unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{what} = {value!r} is not allowed: must be {allowed}")


def require_positive(what: str, value: float) -> None:
    """Refuse anything but a finite number > 0 (NaN included)."""
    require(_is_number(value) and math.isfinite(value) and value > 0, what, value, "a finite number > 0")


def require_count(what: str, value: int, least: int = 1) -> None:
    """Refuse anything but an integer >= `least`."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    require(is_integer and value >= least, what, value, f"an integer >= {least}")


def require_between(what: str, value: float, low: float, high: float, ends: str = "[]") -> None:
    """Refuse anything outside the interval from `low` to `high`; `ends` is one of "[]", "[)", "(]", "()"."""
    above = _is_number(value) and (value >= low if ends[0] == "[" else value > low)
    below = _is_number(value) and (value <= high if ends[1] == "]" else value < high)
    require(above and below, what, value, f"in {ends[0]}{low:g}, {high:g}{ends[1]}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def unknown_name(what: str, value: str, allowed: Iterable[str]) -> ConfigError:
    """The error for a name that does not exist: names the nearest one and all that are allowed."""
    allowed = list(allowed)
    nearest = difflib.get_close_matches(value, allowed, n=1)
    hint = f" (nearest: {nearest[0]})" if nearest else ""
    return ConfigError(f"unknown {what} {value!r}{hint}; allowed: {', '.join(allowed)}")


def choose(what: str, value: str, options: Mapping[str, T]) -> T:
    """Look up `value` in `options`, or raise the error that names the nearest option."""
    if value not in options:
        raise unknown_name(what, value, options)
    return options[value]


def by_name(implementations: Iterable[type[T]]) -> dict[str, type[T]]:
    """Map each implementation's `name` to its class."""
    return {cls.name: cls for cls in implementations}


# JSON form and digest --------------------------------------------------------------------


def encode(config: Any) -> Any:
    """JSON form of a configuration: dataclasses become `{"class": name, **fields}`, defaults included.

    A class defined outside kdsim also carries the SHA-256 of its source file, so that an
    edited noise model is another configuration.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        cls = type(config)
        fields = {f.name: encode(getattr(config, f.name)) for f in dataclasses.fields(config)}
        outside = {} if cls.__module__.split(".")[0] == "kdsim" else {SOURCE: source_digest(cls)}
        return {CLASS: kind_of(cls), **fields, **outside}
    if isinstance(config, (tuple, list)):
        return [encode(item) for item in config]
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    raise TypeError(f"{type(config).__name__} cannot be part of a configuration")


def kind_of(cls: type) -> str:
    """Name of a configuration class in JSON."""
    return getattr(cls, "name", cls.__name__)


def source_digest(cls: type) -> str:
    """SHA-256 of the source file that defines `cls`."""
    path = inspect.getsourcefile(cls)
    if path is None:
        raise ConfigError(f"{cls.__name__} has no source file: define it in a file, so that its digest can be stored")
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def decode(data: Any, classes: Iterable[type]) -> Any:
    """Inverse of `encode` for the given classes; unknown kinds and fields raise `ConfigError`."""
    kinds = {kind_of(cls): cls for cls in classes}

    def build(item: Any) -> Any:
        if isinstance(item, list):
            return tuple(build(entry) for entry in item)
        if not isinstance(item, dict):
            return item
        fields = {key: build(value) for key, value in item.items() if key not in (CLASS, SOURCE)}
        cls = choose("class", str(item.get(CLASS)), kinds)
        known = [f.name for f in dataclasses.fields(cls)]
        for key in fields:
            if key not in known:
                raise unknown_name(f"field of {item[CLASS]}", key, known)
        return cls(**fields)

    return build(data)


def digest(config: Any) -> str:
    """Hex SHA-256 (first 20 digits) of the whole configuration, defaults and schema version included."""
    text = json.dumps([SCHEMA_VERSION, encode(config)], sort_keys=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


# Overrides --------------------------------------------------------------------------------


def override(config: T, settings: Mapping[str, str], kinds: Mapping[type, Mapping[str, type]]) -> T:
    """Return `config` with `{"key": "text", "part.key": "text"}` applied.

    Args:
        config: a frozen dataclass.
        settings: dotted keys to texts. Texts are parsed by the field's type, never evaluated.
        kinds: for a field annotated with a contract, the implementations that its text may name.
    """
    return _apply(config, "", {tuple(key.split(".")): text for key, text in settings.items()}, kinds)


def _apply(
    config: Any, prefix: str, settings: Mapping[tuple[str, ...], str], kinds: Mapping[type, Mapping[str, type]]
) -> Any:
    """All settings of one dataclass at once: it is validated with all of them, never with some."""
    hints = typing.get_type_hints(type(config))
    names = [f.name for f in dataclasses.fields(config) if f.init]
    changes: dict[str, Any] = {}
    parts: dict[str, dict[tuple[str, ...], str]] = {}
    for (head, *rest), text in settings.items():
        if head not in names:
            raise unknown_name("key", prefix + ".".join([head, *rest]), [prefix + name for name in names])
        if rest:
            parts.setdefault(head, {})[tuple(rest)] = text
        else:
            changes[head] = _parse(prefix + head, text, hints[head], kinds)
    for head, inner in parts.items():  # after `problem=digits` comes `problem.samples=500`
        part = changes.get(head, getattr(config, head))
        if not dataclasses.is_dataclass(part):
            key = prefix + ".".join([head, *next(iter(inner))])
            raise ConfigError(f"key {key!r}: {head} = {part!r} has no parts")
        changes[head] = _apply(part, f"{prefix}{head}.", inner, kinds)
    return dataclasses.replace(config, **changes)


def _parse(key: str, text: str, hint: Any, kinds: Mapping[type, Mapping[str, type]]) -> Any:
    """Parse `text` as a value of type `hint`."""
    if hint in kinds:
        return choose(key, text, kinds[hint])()
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in args and text.lower() == "none":
            return None
        errors = []
        for option in (arg for arg in args if arg is not type(None)):
            try:
                return _parse(key, text, option, kinds)
            except ConfigError as error:
                errors.append(error)
        raise errors[-1]
    if origin is Literal:
        if text not in args:
            raise unknown_name(f"{key} =", text, args)
        return text
    if origin is tuple:
        return tuple(
            _parse(key, item.strip(), args[0], kinds) for item in text.strip("()[] ").split(",") if item.strip()
        )
    if hint is bool:
        return choose(f"{key} =", text.lower(), {"true": True, "false": False, "yes": True, "no": False})
    if hint in (int, float):
        try:
            number = float(text.replace("_", ""))
            if hint is float:
                return number
            if number == int(number):
                return int(number)
        except (ValueError, OverflowError):
            pass
        raise ConfigError(f"{key} = {text!r} is not allowed: must be {'an integer' if hint is int else 'a number'}")
    if hint is str:
        return text
    raise ConfigError(f"key {key!r} cannot be set from text; set its parts ({key}.NAME=VALUE) or write a study file")
