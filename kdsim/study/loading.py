"""A study by name or from a file, with `--set` overrides applied; and the stored runs of one."""

from __future__ import annotations

import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from kdsim import config, study_files
from kdsim.config import ConfigError, by_name
from kdsim.data import POINT_SOURCES, SOURCES, ImageSource, PointSource
from kdsim.engines import OPTIMISERS, SCHEDULES, Optimiser, Schedule
from kdsim.losses import DISTILLATION_LOSSES, DistillationLoss
from kdsim.problems import PROBLEMS
from kdsim.problems.base import Problem
from kdsim.results.runs import run_folder
from kdsim.results.store import RESERVED_NAMES, STUDY_FILE, Store
from kdsim.students import NETWORK_STUDENTS, STUDENTS, LinearStudent, NetworkStudent
from kdsim.study.base import Study
from kdsim.study_files import StudyFile
from kdsim.supervision import SUPERVISIONS
from kdsim.supervision.base import Supervision
from kdsim.teachers import TEACHERS
from kdsim.trainer import Teacher
from kdsim.training import RECIPES, Recipe
from kdsim.untrusted import require_file

CONTRACTS: dict[type, tuple[type, ...]] = {
    Problem: PROBLEMS,
    Supervision: SUPERVISIONS,
    LinearStudent: STUDENTS,
    NetworkStudent: NETWORK_STUDENTS,
    Optimiser: OPTIMISERS,
    Schedule: SCHEDULES,
    ImageSource: SOURCES,
    PointSource: POINT_SOURCES,
    DistillationLoss: DISTILLATION_LOSSES,
    Recipe: RECIPES,
    Teacher: TEACHERS,
}
"""What a setting may name: each contract's implementations in kdsim."""


LARGEST_SOURCE = 10 << 20
"""Bytes of a study file."""

Known = Mapping[str, type[Study]]
"""Studies that may be named rather than given as a file."""


def find(target: str, known: Known) -> type[Study]:
    """The study of that name, or the one that a file (`.py`) defines.

    Raises:
        ConfigError: there is no such study or file, or the file is not a study file.
    """
    return study_of_file(Path(target)) if target.endswith(".py") else config.choose("study", target, known)


def load(target: str, known: Known, settings: Mapping[str, str] | None = None, *, quick: bool = False) -> Study:
    """The study with its defaults, or those of its quick version, and with `settings` applied."""
    cls = find(target, known)
    try:
        study = cls()
    except TypeError as error:
        raise ConfigError(f"study {target}: every setting needs a default ({error})") from None
    except Exception as error:  # a study file's own code can raise anything
        raise ConfigError(f"study {target}: {config.error_line(error)}") from error
    if quick:
        study = study.quick()
        if not isinstance(study, cls):
            raise ConfigError(f"study {target}: quick() must return a {cls.__name__}, it returned {study!r}")
    return config.override(study, settings or {}, kinds(cls))


def kinds(cls: type[Study]) -> dict[type, dict[str, type]]:
    """For each contract, the implementations that a setting of the study may name: kdsim's, then the file's own."""
    names = vars(sys.modules[cls.__module__]).values()
    classes = [
        item for item in names if isinstance(item, type) and not inspect.isabstract(item) and hasattr(item, "name")
    ]
    return {
        contract: by_name([*known, *(item for item in classes if issubclass(item, contract))])
        for contract, known in CONTRACTS.items()
    }


# Study files --------------------------------------------------------------------------------


def study_of_file(path: Path) -> type[Study]:
    """The one study that a file defines.

    Raises:
        ConfigError: no such file, it cannot be imported, or it does not define exactly one study.
    """
    _require_source(path)
    with _same_directory():
        module = import_study_file(path)
    defined = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Study) and item.__module__ == module.__name__
    ]
    found = [item for item in defined if not inspect.isabstract(item)]
    if len(found) != 1:
        names = ", ".join(item.__name__ for item in found) or "none"
        missing = "".join(
            f"; {item.__name__} lacks {', '.join(sorted(item.__abstractmethods__))}"
            for item in defined
            if item not in found
        )
        raise ConfigError(
            f"{path} must define exactly one subclass of kdsim.study.base.Study; it defines {names}{missing}"
        )
    study = found[0]
    if not is_dataclass(study):
        raise ConfigError(f"{path}: {study.__name__} must be a frozen dataclass (@dataclass(frozen=True))")
    require_study_name(f"{path}: {study.__name__}.name", getattr(study, "name", None))
    return study


def _require_source(path: Path) -> None:
    """Refuse what is no file of a source's size: a device or a pipe may never end."""
    try:
        require_file(path, LARGEST_SOURCE)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"study file {str(path)!r} cannot be read: {why}") from None


@contextmanager
def _same_directory() -> Iterator[None]:
    """After the block the working directory is what it was: relative paths of the caller stay right."""
    try:
        place = os.getcwd()
    except FileNotFoundError:  # it was removed
        place = None
    try:
        yield
    finally:
        if place is not None:
            os.chdir(place)


def require_study_name(what: str, name: object) -> None:
    """Refuse what cannot be the name of a study, which becomes the name of a folder and of its figures."""
    good = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name) is not None
    reserved = " or ".join(RESERVED_NAMES)
    allowed = f"at most 100 letters, digits, '.', '_' and '-', the first a letter or digit, and not {reserved}"
    config.require(good and name not in RESERVED_NAMES, what, name, allowed)


def import_study_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, which stands for its path and content (`kdsim.study_files`)."""
    try:
        file = study_files.read(path)
    except OSError as error:
        neighbour = error.filename is not None and Path(os.fsdecode(error.filename)) != path.absolute()
        place = os.fsdecode(error.filename) if neighbour else str(path)
        raise ConfigError(f"study file {place!r} cannot be read: {error.strerror}") from None
    return load_study_file(file)


def load_study_file(file: StudyFile) -> ModuleType:
    """The module of a study file that was read, here or by the process that sent it.

    Raises:
        ConfigError: its code cannot be run.
    """
    try:
        return file.load()
    except BaseException as error:
        if isinstance(error, ConfigError) or not isinstance(error, (Exception, SystemExit)):
            raise
        raise ConfigError(_import_failure(file, error)) from error


def _import_failure(file: StudyFile, error: BaseException) -> str:
    """What went wrong, and in which line of the file or of a neighbour."""
    places = {place for place, _ in file.modules.values()}
    if isinstance(error, SyntaxError) and error.filename in places:
        return f"{error.filename}, line {error.lineno}: syntax error: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in places]
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else file.path
    message = str(error).splitlines() or [""]
    return f"{where}: {type(error).__name__}: {message[0]}"


# Stored runs ----------------------------------------------------------------------------------


def figure_reference(study: Study) -> dict[str, str] | None:
    """How a stored study names its figure: {"name": ...}, or {"file": ..., "sha256": ...} where it is a function."""
    cls = type(study)
    figure: Any = getattr(cls, "figure", None)
    if figure is None or isinstance(figure, str):
        return figure and {"name": figure}
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)  # of a notebook there is none
    place = "a notebook" if file is None else str(Path(file).absolute())
    return {"file": place, "sha256": config.source_digest(cls)}


def stored_run(
    target: str, known: Known, store: Store, settings: Mapping[str, str] | None = None, *, quick: bool = False
) -> Path:
    """Folder of a stored run: the folder itself, or by name or file the run with these settings.

    Without settings it is the study's most recent run, see `kdsim.results.runs.run_folder`.

    Raises:
        ConfigError: nothing like that is stored; the message lists what is.
    """
    is_study = target.endswith(".py") or target in known
    if settings or quick:
        if not is_study and store.runs(target):
            raise ConfigError(
                f"{target!r} is not a study of kdsim: to choose among its runs by settings, give its study file "
                f"(.py); {store.listing(target)}"
            )
        if not is_study and Path(target).is_dir():
            raise ConfigError(
                f"{target!r} is the folder of one run: settings choose among the runs of a study name or file"
            )
        study = load(target, known, settings, quick=quick)
        folder = store.study_folder(study.name, config.digest(study))
        if not (folder / STUDY_FILE).is_file():
            place, these = str(store.root), "settings"
            if target.endswith(".py"):
                these += " and the sources and files that are there now"
            raise ConfigError(
                f"no results of {study.name!r} with these {these} in {place!r}; {store.listing(study.name)}"
            )
        return folder
    return store.latest(find(target, known).name) if target.endswith(".py") else run_folder(target, known, store)
