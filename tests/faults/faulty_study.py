"""A study file with one cell on a pool that may be faulty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from faulty_pools import cell
from matplotlib.figure import Figure

from kdsim.engines import SGD
from kdsim.students import SoftmaxRegression
from kdsim.study.base import Cell, Study


def draw(results: Any) -> Figure:
    """The curve, where there is any."""
    figure = Figure()
    figure.subplots().plot(results.curves["step"], results.curves["dist_sq_mean"])
    return figure


@dataclass(frozen=True)
class Faulty(Study):
    """For the command line: one cell on one of `POOLS`."""

    kind: str = "sound"
    step_size: float = 0.05
    ridge: float = 0.1
    steps: int = 40
    engine: str = "torch"

    name: ClassVar[str] = "faulty"
    summary: ClassVar[str] = "one cell on a pool that may be faulty"
    figure: ClassVar[Any] = draw

    def cells(self) -> tuple[Cell, ...]:
        student = SoftmaxRegression(self.ridge, "ordinary" if self.ridge else "none")
        return (cell(self.kind, student, step_size=self.step_size, engine=self.engine, sgd=SGD(self.steps)),)

    def quick(self) -> Faulty:
        return self
