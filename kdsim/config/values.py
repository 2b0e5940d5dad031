"""Values of fields: numbers of other libraries, the fields' types, and ints that stand for floats."""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any

from kdsim.config.errors import ConfigError


def python_numbers(value: Any) -> Any:
    """A number of numpy or torch (an array of no dimension) as Python's, also within tuples; all else as it is."""
    if type(value) is tuple:
        items = tuple(python_numbers(item) for item in value)
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    if getattr(value, "shape", None) == () and (number := listed(value)) is not value:
        return number if type(number) in (bool, int, float) else value
    return value


def listed(value: Any) -> Any:
    """What an array of numpy, torch or pandas holds, in lists; the value itself if it holds nothing that can be seen.

    That is so of a tensor on no device, and of what numpy masks.
    """
    if not callable(getattr(value, "tolist", None)):
        return value
    try:
        return value.tolist()
    except Exception:  # the array of any library
        return value


@cache
def hints_of(cls: type) -> dict[str, Any]:
    """The fields' types, with names resolved."""
    try:
        hints = typing.get_type_hints(cls)
    except Exception as error:  # an annotation is code
        raise ConfigError(f"a field of {cls.__name__} has an annotation that cannot be resolved: {error}") from None
    final = {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is typing.Final}
    return hints | {name: args[0] for name, args in final.items()}


def as_float(value: Any, hint: Any) -> Any:
    """`value` with float for int wherever `hint` says float and not int."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    value = python_numbers(value)
    if type(value) is int:
        options = args if origin in (typing.Union, types.UnionType) else (hint,)
        return float(value) if float in options and int not in options and abs(value) <= 2**53 else value
    if origin in (typing.Union, types.UnionType):
        tuples = [option for option in args if typing.get_origin(option) is tuple]
        return as_float(value, tuples[0]) if len(tuples) == 1 else value
    if origin is tuple and isinstance(value, (tuple, list)) and args:
        each = [args[0]] * len(value) if len(args) == 2 and args[1] is ... else args
        return tuple(as_float(*pair) for pair in zip(value, each, strict=True)) if len(each) == len(value) else value
    return value
