"""Which sources a module stands on: its imports, and theirs, followed without running anything.

Two questions are answered with it. What does a user's class stand on? All sources outside installed packages, byte by
byte (`kdsim.study_files`, `kdsim.config.source_digest`). And which kdsim computed a number? The modules of kdsim that
compute, by what they do: comments, docstrings, figures and the command line do not count (`kdsim_digest`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache, lru_cache, wraps
from pathlib import Path
from typing import TypeVar

import kdsim
from kdsim.untrusted import read_file

COMPUTING = (
    "kdsim.study.work",  # simulations: populations, engines, theory, measurement, tables
    "kdsim.study.trainings",  # networks and their teachers
    "kdsim.study.computations",
    "kdsim.study.eigen_paths",
    "kdsim.study.states",  # from which simulations go on
    "kdsim.teachers",
    "kdsim.teachers.other_start",
    "kdsim.claims.exact",
    "kdsim.study.dask_worker",  # what travels between processes
)
"""Modules from whose import closure every stored number comes."""

DECLARING = ("kdsim.claims", "kdsim.studies", "kdsim.figures", "kdsim.results.columns", "kdsim.results.schema")
"""Of these none but a module of `COMPUTING` counts: a study is part of what is run, not of how; a column is words."""

DEPENDENCIES = frozenset(
    (
        "kdsim",
        "torch",
        "numpy",
        "scipy",
        "pandas",
        "matplotlib",
        "numba",
        "llvmlite",
        "sklearn",
        "PIL",
        "pyarrow",
        "safetensors",
    )
)
"""Packages that kdsim itself stands on: libraries also where they are installed as links to their sources."""

K = TypeVar("K")
V = TypeVar("V")

EVERYTHING = "*"
"""Stands for an import whose name is computed: any module beside the one that imports."""

_CALLS = {"import_module", "__import__"}
_RUNNERS = {"exec", "run_path", "run_module", "spec_from_file_location", "SourceFileLoader"}
"""What runs a file of which no import tells."""


def imports(source: bytes, module: str, *, is_package: bool) -> Iterator[str]:
    """Dotted names of all modules that a source may import, at any depth: functions and conditions included.

    Blocks under `if TYPE_CHECKING:` are never run and do not count. Of `from a import b` both `a` and `a.b` come, since
    `b` may be a module. An import whose name is computed gives `EVERYTHING`, and so does what runs a file without an
    import, as `runpy.run_path` and `exec` do. What is no Python gives nothing.

    Args:
        source: the content of the file.
        module: its dotted name, from which relative imports start.
        is_package: whether it is the `__init__` of a package.
    """
    try:
        tree = _tree(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # running it says what is wrong
        return
    package = module if is_package else module.rpartition(".")[0]
    calls, runs_files = set(_CALLS), False
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            calls |= {alias.asname for alias in node.names if alias.name in _CALLS and alias.asname}
            runs_files |= any(alias.name in _RUNNERS for alias in node.names)
            base = _absolute(node.module or "", package, node.level)
            if base:
                yield base
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names if alias.name != "*")
    if runs_files:
        yield EVERYTHING
    if any(call.encode() in source for call in _CALLS | _RUNNERS):  # seldom, and a look at all expressions takes long
        yield from _called_imports(tree, package, calls)


def _called_imports(tree: ast.AST, package: str, calls: set[str]) -> Iterator[str]:
    """What calls import, and `EVERYTHING` where that cannot be seen, as under another name of the function."""
    seen: set[int] = set()
    for node in ast.walk(tree):  # a call comes before the name that it calls
        if isinstance(node, ast.Call) and _name(node.func) in calls:
            seen.add(id(node.func))
            yield from _called(node, package)
        elif isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in seen:
            name = _name(node)
            if name in calls or (name in _RUNNERS and (name != "exec" or isinstance(node, ast.Name))):
                yield EVERYTHING


@lru_cache(maxsize=512)
def _tree(source: bytes) -> ast.Module:
    """Parsed once, also where several questions are asked of it."""
    return ast.parse(source)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All statements at any depth, but for those that only a type checker sees."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, part, None)
            unseen = part == "body" and isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING"
            if isinstance(inner, list) and not unseen:
                waiting.extend(inner)


def _called(call: ast.Call, package: str) -> Iterator[str]:
    """What `import_module(name)` or `__import__(name, fromlist=...)` imports."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    argument = call.args[0] if call.args else named.get("name")
    if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
        yield EVERYTHING
        return
    name = argument.value.lstrip(".")
    base = _absolute(name, package, len(argument.value) - len(name))
    yield base
    if isinstance(parts := call.args[3] if len(call.args) > 3 else named.get("fromlist"), (ast.Tuple, ast.List)):
        yield from (f"{base}.{part.value!s}" for part in parts.elts if isinstance(part, ast.Constant))


def _absolute(name: str, package: str, level: int) -> str:
    """The name of a relative import of that many dots."""
    if level == 0:
        return name
    parts = package.split(".") if package else []
    base = parts[: len(parts) - (level - 1)]
    return ".".join([*base, name] if name else base)


def _name(node: ast.AST) -> str:
    """Last part of a name or attribute."""
    return str(getattr(node, "id", None) or getattr(node, "attr", ""))


def closure(
    starts: Iterable[str],
    locate: Callable[[str], Path | None],
    read: Callable[[str, Path], bytes] = lambda name, path: path.read_bytes(),
    *,
    computed: bool = True,
    parents: bool = True,
) -> dict[str, tuple[Path, bytes]]:
    """All modules that some modules stand on, these included: name to file and content.

    A package stands for its `__init__`; importing `a.b` runs `a` as well. A folder without one has no content.

    Args:
        starts: dotted names.
        locate: gives the file of a module, a folder for a package without `__init__`, and None for what does not count.
        read: gives the content of a module, by its name and file.
        computed: whether an import whose name is computed may mean any module beside.
        parents: whether packages count of which only a module is imported.
    """
    found: dict[str, tuple[Path, bytes]] = {}
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name in found or (path := locate(name)) is None:
            continue
        content = b"" if path.is_dir() else read(name, path)
        found[name] = path, content
        parent = name.rpartition(".")[0]
        if parent and parents:
            waiting.append(parent)
        if path.suffix == ".py":
            is_package = path.name == "__init__.py"
            for imported in imports(content, name, is_package=is_package):
                if imported != EVERYTHING:
                    waiting.append(imported)
                elif computed:
                    prefix = f"{name}." if is_package else f"{parent}." if parent else ""
                    waiting.extend(prefix + beside for beside in _modules_in(path.parent))
    return found


def _modules_in(folder: Path) -> list[str]:
    """Names of modules and packages in a folder."""
    plain = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    return sorted({*plain, *(path.parent.name for path in folder.glob("*/__init__.py"))})


def in_folder(folder: Path, name: str) -> Path | None:
    """File of a module by its dotted name below a folder; of a package its `__init__`, or the folder without one."""
    place = folder.joinpath(*name.split("."))
    for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        if path.is_file():
            return path
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        if (path := place.with_name(place.name + suffix)).is_file():
            return path
    return place if place.is_dir() and any(place.glob("*.py")) else None


def is_known(top: str) -> bool:
    """Whether a package, by its first name, is Python's own, kdsim's, or one that kdsim stands on."""
    return top in sys.stdlib_module_names or top in DEPENDENCIES


@cache
def is_library(top: str) -> bool:
    """Whether a package, by its first name, is Python's own, kdsim's or an installed one, which versions stand for."""
    if is_known(top):
        return True
    return (places := places_of(top)) != () and all(map(_is_installed, places))


def places_of(top: str) -> tuple[Path, ...]:
    """File or folders from which Python imports a package, by its first name; none if it does not find it."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):  # of __main__, or of a module that somebody made by hand
        return ()
    if spec is None:
        return ()
    if spec.submodule_search_locations:
        return tuple(map(Path, spec.submodule_search_locations))
    return (Path(spec.origin),) if spec.has_location and spec.origin else ()


@cache
def _installed() -> tuple[Path, ...]:
    names = ("purelib", "platlib", "stdlib", "platstdlib")
    folders = [*map(sysconfig.get_path, names), *site.getsitepackages(), site.getusersitepackages()]
    return tuple(Path(folder).resolve() for folder in folders if folder)


def _is_installed(path: Path) -> bool:
    path = path.resolve()
    named = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(named) or any(path.is_relative_to(folder) for folder in _installed())


def locate_outside(name: str, home: str = "") -> Path | None:
    """File of a module that Python imports from outside installed packages, as an editable install; else None.

    Args:
        home: first name of a package that counts although it is installed.
    """
    top, _, rest = name.partition(".")
    if is_library(top) and (top != home or is_known(top)):
        return None
    for place in places_of(top):
        path = place if place.is_file() else in_folder(place.parent, top) if not rest else in_folder(place, rest)
        if path is not None and (place.is_dir() or not rest):
            return path
    return None


# What this process has imported -------------------------------------------------------------------


def _import_of(name: str) -> tuple[object, object]:
    """What stands for one import of a module: a reload gives it another spec. (None, None) if it is not imported."""
    module = sys.modules.get(name)
    return module, getattr(module, "__spec__", None)


def _is_current(name: str, before: tuple[object, object]) -> bool:
    return all(one is other for one, other in zip(before, _import_of(name), strict=True))


def while_imported(function: Callable[[K], tuple[Iterable[str], V]]) -> Callable[[K], V]:
    """Keep what a function finds, until one of the modules that it names with it is imported, or imported anew."""
    known: dict[K, tuple[dict[str, tuple[object, object]], V]] = {}

    @wraps(function)
    def kept(key: K) -> V:
        if key not in known or not all(_is_current(*item) for item in known[key][0].items()):
            names, value = function(key)
            known[key] = {name: _import_of(name) for name in names}, value
        return known[key][1]

    return kept


_read: dict[str, tuple[tuple[object, object], bytes]] = {}


def imported(name: str, path: Path) -> bytes:
    """The content of a module's file when it was first asked for since the module was imported, or reloaded.

    That is what this process runs: an edit counts when the module is imported anew. `kdsim.config.Configuration` asks
    when a class is made, while its module is being imported.

    Raises:
        OSError: it cannot be read.
    """
    if name not in sys.modules:
        return path.read_bytes()
    if name not in _read or not _is_current(name, _read[name][0]):
        _read[name] = _import_of(name), path.read_bytes()
    return _read[name][1]


# The source of kdsim -----------------------------------------------------------------------------


_LARGEST_LINE = 1000
"""Bytes of what is remembered."""


@cache
def kdsim_digest() -> str:
    """SHA-256 of what kdsim's own modules do that compute a result.

    It covers the import closure of `COMPUTING`, but for docstrings: an edited help text, figure or command line does
    not change it. To parse all these takes most of a second; so the digest is remembered in the user's cache folder,
    under the SHA-256 of the bytes of all files from which it follows.
    """
    before = _bytes_digest()
    file = _cache_folder() / hashlib.sha256(os.fsencode(_root())).hexdigest()[:16]
    try:
        key, remembered, check = read_file(file, _LARGEST_LINE).decode("ascii").split()
    except (OSError, ValueError):
        key = remembered = check = ""
    if key == before and check == _check(key, remembered):
        return remembered
    found = _parsed_digest()
    if _bytes_digest() == before:  # else a file has changed meanwhile
        with suppress(OSError):  # it is found again next time
            file.parent.mkdir(parents=True, exist_ok=True)
            new = file.with_name(f"{file.name}.{os.getpid()}-{os.urandom(4).hex()}")
            try:
                new.write_text(f"{before} {found} {_check(before, found)}\n", "ascii")
                new.replace(file)
            finally:
                new.unlink(missing_ok=True)
    return found


def _parsed_digest() -> str:
    found = hashlib.sha256()
    for name, (_, source) in sorted(own_modules().items()):
        found.update(f"{name}\0".encode() + without_docstrings(source) + b"\0")
    _tree.cache_clear()  # some tens of megabytes
    return found.hexdigest()


def _bytes_digest() -> str:
    """SHA-256 of Python's version, and of the names and contents of all files that a module of kdsim may be."""
    found = hashlib.sha256(sys.version.encode())
    suffixes = (".py", *importlib.machinery.EXTENSION_SUFFIXES)
    for folder, folders, names in os.walk(_root(), followlinks=True):
        folders.sort()
        for name in sorted(names):
            if name.endswith(suffixes):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    content = file.read()
                found.update(f"{os.path.relpath(path, _root())}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
                found.update(content)
    return found.hexdigest()


def _check(key: str, digest: str) -> str:
    """Tells a line that is whole."""
    return hashlib.sha256(f"{key} {digest}".encode()).hexdigest()


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")).absolute() / "kdsim" / "source"


def _root() -> Path:
    return Path(kdsim.__file__).parent


def own_modules() -> dict[str, tuple[Path, bytes]]:
    """The modules of kdsim that compute, with file and content. A name that is computed is that of a study file."""
    return closure(COMPUTING, locate_own, computed=False)


def locate_own(name: str) -> Path | None:
    """File of a module of kdsim that computes."""
    top, _, rest = name.partition(".")
    if top != "kdsim" or (name.startswith(DECLARING) and name not in COMPUTING):
        return None
    return in_folder(_root(), rest) if rest else _root() / "__init__.py"


def without_docstrings(source: bytes) -> bytes:
    """The lines of a source without docstrings, and without texts that stand below an attribute as one."""
    lines = source.splitlines(keepends=True)
    for node in _statements(_tree(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines[node.lineno - 1 : node.end_lineno] = [b""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    return b"".join(line for line in lines if line.strip())
