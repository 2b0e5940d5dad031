"""batch-sweep: floor, fluctuation and their time scales against the batch size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from kdsim.config import require, require_between, require_count, require_positive
from kdsim.engines import SGD, Recording
from kdsim.problems import GaussianMixture, Problem
from kdsim.students import LinearStudent, minimiser
from kdsim.studies.common import slowest_rate, stationary_length, step_size_within_t1, student_with_ridge
from kdsim.study.base import Cell, Study
from kdsim.supervision import Dirichlet, OneHot, Supervision
from kdsim.theory import linearised_moments
from kdsim.theory.directions import eigendirections

LARGEST_SHARE = 0.8
"""Of the stability limit at a cell's batch size: cells with larger step sizes are left out."""
STRIDE_SHARE = 0.2
"""Steps between two samples in the tail, as a share of the shortest autocorrelation time."""


@dataclass(frozen=True)
class BatchSweep(Study):
    """One-hot and Dirichlet labels at batch sizes b, at a fixed step size alpha and at a fixed alpha / b.

    Cells near or above the stability limit of their batch size are left out: with alpha / b fixed the step size grows
    with b, and the limit does not grow beyond 2 / h, h the largest curvature.

    Attributes:
        problem: the generator of the pool; its own parameters are the keys problem.NAME.
        student: "auto" takes the student for which the problem's BCP is realisable.
        ridge: lambda, absolute; by default `ridge_fraction` of L, the smoothness of the loss on the pool.
        ridge_fraction: see `ridge`.
        ridge_kind: "centred" or "none".
        batch_sizes: b, each once.
        step_size_fraction: the fixed step size, as a fraction of 1 / (2 L_max) at batch size 1.
        ratio_fraction: the fixed alpha / b, as the same fraction.
        nu_fraction: level of the Dirichlet labels, as a fraction of one-hot's nu.
        directions: eigendirections of the Hessian along which fluctuations are recorded.
        settle: relaxation times 1 / (alpha h) before the tail, h the smallest curvature at the optimum.
        window: relaxation times in the tail.
        dtype: see SGD.
        replicas: independent runs of each cell.
        seed: draws the pool and keys all random numbers.
        engine, device: what runs it; auto takes the fastest engine that can.
    """

    name: ClassVar[str] = "batch-sweep"
    summary: ClassVar[str] = "floor, fluctuation and autocorrelation times against the batch size"
    figure: ClassVar[str] = "batch-sweep"

    problem: Problem = field(default_factory=GaussianMixture)
    student: Literal["auto", "softmax-regression", "least-squares"] = "auto"
    ridge: float | None = None
    ridge_fraction: float = 0.05
    ridge_kind: Literal["centred", "none"] = "centred"
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    step_size_fraction: float = 4.0
    ratio_fraction: float = 0.5
    nu_fraction: float = 0.2
    directions: int = 8
    settle: float = 10.0
    window: float = 20.0
    dtype: Literal["float32", "float64"] = "float32"
    replicas: int = 64
    seed: int = 0
    engine: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        require(len(self.batch_sizes) > 0, "batch_sizes", self.batch_sizes, "at least one")
        require(len(set(self.batch_sizes)) == len(self.batch_sizes), "batch_sizes", self.batch_sizes, "distinct")
        for batch_size in self.batch_sizes:
            require_count("batch_sizes", batch_size)
        require_count("directions", self.directions)
        require_between("nu_fraction", self.nu_fraction, 0, 1, "()")
        for key in ("step_size_fraction", "ratio_fraction", "settle", "window", "ridge_fraction"):
            require_positive(key, getattr(self, key))
        if self.ridge is not None:
            require_positive("ridge", self.ridge)

    def quick(self) -> Self:
        few = self.batch_sizes[:: max(1, -(-len(self.batch_sizes) // 3))]
        sizes = {"replicas": 16, "settle": 8.0, "window": 3.0}
        shorter = {key: min(size, getattr(self, key)) for key, size in sizes.items()}
        return replace(self, **shorter, batch_sizes=few, ratio_fraction=max(2.0, self.ratio_fraction))

    def cells(self) -> tuple[Cell, ...]:
        population = self.problem.population(self.seed)
        student = student_with_ridge(
            self.problem, population, self.student, self.ridge, self.ridge_fraction, self.ridge_kind
        )
        optimum = minimiser(student, population)
        rate = slowest_rate(student, population, optimum)
        steepest = eigendirections(student, population, optimum, count=1)[0][0].item()
        unit = step_size_within_t1(student, population, 1, 1.0)
        level = self.nu_fraction * OneHot().nu(population.p)
        supervisions = (OneHot(), Dirichlet().with_nu(level, population.p))
        pairs = {(b, alpha) for b in self.batch_sizes for alpha in (self.step_size_fraction * unit,)}
        pairs |= {(b, self.ratio_fraction * unit * b) for b in self.batch_sizes}
        stable = [
            (b, alpha)
            for b, alpha in sorted(pairs)
            if alpha < LARGEST_SHARE * linearised_moments(student, population, optimum, b).stability_limit
        ]
        return tuple(
            self._cell(student, supervision, step_size, batch_size, rate, steepest)
            for batch_size, step_size in stable
            for supervision in supervisions
        )

    def _cell(
        self,
        student: LinearStudent,
        supervision: Supervision,
        step_size: float,
        batch_size: int,
        rate: float,
        steepest: float,
    ) -> Cell:
        steps, tail_fraction = stationary_length(step_size, rate, self.settle, self.window)
        stride = min(max(int(STRIDE_SHARE / (step_size * steepest)), 1), 16)
        return Cell(
            problem=self.problem,
            student=student,
            supervision=supervision,
            step_size=step_size,
            sgd=SGD(steps, batch_size, dtype=self.dtype),
            recording=Recording(12, tail_fraction, stride, directions=self.directions),
            replicas=self.replicas,
            seed=self.seed,
            engine=self.engine,
            device=self.device,
        )
