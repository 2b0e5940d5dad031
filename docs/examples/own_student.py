"""A study file with a student of its own, a torch.nn.Module, and everything about its training among the settings.

kdsim run-study docs/examples/own_student.py
kdsim run-study docs/examples/own_student.py --set sgd.optimiser=adam --set step_size=0.003 --set sgd.schedule=cosine
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor, nn

from kdsim.engines import SGD
from kdsim.problems import GaussianMixture, Problem
from kdsim.students import ModuleStudent
from kdsim.study.base import Cell, Study
from kdsim.supervision import Dirichlet, Exact, OneHot


class Block(nn.Module):
    """h + V relu(U norm(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.inner(hidden)


@dataclass(frozen=True)
class ResidualNet(ModuleStudent):
    """A residual network under cross-entropy.

    Attributes:
        width: of the hidden layers.
        depth: number of residual blocks.
    """

    width: int = 8
    depth: int = 1

    name: ClassVar[str] = "residual-net"

    def module(self, features: int, classes: int) -> nn.Module:
        blocks = [Block(self.width) for _ in range(self.depth)]
        return nn.Sequential(nn.Linear(features, self.width), *blocks, nn.Linear(self.width, classes))


@dataclass(frozen=True)
class OwnStudent(Study):
    """Exact BCP, Dirichlet noise and one-hot labels for a residual network.

    Attributes:
        problem: the pool.
        student: the network.
        sgd: steps, batch size, optimiser, schedule.
        step_size: alpha.
        replicas: independent runs of each cell, each from a start of its own.
    """

    name: ClassVar[str] = "own-student"
    summary: ClassVar[str] = "three supervisions for a student of one's own"
    figure: ClassVar[None] = None

    problem: Problem = field(default_factory=lambda: GaussianMixture(classes=3, dimension=4, samples=200))
    student: ResidualNet = field(default_factory=ResidualNet)
    sgd: SGD = field(default_factory=lambda: SGD(3_000, batch_size=4))
    step_size: float = 0.05
    replicas: int = 16
    seed: int = 0

    def cells(self):
        return tuple(
            Cell(
                problem=self.problem,
                student=self.student,
                supervision=supervision,
                step_size=self.step_size,
                sgd=self.sgd,
                replicas=self.replicas,
                seed=self.seed,
            )
            for supervision in (Exact(), Dirichlet(2.0), OneHot())
        )

    def quick(self):
        return replace(self, sgd=replace(self.sgd, steps=300), replicas=4)
