"""A study file of simulations of some hundredths of a second, on whatever engine, in as many blocks as wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from matplotlib.figure import Figure

from kdsim.engines import SGD, GradientDescent, Recording
from kdsim.problems import GaussianMixture
from kdsim.students import MLP, SoftmaxRegression
from kdsim.study.base import Cell, Study
from kdsim.supervision import Annotators, Exact, OneHot


def draw(results: Any) -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot(results.curves["step"], results.curves["dist_sq_mean"])
    return figure


@dataclass(frozen=True)
class FaultSimulations(Study):
    """Three supervisions on 48 points; with the engine autograd a network with momentum learns them.

    Attributes:
        seeds: of the pools: a pack each.
    """

    engine: str = "torch"
    steps: int = 600
    replicas: int = 8
    seeds: tuple[int, ...] = (0, 1)

    name: ClassVar[str] = "fault-simulations"
    summary: ClassVar[str] = "three supervisions on 48 points"
    figure: ClassVar[Any] = draw

    def cells(self) -> tuple[Cell, ...]:
        network = self.engine == "autograd"
        first = Cell(
            problem=GaussianMixture(classes=3, dimension=3, samples=48),
            student=MLP((4,)) if network else SoftmaxRegression(0.1, "centred"),
            supervision=Exact(),
            step_size=0.05,
            sgd=SGD(self.steps, optimiser=GradientDescent(0.5 if network else 0.0)),
            recording=Recording(checkpoints=6, tail_stride=4),
            replicas=self.replicas,
            engine=self.engine,
        )
        return tuple(
            replace(first, supervision=supervision, seed=seed)
            for seed in self.seeds
            for supervision in (Exact(), OneHot(), Annotators(3))
        )

    def quick(self) -> FaultSimulations:
        return self
