"""What kdsim's packages declare, read from their sources without running them.

Names, first lines and defaults of problems, losses, studies and so on stand in their files as literals and as calls of
other configurations. To import them takes torch, which is seconds; to read them takes hundredths of one. So `kdsim
list` and the shell's completion read, and what is run imports.

Only that of Python is understood which declarations are made of (`value`); of anything else the text of the source is
the value, see `Source`. tests/cli/test_lists.py holds every answer against the classes as they are imported.
"""

from __future__ import annotations

import ast
import importlib.util
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from kdsim.sources import in_folder
from kdsim.study.settings import Setting, attribute_docs, setting_text, summary_line

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.BitOr: operator.or_,
    ast.USub: operator.neg,
}


@dataclass(frozen=True)
class Source:
    """An expression that is not evaluated: its text."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Function:
    """A function of a module."""

    node: ast.FunctionDef

    @property
    def summary(self) -> str:
        """First line of its docstring."""
        return summary_line(ast.get_docstring(self.node))


@dataclass(frozen=True, eq=False)
class Module:
    """A module by the names that its top level defines, each with the statement or the import that does."""

    name: str
    definitions: Mapping[str, ast.stmt | tuple[str, str]]

    def get(self, name: str) -> Any:
        """Value of a name of its top level; of one that it does not define, as a builtin, the name as a `Source`."""
        found = self.definitions.get(name)
        match found:
            case ast.ClassDef():
                return Class(self, found)
            case ast.FunctionDef():
                return Function(found)
            case ast.Assign() | ast.AnnAssign() if found.value is not None:
                return value(self, found.value)
            case (origin, attribute):
                module = None if origin == self.name else read(origin)  # a package imports its own modules so
                if module is not None and attribute in module.definitions:
                    return module.get(attribute)
                return read(f"{origin}.{attribute}") or Source(name)
        return Source(name)


@dataclass(frozen=True, eq=False)
class Class:
    """A class of a module."""

    module: Module
    node: ast.ClassDef

    @cached_property
    def mro(self) -> tuple[Class, ...]:
        """Itself and its bases among kdsim's classes, nearest first. No contract has two bases with fields."""
        bases = [value(self.module, base) for base in self.node.bases]
        found = [self, *(each for base in bases if isinstance(base, Class) for each in base.mro)]
        return tuple({id(each.node): each for each in found}.values())

    @cached_property
    def fields(self) -> dict[str, tuple[Module, ast.AnnAssign]]:
        """Fields of the dataclass in their order: the statement of each and the module where it stands."""
        found: dict[str, tuple[Module, ast.AnnAssign]] = {}
        for cls in reversed(self.mro):
            for node in cls.node.body:
                match node:
                    case ast.AnnAssign(target=ast.Name(id=name)) if not _is_class_variable(node):
                        found[name] = cls.module, node
        return found

    def kind(self, field: str) -> Class | None:
        """The class that is a field's type, if that is one of kdsim's."""
        module, node = self.fields[field]
        found = value(module, node.annotation)
        return found if isinstance(found, Class) else None

    @property
    def docs(self) -> dict[str, str]:
        """What its fields mean, by their names."""
        return attribute_docs(ast.get_docstring(cls.node) or "" for cls in reversed(self.mro))

    @property
    def summary(self) -> str:
        """First line of its docstring."""
        return summary_line(ast.get_docstring(self.node))

    def get(self, name: str) -> Any:
        """Value of a class attribute; None if it has none of this name."""
        for cls in self.mro:
            for node in cls.node.body:
                if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
                    continue
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                    return value(cls.module, node.value)
        return None

    @property
    def name(self) -> str:
        """Its name in JSON and on the command line, as of `kdsim.config.kind_of`."""
        return self.get("name") or self.node.name


@dataclass(frozen=True, eq=False)
class Instance:
    """An instance of a class, by the arguments that are given where it is made."""

    cls: Class
    given: Mapping[str, tuple[Module, ast.expr]] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """Value of a field: the argument, else the default."""
        if name in self.given:
            return value(*self.given[name])
        module, node = self.cls.fields[name][0], self.cls.fields[name][1].value
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "field":
            return _default(module, node)
        return Source("") if node is None else value(module, node)

    def settings(self, prefix: str = "", *, parts: bool = True) -> Iterator[Setting]:
        """Its settings, and those of its parts, as `kdsim.study.settings.settings` has them of the real one."""
        docs = self.cls.docs
        for name in self.cls.fields:
            found = self.get(name)
            kind = self.cls.kind(name) if isinstance(found, Source) else None  # of a part that a function makes
            yield Setting(prefix + name, _text(found) if kind is None else kind.name, docs.get(name, ""))
            if parts and isinstance(found, Instance):
                yield from found.settings(f"{prefix}{name}.")


def _is_class_variable(node: ast.AnnAssign) -> bool:
    return ast.unparse(node.annotation).startswith("ClassVar")


def _default(module: Module, call: ast.Call) -> Any:
    """What `dataclasses.field(default=...)` or `field(default_factory=...)` gives."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    if (factory := named.get("default_factory")) is not None:
        if isinstance(factory, ast.Lambda):
            return value(module, factory.body)
        made = value(module, factory)
        return Instance(made) if isinstance(made, Class) else Source(ast.unparse(factory))
    return value(module, named["default"]) if "default" in named else Source("")


def _text(found: Any) -> str:
    """A value in the form in which `--set` takes it."""
    if isinstance(found, Instance):
        return found.cls.name
    if isinstance(found, (tuple, list)):
        return ",".join(map(_text, found))
    return str(found) if isinstance(found, Source) else setting_text(found)


def value(module: Module, node: ast.expr) -> Any:
    """What an expression stands for in a module.

    Literals, tuples, lists and dictionaries of them, arithmetic, f-strings, names of the module and what they are
    imported from, and calls of classes, which are an `Instance`. All else is a `Source`.
    """
    match node:
        case ast.Constant():
            return node.value
        case ast.Tuple() | ast.List():
            items: list[Any] = []
            for item in node.elts:
                if isinstance(item, ast.Starred):
                    items += value(module, item.value)
                else:
                    items.append(value(module, item))
            return tuple(items)
        case ast.Dict():
            pairs = [(key, each) for key, each in zip(node.keys, node.values, strict=True) if key is not None]
            if len(pairs) == len(node.keys):  # else there is a `**`
                return {value(module, key): value(module, each) for key, each in pairs}
        case ast.Name():
            return module.get(node.id)
        case ast.Attribute():
            owner = value(module, node.value)
            if isinstance(owner, (Module, Class, Instance)):
                return owner.get(node.attr)
        case ast.Call() if isinstance(cls := value(module, node.func), Class):
            given = dict(zip(cls.fields, node.args, strict=False))
            given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            return Instance(cls, {name: (module, each) for name, each in given.items()})
        case ast.JoinedStr():
            parts = [each.value if isinstance(each, ast.FormattedValue) else each for each in node.values]
            if not any(getattr(each, "format_spec", None) for each in node.values):
                return "".join(str(value(module, part)) for part in parts)
        case ast.BinOp() | ast.UnaryOp() if type(node.op) in _OPERATORS:
            sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.operand,)
            values = [value(module, side) for side in sides]
            if not any(isinstance(each, Source) for each in values):
                return _OPERATORS[type(node.op)](*values)
    return Source(ast.unparse(node))


@cache
def read(name: str) -> Module | None:
    """A module or package of kdsim by its dotted name; None if it is none."""
    path = _path(name)
    if path is None:
        return None
    definitions: dict[str, ast.stmt | tuple[str, str]] = {}
    for node in ast.parse(path.read_bytes()).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                definitions[node.name] = node
            case ast.ImportFrom(module=str(origin)):
                definitions |= {alias.asname or alias.name: (origin, alias.name) for alias in node.names}
            case ast.Assign():
                definitions |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=target)):
                definitions[target] = node
    return Module(name, definitions)


def _path(name: str) -> Path | None:
    """File of a module of kdsim. kdsim.studies and kdsim.figures may lie elsewhere than the others."""
    top, _, rest = name.partition(".")
    part, _, rest = rest.partition(".")
    if top != "kdsim" or not part:
        return None
    spec = importlib.util.find_spec(f"kdsim.{part}")  # imports kdsim itself, and none of its parts
    if spec is None or spec.origin is None:
        return None
    return in_folder(Path(spec.origin).parent, rest) if rest else Path(spec.origin)
