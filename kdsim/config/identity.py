"""What a configuration class is: its name in JSON, and the sources outside kdsim that it stands on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from kdsim import notebook_sources, sources, study_files
from kdsim.config.errors import ConfigError


def is_own(cls: type) -> bool:
    """Whether it is one of kdsim's, rather than of a study file."""
    return cls.__module__.split(".")[0] == "kdsim"


def kind_of(cls: type) -> str:
    """Name of a configuration class in JSON."""
    return getattr(cls, "name", cls.__name__)


def source_digest(cls: type) -> str:
    """SHA-256 of all sources outside installed packages that a class stands on.

    These are the files of the class and of its bases, and everything that these import at any depth, inside functions
    too (`kdsim.study_files`, `kdsim.sources`). Of a single file it is the file's own SHA-256. Where another class of
    its module, or one of its bases, has the same name in JSON, as a subclass that states none of its own has, the
    class's name in Python counts as well. What was once imported is not read again before it is reloaded: an
    edit counts when it is run. A class of a notebook or a prompt stands on its source and on all of the notebook that
    it uses (`kdsim.notebook_sources`).

    Raises:
        ConfigError: it has no source, or stands on what has none.
    """
    in_notebook = cls.__module__ == notebook_sources.MAIN and not notebook_sources.has_file(cls.__module__)
    return _notebook_digest(cls) if in_notebook else _source_digest(cls)


def _notebook_digest(cls: type) -> str:
    from kdsim.config.encoding import digest  # of configurations that the class uses, which stand on classes in turn

    try:
        found = notebook_sources.standing_on(cls, digest)
    except notebook_sources.NoSource as reason:
        raise _no_source(cls, str(reason)) from None
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(found.items())}
    return hashlib.sha256("".join(f"{value}  {name}\n" for name, value in sums.items()).encode()).hexdigest()


def _no_source(cls: type, reason: str = "") -> ConfigError:
    why = f"{cls.__name__} has no source file, which its results are stored under"
    if reason:
        why = f"the source of {cls.__name__} does not say all that it does: {reason}"
    return ConfigError(
        f"{why}: write the class into a .py file (in a notebook: %%writefile my_classes.py) and import it from there"
    )


@sources.while_imported
def _source_digest(cls: type) -> tuple[Iterable[str], str]:
    """With the names of what it stands on."""
    home = _top(cls)  # what counts also if it is installed, as a package of noise models
    own = {} if sources.is_known(home) else standing_on(cls.__module__)
    if not any(own.values()):
        raise _no_source(cls)
    tops = {_top(base): sources.is_library(_top(base)) and _top(base) != home for base in cls.__mro__}
    found = dict(own)
    for module in dict.fromkeys(base.__module__ for base in cls.__mro__ if not tops[_top(base)]):
        found |= standing_on(module)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(found.items())}
    names = [name.strip("/") for name in sums]
    if any(kind_of(other) == kind_of(cls) for other in _others(cls)):
        sums[f"class {cls.__qualname__}"] = ""
    elif len(sums) == 1:
        return names, next(iter(sums.values()))
    return names, hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()).hexdigest()


def _others(cls: type) -> Iterator[type]:
    """The other classes of its module, and its bases, but for kdsim's own; itself, reloaded, is none."""
    beside = getattr(sys.modules.get(cls.__module__), "__dict__", {}).values()
    for other in (*beside, *cls.__mro__):
        if isinstance(other, type) and _place(other) != _place(cls) and not is_own(other):
            yield other


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def standing_on(module: str) -> dict[str, bytes]:
    """Contents of a module, and of all that it stands on."""
    file = study_files.study_file_of(module)
    return _sources_of(module) if file is None else file.standing_on(module)


def _top(cls: type) -> str:
    return cls.__module__.partition(".")[0]


@sources.while_imported
def _sources_of(module: str) -> tuple[Iterable[str], dict[str, bytes]]:
    """Contents of a module that Python imported, and of all that it stands on; empty if it has no file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not Path(file).is_file():
        return [module], {}
    name = Path(file).stem if module == "__main__" else module

    def locate(other: str) -> Path | None:
        if other == name:
            return Path(file)
        return sources.locate_outside(other, home=module.partition(".")[0])

    def read(other: str, path: Path) -> bytes:
        return sources.imported(module if other == name else other, path)

    found = {name: content for name, (_, content) in sources.closure([name], locate, read).items()}
    return [module, *found], found
