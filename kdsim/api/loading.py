"""`load` and `runs`: stored results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from kdsim import config
from kdsim.api.paths import folder_of
from kdsim.api.results import Result, read_result
from kdsim.api.warning import warn
from kdsim.config import ConfigError, require
from kdsim.results.store import STUDY_FILE, Store


def load(what: Any = "results", study: Any = None, *, out: str | Path = "results") -> Result:
    """Read stored results; nothing is run. What there is to know beside the tables (`Result.notes`) is a warning.

    Args:
        what: a results folder, the folder of one run, or a study: its name (the most recent run in `out`), its class
            (likewise), or the study itself (the run with exactly these settings).
        study: chooses among the studies of a results folder, in the same way; a study file (`.py`, which is executed)
            does as well. Where a study's figure is a function, `Result.plot` needs the study here.
        out: the results folder where `what` is a study.

    Raises:
        ConfigError: nothing like that is stored, or it is not clear which of several studies is meant; the message
            lists what is stored. Or a file is damaged.

    Example:
        >>> import tempfile
        >>> import kdsim as kd
        >>> problem = kd.problems.SoftmaxLinear(dimension=3, samples=100)
        >>> folder = tempfile.mkdtemp()
        >>> result = kd.simulate(kd.Experiment(problem, steps=50, replicas=4, engine="torch"), folder)
        >>> kd.load(folder).frame.equals(result.frame)
        True
    """
    found = _found(what, study, out)
    for line in found.notes:
        warn(line)
    return found


def _found(what: Any, study: Any, out: str | Path) -> Result:
    if isinstance(what, (str, os.PathLike)) and folder_of("what", what).is_dir():
        folder = folder_of("what", what)
        if (folder / STUDY_FILE).is_file():
            return read_result(folder, _figure(study, folder.absolute().parent.name))
        if any(folder.glob(f"*/{STUDY_FILE}")):  # of a study: its most recent run
            name = folder.absolute().name
            return read_result(Store(folder.absolute().parent).latest(name), _figure(study, name))
        return _in_store(Store(folder), study)
    is_file = isinstance(what, (str, Path)) and str(what).endswith(".py")
    is_path = isinstance(what, os.PathLike) or (isinstance(what, str) and ("/" in what or what == "results"))
    if not is_file and is_path:
        raise ConfigError(f"folder {str(what)!r} is not there: must be a results folder, or the folder of a run in it")
    require(study is None, "study", study, "None where the first argument is a study")
    store = Store(folder_of("out", out))
    if isinstance(what, str) and not is_file and what not in store.names():
        place = str(store.root)
        raise ConfigError(f"{what!r} is neither a folder nor a study with results in {place!r}; {store.listing(what)}")
    return _in_store(store, what)


def runs(out: str | Path = "results") -> pd.DataFrame:
    """The runs that are stored in a results folder, the oldest first.

    Returns:
        The columns study, date (UTC) and folder, which `load` takes.

    Example:
        >>> import tempfile
        >>> import kdsim as kd
        >>> kd.runs(tempfile.mkdtemp()).columns.tolist()
        ['study', 'date', 'folder']
    """
    found = [(folder.parent.name, date, str(folder)) for date, folder in Store(folder_of("out", out)).runs()]
    table = pd.DataFrame(found, columns=["study", "date", "folder"])
    return table.assign(date=pd.to_datetime(table["date"], errors="coerce", utc=True))


def _in_store(store: Store, study: Any) -> Result:
    """The run of a study in a results folder."""
    if study is None:
        names = store.names()
        if len(names) > 1:
            place = str(store.root)
            raise ConfigError(
                f"several studies are stored in {place!r}: {', '.join(names)}; choose one, as in "
                f"kd.load({place!r}, {names[0]!r})"
            )
        if not names:
            raise ConfigError(f"no results in {str(store.root)!r}")
        return read_result(store.latest(names[0]))
    cls, settings = _resolved(study)
    name = study if cls is None else cls.name if settings is None else settings.name
    if settings is None:
        return read_result(store.latest(name), _figure_of(cls))
    folder = store.study_folder(name, config.digest(settings))
    if not (folder / STUDY_FILE).is_file():
        raise ConfigError(f"no results of {name!r} with these settings in {str(store.root)!r}; {store.listing(name)}")
    return read_result(folder, _figure_of(cls))


def _resolved(study: Any) -> tuple[Any, Any]:
    """The class of a study, None where only its name is known, and the study itself if it was given."""
    if isinstance(study, (str, Path)):
        if not str(study).endswith(".py"):
            return None, None
        from kdsim.study.loading import study_of_file

        return study_of_file(Path(study)), None
    from kdsim.study.base import Study

    if isinstance(study, type) and issubclass(study, Study):
        return study, None
    if isinstance(study, Study):
        return type(study), study
    from kdsim.api.running import study_of

    return type(listed := study_of(study)), listed


def _figure(study: Any, name: str) -> Any:
    """The figure of a study that was given beside its folder."""
    if study is None:
        return None
    cls, _ = _resolved(study)
    own = study if cls is None else cls.name
    if own != name:
        raise ConfigError(f"the folder holds a run of {name!r}, the study is {own!r}")
    return _figure_of(cls)


def _figure_of(cls: Any) -> Any:
    figure = getattr(cls, "figure", None)
    return None if isinstance(figure, str) else figure
