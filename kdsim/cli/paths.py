"""Paths of the command line: absolute from the start, whatever a study file does with the working directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from kdsim import setting_texts
from kdsim.config import ConfigError, shown


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
        if error.filename is not None:
            return str(path)
        raise ConfigError(f"{what} = {shown(text)} is in the working directory, which was removed") from None
    except ValueError as error:
        raise ConfigError(f"{what} = {shown(text)} is not allowed: {error}") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(f"{what} = {shown(text)} is not allowed: must be shorter ({error.strerror})") from None
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
    """Typer's callback of an argument that is a name or a path, which ends in `.py` or begins with `~`."""
    return absolute("NAME|FILE", text) if text.endswith(".py") or text.startswith("~") else text


def scheduler(text: str | None) -> str | None:
    """Typer's callback of `--scheduler`, an address or a file."""
    return absolute("--scheduler", text) if text is not None and text.endswith(".json") else text
