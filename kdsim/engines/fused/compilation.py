"""Compiled kernels: how they are kept between processes, and what is said about it.

numba's own cache looks at the file of the decorated function alone. A kernel here inlines functions and constants of
other modules, so it is kept under the SHA-256 of every source that it stands on, its import closure. A kept kernel
carries its own SHA-256: machine code that was truncated or altered is never run, it is compiled again. Where kernels
cannot be kept they are compiled in every process; the results are the same, and one line says so.
"""

from __future__ import annotations

import inspect
import os
import pickle
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config, event
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.serialize import dumps
from numba.np.ufunc.ufuncbuilder import UFuncDispatcher

from kdsim import sources, study_files
from kdsim.files import sha256, sweep, temporary_beside, write_new

KEPT = 4
"""Folders of a kernel in one place: the newest, for who changes between sources or versions; older ones are removed."""
_told: set[str] = set()
_notes: list[Callable[[str], None]] = []


def kernel(**options: Any) -> Callable[[Callable], Callable]:
    """`numba.njit` with these options, and a cache that knows every source which the kernel stands on."""

    def decorate(function: Callable) -> Callable:
        compiled = numba.njit(**options)(function)
        if unavailable() is None:
            compiled._cache = KernelCache(function)
        return compiled

    return decorate


def unavailable() -> str | None:
    """Why nothing can be compiled here, or None."""
    return "NUMBA_DISABLE_JIT is set" if config.DISABLE_JIT else None


# Sources ----------------------------------------------------------------------------------------


def sources_of(function: Callable) -> dict[str, bytes]:
    """The sources of a kernel's module and of all that it imports from its package and from kdsim, by module name.

    What a package does beside the modules that are taken from it reaches no kernel, and this module does not either.

    Raises:
        OSError: a source cannot be read.
    """
    roots = {name.partition(".")[0]: None for name in (__name__, function.__module__)}

    def locate(name: str) -> Path | None:
        top, _, inner = name.partition(".")
        if name == __name__ or top not in roots:
            return None
        root = Path(next(iter(sys.modules[top].__path__)))
        return sources.in_folder(root, inner) if inner else root / "__init__.py"

    found = sources.closure([function.__module__], locate, computed=False, parents=False)
    return {name: content for name, (_, content) in found.items()}


def _digest(function: Callable) -> str:
    """SHA-256 over the sources of a kernel and the versions of what compiles it, 20 digits of it."""
    found = sources_of(function)
    versions = platform.python_version(), numba.__version__, llvmlite.__version__
    return sha256("\0".join([*versions, *(sha256(found[name]) for name in sorted(found))]).encode())[:20]


# The cache --------------------------------------------------------------------------------------


class KernelCache(NullCache):
    """The compiled signatures of one kernel, a file each: the SHA-256 of the rest in 64 digits, and numba's pickle.

    They lie in a folder `<kernel>-<digest>.kernels` in NUMBA_CACHE_DIR, if that is set; else beside the source, or,
    where that cannot be written, in the user's cache folder. The digest is taken when the kernel's module is imported:
    what is edited later is not what this process compiles.
    """

    def __init__(self, function: Callable) -> None:
        self.file = Path(inspect.getfile(function)).absolute()
        self.kernel = f"{self.file.stem}.{function.__qualname__}"
        self.digest: str | None = None
        self.trouble = ""
        try:
            self.digest = _digest(function)
        except (OSError, AttributeError) as error:  # no plain source files, as in an archive; no package
            self.trouble = f"their sources cannot be read ({error})"

    @property
    def folders(self) -> list[Path]:
        """Where a kernel is looked for; it is kept in the first that can be written."""
        if self.digest is None:
            return []
        own = f"{self.file.parent.name}-{sha256(str(self.file.parent).encode())[:16]}"
        if config.CACHE_DIR:
            places = [Path(config.CACHE_DIR).absolute() / own]
        else:
            user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
            places = [self.file.parent / "__pycache__", user / "kdsim" / own]
        return [place / f"{self.kernel}-{self.digest}.kernels" for place in places if place.is_absolute()]

    @property
    def cache_path(self) -> str | None:
        """See numba."""
        return str(self.folders[0]) if self.folders else None

    def _name(self, signature: Any, codegen: Any) -> str:
        return f"{sha256(repr((signature, codegen.magic_tuple())).encode())[:20]}.nbc"

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """The kernel for the types of its arguments on this processor, or None where none is kept that is whole."""
        target_context.refresh()
        for folder in self.folders:
            path = folder / self._name(sig, target_context.codegen())
            try:
                whole = path.read_bytes()
                if whole[:64] != sha256(whole[64:]).encode():
                    raise ValueError("it is truncated or altered")
                return CompileResult._rebuild(target_context, *pickle.loads(whole[64:]))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except Exception as error:  # numba and pickle raise many types
                if os.access(folder, os.R_OK | os.X_OK):  # else it is no place for kernels, which `keep` says
                    why = error.strerror if isinstance(error, OSError) else error
                    tell(f"the kept kernel {path} is compiled again: {why}")
        return None

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        """Keep a kernel in the first place that can be written; that there is none is said, and is no fault."""
        content = dumps(data._reduce())
        self._keep(lambda folder: _write(folder / self._name(sig, data.codegen), content))
        for folder in self.folders:
            _remove_older(folder.parent, f"{self.kernel}-*.kernels")

    def can_keep(self) -> bool:
        """Whether a place can be written; that there is none is said."""
        return self._keep(lambda folder: tempfile.TemporaryFile(dir=folder).close())

    def _keep(self, write: Callable[[Path], None]) -> bool:
        troubles = []
        for folder in self.folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write(folder)
                return True
            except OSError as error:
                troubles.append(f"{str(folder.parent)!r} cannot be written ({error.strerror})")
        why = self.trouble or ", ".join(troubles) or "there is no folder for them"
        tell(f"compiled kernels are not kept, and every process compiles them: {why}")
        return False


def _write(path: Path, content: bytes) -> None:
    """Write a kernel whole or not at all."""
    sweep(path.parent)
    with temporary_beside(path) as temporary:
        write_new(temporary, sha256(content).encode(), content, durable=False)
        temporary.replace(path)


def _remove_older(place: Path, pattern: str) -> None:
    """Remove the folders of a kernel beyond the newest."""
    with suppress(OSError):  # another process removes the same, or the place cannot be read
        folders = sorted(place.glob(pattern), key=lambda each: each.stat().st_mtime, reverse=True)
        for folder in folders[KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)


def _leave_study_files_alone(dispatcher: type) -> None:
    """Functions of study files and their neighbours are compiled in every process, also with `cache=True`.

    What numba keeps of one is found again after an edit of a neighbour that it inlines, and names a module that is no
    longer there.
    """
    enable = dispatcher.enable_caching

    @wraps(enable)
    def enable_caching(self: Any) -> None:
        if not str(self.py_func.__module__).startswith(study_files.PREFIX):
            enable(self)

    dispatcher.enable_caching = enable_caching


for _kind in (Dispatcher, UFuncDispatcher):
    _leave_study_files_alone(_kind)


# What is said -----------------------------------------------------------------------------------


def tell(text: str) -> None:
    """A line for people, once: to whoever listens (`announced`), else as a warning."""
    if text in _told:
        return
    _told.add(text)
    if _notes:
        _notes[-1](text)
    else:
        warnings.warn(text, RuntimeWarning, stacklevel=3)


class _Listener(event.Listener):
    """Says once that kernels are being compiled."""

    def on_start(self, event: event.Event) -> None:
        dispatcher = event.data["dispatcher"]
        if dispatcher.py_func.__module__.startswith(__package__) and isinstance(dispatcher._cache, KernelCache):
            once = ", once on a machine" if dispatcher._cache.can_keep() else ""
            tell(f"compiling the kernels of the engine cpu_fused, some 20 s{once}")

    def on_end(self, event: event.Event) -> None:
        pass


@contextmanager
def announced(note: Callable[[str], None]) -> Iterator[None]:
    """Within the block `note` gets each line that `tell` is given, and one if kernels have to be compiled."""
    _told.clear()
    _notes.append(note)
    try:
        with event.install_listener("numba:compile", _Listener()):
            yield
    finally:
        _notes.remove(note)
