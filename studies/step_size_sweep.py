"""step-size-sweep: error floor against step size, from T1's limit to the limit of stability."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import numpy as np

from kdsim.config import require, require_between, require_count, require_positive
from kdsim.engines import SGD, Recording
from kdsim.population import Population
from kdsim.problems import GaussianMixture, Problem
from kdsim.students import LinearStudent, minimiser
from kdsim.studies.common import slowest_rate, stationary_length, step_size_within_t1, student_with_ridge
from kdsim.study.base import Cell, Study
from kdsim.supervision import Dirichlet, Exact, OneHot, Supervision
from kdsim.theory import linearised_moments
from kdsim.theory.gradient_noise import gradient_covariance
from kdsim.theory.step_sizes import largest_step_size


@dataclass(frozen=True)
class StepSizeSweep(Study):
    """Exact BCP, one-hot and Dirichlet labels at step sizes up to near the limit of stability.

    A second set of cells holds the floor: at each nu of Dirichlet labels, the largest step size whose predicted floor
    stays under a tolerance. Every cell runs as long as its own step size needs to become stationary.

    Attributes:
        problem: the generator of the pool; its own parameters are the keys problem.NAME.
        student: "auto" takes the student for which the problem's BCP is realisable.
        ridge: lambda, absolute; by default `ridge_fraction` of L, the smoothness of the loss on the pool.
        ridge_fraction: see `ridge`.
        ridge_kind: "centred" or "none".
        step_sizes: number of step sizes, log-spaced from `lowest` to `highest`; T1's limits 1 / (2 L_max) and
            1 / L_max come on top.
        lowest: smallest step size, as a fraction of 1 / (2 L_max).
        highest: largest step size, as a fraction of the stability limit, which is exact for least squares and that
            of the dynamics linearised at the optimum otherwise. Above 0.8 sample means mislead: see docs/theory.md.
        nu_fractions: levels of Dirichlet labels in the sweep, as fractions of one-hot's nu.
        tolerance: floor that the second set of cells holds; by default one-hot's predicted floor at 1 / (2 L_max).
        tolerance_levels: number of levels in the second set, log-spaced between the next two; 0: none.
        nu_low, nu_high: as fractions of one-hot's nu.
        settle: relaxation times 1 / (alpha h) before the tail, h the smallest curvature at the optimum.
        window: relaxation times in the tail.
        batch_size, dtype: see SGD.
        replicas: independent runs of each cell.
        seed: draws the pool and keys all random numbers.
        engine, device: what runs it; auto takes the fastest engine that can.
    """

    name: ClassVar[str] = "step-size-sweep"
    summary: ClassVar[str] = "error floor against step size, up to the limit of stability; step sizes for a tolerance"
    figure: ClassVar[str] = "step-size-sweep"

    problem: Problem = field(default_factory=GaussianMixture)
    student: Literal["auto", "softmax-regression", "least-squares"] = "auto"
    ridge: float | None = None
    ridge_fraction: float = 0.1
    ridge_kind: Literal["centred", "none"] = "centred"
    step_sizes: int = 8
    lowest: float = 0.5
    highest: float = 0.8
    nu_fractions: tuple[float, ...] = (0.3, 0.05)
    tolerance: float | None = None
    tolerance_levels: int = 6
    nu_low: float = 0.02
    nu_high: float = 0.8
    settle: float = 12.0
    window: float = 30.0
    batch_size: int = 1
    dtype: Literal["float32", "float64"] = "float32"
    replicas: int = 96
    seed: int = 0
    engine: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        require_count("step_sizes", self.step_sizes, least=2)
        require_count("tolerance_levels", self.tolerance_levels, least=0)
        require_count("batch_size", self.batch_size)
        require_between("highest", self.highest, 0, 1, "()")
        require_between("nu_low", self.nu_low, 0, 1, "()")
        require_between("nu_high", self.nu_high, self.nu_low, 1, "[)")
        for fraction in self.nu_fractions:
            require_between("nu_fractions", fraction, 0, 1, "()")
        for key in ("lowest", "settle", "window", "ridge_fraction"):
            require_positive(key, getattr(self, key))
        for key in ("ridge", "tolerance"):
            if getattr(self, key) is not None:
                require_positive(key, getattr(self, key))

    def quick(self) -> Self:
        sizes = {"step_sizes": 3, "replicas": 16, "tolerance_levels": 2, "window": 4.0}
        shorter = {key: min(size, getattr(self, key)) for key, size in sizes.items()}
        return replace(self, **shorter, lowest=max(1.0, self.lowest))

    def cells(self) -> tuple[Cell, ...]:
        population = self.problem.population(self.seed)
        student = student_with_ridge(
            self.problem, population, self.student, self.ridge, self.ridge_fraction, self.ridge_kind
        )
        optimum = minimiser(student, population)
        rate = slowest_rate(student, population, optimum)
        pairs = [
            (supervision, step_size)
            for step_size in self._step_sizes(student, population)
            for supervision in self._supervisions(population)
        ]
        pairs += self._at_tolerance(student, population)
        return tuple(self._cell(student, supervision, step_size, rate) for supervision, step_size in pairs)

    def _cell(self, student: LinearStudent, supervision: Supervision, step_size: float, rate: float) -> Cell:
        steps, tail_fraction = stationary_length(step_size, rate, self.settle, self.window)
        return Cell(
            problem=self.problem,
            student=student,
            supervision=supervision,
            step_size=step_size,
            sgd=SGD(steps, self.batch_size, dtype=self.dtype),
            recording=Recording(checkpoints=12, tail_fraction=tail_fraction),
            replicas=self.replicas,
            seed=self.seed,
            engine=self.engine,
            device=self.device,
        )

    def _step_sizes(self, student: LinearStudent, population: Population) -> list[float]:
        marks = [step_size_within_t1(student, population, self.batch_size, fraction) for fraction in (1.0, 2.0)]
        moments = linearised_moments(student, population, minimiser(student, population), self.batch_size)
        low, high = self.lowest * marks[0], self.highest * moments.stability_limit
        require(low < high, "lowest", self.lowest, f"below {high / marks[0]:.4g}, where `highest` is")
        spaced = np.geomspace(low, high, self.step_sizes).tolist()
        # A step size of the grid within a tenth of a mark gives way to the mark.
        apart = [alpha for alpha in spaced if all(abs(np.log(alpha / mark)) > 0.1 for mark in marks)]
        return sorted([*apart, *(mark for mark in marks if mark < moments.stability_limit)])

    def _supervisions(self, population: Population) -> list[Supervision]:
        ceiling = OneHot().nu(population.p)
        levels = [Dirichlet().with_nu(fraction * ceiling, population.p) for fraction in self.nu_fractions]
        return [Exact(), OneHot(), *levels]

    def _at_tolerance(self, student: LinearStudent, population: Population) -> list[tuple[Supervision, float]]:
        """(supervision, largest step size for the tolerance), one a level of nu."""
        if not self.tolerance_levels:
            return []
        optimum, ceiling = minimiser(student, population), OneHot().nu(population.p)
        tolerance = self.tolerance_of(student, population)
        pairs: list[tuple[Supervision, float]] = []
        for fraction in np.geomspace(self.nu_low, self.nu_high, self.tolerance_levels):
            supervision = Dirichlet().with_nu(float(fraction) * ceiling, population.p)
            found = largest_step_size(student, population, supervision, self.batch_size, tolerance, optimum)
            pairs.append((supervision, found.step_size))
        return pairs

    def tolerance_of(self, student: LinearStudent, population: Population) -> float:
        """`tolerance`, or one-hot's predicted floor at 1 / (2 L_max)."""
        if self.tolerance is not None:
            return self.tolerance
        optimum = minimiser(student, population)
        step_size = step_size_within_t1(student, population, self.batch_size, 1.0)
        moments = linearised_moments(student, population, optimum, self.batch_size)
        return moments.adjoint(step_size).variance(gradient_covariance(student, population, OneHot(), optimum))
