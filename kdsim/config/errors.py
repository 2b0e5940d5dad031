"""What is wrong with a user's input: the error, what raises it, and errors of other code in one line."""

from __future__ import annotations

import difflib
import math
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from kdsim import study_files

T = TypeVar("T")


class Named(Protocol):
    """A class with a name for JSON and the command line."""

    name: ClassVar[str]


N = TypeVar("N", bound=Named)


class ConfigError(ValueError):
    """Bad input from a user: one line that says what, which value, and what is allowed."""


def error_line(error: BaseException) -> str:
    """Any error in one line: a `ConfigError` as it is, else its type and where it arose, in the study file if there."""
    lines = str(error).splitlines() or [""]
    if isinstance(error, ConfigError):
        return " ".join(lines)
    places = [(frame.f_globals.get("__name__", ""), frame.f_code.co_filename, line)
              for frame, line in traceback.walk_tb(error.__traceback__)]  # fmt: skip
    places = [place for place in places if str(place[0]).startswith(study_files.PREFIX)] or places
    where = f" ({Path(places[-1][1]).name}:{places[-1][2]})" if places else ""
    return f"{type(error).__name__}: {lines[0]}{where}"


def lacks_memory(error: BaseException) -> bool:
    """Whether there was too little memory: numpy, torch and the loader of libraries have errors of several types."""
    words = ("array is too big", "Maximum allowed dimension exceeded", "can't allocate memory", "out of memory",
             "Cannot allocate memory", "failed to map segment")  # fmt: skip
    if isinstance(error, MemoryError) or any(word in str(error) for word in words):
        return True
    before = error.__cause__ or error.__context__  # llvmlite says that a library was not found
    return isinstance(error, (OSError, ImportError)) and before is not None and lacks_memory(before)


def in_study_file(error: BaseException) -> bool:
    """Whether the error came out of code of a study file."""
    names = (str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(name.startswith(study_files.PREFIX) for name in names)


def require(condition: bool, what: str, value: object, allowed: str) -> None:
    """Raise `ConfigError` naming the argument, its value and what is allowed, unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{what} = {shown(value)} is not allowed: must be {allowed}")


def shown(value: object) -> str:
    """A value as a message shows it, which is one line of a length that people read."""
    text = " ".join(line.strip() for line in repr(value).splitlines())  # of an array or a table it has several
    return text if len(text) <= 500 else f"{text[:400]}... ({len(text):,} characters)"


def require_positive(what: str, value: float) -> None:
    """Refuse anything but a finite number > 0 (NaN included)."""
    require(_is_number(value) and math.isfinite(value) and value > 0, what, value, "a finite number > 0")


def require_count(what: str, value: int, least: int = 1, most: int = 2**63 - 1) -> None:
    """Refuse anything but an integer from `least` to `most`; by default what a 64-bit number holds."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    require(is_integer and value >= least, what, value, f"an integer >= {least}")
    require(value <= most, what, value, f"an integer <= {most}")


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
    nearest = difflib.get_close_matches(value[:100], allowed, n=1)  # of long texts it would take hours
    hint = f" (nearest: {nearest[0]})" if nearest else ""
    return ConfigError(f"unknown {what} {shown(value)}{hint}; allowed: {', '.join(allowed)}")


def choose(what: str, value: str, options: Mapping[str, T]) -> T:
    """Look up `value` in `options`, or raise the error that names the nearest option."""
    if value not in options:
        raise unknown_name(what, value, options)
    return options[value]


def by_name(implementations: Iterable[type[N]]) -> dict[str, type[N]]:
    """Map each implementation's `name` to its class."""
    return {cls.name: cls for cls in implementations}
