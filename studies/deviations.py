"""deviations: where and how students deviate from their teachers, from eigendirections to networks of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from kdsim.config import ConfigError, choose, require, require_count, require_positive
from kdsim.data import ImageSource, KnownImages, KnownPoints, PointSource
from kdsim.losses import CrossEntropy, LabelCrossEntropy, Switched
from kdsim.problems import GaussianMixture, Images
from kdsim.studies.cifar_distillation import networks_of
from kdsim.study.base import Computation, Study
from kdsim.study.eigen_paths import EigenPaths
from kdsim.supervision import Dirichlet, Exact, OneHot
from kdsim.teachers import Deterministic
from kdsim.teachers.other_start import OtherStart
from kdsim.trainer import ImageNetwork, PointNetwork, StudentTrainer, Teacher
from kdsim.training import CRD, Recipe

POINTS = KnownPoints(
    GaussianMixture(dimension=20, variance=6.0, samples=5_500), validation_samples=500, test_samples=4_000
)
IMAGES = KnownImages(
    Images(
        classes=10,
        samples=2_000,
        validation_samples=500,
        test_samples=2_000,
        dimension=3,
        entropy=0.7,
        clutter=0,
        shift=2.0,
    )
)
PARTS = ("paths", "points", "images", "switch")

Cells = Iterator[StudentTrainer | Teacher | Computation]


@dataclass(frozen=True)
class Deviations(Study):
    """Do students exaggerate their teachers? Exactly for linear students, and measured in networks by their logits.

    Four parts. `paths`: exact paths of gradient flow and descent along eigendirections. `points`: softmax regression
    and a perceptron, taught by themselves: teachers learn the exact BCP, Dirichlet estimates of it, or one-hot labels,
    and are stopped early or late; students see the teacher's probabilities alone. `images`: networks of images,
    likewise. `switch`: students of the perceptron and of the first pair that change from labels to the teacher or back
    halfway, beside one that never hears its teacher: what it deviates by is no distillation.

    Students start from other weights than their teachers and see the points in another order, unless `same_start`.

    Attributes:
        parts: which of paths, points, images, switch.
        eigen: the spectrum and times; its step size is that of flow.
        descent_step_size: of the paths of gradient descent, in units of 1/h_1, below 1.
        networks: of points.
        points: the points; their BCPs are known.
        concentrations: of the Dirichlet estimates that teachers of points learn.
        recipe: of students of points, and of their teachers but for the epochs.
        teacher_epochs: of teachers of points: an early-stopped one and a late one.
        replicas: independent teachers of points, and students: student r learns from teacher r.
        pairs: "teacher to student" each, names of networks of images.
        data: the images.
        image_recipe: of teachers and students of images, but for the epochs of the teachers.
        image_teacher_epochs: of teachers of images.
        image_replicas: independent teachers and students of each pair.
        same_start: whether a student has the first weights of its teacher, where their networks are one, and sees the
            points in its teacher's order: as in the exact paths, which all start from 0.
        seed: draws the data, and keys all randomness.
        device: cpu, cuda or cuda:N.

    Source: Nagarajan et al., "On student-teacher deviations in distillation: does it pay to disobey?", NeurIPS 2023,
    arXiv 2301.12923.
    """

    name: ClassVar[str] = "deviations"
    summary: ClassVar[str] = "do students exaggerate their teachers? eigendirections exactly, networks by logits"
    figure: ClassVar[str] = "deviations"

    parts: tuple[str, ...] = PARTS
    eigen: EigenPaths = field(default_factory=EigenPaths)
    descent_step_size: float = 0.5
    networks: tuple[str, ...] = ("linear", "mlp")
    points: PointSource = POINTS
    concentrations: tuple[float, ...] = (1.0,)
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=40.0, batch_size=50, step_size=0.1))
    teacher_epochs: tuple[float, ...] = (4.0, 40.0)
    replicas: int = 16
    pairs: tuple[str, ...] = ("resnet20 to resnet8", "resnet8 to resnet8")
    data: ImageSource = IMAGES
    image_recipe: Recipe = field(default_factory=lambda: CRD(epochs=12.0))
    image_teacher_epochs: tuple[float, ...] = (12.0,)
    image_replicas: int = 5
    same_start: bool = False
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for part in self.parts:
            choose("part", part, dict.fromkeys(PARTS))
        require(
            len(set(self.parts)) == len(self.parts) > 0, "parts", self.parts, f"some of {', '.join(PARTS)}, once each"
        )
        require(self.eigen.step_size is None, "eigen.step_size", self.eigen.step_size, "none: see descent_step_size")
        replace(self.eigen, step_size=self.descent_step_size)  # refuses what is not allowed
        for name in ("teacher_epochs", "image_teacher_epochs", "concentrations"):
            if not getattr(self, name) and name != "concentrations":
                raise ConfigError(f"{name} must not be empty")
            for value in getattr(self, name):
                require_positive(name, value)
        for name in ("replicas", "image_replicas"):
            require_count(name, getattr(self, name), least=2)
        for pair in self.pairs:
            networks_of(pair)
        for network in self.networks:
            PointNetwork(network)
        if not (self.networks and self.pairs):
            raise ConfigError("networks and pairs must not be empty")

    def quick(self) -> Self:
        points = replace(POINTS, problem=replace(POINTS.problem, samples=600), validation_samples=100, test_samples=300)
        images = replace(IMAGES, problem=replace(IMAGES.problem, samples=200, validation_samples=100, test_samples=100))
        return replace(
            self,
            eigen=replace(self.eigen, directions=4, times=12),
            points=points,
            recipe=replace(self.recipe, epochs=4.0),
            teacher_epochs=(2.0, 4.0),
            replicas=2,
            pairs=("resnet8 to resnet8",),
            data=images,
            image_recipe=replace(self.image_recipe, epochs=2.0),
            image_teacher_epochs=(2.0,),
            image_replicas=2,
        )

    def cells(self) -> tuple[StudentTrainer | Teacher | Computation, ...]:
        makers = dict(zip(PARTS, (self._paths, self._of_points, self._of_images, self._switched), strict=True))
        cells = [cell for part in PARTS if part in self.parts for cell in makers[part]()]
        return tuple(dict.fromkeys(cells))  # a teacher of two parts is one cell

    def _paths(self) -> Cells:
        yield self.eigen
        yield replace(self.eigen, step_size=self.descent_step_size)

    def _of_points(self) -> Cells:
        for network in self.networks:
            base = self._training(PointNetwork(network))
            for supervision in (Exact(), *map(Dirichlet, sorted(self.concentrations, reverse=True)), OneHot()):
                for epochs in self.teacher_epochs:
                    recipe = replace(self.recipe, epochs=epochs)
                    yield from self._taught(replace(base, supervision=supervision, recipe=recipe), base)

    def _of_images(self) -> Cells:
        for pair in self.pairs:
            yield from self._pair(pair)

    def _switched(self) -> Cells:
        base = self._training(PointNetwork(self.networks[-1]))
        late = replace(self.recipe, epochs=max(self.teacher_epochs))
        # The labels of the pool, which the label term looks at.
        cells = list(self._taught(replace(base, loss=LabelCrossEntropy(), recipe=late), base))
        for found in (cells, list(self._pair(self.pairs[0]))):
            yield from found
            student = found[-1]
            assert isinstance(student, StudentTrainer)  # the last of a pair
            for loss in switches(student.recipe.epochs):
                yield replace(student, loss=loss)

    def _pair(self, pair: str) -> Cells:
        teacher, student = networks_of(pair)
        base = self._training(ImageNetwork(student))
        for epochs in self.image_teacher_epochs:
            recipe = replace(self.image_recipe, epochs=epochs)
            training = replace(base, student=ImageNetwork(teacher), loss=LabelCrossEntropy(), recipe=recipe)
            yield from self._taught(training, base)

    def _training(self, student: PointNetwork | ImageNetwork) -> StudentTrainer:
        """What all trainings of images, or of points, share."""
        on_points = isinstance(student, PointNetwork)
        return StudentTrainer(
            student,
            self.points if on_points else self.data,
            recipe=self.recipe if on_points else self.image_recipe,
            replicas=self.replicas if on_points else self.image_replicas,
            seed=self.seed,
            device=self.device,
        )

    def _taught(self, training: StudentTrainer, student: StudentTrainer) -> Cells:
        """A training, its networks as teachers, and students that see nothing but their probabilities."""
        teacher = Deterministic(training) if self.same_start else OtherStart(training)
        yield from (training, teacher, replace(student, supervision=teacher, loss=CrossEntropy()))


def switches(epochs: float) -> tuple[Switched | LabelCrossEntropy, ...]:
    """From labels to the teacher halfway, and back; and labels alone, as if there was no teacher."""
    labels, teacher, halfway = LabelCrossEntropy(), CrossEntropy(), 1 + epochs / 2  # the first epoch is 1
    return Switched(labels, teacher, halfway), Switched(teacher, labels, halfway), labels
