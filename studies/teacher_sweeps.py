"""Studies that change one setting of teachers or students: losses, few-shot, temperature, samples, ablations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from kdsim.config import ConfigError, choose, require_between, require_count, require_positive
from kdsim.data import Cifar10, Cifar100, ImageSource, KnownImages
from kdsim.engines.variational import IVON
from kdsim.losses import DIST, DKD, WTTM, BayesianKD, DistillationLoss
from kdsim.studies.teacher_kinds import TeacherStudy
from kdsim.teachers.kinds import IVON_IMAGES, teacher_of
from kdsim.teachers.laplace import Laplace
from kdsim.trainer import StudentTrainer, Teacher

LOSSES: dict[str, DistillationLoss] = {"bayesian-kd": BayesianKD(), "dkd": DKD(), "dist": DIST(), "wttm": WTTM()}


@dataclass(frozen=True)
class BayesianLosses(TeacherStudy):
    """Distillation losses with each kind of teacher.

    Attributes:
        losses: names: bayesian-kd, dkd, dist, wttm, with their classes' defaults.

    Source: Morad, Shlezinger, Eldar, ICLR 2026 (arXiv 2601.01484), the study of losses.
    """

    name: ClassVar[str] = "bayesian-losses"
    summary: ClassVar[str] = "KD, DKD, DIST and WTTM with deterministic and Bayesian teachers"
    figure: ClassVar[str] = "teacher-kinds"

    losses: tuple[str, ...] = ("bayesian-kd", "dkd", "dist", "wttm")

    def cells(self) -> tuple[StudentTrainer | Teacher, ...]:
        losses = [choose("loss", name, LOSSES) for name in self.losses]
        return tuple(_taught(self, losses))


@dataclass(frozen=True)
class Temperature(TeacherStudy):
    """Temperatures of teacher and student in bayesian-kd.

    Attributes:
        temperatures: T of the teacher.
        student_temperatures: S of the student.

    Source: Morad, Shlezinger, Eldar, ICLR 2026 (arXiv 2601.01484): T in 1, 2, 4 and S in 1, 2.
    """

    name: ClassVar[str] = "temperature"
    summary: ClassVar[str] = "temperatures of teacher and student under bayesian-kd"
    figure: ClassVar[str] = "teacher-kinds"

    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0)
    student_temperatures: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        for value in (*self.temperatures, *self.student_temperatures):
            require_positive("temperature", value)

    def cells(self) -> tuple[StudentTrainer | Teacher, ...]:
        losses: list[DistillationLoss] = [
            BayesianKD(teacher_temperature=teacher, student_temperature=student)
            for student in self.student_temperatures
            for teacher in self.temperatures
        ]
        return tuple(_taught(self, losses))


@dataclass(frozen=True)
class PosteriorSamples(TeacherStudy):
    """Number of posterior samples of a teacher that draws them.

    Attributes:
        counts: numbers of samples S; `samples` is not used.

    Source: Morad, Shlezinger, Eldar, ICLR 2026 (arXiv 2601.01484): 1 to 12.
    """

    name: ClassVar[str] = "posterior-samples"
    summary: ClassVar[str] = "students of teachers with 1 to 12 posterior samples"
    figure: ClassVar[str] = "teacher-kinds"

    kinds: tuple[str, ...] = ("ivon",)
    counts: tuple[int, ...] = (1, 2, 4, 8, 12)

    def __post_init__(self) -> None:
        super().__post_init__()
        for count in self.counts:
            require_count("counts", count)

    def cells(self) -> tuple[StudentTrainer | Teacher, ...]:
        cells: list[StudentTrainer | Teacher] = []
        for base, student in self.trainings():
            for kind in self.kinds:
                for count in self.counts:
                    teacher = teacher_of(kind, base, count)
                    cells += [teacher, replace(student, supervision=teacher, loss=self.loss)]
        return tuple(cells)


@dataclass(frozen=True)
class FewShot(TeacherStudy):
    """Shares of the training images that teacher and student see.

    Attributes:
        fractions: shares of every class, in (0, 1].

    Source: Morad, Shlezinger, Eldar, ICLR 2026 (arXiv 2601.01484): 5, 10, 15, 25, 35 and 50 %.
    """

    name: ClassVar[str] = "few-shot"
    summary: ClassVar[str] = "teachers and students on 5 to 50 % of the training images"
    figure: ClassVar[str] = "teacher-kinds"

    fractions: tuple[float, ...] = (0.05, 0.10, 0.15, 0.25, 0.35, 0.50)

    def __post_init__(self) -> None:
        super().__post_init__()
        for fraction in self.fractions:
            require_between("fractions", fraction, 0, 1, "(]")

    def cells(self) -> tuple[StudentTrainer | Teacher, ...]:
        cells: list[StudentTrainer | Teacher] = []
        for fraction in self.fractions:
            part = replace(self, data=part_of(self.data, fraction))
            for base, student in part.trainings():
                cells.append(student)
                for kind in self.kinds:
                    teacher = teacher_of(kind, base, self.samples)
                    cells += [teacher, replace(student, supervision=teacher, loss=self.loss)]
        return tuple(cells)


@dataclass(frozen=True)
class BNNAblation(TeacherStudy):
    """What a Bayesian teacher is made of: the prior and the first Hessian of IVON, the structure of Laplace.

    `kinds` is not used.

    Attributes:
        hess_inits: first Hessians of IVON on 50,000 images; on others they are scaled, see `IVON.hess_init_ess`.
        weight_decays: delta of IVON, its prior's precision over the number of images.
        structures: of Laplace's curvature.
    """

    name: ClassVar[str] = "bnn-ablation"
    summary: ClassVar[str] = "prior and first Hessian of IVON, structure of Laplace: teachers and students"
    figure: ClassVar[str] = "teacher-kinds"

    hess_inits: tuple[float, ...] = (0.1, 0.5, 2.0)
    weight_decays: tuple[float, ...] = (2e-4, 2e-3)
    structures: tuple[str, ...] = ("kron", "full", "diag")

    def cells(self) -> tuple[StudentTrainer | Teacher, ...]:
        cells: list[StudentTrainer | Teacher] = []
        for base, student in self.trainings():
            ivon = teacher_of("ivon", base, self.samples)
            structures: tuple[Any, ...] = self.structures  # Laplace refuses others
            variants: list[Teacher] = [Laplace(base, structure=structure) for structure in structures]
            for hess_init in self.hess_inits:
                for weight_decay in self.weight_decays:
                    optimiser = IVON(hess_init=hess_init, hess_init_ess=IVON_IMAGES, weight_decay=weight_decay)
                    training = replace(ivon.training, recipe=replace(ivon.training.recipe, optimiser=optimiser))
                    variants.append(replace(ivon, training=training))
            for teacher in variants:
                cells += [teacher, replace(student, supervision=teacher, loss=self.loss)]
        return tuple(cells)


def part_of(data: ImageSource, fraction: float) -> ImageSource:
    """The source with this share of its training images.

    Raises:
        ConfigError: the source has no such part.
    """
    if isinstance(data, (Cifar10, Cifar100, KnownImages)):
        return replace(data, few_shot=fraction)
    raise ConfigError(f"data = {data.name!r} has no few-shot part: must be known-images, cifar10 or cifar100")


def _taught(study: TeacherStudy, losses: list[DistillationLoss]) -> Iterator[StudentTrainer | Teacher]:
    """Teachers of each kind, and their students under each loss."""
    for base, student in study.trainings():
        for kind in study.kinds:
            teacher = teacher_of(kind, base, study.samples)
            yield teacher
            for loss in losses:
                yield replace(student, supervision=teacher, loss=loss)
