"""Contract of a study: settings that a user may override, and the cells they stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import pandas as pd

from kdsim.config import Configuration, require, require_count, require_positive
from kdsim.engines.base import SGD
from kdsim.engines.recorder import Recording
from kdsim.problems.base import Problem
from kdsim.results.schema import Column
from kdsim.students.base import LinearStudent
from kdsim.students.network import NetworkStudent
from kdsim.supervision.base import Supervision
from kdsim.trainer import StudentTrainer, Teacher


@dataclass(frozen=True)
class Cell(Configuration):
    """One simulated configuration. A cell IS its config: its digest names its results.

    Attributes:
        step_size: alpha, absolute.
        replicas: independent runs R, numbered from 0.
        seed: draws the population and keys the random numbers of the runs.
        engine: what runs it, "auto" for the fastest that can. Paths agree between engines and devices to rounding.
        device: cpu, cuda or cuda:N.
    """

    problem: Problem
    student: LinearStudent | NetworkStudent
    supervision: Supervision
    step_size: float
    sgd: SGD = field(default_factory=SGD)
    recording: Recording = field(default_factory=Recording)
    replicas: int = 64
    seed: int = 0
    engine: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        require_positive("step_size", self.step_size)
        require_count("replicas", self.replicas, least=2, most=2**31 - 1)
        require_count("seed", self.seed, least=0)
        require(self.seed < 2**63, "seed", self.seed, "below 2^63")


@dataclass(frozen=True, eq=False)  # holds tables
class Computed:
    """What a computation gave. All three are stored and read like those of a training.

    Attributes:
        measurement: name to number, text or None, flat; an interval is NAME, NAME_low and NAME_high.
        curves: one row a point, of whatever the computation follows; any columns.
        replicas: one row a replica, with a column `replica`, where there are any.
        provenance: what a stored result must say about data that were read.
    """

    measurement: Mapping[str, float | int | bool | str | None]
    curves: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"step": []}))
    replicas: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"replica": []}))
    provenance: Mapping[str, Any] = field(default_factory=dict)


class Computation(Configuration, ABC):
    """A cell that is computed in one call, for what needs no training: exact paths, sums, checks of an identity.

    Implementations are frozen dataclasses: the fields are the whole configuration, and their digest names the result.
    One that fails raises, a `ConfigError` where the input is bad. It takes seconds, and cannot be interrupted.
    """

    name: ClassVar[str]
    words: ClassVar[str] = ""
    """What the measurements are, in words: stands below their table."""
    columns: ClassVar[tuple[Column, ...]] = ()
    """What it measures: type, unit and meaning of each, see `kdsim.results.schema`; what is not declared may be any."""

    @abstractmethod
    def compute(self) -> Computed:
        """The result; equal fields give equal results."""


class Study(Configuration, ABC):
    """A study. Implementations are frozen dataclasses: fields are the keys of `--set`, `cells` declares the rest."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for `kdsim list studies`."""
    figure: ClassVar[str | Callable[..., Any]]
    """Name of a figure in figures/, or a function (results) -> matplotlib Figure in a study file."""

    @abstractmethod
    def cells(self) -> tuple[Cell, ...] | tuple[StudentTrainer | Teacher | Computation, ...]:
        """The cells, resolved to absolute numbers (a relative step size or ridge becomes a number here).

        All are simulations (`Cell`), or none is: trainings (`StudentTrainer`), teachers and computations in any order.
        """

    @abstractmethod
    def quick(self) -> Self:
        """The same study at a size that ends within seconds, for a first look."""
