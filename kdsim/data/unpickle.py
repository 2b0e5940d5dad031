"""Reads the pickles of CIFAR's python archives without running anything that they name.

A pickle is a program that may call any function it can name. Those of the CIFAR archives name three things of numpy, to
build one array of bytes. `find_class` is the only door to names, and here it opens for these alone; what it hands out
are stand-ins that take the array's shape and bytes down, so that not even numpy is called by the file.

The archives were written by Python 2, protocol 2. `_codecs.encode` is how Python 3 writes bytes in that protocol.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsim.config import ConfigError
from kdsim.data.base import reason


class _Dtype:
    """Stands in for numpy.dtype: keeps the name of the type."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        self.name = name.decode("ascii") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment, which mean nothing for bytes."""


class _Array:
    """Stands in for an array under construction: numpy's `_reconstruct` makes it, `__setstate__` fills it."""

    def __init__(self, *_: object) -> None:
        self.value: NDArray[np.uint8] | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, fortran, data = state
        if dtype.name not in ("u1", "|u1"):
            raise pickle.UnpicklingError(f"an array of type {dtype.name!r}: must be 'u1'")
        self.value = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Bytes(bytes):
    """Stands in for _codecs.encode(text, "latin1")."""

    def __new__(cls, text: str, encoding: str) -> _Bytes:
        return super().__new__(cls, text.encode("latin-1"))

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("bytes have no state")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,  # its name since numpy 2
    ("numpy", "ndarray"): "numpy.ndarray",  # an argument of _reconstruct, never called
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Bytes,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no batch of images needs; nothing was run")
        return _STAND_INS[module, name]


def unpickle(data: bytes, where: str) -> dict[str, Any]:
    """The dictionary in a pickle: texts, bytes, numbers, lists and arrays of bytes.

    Args:
        data: the pickle.
        where: what it is called in an error.

    Raises:
        ConfigError: the pickle is not whole, is no dictionary, or names anything but an array of bytes.
    """
    try:
        found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a pickle made to harm can raise anything, MemoryError and RecursionError included
        raise ConfigError(f"{where}: not a pickle of CIFAR: {reason(error)}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: not a pickle of CIFAR: it holds a {type(found).__name__}, must be a dict")
    return {_text(key): value.value if isinstance(value, _Array) else value for key, value in found.items()}


def _text(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)
