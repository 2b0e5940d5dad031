"""Reads the pickles of CIFAR's python archives without running anything that they name.

A pickle is a program, and Python's own reader runs it: it calls what the file names, takes the memory that the file
asks for, and hashes keys that the file makes exponentially deep. This reader knows the instructions of which the CIFAR
archives consist, and three names of numpy, with which they build one array of bytes. It looks nothing up and calls
nothing; every other instruction or name is refused.

The archives were written by Python 2, protocol 2. `_codecs.encode` is how Python 3 writes bytes in that protocol.
Instructions are told apart by `pickletools`, which executes none; what they mean is in its documentation.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsim.config import ConfigError
from kdsim.data.base import reason


class _Refused(Exception):
    """The pickle is not one of CIFAR; the message says why."""


@dataclass(frozen=True)
class _Name:
    """A name in a pickle, never looked up."""

    text: str


class _Mark:
    """Stands on the stack where a list of arguments begins."""


_MARK = _Mark()


@dataclass
class _Dtype:
    """A type of numpy, by its name."""

    name: object


@dataclass
class _Array:
    """An array of bytes, which its state fills."""

    value: NDArray[np.uint8] | None = None


_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")  # the second since numpy 2
_KNOWN = (*_RECONSTRUCT, "numpy.ndarray", "numpy.dtype", "_codecs.encode")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = (
    "BININT", "BININT1", "BININT2", "LONG1", "INT", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING", "STRING",
    "BINUNICODE", "SHORT_BINUNICODE", "UNICODE", "BINBYTES", "SHORT_BINBYTES",
)  # fmt: skip
"""Instructions that put their argument on the stack."""
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def unpickle(data: bytes, where: str) -> dict[str, Any]:
    """The dictionary in a pickle: texts, bytes, numbers, lists and arrays of bytes.

    Args:
        data: the pickle.
        where: what it is called in an error.

    Raises:
        ConfigError: the pickle is not whole, is no dictionary, or names anything but an array of bytes.
    """
    try:
        found = _Machine().run(data)
    except Exception as error:  # `pickletools` raises many types on bad bytes, as do the arguments of an instruction
        raise ConfigError(f"{where}: not a pickle of CIFAR: {reason(error)}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: not a pickle of CIFAR: it holds a {type(found).__name__}, must be a dict")
    return {key: value.value if isinstance(value, _Array) else value for key, value in found.items()}


class _Machine:
    """The stack and the memory of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """The object that the pickle leaves behind."""
        # Texts of Python 2 are bytes here; as text they come out of `pickletools` in Latin-1, and go back.
        argument: Any  # its type is that of the instruction
        for instruction, argument, _ in pickletools.genops(data):
            name = instruction.name
            if name == "STOP":
                break
            if name in _VALUES:
                text = isinstance(argument, str) and "STRING" in name
                self.stack.append(argument.encode("latin-1") if text else argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _TUPLES:
                self.stack.append(tuple(self.taken(_TUPLES[name])))
            elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
                self.memory[argument] = self.top()
            elif name == "MEMOIZE":
                self.memory[len(self.memory)] = self.top()
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                self.stack.append(self.memory[argument])
            elif name == "FRAME" and argument > len(data):
                raise _Refused(f"a part of {argument} bytes in a file of {len(data)}")
            elif name not in ("PROTO", "FRAME"):
                self.step(name, argument)
        return self.pop()

    def step(self, name: str, argument: Any) -> None:
        """The instructions that make something out of what is on the stack."""
        actions: dict[str, Callable[[], None]] = {
            "MARK": lambda: self.stack.append(_MARK),
            "EMPTY_DICT": lambda: self.stack.append({}),
            "EMPTY_LIST": lambda: self.stack.append([]),
            "TUPLE": lambda: self.stack.append(tuple(self.since_mark())),
            "SETITEMS": lambda: self.put(self.since_mark()),
            "SETITEM": lambda: self.put(self.taken(2)),
            "APPENDS": lambda: self.extend(self.since_mark()),
            "APPEND": lambda: self.extend(self.taken(1)),
            "GLOBAL": lambda: self.name(argument.replace(" ", ".")),
            "STACK_GLOBAL": lambda: self.name(".".join(map(str, self.taken(2)))),
            "REDUCE": self.reduce,
            "BUILD": self.build,
        }
        if name not in actions:
            raise _Refused(f"it has the instruction {name}, which no batch of images needs; nothing was run")
        actions[name]()

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise _Refused("an instruction without its arguments")
        return self.stack[-1]

    def pop(self) -> Any:
        found = self.top()
        self.stack.pop()
        return found

    def taken(self, count: int) -> list[Any]:
        """That many objects, in the order in which they came."""
        return [self.pop() for _ in range(count)][::-1]

    def since_mark(self) -> list[Any]:
        """All objects since the mark, which is taken away."""
        found = []
        while self.stack and self.stack[-1] is not _MARK:
            found.append(self.stack.pop())
        if not self.stack:
            raise _Refused("an instruction without its mark")
        self.stack.pop()
        return found[::-1]

    def put(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            raise _Refused("entries that do not go into a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, bytes)):
                raise _Refused(f"a key of type {type(key).__name__}: must be a text")
            target[key.decode("latin-1") if isinstance(key, bytes) else key] = value

    def extend(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise _Refused("entries that do not go into a list")
        target.extend(items)

    def name(self, text: str) -> None:
        if text not in _KNOWN:
            raise _Refused(f"it names {text:.100}, which no batch of images needs; nothing was run")
        self.stack.append(_Name(text))

    def reduce(self) -> None:
        """What would be a call: one of three stands for something that is made here."""
        function, arguments = self.taken(2)
        text = function.text if isinstance(function, _Name) else None
        if not isinstance(arguments, tuple) or text not in (*_RECONSTRUCT, "numpy.dtype", "_codecs.encode"):
            raise _Refused("a call of something that is no array")
        if text == "numpy.dtype":
            kind = arguments[0] if arguments else None
            self.stack.append(_Dtype(kind.decode("latin-1") if isinstance(kind, bytes) else kind))
        elif text == "_codecs.encode":
            self.stack.append(_latin_1(arguments))
        else:
            self.stack.append(_Array())

    def build(self) -> None:
        """The state of the object below it: of an array its shape and bytes; of a type what means nothing for bytes."""
        state, target = self.pop(), self.top()
        if isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5:
            target.value = _filled(*state[1:])
        elif not isinstance(target, _Dtype):
            raise _Refused("a state of something that is no array")


def _latin_1(arguments: tuple[Any, ...]) -> bytes:
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] != "latin1":
        raise _Refused("bytes that are not written in Latin-1")
    return arguments[0].encode("latin-1")


def _filled(shape: object, dtype: object, fortran: object, data: object) -> NDArray[np.uint8]:
    if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", "|u1"):
        kind = dtype.name if isinstance(dtype, _Dtype) and isinstance(dtype.name, str) else "unknown"
        raise _Refused(f"an array of type {kind!r:.100}: must be 'u1'")
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise _Refused("an array of a shape that is not made of whole numbers")  # which may be too large to print
    if not isinstance(data, bytes):
        raise _Refused(f"an array whose content is a {type(data).__name__}: must be bytes")
    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")
