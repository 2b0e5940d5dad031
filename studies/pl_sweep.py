"""pl-sweep: excess risk of students that are not strongly convex, against T2, its sharper form and exact theory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import ceil
from typing import ClassVar, Literal, Self

import numpy as np

from kdsim.config import ConfigError, require_between, require_count, require_positive
from kdsim.engines import SGD, Recording
from kdsim.population import Population
from kdsim.problems import Problem, SimplexLinear, SoftmaxLinear
from kdsim.students import LinearStudent, minimiser
from kdsim.studies.common import student_with_ridge
from kdsim.study.base import Cell, Study
from kdsim.supervision import Annotators, Dirichlet, Exact, OneHot, Supervision
from kdsim.theory import constants, linearised_moments, with_pl_estimate

SHORTEST = 2_000
"""Steps of a run at least, so that its tail is long enough to average over."""


@dataclass(frozen=True)
class PLSweep(Study):
    """Polyak-Lojasiewicz students that are linear in their parameters, without a ridge, at several step sizes.

    Least squares with features that span the space, that lie in a subspace, and with fewer points than features:
    the first is strongly convex, the others are PL only, and all have exact curves and floors. Softmax regression
    without a ridge has an estimated PL constant, so that no bound on it is valid.

    Step sizes are fractions of T2's limit mu / (2 L L_max), and of the limit of mean-square stability, which is 50 to
    75 times larger by default: T2's condition is very conservative. Beyond twice T2's limit neither T2 nor T2' is a
    bound.
    Each run is `relaxations` long. Step sizes at which that takes more than `max_steps` are left out: there T2's
    condition puts stationarity out of reach.

    Attributes:
        full, deficient, overparametrised: least-squares problems whose inputs have full rank, rank below their
            dimension, and fewer samples than dimensions.
        softmax: the problem of softmax regression.
        t2_fractions: step sizes as fractions of T2's limit, with the estimated mu for softmax regression.
        stability_fractions: step sizes as fractions of the stability limit; linearised for softmax regression.
        levels: number of levels of dirichlet and annotators at the first of `t2_fractions`.
        nu_low, nu_high: smallest and largest level, as fractions of one-hot's nu.
        nu_middle: the level of dirichlet at all step sizes.
        relaxations: length of a run in units of 1 / (step size mu), mu the PL constant.
        max_steps: see above.
        batch_size, dtype: see SGD.
        checkpoints, tail_fraction: see Recording.
        replicas: independent runs of each cell.
        seed: draws the pools and keys all random numbers.
        engine, device: what runs it; auto takes the fastest engine that can.
    """

    name: ClassVar[str] = "pl-sweep"
    summary: ClassVar[str] = "excess risk of rank-deficient, over-parametrised and unregularised students (T2)"
    figure: ClassVar[str] = "pl-sweep"

    full: SimplexLinear = field(default_factory=lambda: SimplexLinear(concentration=0.5, samples=1_024))
    deficient: SimplexLinear = field(
        default_factory=lambda: SimplexLinear(dimension=12, rank=4, concentration=0.3, samples=1_024)
    )
    overparametrised: SimplexLinear = field(
        default_factory=lambda: SimplexLinear(dimension=20, samples=10, concentration=0.1)
    )
    softmax: SoftmaxLinear = field(
        default_factory=lambda: SoftmaxLinear(classes=3, dimension=3, conditioning=1.0, entropy=0.9, samples=1_024)
    )
    t2_fractions: tuple[float, ...] = (1.0, 2.0)
    stability_fractions: tuple[float, ...] = (0.05, 0.2, 0.6)
    levels: int = 4
    nu_low: float = 0.03
    nu_high: float = 0.9
    nu_middle: float = 0.2
    relaxations: float = 10.0
    max_steps: int = 50_000
    batch_size: int = 1
    dtype: Literal["float32", "float64"] = "float32"
    checkpoints: int = 48
    tail_fraction: float = 0.4
    replicas: int = 64
    seed: int = 0
    engine: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for key in ("levels", "max_steps", "batch_size"):
            require_count(key, getattr(self, key))
        require_between("nu_low", self.nu_low, 0, 1, "(]")
        require_between("nu_high", self.nu_high, self.nu_low, 1)
        require_between("nu_middle", self.nu_middle, 0, 1, "(]")
        require_positive("relaxations", self.relaxations)
        for fraction in self.t2_fractions:
            require_positive("t2_fractions", fraction)
        for fraction in self.stability_fractions:
            require_between("stability_fractions", fraction, 0, 1, "()")

    def quick(self) -> Self:
        return replace(
            self,
            t2_fractions=self.t2_fractions[:1],
            stability_fractions=self.stability_fractions[::2],
            levels=min(self.levels, 2),
            max_steps=min(self.max_steps, 10_000),
            checkpoints=min(self.checkpoints, 30),
            replicas=min(self.replicas, 16),
        )

    def cells(self) -> tuple[Cell, ...]:
        problems = (self.full, self.deficient, self.overparametrised, self.softmax)
        cells = tuple(cell for problem in problems for cell in self._cells(problem))
        if not cells:
            raise ConfigError(f"max_steps = {self.max_steps} is not allowed: every step size needs more steps")
        return cells

    def _cells(self, problem: Problem) -> Iterator[Cell]:
        population = problem.population(self.seed)
        student = student_with_ridge(problem, population, "auto", None, 1.0, "none")
        known = with_pl_estimate(student, population, constants(student, population))
        t2_limit = known.mu_pl / (2 * known.smoothness * known.expected_smoothness(self.batch_size))
        step_sizes = [fraction * t2_limit for fraction in self.t2_fractions]
        stable = self._stability_limit(student, population)
        step_sizes += [fraction * stable for fraction in self.stability_fractions]
        within = [size for size in step_sizes if self.relaxations / (size * known.mu_pl) <= self.max_steps]
        for step_size in within:
            steps = max(ceil(self.relaxations / (step_size * known.mu_pl)), SHORTEST)
            for supervision in self._supervisions(population, every_level=step_size == within[0]):
                yield Cell(
                    problem=problem,
                    student=student,
                    supervision=supervision,
                    step_size=step_size,
                    sgd=SGD(steps, self.batch_size, dtype=self.dtype),
                    recording=Recording(self.checkpoints, self.tail_fraction),
                    replicas=self.replicas,
                    seed=self.seed,
                    engine=self.engine,
                    device=self.device,
                )

    def _stability_limit(self, student: LinearStudent, population: Population) -> float:
        """Exact for least squares, linearised at the optimum for softmax regression."""
        return linearised_moments(student, population, minimiser(student, population), self.batch_size).stability_limit

    def _supervisions(self, population: Population, *, every_level: bool) -> list[Supervision]:
        """Exact BCP, one-hot, dirichlet at the middle level; with `every_level` both families at all levels."""
        p = population.p
        largest = OneHot().nu(p)
        supervisions: list[Supervision] = [Exact(), OneHot(), Dirichlet().with_nu(self.nu_middle * largest, p)]
        if every_level:
            for family in (Dirichlet(), Annotators()):
                levels = np.geomspace(self.nu_low, self.nu_high, self.levels) * largest
                supervisions.extend(family.with_nu(float(nu), p) for nu in levels)
        return supervisions
