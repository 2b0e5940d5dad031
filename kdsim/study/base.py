"""Contract of a study: settings that a user may override, and the cells they stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from kdsim.config import require, require_count, require_positive
from kdsim.engines.base import SGD
from kdsim.engines.recorder import Recording
from kdsim.problems.base import Problem
from kdsim.students.base import LinearStudent
from kdsim.students.network import NetworkStudent
from kdsim.supervision.base import Supervision
from kdsim.trainer import StudentTrainer, Teacher


@dataclass(frozen=True)
class Cell:
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
        require(isinstance(self.problem, Problem), "problem", self.problem, "a Problem")
        require(isinstance(self.supervision, Supervision), "supervision", self.supervision, "a Supervision")
        require_positive("step_size", self.step_size)
        require_count("replicas", self.replicas, least=2)
        require_count("seed", self.seed, least=0)
        require(self.seed < 2**63, "seed", self.seed, "below 2^63")


class Study(ABC):
    """A study. Implementations are frozen dataclasses: fields are the keys of `--set`, `cells` declares the rest."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for `kdsim list-studies`."""
    figure: ClassVar[str | Callable[..., Any]]
    """Name of a figure in figures/, or a function (results) -> matplotlib Figure in a study file."""

    @abstractmethod
    def cells(self) -> tuple[Cell, ...] | tuple[StudentTrainer | Teacher, ...]:
        """The cells, resolved to absolute numbers (a relative step size or ridge becomes a number here).

        All are simulations (`Cell`), or all are trainings of networks and teachers (`StudentTrainer`, `Teacher`).
        """

    @abstractmethod
    def quick(self) -> Self:
        """The same study at a size that ends within seconds, for a first look."""
