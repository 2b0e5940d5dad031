"""A study file with its own problem, noise model and figure: what a user outside the package would write."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from matplotlib.figure import Figure
from torch import Tensor

from kdsim.engines import SGD, Recording
from kdsim.problems import Problem, SoftmaxLinear
from kdsim.students import SoftmaxRegression
from kdsim.study.base import Cell, Study
from kdsim.supervision import Batch, Exact, OneHot, Supervision, Target


@dataclass(frozen=True)
class SmallPool(SoftmaxLinear):
    """A softmax-linear problem with 64 points."""

    classes: int = 3
    dimension: int = 3
    samples: int = 64

    name: ClassVar[str] = "small-pool"


@dataclass(frozen=True)
class Halfway(Supervision):
    """p + weight (one-hot - p).

    Attributes:
        weight: 1 is one-hot, 0 is exact.
    """

    weight: float = 0.5

    name: ClassVar[str] = "halfway"
    level_field: ClassVar[str] = "weight"
    unbiased: ClassVar[bool] = True

    def sample(self, batch: Batch, draws: Any) -> Target:
        q = OneHot().sample(batch, draws).q
        weight = self.weight if isinstance(self.weight, float) else self.weight[..., None].to(q)
        return Target(q=batch.p + weight * (q - batch.p))

    def mean(self, p: Tensor) -> Tensor:
        return p

    def covariance(self, p: Tensor) -> Tensor:
        return self.weight**2 * OneHot().covariance(p)


def draw(results: Any) -> Figure:
    figure = Figure()
    figure.subplots().plot(results.curves["step"], results.curves["dist_sq_mean"])
    return figure


@dataclass(frozen=True)
class Tiny(Study):
    """Three supervisions.

    Attributes:
        problem: the pool.
        step_size: alpha.
    """

    name: ClassVar[str] = "tiny"
    summary: ClassVar[str] = "three supervisions on 64 points"
    figure: ClassVar[Any] = draw

    problem: Problem = field(default_factory=SmallPool)
    supervisions: tuple[Supervision, ...] = (Exact(), OneHot(), Halfway())
    step_size: float = 0.05
    steps: int = 400
    replicas: int = 8
    seed: int = 0
    engine: str = "torch"
    device: str = "cpu"

    def cells(self) -> tuple[Cell, ...]:
        first = Cell(
            problem=self.problem,
            student=SoftmaxRegression(0.1, "centred"),
            supervision=Exact(),
            step_size=self.step_size,
            sgd=SGD(self.steps),
            recording=Recording(checkpoints=8, tail_stride=4),
            replicas=self.replicas,
            seed=self.seed,
            engine=self.engine,
            device=self.device,
        )
        return tuple(replace(first, supervision=supervision) for supervision in self.supervisions)

    def quick(self) -> Self:
        return replace(self, steps=100)
