"""A study for the ledger: teachers and students that are perceptrons on points whose class probabilities are known.

The studies of teachers of images cost minutes a replica. Here all replicas of a training are one program, so that what
is claimed of teachers can be tested with tens of independent ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from kdsim.config import choose, require, require_between, require_count, require_positive
from kdsim.data import KnownPoints
from kdsim.engines.variational import IVON
from kdsim.losses import BayesianKD, LabelCrossEntropy
from kdsim.problems import GaussianMixture
from kdsim.study.base import Study
from kdsim.supervision import OneHot
from kdsim.teachers.kinds import KINDS, teacher_of
from kdsim.trainer import PointNetwork, StudentTrainer, Teacher
from kdsim.training import Recipe


@dataclass(frozen=True)
class PointTeachers(Study):
    """Deterministic and Bayesian teachers on labels of few points, and students that hear their probabilities alone.

    Attributes:
        problem: the points; BCPs are exact.
        sizes: numbers of training points, of teacher and student alike.
        held_out: points for validation; for the test `test_samples`.
        kinds: of teachers, see `kdsim.teachers.kinds`; the first is what the others are compared with.
        temperatures: of the teacher under bayesian-kd; 1 is taught at all sizes, others at the largest.
        network: of teachers and students, see `PointNetwork`.
        recipe: of teachers and students alike.
        samples: posterior samples of a teacher that draws them.
        prior_precision: of IVON, N delta: that of its published setting, 2e-4 on 50,000 images, at every size. With
            delta itself left as published the prior would be up to 250 times weaker.
        beta2: of IVON, whose posterior forgets its first width within 1 / (1 - beta2) steps: about the length of these
            runs, where the published 0.99999 is that of runs of 100,000. Both were chosen on validation points.
        evaluations: number of evaluations on the validation points.
        replicas: independent teachers, and students: student r learns from teacher r.
        seed: draws the points and keys all randomness.
    """

    name: ClassVar[str] = "point-teachers"
    summary: ClassVar[str] = "deterministic and Bayesian teachers of perceptrons on points with known BCPs"
    figure: ClassVar[str] = "teacher-kinds"

    problem: GaussianMixture = field(default_factory=lambda: GaussianMixture(dimension=20, variance=6.0))
    sizes: tuple[int, ...] = (200, 1_000, 4_000)
    held_out: int = 1_000
    test_samples: int = 4_000
    kinds: tuple[str, ...] = ("deterministic", "laplace", "ivon")
    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0)
    network: str = "mlp"
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=40.0, batch_size=50, step_size=0.1))
    samples: int = 4
    prior_precision: float = 10.0
    beta2: float = 0.999
    evaluations: int = 40
    replicas: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        require(len(self.sizes) > 0, "sizes", self.sizes, "at least one")
        for size in self.sizes:
            require_count("sizes", size)
        for kind in self.kinds:
            choose("kind of teacher", kind, KINDS)
        for temperature in self.temperatures:
            require_positive("temperatures", temperature)
        require_positive("prior_precision", self.prior_precision)
        require_between("beta2", self.beta2, 0, 1, "[)")
        require_count("replicas", self.replicas, least=2)

    def quick(self) -> Self:
        return replace(self, sizes=self.sizes[:2], temperatures=self.temperatures[::2], replicas=min(self.replicas, 16))

    def cells(self) -> tuple[StudentTrainer | Teacher, ...]:
        return tuple(self._cells())

    def _cells(self) -> Iterator[StudentTrainer | Teacher]:
        for size in self.sizes:
            base = self._training(size)
            yield base
            for kind in self.kinds:
                teacher = self._teacher(kind, base, size)
                yield teacher
                for temperature in self.temperatures:
                    if temperature == 1 or size == max(self.sizes):
                        loss = BayesianKD(teacher_temperature=temperature)
                        yield replace(base, supervision=teacher, loss=loss)

    def _teacher(self, kind: str, base: StudentTrainer, size: int) -> Teacher:
        teacher = teacher_of(kind, base, self.samples)
        if kind != "ivon":
            return teacher
        optimiser = IVON(weight_decay=self.prior_precision / size, beta2=self.beta2)
        training = replace(teacher.training, recipe=replace(teacher.training.recipe, optimiser=optimiser))
        return replace(teacher, training=training)

    def _training(self, size: int) -> StudentTrainer:
        """A student of the labels, which is also the training of the teachers."""
        problem = replace(self.problem, samples=size + self.held_out + self.test_samples)
        return StudentTrainer(
            PointNetwork(self.network),
            KnownPoints(problem, self.held_out, self.test_samples),
            OneHot(),
            LabelCrossEntropy(),  # all teachers see one data set: the labels of the points
            recipe=self.recipe,
            evaluations=self.evaluations,
            replicas=self.replicas,
            seed=self.seed,
        )
