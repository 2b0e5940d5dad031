"""The study that a list of experiments is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from kdsim.config import require
from kdsim.study.base import Cell, Computation, Study
from kdsim.study.loading import require_study_name
from kdsim.trainer import StudentTrainer, Teacher


@dataclass(frozen=True)
class ListedExperiments(Study):
    """Experiments that somebody has listed, in their order.

    Attributes:
        experiments: either all are simulations (`Cell`), or none is.
        name: under which they are stored and loaded.
    """

    experiments: tuple[Cell | StudentTrainer | Teacher | Computation, ...] = ()
    name: str = "experiments"  # type: ignore[misc]  # a setting here, where other studies have a constant

    summary: ClassVar[str] = "experiments that were listed in Python"
    figure: ClassVar[str] = "learning-curves"

    def __post_init__(self) -> None:
        require_study_name("name", self.name)
        require(len(self.experiments) > 0, "experiments", self.experiments, "at least one experiment")

    def cells(self) -> tuple[Any, ...]:
        return self.experiments

    def quick(self) -> Self:
        return self
