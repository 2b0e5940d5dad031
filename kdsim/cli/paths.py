"""Paths of the command line: absolute from the start, whatever a study file does with the working directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from kdsim import config, setting_texts
from kdsim.config import ConfigError

_typed: dict[str, str] = {}
"""What the user typed, by the absolute path that it became."""


def forget() -> None:
    """A new command begins: what was typed before is another folder's."""
    _typed.clear()


def shown(path: str | os.PathLike[str]) -> str:
    """A path as it is printed for people: as the user typed it, or what it lies in."""
    text = os.fspath(path)
    for place, typed in sorted(_typed.items(), key=lambda item: -len(item[0])):
        if text == place:
            return typed
        if text.startswith(place.rstrip(os.sep) + os.sep):
            return os.path.join(typed, text[len(place) :].lstrip(os.sep))
    return text


def absolute(what: str, text: str) -> str:
    """An absolute path, `~` expanded, that a file can have.

    Args:
        what: names the option in a message.

    Raises:
        ConfigError: no file can have this path, or it is relative to a folder that was removed.
    """
    try:
        path = setting_texts.path(text).absolute()
        os.lstat(path)
    except FileNotFoundError as error:
        if error.filename is None:
            raise ConfigError(f"{what} = {config.shown(text)} is in the working directory, which was removed") from None
    except ValueError as error:
        raise ConfigError(f"{what} = {config.shown(text)} is not allowed: {error}") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            why = f"must be shorter ({error.strerror})"
            raise ConfigError(f"{what} = {config.shown(text)} is not allowed: {why}") from None
    _typed[str(path)] = text
    return str(path)


def option(name: str) -> Callable[[str | None], str | None]:
    """Typer's callback of an option or argument that is a path."""

    def callback(text: str | None) -> str | None:
        return None if text is None else absolute(name, text)

    return callback


def options(name: str) -> Callable[[list[str] | None], list[str] | None]:
    """The same of an option that may be repeated."""

    def callback(given: list[str] | None) -> list[str] | None:
        return None if given is None else [absolute(name, text) for text in given]

    return callback


def target(text: str) -> str:
    """Typer's callback of an argument that is a name, a folder, or a path that ends in `.py` or begins with `~`."""
    if text.endswith(".py") or text.startswith("~"):
        return absolute("NAME|FILE", text)
    if os.sep in text:
        _typed[os.path.abspath(text)] = text
    return text


def scheduler(text: str | None) -> str | None:
    """Typer's callback of `--scheduler`, an address or a file."""
    return absolute("--scheduler", text) if text is not None and text.endswith(".json") else text
