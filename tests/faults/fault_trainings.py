"""A study file with all that is no simulation: networks of points, their teacher, a student of it, a computation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pandas as pd

from kdsim.data import KnownPoints
from kdsim.problems import GaussianMixture
from kdsim.study.base import Computation, Computed, Study
from kdsim.teachers import Deterministic, Laplace
from kdsim.trainer import PointNetwork, StudentTrainer, Teacher
from kdsim.training import Recipe

BATCH, TRAIN = 16, 60


@dataclass(frozen=True)
class Squares(Computation):
    """Squares of the first numbers."""

    count: int = 4

    name: ClassVar[str] = "squares"

    def compute(self) -> Computed:
        table = pd.DataFrame({"number": range(self.count), "square": [number**2 for number in range(self.count)]})
        return Computed({"total": int(table["square"].sum())}, curves=table)


@dataclass(frozen=True)
class FaultTrainings(Study):
    """Teachers first: a deterministic one, which a student listens to, and a Laplace one that is looked at."""

    steps: int = 8

    name: ClassVar[str] = "fault-trainings"
    summary: ClassVar[str] = "trainings of networks of points"
    figure: ClassVar[Any] = None

    def cells(self) -> tuple[StudentTrainer | Teacher | Computation, ...]:
        base = StudentTrainer(
            PointNetwork("mlp"),
            KnownPoints(GaussianMixture(classes=3, dimension=3, samples=TRAIN + 40), 20, 20),
            recipe=Recipe(epochs=self.steps * BATCH / TRAIN, batch_size=BATCH),
            replicas=2,
            evaluations=3,
        )
        return (base, replace(base, supervision=Deterministic(base)), Laplace(base, samples=2), Squares())

    def quick(self) -> FaultTrainings:
        return self
