"""What a class stands on that was typed into a notebook or a prompt, and so has no file.

Its source is in `linecache`, where IPython and Python's own prompt (3.13) put what they run. The class stands on this
source, on the values of its attributes, and on every name of the notebook that the source uses: functions and classes
by their sources, in the same way, and numbers, texts, arrays and tuples of them by their values. What has neither is
refused, so that results are never stored under a name that does not stand for them.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import hashlib
import inspect
import linecache
import symtable
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import PurePath
from typing import Any
from weakref import WeakKeyDictionary

from kdsim import sources

MAIN = "__main__"
HIDING = {"eval", "exec", "globals", "locals", "vars", "__import__", "import_module", "get_ipython"}
"""Names with which a source uses what it does not name."""
_FUNCTIONS = (types.FunctionType, staticmethod, classmethod, property)
_GENERATED = "<string>"
"""File of the methods that `dataclass` makes from the fields."""

_cells: WeakKeyDictionary[type, tuple[str, str]] = WeakKeyDictionary()
"""File name and source of the cell that made a class."""


class NoSource(Exception):
    """There is no source, or it does not say what the class does; the message says why, "" that there is none."""


def has_file(module: str) -> bool:
    """Whether a module of this process has a file."""
    return getattr(sys.modules.get(module), "__file__", None) is not None


def remember(cls: type) -> None:
    """Keep the source of the cell that is making a class: called while it is made."""
    if cls.__module__ != MAIN or has_file(MAIN):
        return
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") != MAIN:
        frame = frame.f_back
    if frame is not None and (lines := linecache.getlines(frame.f_code.co_filename)):
        _cells[cls] = frame.f_code.co_filename, "".join(lines)


def standing_on(cls: type, digest_of: Callable[[Any], str]) -> dict[str, bytes]:
    """Everything that a class of a notebook stands on: names, each with a content.

    Args:
        cls: a class of `__main__` while that has no file.
        digest_of: gives the digest of a configuration.

    Raises:
        NoSource: see there.
    """
    found: dict[str, bytes] = {}
    _Reader(found, digest_of).read_class(cls)
    return found


class _Reader:
    """Follows the names that sources use."""

    def __init__(self, found: dict[str, bytes], digest_of: Callable[[Any], str]) -> None:
        self.found, self.digest_of = found, digest_of
        self._seen: list[Any] = []

    def read_class(self, cls: type) -> None:
        if cls.__module__ != MAIN:
            return self.read_module(cls.__module__)
        if self._is_known(cls):
            return None
        if "<locals>" in cls.__qualname__:
            raise NoSource("a function made it")
        file, cell = _cells.get(cls) or _cell_of_methods(cls)
        text = _class_in(cell, cls.__name__)
        if text is None:
            raise NoSource("")
        self.found[self._free(f"class {cls.__qualname__}")] = text.encode()
        for base in cls.__mro__[1:]:
            self.read_class(base)
        for name, value in vars(cls).items():
            if isinstance(value, _FUNCTIONS):
                for function in _plain_functions(value):
                    self.read_method(f"{cls.__qualname__}.{name}", function, file)
            elif not _is_python(name) and not isinstance(value, types.MemberDescriptorType):
                self.read_value(f"{cls.__qualname__}.{name}", value)
        return self.read_names(text, own=cls.__name__)

    def read_method(self, name: str, function: types.FunctionType, file: str) -> None:
        """A method, whose source is that of its class unless somebody has put it there later."""
        if function.__code__.co_filename == file:
            self.read_settings(name, function)
        elif function.__code__.co_filename != _GENERATED or not _is_python(name.rpartition(".")[2]):
            self.read_function(name, function)

    def read_function(self, name: str, function: types.FunctionType) -> None:
        if function.__module__ != MAIN:
            return self.read_module(function.__module__)
        if self._is_known(function):
            return None
        cell = "".join(linecache.getlines(function.__code__.co_filename))
        text = _function_in(cell, function.__code__.co_firstlineno)
        if text is None:
            raise NoSource(f"the source of {name}, which it uses, is not known")
        self.found[self._free(f"function {name}")] = text.encode()
        self.read_settings(name, function)
        return self.read_names(text)

    def read_settings(self, name: str, function: types.FunctionType) -> None:
        """What a function was given when it was made: defaults, and variables of the function around it."""
        for number, value in enumerate([*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]):
            self.read_value(f"default {number} of {name}", value)
        if hidden := sorted(set(function.__code__.co_freevars) - {"__class__"}):
            raise NoSource(f"{name} uses {', '.join(hidden)} of the function that made it")

    def read_names(self, text: str, own: str = "") -> None:
        """The names of the notebook that a source uses."""
        space = vars(sys.modules[MAIN])
        for name in sorted(_global_names(text)):
            if name in HIDING and space.get(name, getattr(builtins, name, None)) is not None:
                raise NoSource(f"it uses {name}, which hides what it stands on")
            if name in space and name != own:
                self.read_value(name, space[name])

    def read_value(self, name: str, value: Any) -> None:
        if isinstance(written := inspect.unwrap(value) if callable(value) else None, types.FunctionType):
            value = written
        if isinstance(value, types.ModuleType):
            self.read_module(value.__name__)
        elif isinstance(value, types.FunctionType):
            self.read_function(name, value)
        elif isinstance(value, type):
            self.read_class(value)
        elif (known := _name_in_library(value)) is not None:
            self.found[f"name {name}"] = known.encode()
        else:
            self.found[f"value {name}"] = self.content(name, value)

    def content(self, name: str, value: Any) -> bytes:
        """Bytes that stand for a value."""
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, PurePath)):
            return repr(value).encode("utf-8", "surrogatepass")
        if isinstance(value, (tuple, list)):
            return b"(" + b",".join(self.content(name, item) for item in value) + b")"
        if isinstance(value, (set, frozenset)):
            return b"{" + b",".join(sorted(self.content(name, item) for item in value)) + b"}"
        if isinstance(value, Mapping):
            return b"{" + b",".join(self.content(name, item) for item in value.items()) + b"}"
        if dataclasses.is_dataclass(value):
            return self.digest_of(value).encode()
        if callable(getattr(value, "__array__", None)):
            array = (value.detach().cpu() if hasattr(value, "detach") else value).__array__()
            if array.dtype != object:
                form = type(value).__qualname__, str(array.dtype), array.shape
                return f"{form} {hashlib.sha256(array.tobytes()).hexdigest()}".encode()
        kind = type(value).__name__
        raise NoSource(f"it uses {name}, of type {kind}, which is neither a number, a text nor an array")

    def _is_known(self, definition: Any) -> bool:
        """Whether it was read before; from now on it was."""
        known = any(each is definition for each in self._seen)
        self._seen.append(definition)
        return known

    def _free(self, key: str) -> str:
        """The key, or another one where a class or function of that name was read that is no longer the notebook's."""
        while key in self.found:
            key += "'"
        return key

    def read_module(self, name: str) -> None:
        """What a module that was imported stands on; of a library its version stands for it."""
        for other, (_, content) in sources.closure([name], sources.locate_outside, sources.imported).items():
            self.found[f"module {other}"] = content


def _is_python(name: str) -> bool:
    """Whether an attribute of a class is Python's own."""
    return (name.startswith("__") and name.endswith("__")) or name == "_abc_impl"


def _name_in_library(value: Any) -> str | None:
    """What a function or a name of a library is called, which has no state of its own: a ufunc, a dtype, `ClassVar`."""
    if isinstance(value, types.BuiltinFunctionType):
        stateless = value.__self__ is None or isinstance(value.__self__, (types.ModuleType, type))
        return f"{value.__module__}.{value.__qualname__}" if stateless else None
    kind = type(value)
    named = kind.__name__ in ("ufunc", "dtype", "device") and sources.is_library(kind.__module__.partition(".")[0])
    return repr(value) if named or kind.__module__ in ("typing", "types") else None


def _plain_functions(value: Any) -> Iterator[types.FunctionType]:
    """The functions of a method, property or function, as they were written."""
    is_property = isinstance(value, property)
    for each in (value.fget, value.fset, value.fdel) if is_property else (getattr(value, "__func__", value),):
        if isinstance(each, types.FunctionType):
            yield inspect.unwrap(each)


def _cell_of_methods(cls: type) -> tuple[str, str]:
    """File name and source of the cell that a class's methods come from."""
    for value in vars(cls).values():
        for function in _plain_functions(value) if isinstance(value, _FUNCTIONS) else ():
            file = function.__code__.co_filename
            if function.__module__ == MAIN and (lines := linecache.getlines(file)):
                return file, "".join(lines)
    return "", ""


@lru_cache(maxsize=128)
def _tree(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])


def _class_in(cell: str, name: str) -> str | None:
    """The source of the only class of that name in a cell."""
    found = [node for node in ast.walk(_tree(cell)) if isinstance(node, ast.ClassDef) and node.name == name]
    return _text(cell, found[0]) if len(found) == 1 else None


def _function_in(cell: str, line: int) -> str | None:
    """The source of the function that begins in a line; of a lambda the whole statement in which it stands."""
    functions = [node for node in ast.walk(_tree(cell)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for node in functions:
        if _first_line(node) == line:
            return _text(cell, node)
    for statement in _tree(cell).body:
        if statement.lineno <= line <= (statement.end_lineno or 0):
            return _text(cell, statement)
    return None


def _first_line(node: Any) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])


def _text(cell: str, node: Any) -> str:
    """The lines of a definition, decorators included."""
    return textwrap.dedent("\n".join(cell.splitlines()[_first_line(node) - 1 : node.end_lineno]))


@lru_cache(maxsize=128)
def _global_names(text: str) -> frozenset[str]:
    """The names that a definition uses and does not define."""
    waiting, found = [symtable.symtable(text, "cell", "exec")], set()
    while waiting:
        table = waiting.pop()
        waiting.extend(table.get_children())
        top = table.get_type() == "module"
        found |= {each.get_name() for each in table.get_symbols() if each.is_referenced() and (top or each.is_global())}
    return frozenset(found)
