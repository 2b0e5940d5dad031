"""What an annotation allows: each value of a field is held against its type when a configuration is built or read.

Checked are numbers, texts, True and False, None, paths, `Literal`, tuples and unions of these, and classes, most of
which are contracts. Whatever else an annotation may be (`Any`, a protocol, `list[int]`, an array) allows everything.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

from kdsim.config.errors import ConfigError, shown
from kdsim.config.identity import is_own, kind_of
from kdsim.config.values import as_float, listed, python_numbers

_NOUNS: dict[Any, tuple[str, str]] = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "True or False"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
    PurePath: ("a path", "paths"),
    type(None): ("None", "None"),
    tuple: ("a tuple", "tuples"),
}
"""What a type is called, one of it and many."""
_UNIONS = (typing.Union, types.UnionType)
_LARGEST = int(sys.float_info.max)


class Misfit(Exception):
    """A value is not of its field's type.

    Attributes:
        place: where below the field it is, as "[2]".
    """

    def __init__(self, value: Any, hint: Any, place: str) -> None:
        super().__init__(place)
        self.value, self.hint, self.place = value, hint, place

    def error(self, what: str) -> ConfigError:
        """The error for a field (or other place) of that name."""
        allowed = allowed_text(self.hint, self.value)
        return ConfigError(f"{what}{self.place} = {shown(self.value)} is not allowed: must be {allowed}")


def fitted(value: Any, hint: Any) -> Any:
    """A value as a field of that type holds it.

    Numbers of numpy and torch become Python's, an int the float that it stands for where only float is allowed, a
    list, a range or an array the tuple of its items, and a text the path where a path is wanted: these have one JSON
    form. Nothing else is turned into anything else.

    Raises:
        Misfit: the type does not allow it.
    """
    return as_float(_fitted(value, hint, ""), hint)


def exact_types(hint: Any) -> frozenset[type]:
    """Types whose values, and not those of their subclasses, are sure to be as a field of that type holds them."""
    options = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
    return frozenset(option for option in options if _is_checked(option) and option is not tuple)


def _fitted(value: Any, hint: Any, place: str) -> Any:
    value = python_numbers(value)
    origin = typing.get_origin(hint)
    if origin in _UNIONS:
        return _one_of(value, typing.get_args(hint), hint, place)
    if origin is tuple or hint is tuple:
        return _tuple(value, hint, place)
    if isinstance(value, str) and (hint is str or origin is Literal):
        value = str.__str__(value)  # np.str_ is a text
    if not _allows(hint, value):
        raise Misfit(value, hint, place)
    if hint in (int, float):
        value = _bare(value)
    return Path(value) if isinstance(value, str) and hint in (Path, PurePath) else value


def _bare(number: int | float) -> int | float:
    """The number of a class of its own, as of an `IntEnum`, as Python's: it is equal to it, and has its digest."""
    return int(number) if isinstance(number, int) else float(number)


def _allows(hint: Any, value: Any) -> bool:
    """Whether a type that is neither a union nor a tuple allows a value."""
    if typing.get_origin(hint) is Literal:
        return any(type(value) is type(each) and value == each for each in typing.get_args(hint))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, float) or (_allows(int, value) and abs(value) <= _LARGEST)
    if hint in (Path, PurePath):
        return isinstance(value, (str, PurePath))
    if dataclasses.is_dataclass(typing.get_origin(hint)):  # a generic class, which any of its parameters is of
        hint = typing.get_origin(hint)
    if not _is_checked(hint):
        return True
    try:
        return isinstance(value, hint)
    except TypeError:  # a protocol
        return True


def _is_checked(hint: Any) -> bool:
    """Whether it is a class by which values are told apart; those of numpy and torch become Python's numbers."""
    return isinstance(hint, type) and hint is not list and hint.__module__.partition(".")[0] not in ("numpy", "torch")


def _one_of(value: Any, options: Sequence[Any], hint: Any, place: str) -> Any:
    if type(value) in options:  # before what would convert it: an int stays one in `float | int`
        return value
    misfits = []
    for option in options:
        try:
            return _fitted(value, option, place)
        except Misfit as misfit:
            misfits.append(misfit)
    inner = [misfit for misfit in misfits if misfit.place != place]
    raise inner[0] if len(inner) == 1 else Misfit(value, hint, place)


def _tuple(value: Any, hint: Any, place: str) -> tuple[Any, ...]:
    items, each = _items(value), typing.get_args(hint)
    if items is None or (each and each[-1] is not ... and len(each) != len(items)):
        raise Misfit(value, hint, place)
    if not each or each[-1] is ...:
        each = (each[0] if each else Any,) * len(items)
    return tuple(_fitted(item, kind, f"{place}[{i}]") for i, (item, kind) in enumerate(zip(items, each, strict=True)))


def _items(value: Any) -> Sequence[Any] | None:
    """The items of a tuple, a list, a range or an array of numpy, torch or pandas; None of all else."""
    if isinstance(value, (tuple, list, range)):
        return value
    held = listed(value) if getattr(value, "ndim", 0) > 0 else None
    return held if isinstance(held, list) else None


# In words --------------------------------------------------------------------------------------


def allowed_text(hint: Any, value: Any) -> str:
    """What a type allows, in words for who gave `value`: with the nearest class, or the value as it would be right."""
    options = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
    text = _either(_noun(option) for option in options)
    if int in options and isinstance(value, float) and value.is_integer():
        return f"{text}, as {int(value)}"
    if float in options and _allows(int, value):
        return f"{text}, of at most {float(_LARGEST):.2g} in size"
    for option in options:
        each = _each(option)
        if _items(value) is None and each and typing.get_origin(each[0]) is not tuple and _allows(each[0], value):
            return f"{text}, as ({shown(value)},)"
    classes = [each for option in options for each in (option, *_each(option)) if each not in _NOUNS]
    return f"{text}{_example([each for each in classes if _is_checked(each)], value)}"


def _each(hint: Any) -> tuple[Any, ...]:
    """The type of the items of a tuple of any length."""
    args = typing.get_args(hint)
    return args[:1] if typing.get_origin(hint) is tuple and args[1:] == (...,) else ()


def _either(texts: Iterable[str]) -> str:
    *first, last = texts
    return f"{', '.join(first)} or {last}" if first else last


def _noun(hint: Any) -> str:
    """One value of a type."""
    if hint in _NOUNS:
        return _NOUNS[hint][0]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        return _either(map(_noun, args))
    if origin is Literal:
        return _either(map(str, args))
    if origin is tuple and args[-1] is ...:
        return f"a tuple of {_NOUNS[args[0]][1]}" if args[0] in _NOUNS else f"a tuple, each of it {_noun(args[0])}"
    if origin is tuple:
        return f"a tuple of {len(args)} values ({', '.join(map(_noun, args))})"
    hint = origin if dataclasses.is_dataclass(origin) else hint
    return with_article(hint.__name__) if isinstance(hint, type) else str(hint).replace("typing.", "")


def with_article(name: str) -> str:
    spelt = name[:2].isupper() and name[0] in "FHLMNRSX"  # an MLP, an SGD
    return f"{'an' if spelt or name[0] in 'AEIOU' else 'a'} {name}"


def _example(contracts: Sequence[type], value: Any) -> str:
    """ ", as CLASS()": the class that was given in place of an instance, the one whose name is nearest, or any."""
    found = {cls.__name__: cls for contract in contracts for cls in _implementations(contract)}
    names = {kind_of(cls): cls for cls in found.values()} | found
    nearest = difflib.get_close_matches(value[:100], names, n=1) if isinstance(value, str) else []
    cls: type | None
    if nearest:
        cls = names[nearest[0]]
    elif value in found.values() if isinstance(value, type) else False:
        cls = value
    else:
        cls = min(found.values(), key=lambda cls: (not is_own(cls), not _is_complete(cls)), default=None)
    return "" if cls is None else f", as {cls.__name__}({'' if _is_complete(cls) else '...'})"


def _implementations(contract: type) -> Iterator[type]:
    """The configuration classes of a contract that have been imported."""
    if dataclasses.is_dataclass(contract) and not inspect.isabstract(contract):
        yield contract
    subclasses: list[type] = type.__subclasses__(contract)
    for cls in subclasses:
        yield from _implementations(cls)


def _is_complete(cls: type) -> bool:
    """Whether all its fields have defaults."""
    missing = dataclasses.MISSING
    return all(each.default is not missing or each.default_factory is not missing or not each.init
               for each in dataclasses.fields(cls))  # fmt: skip
