"""`run`, `simulate` and `predict`."""

from __future__ import annotations

import atexit
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kdsim import config
from kdsim.api import progress as progress_bar
from kdsim.api.labels import label_columns
from kdsim.api.paths import folder_of
from kdsim.api.results import Result, finished, read_result
from kdsim.api.warning import warn
from kdsim.config import ConfigError, by_name, kind_of, shown
from kdsim.experiments import Cell, Computation, ListedExperiments, StudentTrainer, Study, Teacher
from kdsim.results.store import Store, table_of
from kdsim.study import loading, packs, runner

if TYPE_CHECKING:
    from kdsim.study.executors import Executor

AnyExperiment = Cell | StudentTrainer | Teacher | Computation
Runnable = Study | type[Study] | str | AnyExperiment | Sequence[AnyExperiment]

DATA = "KDSIM_DATA"
"""Environment variable: the folder of real images."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run, after what was done had been stored: the same call goes on from there.

    It is a `KeyboardInterrupt`, which `except Exception` lets pass: a script that does not expect it ends.

    Attributes:
        result: the experiments that were finished; None where there is none.
    """

    def __init__(self, line: str, result: Result | None = None) -> None:
        super().__init__(line)
        self.result = result


def run(
    study: Runnable,
    out: str | Path | None = None,
    *,
    replicas: int | None = None,
    seed: int | None = None,
    engine: str | None = None,
    device: str | None = None,
    quick: bool = False,
    progress: bool = True,
    name: str | None = None,
    data_dir: str | Path | None = None,
    executor: Executor | None = None,
    repair: bool = False,
    rerun: bool = False,
) -> Result:
    """Run a study or some experiments, or what of them is not yet stored.

    Each experiment is stored under the digest of its whole configuration as soon as it is finished, and is not run
    again. Ctrl-C stores what is done and raises `Interrupted`; the same call goes on from there. An experiment that
    fails is named in `Result.failures` and in a warning, and the others run.

    Args:
        study: a study, its class, name or file (`.py`, which is executed); or an experiment, or several.
        out: the results folder. None: a temporary folder, which all calls of this process share, and which is deleted
            when the process ends; `Result.save` keeps what is in it.
        replicas, seed, engine, device: replace those of the study, or of all experiments.
        quick: the study at a size that ends within seconds.
        progress: whether a bar is shown, on a terminal or in a notebook.
        name: under which a list of experiments is stored, "experiments" if not given.
        data_dir: folder of real images; else the environment variable KDSIM_DATA names it.
        executor: computes, as one of `kdsim.study.on_dask`; None: this process.
        repair: move damaged files to OUT/damaged and run again what they held.
        rerun: run again what another version of kdsim computed; its results go to OUT/superseded.

    Raises:
        ConfigError: a setting is not allowed, or none of the experiments could be run for such a reason.
        RuntimeError: none of the experiments could be run.
        Interrupted: see above.

    Example:
        >>> import kdsim as kd
        >>> problem = kd.problems.SoftmaxLinear(dimension=3, samples=100)
        >>> kd.run([kd.Experiment(problem, steps=50, step_size=a, engine="torch") for a in (0.1, 0.2)])["step_size"]
        0    0.1
        1    0.2
        Name: step_size, dtype: float64
    """
    settings = {"replicas": replicas, "seed": seed, "engine": engine, "device": device}
    for what, flag in (("quick", quick), ("progress", progress), ("repair", repair), ("rerun", rerun)):
        config.require(isinstance(flag, bool), what, flag, "True or False")
    _require_executor(executor)
    with _data(data_dir):
        whole = _study(study, quick, settings, name)
        folder = _scratch() if out is None else folder_of("out", out)
        with progress_bar.shown(progress) as (tell, say), _compilation(say):
            try:
                done = runner.run(
                    whole, folder, executor=executor, progress=tell, note=warn, repair=repair, rerun=rerun
                )
            except runner.Interrupted as interruption:
                raise Interrupted(str(interruption), _finished(whole, folder)) from None
    if not done.rows:
        lines = "; ".join(done.failures)
        raise ConfigError(lines) if done.user_error else RuntimeError(lines)
    for line in done.failures:
        warn(line)
    return read_result(done.folder, _figure(whole))


def simulate(experiment: AnyExperiment, out: str | Path | None = None, **options: Any) -> Result:
    """Run one experiment. Nothing is stored unless `out` is given.

    Args:
        experiment: what `kdsim.Experiment` builds.
        out: the results folder, see `run`.
        options: of `run`.

    Example:
        >>> import kdsim as kd
        >>> problem = kd.problems.SoftmaxLinear(dimension=3, samples=100)
        >>> result = kd.simulate(kd.Experiment(problem, steps=50, replicas=4, engine="torch"))
        >>> result.replicas["replica"].tolist()
        [0, 1, 2, 3]
    """
    kinds = (Cell, StudentTrainer, Teacher, Computation)
    config.require(isinstance(experiment, kinds), "experiment", experiment, "one experiment; for several see kdsim.run")
    return run(experiment, out, **options)


def predict(
    study: Runnable, *, replicas: int | None = None, seed: int | None = None, quick: bool = False
) -> pd.DataFrame:
    """Theory without simulation: gradient noise, bounds with their conditions, predicted floors.

    Args:
        study: see `run`; its experiments are of problems, since theory predicts nothing of networks.

    Returns:
        One row an experiment, in the columns of `Result.frame`.

    Raises:
        ConfigError: a setting is not allowed, or the study trains networks.

    Example:
        >>> import kdsim as kd
        >>> problem = kd.problems.SoftmaxLinear(dimension=3, samples=100)
        >>> student = kd.students.SoftmaxRegression(0.1, "centred")
        >>> table = kd.predict(kd.Experiment(problem, student))
        >>> bool(0 < table["first_order_floor"].item() < table["bound_floor"].item())
        True
    """
    whole = _study(study, quick, {"replicas": replicas, "seed": seed}, None)
    cells = packs.cells_of(whole)
    if not isinstance(cells[0], Cell):
        raise ConfigError(f"study {whole.name!r} trains networks, of which theory predicts nothing")
    rows = packs.predicted_rows(whole)
    first = label_columns(rows, [config.encode(cell) for cell in cells])
    rest = table_of(rows)
    return pd.concat([first, rest.drop(columns=[column for column in first if column in rest])], axis=1)


# What is to be run ------------------------------------------------------------------------------


def _study(study: Any, quick: bool, settings: dict[str, Any], name: str | None) -> Study:
    """The study that is meant, with its settings."""
    whole = study_of(study, name)
    given = {key: value for key, value in settings.items() if value is not None}
    if isinstance(whole, ListedExperiments):
        config.require(not quick, "quick", quick, "False for experiments: give them fewer steps or replicas")
        return dataclasses.replace(whole, experiments=tuple(_set(each, given) for each in whole.experiments))
    config.require(name is None, "name", name, "None: a study has its own")
    if quick:
        whole = whole.quick()
    return _set(whole, given)


def study_of(study: Any, name: str | None = None) -> Study:
    """A study as it is, from its class, name or file, or from experiments."""
    from kdsim.studies import STUDIES

    if isinstance(study, str):
        return loading.load(study, by_name(STUDIES))
    if isinstance(study, type) and issubclass(study, Study):
        try:
            return study()
        except TypeError as error:
            raise ConfigError(f"study {study.__name__}: every setting needs a default ({error})") from None
    if isinstance(study, Study):
        return study
    kinds = (Cell, StudentTrainer, Teacher, Computation)
    listed = [study] if isinstance(study, kinds) else study
    if not isinstance(listed, (list, tuple)) or not all(isinstance(each, kinds) for each in listed):
        wrong = next((each for each in listed if not isinstance(each, kinds)), study) if _is_list(listed) else study
        allowed = "a study, its name or file, an experiment (kdsim.Experiment), or a list of these"
        raise ConfigError(f"study = {shown(wrong)} is not allowed: must be {allowed}")
    return ListedExperiments(tuple(listed), **({} if name is None else {"name": name}))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _set(configuration: Any, given: dict[str, Any]) -> Any:
    """A study or an experiment with some settings."""
    known = {field.name for field in dataclasses.fields(configuration) if field.init}
    for key in given:
        if key not in known:
            kind = kind_of(type(configuration))
            raise ConfigError(f"{kind} has no setting {key!r}: it has {', '.join(sorted(known))}")
    return dataclasses.replace(configuration, **given) if given else configuration


def _figure(study: Study) -> Any:
    figure = getattr(type(study), "figure", None)
    return None if figure is None or isinstance(figure, str) else figure


# Where and how ----------------------------------------------------------------------------------


def _require_executor(executor: object) -> None:
    from kdsim.study.executors import Executor

    known = executor is None or isinstance(executor, Executor)
    config.require(known, "executor", executor, "None or an executor, as kdsim.study.on_dask.cluster gives it")


_scratches: dict[int, Path] = {}


def _scratch() -> Path:
    """The temporary results folder of this process."""
    own = os.getpid()
    if own not in _scratches:
        _scratches[own] = Path(tempfile.mkdtemp(prefix="kdsim-"))
        atexit.register(_forget, own)
    return _scratches[own]


def _forget(process: int) -> None:
    if process == os.getpid():  # a fork inherits what is registered
        shutil.rmtree(_scratches[process], ignore_errors=True)


@contextmanager
def _data(folder: str | Path | None) -> Iterator[None]:
    """Within the block real images are read from this folder."""
    if folder is None:
        yield
        return
    before = os.environ.get(DATA)
    os.environ[DATA] = str(folder_of("data_dir", folder).absolute())
    try:
        yield
    finally:
        del os.environ[DATA]
        if before is not None:
            os.environ[DATA] = before


@contextmanager
def _compilation(say: Callable[[str], None] | None) -> Iterator[None]:
    """Within the block it is shown that kernels are compiled, if anything is."""
    if say is None:
        yield
        return
    from kdsim.engines.fused.compilation import announced

    with announced(lambda line: say(line) if line.startswith("compiling") else warn(line)):
        yield


def _finished(study: Study, folder: Path) -> Result | None:
    """What a run that was interrupted has stored."""
    store = Store(folder)
    digests = [config.digest(cell) for cell in packs.cells_of(study)]
    done = [digest for digest in dict.fromkeys(digests) if store.has_cell(digest)]
    if not done:
        return None
    info = {
        "study": study.name,
        "digest": config.digest(study),
        "settings": config.encode(study),
        "cells": done,
        "figure": loading.figure_reference(study),
    }
    return finished(store, info, _figure(study))
