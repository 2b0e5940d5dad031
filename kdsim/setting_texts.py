"""Numbers, tuples and paths from texts of the command line, exactly or not at all.

Python's own `int` and `float` take more than a user means: digits of other scripts, `nan`, and `1e-400` as 0. Each
function raises a `ValueError` whose message says what is allowed.
"""

from __future__ import annotations

import math
import os
import re
from decimal import Decimal, InvalidOperation
from pathlib import Path

_NUMERAL = re.compile(r"[+-]?(\d+(_\d+)*\.?(\d+(_\d+)*)?|\.\d+(_\d+)*)([eE][+-]?\d+)?", re.ASCII)
_DIGITS = 4000
"""Of an integer, at most: Python turns no longer text into one."""
_BRACKETS = ("()", "[]")


def integer(text: str) -> int:
    """The integer that a text stands for; `1e4`, `1_000` and `2.0` are integers too.

    Raises:
        ValueError: the text is no number, or it has a fraction; the message says what is allowed.
    """
    number = _decimal(text)
    if number is None or number.adjusted() > _DIGITS or number != number.to_integral_value():
        raise ValueError("must be an integer")
    return int(number)


def number(text: str) -> float:
    """The number that a text stands for, rounded to the nearest float64.

    Raises:
        ValueError: the text is no number, or float64 would make 0 or infinity of it; the message says what is allowed.
    """
    exact = _decimal(text)
    if exact is None:
        infinite = text.lower().lstrip("+-") in ("inf", "infinity", "nan")
        raise ValueError("must be a finite number" if infinite else "must be a number")
    found = float(text)
    if math.isinf(found) or (found == 0) != exact.is_zero():
        raise ValueError("must be 0 or a number from 4.9e-324 to 1.8e308 in size")
    return found


def items(text: str) -> list[str]:
    """The parts of `1,2`, `(1, 2)` or `[1, 2]`; one comma may follow the last, as in Python.

    Raises:
        ValueError: a part is empty, or a bracket has no partner; the message says what is allowed.
    """
    inner = text.strip()
    if inner[:1] + inner[-1:] in _BRACKETS:
        inner = inner[1:-1].strip()
    if any(bracket in inner for bracket in "()[]"):
        raise ValueError("must be values with commas between them, in one pair of brackets or in none")
    parts = [part.strip() for part in inner.split(",")]
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    if parts == [""]:
        if inner:
            raise ValueError("must have a value before each comma")
        return []
    if "" in parts:
        raise ValueError("must have a value before each comma")
    return parts


def path(text: str) -> Path:
    """A path, with `~` and `~NAME` as the home folders that a shell puts there: it leaves `--out=~/x` to the program.

    Raises:
        ValueError: it is blank or has control characters, or there is no such user; the message says what is allowed.
    """
    if not text.strip():
        raise ValueError("must be a path")
    if any(char < " " or char == "\x7f" for char in text):
        raise ValueError("must be a path without control characters")
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise ValueError("must begin with ~ or the ~NAME of a user, or with ./ where the folder is called so")
    return Path(expanded)


def _decimal(text: str) -> Decimal | None:
    """The exact number that is written; None if none is."""
    if _NUMERAL.fullmatch(text) is None:
        return None
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of more digits than Decimal takes
        return None
