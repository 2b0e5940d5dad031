"""noise-sweep: error floor and fluctuation against the noise level of the supervision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import numpy as np

from kdsim.config import by_name, choose, require, require_between, require_count, require_positive
from kdsim.engines import SGD, Recording
from kdsim.population import Population
from kdsim.problems import GaussianMixture, Problem
from kdsim.studies.common import step_size_within_t1, student_with_ridge
from kdsim.study.base import Cell, Study
from kdsim.supervision import SUPERVISIONS, Exact, Independent, OneHot, Supervision


@dataclass(frozen=True)
class NoiseSweep(Study):
    """Exact BCP, one-hot labels, and unbiased noise families at levels log-spaced in nu.

    Attributes:
        problem: the generator of the pool; its own parameters are the keys problem.NAME.
        student: "auto" takes the student for which the problem's BCP is realisable.
        ridge: lambda, absolute; by default `ridge_fraction` of L, the smoothness of the loss on the pool.
        ridge_fraction: see `ridge`.
        ridge_kind: "centred", "ordinary" or "none".
        step_size: alpha, absolute; by default `step_size_fraction` of T1's limit 1 / (2 L_max).
        step_size_fraction: see `step_size`.
        families: names of unbiased families that have a level.
        levels: number of levels of each family.
        nu_low, nu_high: smallest and largest level, as fractions of the largest nu that the family reaches on
            the problem (of one-hot's nu for a family without a largest).
        nu: levels in absolute nu, instead of the three keys above.
        steps: SGD steps of each run.
        batch_size: samples a step.
        index: "replacement" (each visit uniform over the pool) or "permutation" (epochs without replacement).
        targets: "fresh" (drawn at each visit) or "frozen" (drawn once per pool point and replica).
        dtype: "float32" or "float64".
        checkpoints: number of points of the learning curve, about.
        tail_fraction: last part of the run, over which floors and fluctuations are averaged.
        replicas: independent runs of each cell.
        seed: draws the pool and keys all random numbers.
        engine: auto, or the name of one.
        device: cpu, cuda or cuda:N.
    """

    name: ClassVar[str] = "noise-sweep"
    summary: ClassVar[str] = "error floor and fluctuation against the noise level nu of the supervision"
    figure: ClassVar[str] = "noise-sweep"
    implementations: ClassVar[tuple[type[Supervision], ...]] = SUPERVISIONS
    """What `families` may name. A study file that subclasses NoiseSweep adds its own noise models here."""

    problem: Problem = field(default_factory=GaussianMixture)
    student: Literal["auto", "softmax-regression", "least-squares"] = "auto"
    ridge: float | None = None
    ridge_fraction: float = 0.1
    ridge_kind: Literal["centred", "ordinary", "none"] = "centred"
    step_size: float | None = None
    step_size_fraction: float = 0.6
    families: tuple[str, ...] = ("dirichlet", "annotators", "two-point", "independent")
    levels: int = 8
    nu_low: float = 0.02
    nu_high: float = 0.9
    nu: tuple[float, ...] | None = None
    steps: int = 20_000
    batch_size: int = 1
    index: Literal["replacement", "permutation"] = "replacement"
    targets: Literal["fresh", "frozen"] = "fresh"
    dtype: Literal["float32", "float64"] = "float32"
    checkpoints: int = 36
    tail_fraction: float = 0.4
    replicas: int = 64
    seed: int = 0
    engine: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        require_count("levels", self.levels)
        require_count("batch_size", self.batch_size)
        require_between("nu_low", self.nu_low, 0, 1, "(]")
        require_between("nu_high", self.nu_high, self.nu_low, 1)
        require(self.ridge_kind != "none" or self.ridge is None, "ridge", self.ridge, "absent with ridge_kind none")
        for key in ("step_size", "ridge", "step_size_fraction", "ridge_fraction"):
            if getattr(self, key) is not None:
                require_positive(key, getattr(self, key))
        require(self.nu is None or len(self.nu) > 0, "nu", self.nu, "at least one level")
        for family in self.families:
            self._family(family)

    def quick(self) -> Self:
        sizes = {"levels": 4, "steps": 8_000, "replicas": 16, "checkpoints": 24}
        return replace(self, **{key: min(size, getattr(self, key)) for key, size in sizes.items()})

    def cells(self) -> tuple[Cell, ...]:
        population = self.problem.population(self.seed)
        student = student_with_ridge(
            self.problem, population, self.student, self.ridge, self.ridge_fraction, self.ridge_kind
        )
        step_size = self.step_size
        if step_size is None:
            step_size = step_size_within_t1(student, population, self.batch_size, self.step_size_fraction)
        first = Cell(
            problem=self.problem,
            student=student,
            supervision=Exact(),
            step_size=step_size,
            sgd=SGD(self.steps, self.batch_size, self.index, self.targets, self.dtype),
            recording=Recording(self.checkpoints, self.tail_fraction),
            replicas=self.replicas,
            seed=self.seed,
            engine=self.engine,
            device=self.device,
        )
        return tuple(replace(first, supervision=supervision) for supervision in self._supervisions(population))

    def _supervisions(self, population: Population) -> list[Supervision]:
        supervisions: list[Supervision] = [Exact(), OneHot()]
        for name in self.families:
            family = self._family(name)()
            levels: Iterable[float]
            if self.nu is not None:
                levels = self.nu
            else:
                ceiling = OneHot() if isinstance(family, Independent) else family
                levels = np.geomspace(self.nu_low, self.nu_high, self.levels) * ceiling.largest_nu(population.p)
            supervisions.extend(family.with_nu(float(nu), population.p) for nu in levels)
        return supervisions

    def _family(self, name: str) -> type[Supervision]:
        return choose("family", name, by_name(s for s in self.implementations if s.unbiased and s.level_field))
