"""dimension-sweep: the floor against classes, dimension, entropy of the BCP and conditioning of the features."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, log
from typing import ClassVar, Self

from kdsim.config import require, require_between, require_count, require_positive
from kdsim.engines import SGD, Recording
from kdsim.problems import SoftmaxLinear
from kdsim.studies.common import step_size_within_t1, student_with_ridge
from kdsim.study.base import Cell, Study
from kdsim.supervision import Annotators, OneHot
from kdsim.theory import constants


@dataclass(frozen=True)
class DimensionSweep(Study):
    """One quantity of a softmax-linear problem at a time, the others at their base values.

    Attributes:
        problem: the base problem, whose own parameters are the keys problem.NAME.
        classes: values of K.
        dimension: values of d, without the bias.
        entropy: values of the mean entropy of the BCP, as fractions of log K.
        conditioning: values of the ratio of largest to smallest eigenvalue of the feature covariance.
        annotators: supervision beside one-hot: the mean of so many labels.
        ridge_fraction: the centred ridge as a fraction of L, the smoothness of the loss on the pool.
        step_size_fraction: step size as a fraction of T1's limit 1 / (2 L_max).
        relaxations: length of each run in units of 1 / (step size mu), the time in which SGD forgets its start.
        batch_size: samples a step.
        dtype: "float32" or "float64".
        replicas: independent runs of each cell.
        seed: draws the pools and keys all random numbers.
        engine: auto, or the name of one.
        device: cpu, cuda or cuda:N.
    """

    name: ClassVar[str] = "dimension-sweep"
    summary: ClassVar[str] = "error floor against classes, dimension, entropy of the BCP and conditioning"
    figure: ClassVar[str] = "dimension-sweep"

    problem: SoftmaxLinear = field(default_factory=lambda: SoftmaxLinear(samples=2_048))
    classes: tuple[int, ...] = (2, 3, 5, 8, 12)
    dimension: tuple[int, ...] = (2, 5, 10, 20, 40)
    entropy: tuple[float, ...] = (0.02, 0.1, 0.6, 0.95)
    conditioning: tuple[float, ...] = (1.0, 10.0, 100.0, 1_000.0)
    annotators: float = 4.0
    ridge_fraction: float = 0.1
    step_size_fraction: float = 0.5
    relaxations: float = 20.0
    batch_size: int = 1
    dtype: str = "float32"
    replicas: int = 64
    seed: int = 0
    engine: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for key in ("classes", "dimension", "entropy", "conditioning"):
            require(len(getattr(self, key)) > 0, key, getattr(self, key), "at least one value")
        for fraction in self.entropy:
            require_between("entropy", fraction, 0, 1, "()")
        require_between("annotators", self.annotators, 1, float("inf"), "[)")
        require_positive("ridge_fraction", self.ridge_fraction)
        require_positive("step_size_fraction", self.step_size_fraction)
        require_positive("relaxations", self.relaxations)
        require_count("batch_size", self.batch_size)

    def quick(self) -> Self:
        ends = {key: getattr(self, key)[:: max(len(getattr(self, key)) - 1, 1)] for key in _VARIED}
        return replace(self, **ends, relaxations=min(self.relaxations, 10), replicas=min(self.replicas, 16))

    def cells(self) -> tuple[Cell, ...]:
        base = replace(self.problem, entropy=self._base_entropy() * log(self.problem.classes))
        problems = dict.fromkeys(self._varied(base))  # the base problem once
        return tuple(cell for problem in problems for cell in self._cells(problem))

    def _base_entropy(self) -> float:
        """Entropy of the base problem as a fraction of log K, which stays while K varies."""
        return self.problem.entropy / log(self.problem.classes)

    def _varied(self, base: SoftmaxLinear) -> list[SoftmaxLinear]:
        return [
            *(replace(base, classes=k, entropy=self._base_entropy() * log(k)) for k in self.classes),
            *(replace(base, dimension=d) for d in self.dimension),
            *(replace(base, entropy=fraction * log(base.classes)) for fraction in self.entropy),
            *(replace(base, conditioning=ratio) for ratio in self.conditioning),
        ]

    def _cells(self, problem: SoftmaxLinear) -> list[Cell]:
        population = problem.population(self.seed)
        student = student_with_ridge(problem, population, "auto", None, self.ridge_fraction, "centred")
        step_size = step_size_within_t1(student, population, self.batch_size, self.step_size_fraction)
        steps = ceil(self.relaxations / (step_size * constants(student, population).mu))
        return [
            Cell(
                problem=problem,
                student=student,
                supervision=supervision,
                step_size=step_size,
                sgd=SGD(steps, self.batch_size, dtype=self.dtype),  # type: ignore[arg-type]  # SGD refuses others
                recording=Recording(checkpoints=9, tail_fraction=0.4),
                replicas=self.replicas,
                seed=self.seed,
                engine=self.engine,
                device=self.device,
            )
            for supervision in (OneHot(), Annotators(self.annotators))
        ]


_VARIED = ("classes", "dimension", "entropy", "conditioning")
