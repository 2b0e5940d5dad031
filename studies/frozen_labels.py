"""frozen-labels: how the noise of labels that are drawn once affects generalisation and accuracy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil
from typing import ClassVar, Literal, Self

from kdsim.config import require, require_between, require_count, require_positive
from kdsim.engines import SGD, Recording
from kdsim.problems import GaussianMixture, Problem
from kdsim.studies.common import step_size_within_t1, student_with_ridge
from kdsim.study.base import Cell, Study
from kdsim.supervision import Dirichlet, Exact, OneHot, Supervision
from kdsim.theory import constants


@dataclass(frozen=True)
class FrozenLabels(Study):
    """A data set: N pool points for each replica, each with one noisy target that stays.

    The empirical minimiser of each data set is found by Newton's method beside SGD, and theory gives its distance, its
    excess risk and its generalisation gap to first order in 1/N.

    Attributes:
        problem: the generator of the pool; its own parameters are the keys problem.NAME.
        sizes: N, sizes of the data sets; at most the pool's.
        nu_fractions: levels of Dirichlet noise, as fractions of one-hot's nu.
        ridge_fraction: the centred ridge as a fraction of L, the smoothness of the loss on the pool.
        step_size_fraction: step size as a fraction of T1's limit 1 / (2 L_max).
        relaxations: length of each run in units of 1 / (step size mu), the time in which SGD forgets its start.
        batch_size: samples a step.
        dtype: "float32" or "float64".
        replicas: data sets of each size, each with a run of its own.
        seed: draws the pool and keys all random numbers.
        engine: auto, or the name of one.
        device: cpu, cuda or cuda:N.
    """

    name: ClassVar[str] = "frozen-labels"
    summary: ClassVar[str] = (
        "generalisation and accuracy with labels drawn once, against nu and the size of the data set"
    )
    figure: ClassVar[str] = "frozen-labels"

    problem: Problem = field(default_factory=lambda: GaussianMixture(4, 4, variance=2.5, samples=4096))
    sizes: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    nu_fractions: tuple[float, ...] = (0.05, 0.2, 0.5)
    ridge_fraction: float = 0.03
    step_size_fraction: float = 0.3
    relaxations: float = 8.0
    batch_size: int = 1
    dtype: Literal["float32", "float64"] = "float32"
    replicas: int = 64
    seed: int = 0
    engine: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        require(len(self.sizes) > 0, "sizes", self.sizes, "at least one size")
        for size in self.sizes:
            require_count("sizes", size)
        for fraction in self.nu_fractions:
            require_between("nu_fractions", fraction, 0, 1, "()")
        require_positive("ridge_fraction", self.ridge_fraction)
        require_positive("step_size_fraction", self.step_size_fraction)
        require_positive("relaxations", self.relaxations)
        require_count("batch_size", self.batch_size)

    def quick(self) -> Self:
        return replace(
            self,
            sizes=self.sizes[::2],
            relaxations=min(self.relaxations, 6.0),
            replicas=min(self.replicas, 16),
            nu_fractions=self.nu_fractions[1:2],
        )

    def cells(self) -> tuple[Cell, ...]:
        population = self.problem.population(self.seed)
        for size in self.sizes:
            require_between("sizes", size, 1, population.size)
        student = student_with_ridge(self.problem, population, "auto", None, self.ridge_fraction, "centred")
        step_size = step_size_within_t1(student, population, self.batch_size, self.step_size_fraction)
        steps = ceil(self.relaxations / (step_size * constants(student, population).mu))
        largest = OneHot().nu(population.p)
        noisy = [Dirichlet().with_nu(fraction * largest, population.p) for fraction in self.nu_fractions]
        supervisions: list[Supervision] = [Exact(), *noisy, OneHot()]
        first = Cell(
            problem=self.problem,
            student=student,
            supervision=Exact(),
            step_size=step_size,
            recording=Recording(checkpoints=9, tail_fraction=0.4),
            replicas=self.replicas,
            seed=self.seed,
            engine=self.engine,
            device=self.device,
        )
        data = [SGD(steps, self.batch_size, "replacement", "frozen", self.dtype, size) for size in self.sizes]
        fresh = SGD(steps, self.batch_size, "replacement", "fresh", self.dtype)
        return tuple(replace(first, supervision=s, sgd=sgd) for sgd in (*data, fresh) for s in supervisions)
