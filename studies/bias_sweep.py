"""bias-sweep: the floor of biased supervision, taken apart into bias, cross term and variance."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from kdsim.config import require, require_count, require_positive
from kdsim.engines import SGD, Recording
from kdsim.problems import GaussianMixture, Problem
from kdsim.studies.common import step_size_within_t1, student_with_ridge
from kdsim.study.base import Cell, Study
from kdsim.supervision import Confusion, Exact, LabelSmoothing, LogitGaussian, OneHot, Supervision, Temperature


@dataclass(frozen=True)
class BiasSweep(Study):
    """Biased supervisions at several levels, between exact BCP and one-hot labels, which are unbiased.

    SGD aims at theta_m, the optimum at the mean target, and floor = |theta_m - theta*|^2 + cross term + variance.
    Each part is predicted to first order and measured.

    Attributes:
        problem: the generator of the pool; a softmax regression is its student. Its own parameters are problem.NAME.
        ridge: lambda, absolute; by default `ridge_fraction` of L, the smoothness of the loss on the pool. Centred: it
            pulls towards theta*, and so makes every bias smaller than without it.
        ridge_fraction: see `ridge`.
        step_size: alpha, absolute; by default `step_size_fraction` of T1's limit 1 / (2 L_max).
        step_size_fraction: see `step_size`.
        temperatures: T, sharper than the BCP below 1, flatter above.
        smoothings: epsilon of label smoothing.
        scales: standard deviations of logit-Gaussian noise.
        confusions: rates of cyclic confusion, as A p and as labels drawn from A p. (Symmetric confusion at a rate r is
            label smoothing with epsilon = r K / (K - 1).)
        steps, batch_size, dtype: see SGD.
        checkpoints, tail_fraction: see Recording.
        replicas: independent runs of each cell.
        seed: draws the pool and keys all random numbers.
        engine, device: what runs it; auto takes the fastest engine that can.
    """

    name: ClassVar[str] = "bias-sweep"
    summary: ClassVar[str] = "floor of biased supervision, split into bias, cross term and variance"
    figure: ClassVar[str] = "bias-sweep"

    problem: Problem = field(default_factory=lambda: GaussianMixture(4, 5, variance=1.0, samples=1024))
    ridge: float | None = None
    ridge_fraction: float = 0.3
    step_size: float | None = None
    step_size_fraction: float = 0.8
    temperatures: tuple[float, ...] = (0.25, 0.5, 0.7, 1.5, 2.0, 4.0)
    smoothings: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.7)
    scales: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    confusions: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4)
    steps: int = 20_000
    batch_size: int = 1
    dtype: Literal["float32", "float64"] = "float32"
    checkpoints: int = 36
    tail_fraction: float = 0.8
    replicas: int = 128
    seed: int = 0
    engine: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        require_count("batch_size", self.batch_size)
        for key in ("step_size", "ridge", "step_size_fraction", "ridge_fraction"):
            if getattr(self, key) is not None:
                require_positive(key, getattr(self, key))
        levels = (self.temperatures, self.smoothings, self.scales, self.confusions)
        require(any(levels), "temperatures, smoothings, scales, confusions", levels, "at least one level")

    def quick(self) -> Self:
        few = {key: getattr(self, key)[1:4:2] for key in ("temperatures", "smoothings", "scales", "confusions")}
        sizes = {"steps": 8_000, "replicas": 16, "checkpoints": 24}
        return replace(self, **few, **{key: min(size, getattr(self, key)) for key, size in sizes.items()})

    def cells(self) -> tuple[Cell, ...]:
        population = self.problem.population(self.seed)
        student = student_with_ridge(
            self.problem, population, "softmax-regression", self.ridge, self.ridge_fraction, "centred"
        )
        step_size = self.step_size
        if step_size is None:
            step_size = step_size_within_t1(student, population, self.batch_size, self.step_size_fraction)
        first = Cell(
            problem=self.problem,
            student=student,
            supervision=Exact(),
            step_size=step_size,
            sgd=SGD(self.steps, self.batch_size, dtype=self.dtype),
            recording=Recording(self.checkpoints, self.tail_fraction, mean_error=True),
            replicas=self.replicas,
            seed=self.seed,
            engine=self.engine,
            device=self.device,
        )
        return tuple(replace(first, supervision=supervision) for supervision in self._supervisions())

    def _supervisions(self) -> list[Supervision]:
        return [
            Exact(),
            OneHot(),
            *(Temperature(level) for level in self.temperatures),
            *(LabelSmoothing(level) for level in self.smoothings),
            *(LogitGaussian(level) for level in self.scales),
            *(Confusion(level, "cyclic") for level in self.confusions),
            *(Confusion(level, "cyclic", labels=True) for level in self.confusions),
        ]
