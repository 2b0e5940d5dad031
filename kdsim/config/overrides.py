"""A configuration with settings of the command line, `key=value`, applied."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from kdsim import setting_texts
from kdsim.config.errors import ConfigError, choose, require, shown, unknown_name
from kdsim.config.values import hints_of

T = TypeVar("T")


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
    cls: type = type(config)
    hints = hints_of(cls)
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
        return choose(f"{key} =", text, {str(allowed): allowed for allowed in args})
    if origin is tuple:
        parts = _read(key, text, setting_texts.items)
        each = (args[0],) * len(parts) if len(args) == 2 and args[1] is ... else args
        require(len(parts) == len(each), key, text, f"{len(each)} values with commas between them")
        return tuple(_parse(key, part, kind, kinds) for part, kind in zip(parts, each, strict=True))
    if hint is bool:
        return choose(f"{key} =", text.lower(), {"true": True, "false": False, "yes": True, "no": False})
    if hint in (int, float):
        return _read(key, text, setting_texts.integer if hint is int else setting_texts.number)
    if hint is str:
        return text
    if hint is Path:
        return _read(key, text, setting_texts.path)
    raise ConfigError(f"key {key!r} cannot be set from text; set its parts ({key}.NAME=VALUE) or write a study file")


def _read(key: str, text: str, reader: Callable[[str], T]) -> T:
    """What a function of `kdsim.setting_texts` makes of a text."""
    try:
        return reader(text)
    except ValueError as error:
        raise ConfigError(f"{key} = {shown(text)} is not allowed: {error}") from None
