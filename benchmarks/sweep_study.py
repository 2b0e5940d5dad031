"""The study of `benchmarks.sweep`: pools x noise families and levels, in cells that take milliseconds each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from kdsim.engines import SGD, Recording
from kdsim.problems import SoftmaxLinear
from kdsim.students import SoftmaxRegression
from kdsim.study.base import Cell, Study
from kdsim.supervision import Dirichlet, OneHot, Supervision


@dataclass(frozen=True)
class Sweep(Study):
    """Pools x levels.

    Attributes:
        pools: number of pools, each with its seed.
        levels: cells of a pool: one-hot labels, and Dirichlet noise at so many levels less one.
        steps: of SGD.
        replicas: of each cell.
        engine: see `Cell`.
    """

    name: ClassVar[str] = "sweep"
    summary: ClassVar[str] = "many small cells"
    figure: ClassVar[None] = None

    pools: int = 100
    levels: int = 100
    steps: int = 2_000
    replicas: int = 8
    engine: str = "auto"

    def cells(self) -> tuple[Cell, ...]:
        """One for each pool and level."""
        problem = SoftmaxLinear(classes=3, dimension=4, samples=256)
        concentrations = [2.0 ** (10 * level / self.levels) for level in range(self.levels - 1)]
        supervisions: list[Supervision] = [OneHot(), *map(Dirichlet, concentrations)]
        first = Cell(
            problem=problem,
            student=SoftmaxRegression(0.1, "centred"),
            supervision=OneHot(),
            step_size=0.05,
            sgd=SGD(self.steps),
            recording=Recording(checkpoints=12),
            replicas=self.replicas,
            engine=self.engine,
        )
        return tuple(
            replace(first, supervision=supervision, seed=seed)
            for seed in range(self.pools)
            for supervision in supervisions
        )

    def quick(self) -> Self:
        """Four pools of ten levels."""
        return replace(self, pools=4, levels=10)
