"""Study files and the modules beside them, imported under names of their own.

`import blend` in a study file means the file `blend.py` beside it, unless an installed package has that name. Two
studies may have neighbours of one name, and a file may be edited while a process or a cluster of workers lives. So
nothing of this is imported under its plain name: a study file is a module `kdsim_study_file_<id>`, its neighbour
`blend` is `kdsim_study_file_<id>.blend`, and the id stands for the path and for the content of all of them.

The contents are read once, when the file is imported: what is run, hashed and sent to workers is the same.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from kdsim import sources

PREFIX = "kdsim_study_file_"
"""With it the names of their modules begin."""


@dataclass(frozen=True)
class StudyFile:
    """A study file as it was read, and the modules beside it that it stands on. It can be sent to another process.

    Attributes:
        path: of the file, absolute.
        modules: by dotted name, the file's own being its stem: the file of each (a folder for a package without
            `__init__`) and its content.
    """

    path: str
    modules: Mapping[str, tuple[str, bytes]]

    @property
    def stem(self) -> str:
        """Its own name among its modules."""
        return Path(self.path).name.removesuffix(".py")

    @cached_property
    def name(self) -> str:
        """Name of its module in this process."""
        text = "".join(f"{name}\0{_sha256(content)}\0" for name, (_, content) in sorted(self.modules.items()))
        return PREFIX + _sha256(self.path.encode("utf-8", "surrogateescape") + b"\0" + text.encode())[:16]

    def full_name(self, name: str) -> str:
        """Name in this process of one of its modules."""
        return self.name if name == self.stem else f"{self.name}.{name}"

    def own_name(self, full: str) -> str:
        """Inverse of `full_name`."""
        return full.removeprefix(self.name).removeprefix(".") or self.stem

    def load(self) -> ModuleType:
        """Its module, imported unless it is. What its code raises comes through."""
        _known[self.name] = self
        return importlib.import_module(self.name)

    def standing_on(self, full: str) -> dict[str, bytes]:
        """Contents of one of its modules, and of all that this one stands on, outside of the folder as well."""

        def locate(name: str) -> Path | None:
            if name in self.modules:
                return Path(self.modules[name][0])
            outside.append(name)
            return None

        outside: list[str] = []
        contents = {path: content for path, content in self.modules.values()}
        beside = sources.closure([self.own_name(full)], locate, lambda _, path: contents[str(path)])
        # A module outside does not see the neighbours: what it imports may have the name of one, and is another.
        others = sources.closure(outside, sources.locate_outside, sources.imported)
        found = {f"/{name}" if name in beside else name: content for name, (_, content) in others.items()}
        return found | {name: content for name, (_, content) in beside.items()}


_known: dict[str, StudyFile] = {}
"""By the name of their modules."""


def read(path: Path) -> StudyFile:
    """A study file and its neighbours from the disk.

    Neighbours lie in the folder in which the path says that the file lies and, if it is a symbolic link, in that of the
    file itself.

    Raises:
        OSError: a file cannot be read.
    """
    path = path.absolute()
    folders = dict.fromkeys((path.parent, path.resolve().parent))
    stem = path.name.removesuffix(".py")

    def locate(name: str) -> Path | None:
        if name == stem:
            return path
        if sources.is_library(name.partition(".")[0]):
            return None
        found = [place for folder in folders if (place := sources.in_folder(folder, name)) is not None]
        if found and found[0].is_dir() and any(_is_real(place) for place in sources.places_of(name.partition(".")[0])):
            return None  # for Python too a folder is a package only where there is no better one
        return found[0] if found else None

    modules = sources.closure([stem], locate)
    return StudyFile(str(path), {name: (str(place), content) for name, (place, content) in modules.items()})


def _is_real(place: Path) -> bool:
    return place.is_file() or (place / "__init__.py").is_file()


def study_file_of(module: str) -> StudyFile | None:
    """The study file that a module of this process belongs to, by the module's name."""
    return _known.get(module.partition(".")[0])


def modules_of(file: StudyFile) -> list[ModuleType]:
    """Its modules that are imported, its own first."""
    return [sys.modules[name] for name in map(file.full_name, [file.stem, *file.modules]) if name in sys.modules]


# Importing them -----------------------------------------------------------------------------------


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of study files, under their names in this process."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        file = study_file_of(fullname) if fullname.startswith(PREFIX) else None
        if file is None or (name := file.own_name(fullname)) not in file.modules:
            return None
        place = Path(file.modules[name][0])
        if place.suffix not in (".py", "") and place.is_file():
            extension = importlib.machinery.ExtensionFileLoader(fullname, str(place))
            return importlib.util.spec_from_file_location(fullname, place, loader=extension)
        loader = _Loader(file)
        folder = place.parent if place.suffix == ".py" else place  # of a package; it need not be there
        folders = [str(folder)] if loader.is_package(fullname) else None
        return importlib.util.spec_from_file_location(
            fullname, place, loader=loader, submodule_search_locations=folders
        )


class _Loader(importlib.abc.InspectLoader):
    """Runs the content that was read, with an `import` that knows the neighbours."""

    def __init__(self, file: StudyFile) -> None:
        self.file = file

    def is_package(self, fullname: str) -> bool:
        """Whether modules may lie below it, as they do below a study file."""
        place = self.file.modules[self.file.own_name(fullname)][0]
        return fullname == self.file.name or not place.endswith(".py") or Path(place).name == "__init__.py"

    def get_source(self, fullname: str) -> str:
        """Its text, also when the file is gone."""
        return importlib.util.decode_source(self.file.modules[self.file.own_name(fullname)][1])

    def exec_module(self, module: ModuleType) -> None:
        """Run it. No compiled form is stored or used: a cache of these can miss an edit within one second."""
        place, content = self.file.modules[self.file.own_name(module.__name__)]
        own_import = _import_beside(self.file)
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": own_import}
        exec(compile(content, place, "exec", dont_inherit=True), vars(module))


def _import_beside(file: StudyFile) -> Callable[..., ModuleType]:
    """The function behind `import` in the modules of a study file, and in their functions."""
    tops = {name.partition(".")[0] for name in file.modules}

    def import_beside(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or top not in tops:
            found = builtins.__import__(name, globals, locals, fromlist, level)
            return _importlib(file) if found is importlib else found
        full = file.full_name(name)
        if fromlist:
            return builtins.__import__(full, globals, locals, fromlist, 0)
        importlib.import_module(full)
        return sys.modules[file.full_name(top)]

    return import_beside


def _importlib(file: StudyFile) -> ModuleType:
    """`importlib` for the modules of a study file: `import_module` knows the neighbours as well."""
    tops = {name.partition(".")[0] for name in file.modules}

    def import_module(name: str, package: str | None = None) -> ModuleType:
        beside = not name.startswith(".") and name.partition(".")[0] in tops
        return importlib.import_module(file.full_name(name) if beside else name, package)

    known = types.ModuleType("importlib")
    vars(known).update(vars(importlib) | {"import_module": import_module})
    return known


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


sys.meta_path.insert(0, _Finder())
