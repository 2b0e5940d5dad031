"""teacher-kinds: kinds of teachers x pairs of networks x recipes, and what their students make of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from kdsim.config import ConfigError, by_name, choose, require_between, require_count, require_positive
from kdsim.data import ImageSource, KnownImages
from kdsim.losses import BayesianKD, CrossEntropy, DistillationLoss, LabelCrossEntropy
from kdsim.problems import Images
from kdsim.studies.cifar_distillation import networks_of
from kdsim.study.base import Study
from kdsim.supervision import Exact, OneHot
from kdsim.teachers.kinds import KINDS, teacher_of
from kdsim.trainer import ImageNetwork, StudentTrainer, Teacher
from kdsim.training import RECIPES, Recipe
from kdsim.training.precision import Precision

SMALL = Images(
    classes=10,
    samples=3_000,
    validation_samples=1_000,
    test_samples=2_000,
    dimension=3,
    entropy=0.7,
    clutter=0,
    shift=2.0,
)


@dataclass(frozen=True)
class TeacherStudy(Study):
    """What the studies of teachers share: a base training for each pair and recipe, teachers on it, their students.

    Teachers are trained once and found by their digest, in every study of one results folder.

    Attributes:
        pairs: "teacher to student" each, names of networks.
        kinds: of teachers, see `kdsim.teachers.kinds`.
        data: the images.
        loss: of the students.
        recipes: names of recipes, of teachers and students alike.
        precision: of their convolutions, in place of the recipes': auto (float32 on a CPU, bfloat16 on cuda), float32,
            bfloat16.
        epochs, teacher_epochs: in place of the recipes'.
        samples: posterior samples of a teacher that draws them, and networks of an ensemble.
        replicas: independent teachers of each kind, and students: student r learns from teacher r.
        evaluations: number of evaluations on the validation images; convergence noise needs some in every stretch of
            constant step size within the window.
        window: last part of the run over which convergence noise is taken.
        seed: draws and splits the data, and keys all randomness.
        device: cpu, cuda or cuda:N.
    """

    pairs: tuple[str, ...] = ("resnet20 to resnet8",)
    kinds: tuple[str, ...] = ("deterministic", "laplace", "ivon")
    data: ImageSource = field(default_factory=lambda: KnownImages(SMALL))
    loss: DistillationLoss = field(default_factory=BayesianKD)
    recipes: tuple[str, ...] = ("crd",)
    precision: Precision = "auto"
    epochs: float = 10.0
    teacher_epochs: float = 10.0
    samples: int = 4
    replicas: int = 6
    evaluations: int | None = 30
    window: float = 1 / 3
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        require_positive("epochs", self.epochs)
        require_positive("teacher_epochs", self.teacher_epochs)
        require_count("samples", self.samples)
        require_count("replicas", self.replicas, least=2)
        require_between("window", self.window, 0, 1, "(]")
        for kind in self.kinds:
            choose("kind of teacher", kind, KINDS)
        for name in self.recipes:
            choose("recipe", name, by_name(RECIPES))
        for pair in self.pairs:
            networks_of(pair)
        if not (self.pairs and self.kinds and self.recipes):
            raise ConfigError("pairs, kinds and recipes must not be empty")

    def quick(self) -> Self:
        small = replace(SMALL, samples=500, validation_samples=200, test_samples=200)
        data = KnownImages(small) if isinstance(self.data, KnownImages) else self.data
        return replace(
            self, pairs=("resnet8 to resnet8",), kinds=self.kinds[:2], data=data, recipes=self.recipes[:1], epochs=2.0,
            teacher_epochs=2.0, samples=2, replicas=2,
        )  # fmt: skip

    def trainings(self) -> Iterator[tuple[StudentTrainer, StudentTrainer]]:
        """(base training of the teachers, student on labels alone) of each recipe and pair."""
        for name in self.recipes:
            recipe: Recipe = by_name(RECIPES)[name](precision=self.precision)
            for pair in self.pairs:
                teacher, student = networks_of(pair)
                base = StudentTrainer(
                    ImageNetwork(teacher),
                    self.data,
                    OneHot(),
                    LabelCrossEntropy(),  # all teachers see one data set: the labels of the images
                    recipe=replace(recipe, epochs=self.teacher_epochs),
                    evaluations=self.evaluations,
                    window=self.window,
                    replicas=self.replicas,
                    seed=self.seed,
                    device=self.device,
                )
                yield base, replace(base, student=ImageNetwork(student), recipe=replace(recipe, epochs=self.epochs))


@dataclass(frozen=True)
class TeacherKinds(TeacherStudy):
    """Teachers of several kinds and the students they make, beside students of one-hot labels and of the exact BCP.

    The paper's pairs are "resnet50 to wrn-16-2", "resnet50 to vgg8" and "vgg13 to wrn-40-1" on CIFAR-100 with the
    loss bayesian-kd. The exact BCP is taught only where it is known.

    Source: Morad, Shlezinger, Eldar, ICLR 2026 (arXiv 2601.01484), the table of teachers.
    """

    name: ClassVar[str] = "teacher-kinds"
    summary: ClassVar[str] = "deterministic and Bayesian teachers: their quality, their students' accuracy and noise"
    figure: ClassVar[str] = "teacher-kinds"

    recipes: tuple[str, ...] = ("crd", "bayesian-kd")

    def cells(self) -> tuple[StudentTrainer | Teacher, ...]:
        cells: list[StudentTrainer | Teacher] = []
        for base, student in self.trainings():
            cells.append(student)
            for kind in self.kinds:
                teacher = teacher_of(kind, base, self.samples)
                cells += [teacher, replace(student, supervision=teacher, loss=self.loss)]
            if self.data.train_truth != "labels":
                cells.append(replace(student, supervision=Exact(), loss=CrossEntropy()))
        return tuple(cells)
