"""What a run consists of, in pieces that can be computed anywhere; and the contract of what computes them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsim import config
from kdsim.config import ConfigError
from kdsim.engines import Choice
from kdsim.engines.base import State
from kdsim.files import Damaged, StorageError
from kdsim.results.provenance import Fingerprint
from kdsim.results.store import Store
from kdsim.study import work
from kdsim.study.base import Cell
from kdsim.study.computations import Computing
from kdsim.study.packs import Pack, choice_of
from kdsim.study.provenance import stamp
from kdsim.study.trainings import Fitting, Training

Job = Training | Fitting | Computing
"""What is trained, fitted or computed as a whole, and keeps its own checkpoints in the results folder."""

NO_MEMORY = "out of memory: ask for fewer replicas, fewer of them at a time (--block-replicas), or a smaller problem"

FINISH_CELLS = 8
"""Cells that are finished at a time, and stored before the next."""


@dataclass(frozen=True, eq=False)  # holds tensors
class Walk:
    """A block of a pack is to be walked for a slice of time. Gives `work.Walked`.

    Attributes:
        number: of the block.
        state: from which it goes on; None is the start.
        population: fingerprint of the points on which the state was reached.
    """

    pack: Pack
    number: int
    state: State | None
    population: Fingerprint | None = None

    @property
    def device(self) -> str:
        """Where it runs."""
        return self.pack.cells[0].device

    def run(self, report: Callable[[int], None], stop: Callable[[], bool], slice_seconds: float) -> work.Walked:
        """Compute it.

        Args:
            report: told the replica-steps of the block that are done.
            stop: asked between two chunks of steps; the block then ends early.
        """
        config.require_unchanged(self.pack.cells[0], self.pack.digests[0])
        replicas = self.pack.blocks()[self.number].replicas
        ready = work.prepared(self.pack)  # else a slice in which a pool is made might be one chunk of steps
        if self.state is not None and self.population is not None:
            work.require_same_points(self.population, ready.fingerprint)
        started = time.monotonic()

        def at(step: int) -> bool:
            report(step * replicas)
            return stop() or time.monotonic() - started > slice_seconds

        return work.walk(self.pack, self.number, self.state, at)


@dataclass(frozen=True, eq=False)
class Finish:
    """Cells of a pack whose replicas are at their end are to be measured. Gives a list of `work.FinishedCell`.

    Attributes:
        seconds, marks: see `work.Ended`.
    """

    pack: Pack
    cells: Sequence[work.Seen]
    seconds: float
    marks: Mapping[str, Any]

    device = "cpu"

    def run(
        self, report: Callable[[int], None], stop: Callable[[], bool], slice_seconds: float
    ) -> list[work.FinishedCell]:
        """Compute it; it takes seconds and is not interrupted."""
        return work.finish(self.pack, self.cells, self.seconds, self.marks)


@dataclass(frozen=True, eq=False)
class RunJob:
    """A job is to be done. Gives whether it is: it stores its result itself, in a folder that all workers share.

    Attributes:
        root: the results folder.
    """

    job: Job
    root: Path

    @property
    def device(self) -> str:
        """Where it runs."""
        if isinstance(self.job, Computing):
            return getattr(self.job.computation, "device", "cpu")
        return self.job.trainer.device if isinstance(self.job, Training) else self.job.teacher.training.device

    def run(self, report: Callable[[int], None], stop: Callable[[], bool], slice_seconds: float) -> bool:
        """Compute it."""
        config.require_unchanged(self.job.cell, self.job.digest)
        return self.job.run(Store(self.root), lambda done, total: report(done), stop, stamp()) is not None


Task = Walk | Finish | RunJob


@dataclass(frozen=True)
class Failed:
    """A task ended with an error.

    Attributes:
        line: what is said of it.
        user_error: whether it is a `ConfigError`.
        damaged: the file whose damage is the reason, if it is.
        no_storage: whether results cannot be written, which ends the run.
    """

    line: str
    user_error: bool
    damaged: Path | None = None
    no_storage: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a task.

    Attributes:
        result: what the task gives, or how it failed.
        seconds: that it took where it ran.
    """

    result: Any | Failed
    seconds: float


def outcome(task: Task, report: Callable[[int], None], stop: Callable[[], bool], slice_seconds: float) -> Outcome:
    """Run a task here."""
    started = time.monotonic()
    result: Any
    try:
        result = task.run(report, stop, slice_seconds)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a study file's own code can raise anything
        result = failed(error)
    return Outcome(result, time.monotonic() - started)


def failed(error: BaseException) -> Failed:
    """An error in the form that travels between processes."""
    damaged = error.path if isinstance(error, Damaged) else None
    line = config.error_line(error)
    if config.lacks_memory(error):
        line = f"{NO_MEMORY} ({line})"
    return Failed(line, isinstance(error, ConfigError), damaged, isinstance(error, StorageError))


class ExecutorGone(ConfigError):
    """What computes is not there any more."""


class Executor(ABC):
    """Runs tasks, here or elsewhere, several at a time or not.

    Attributes:
        slots: tasks that it takes at a time.
        block_replicas: replicas that it wants in a pack, at most; None for the default of `packs`.
        stranded: whether nobody is there who could end the tasks that it has.
        report, stop, slice_seconds: see `begin`.
    """

    slots: int = 1
    block_replicas: int | None = None
    stranded: bool = False

    def begin(self, report: Callable[[int, int], None], stop: Callable[[], bool], slice_seconds: float) -> None:
        """A run starts.

        Args:
            report: to be called, while `wait` waits, with a task's number and its replica-steps done.
            stop: whether tasks are to end at their next chunk of steps.
            slice_seconds: time after which a pack's state comes back.
        """
        self.report, self.stop, self.slice_seconds = report, stop, slice_seconds

    @abstractmethod
    def check(self, cells: Sequence[Any]) -> None:
        """Refuse cells that cannot run, before anything is computed or written.

        Raises:
            ConfigError: an engine or device is not there.
        """

    def check_folder(self, root: Path, cells: Sequence[Any]) -> None:
        """Refuse a results folder that is not there where tasks run that write to it; here it is.

        Raises:
            ConfigError: it is not.
        """
        return

    def choose(self, cell: Cell) -> Choice:
        """The engine of a cell, on the machine that will run it."""
        return choice_of(cell)

    @abstractmethod
    def submit(self, number: int, task: Task) -> None:
        """Take a task; there are never more than `slots` at a time."""

    @abstractmethod
    def wait(self, seconds: float) -> tuple[int, Outcome] | None:
        """Number and outcome of a task that has ended; None if none does within so many seconds."""
