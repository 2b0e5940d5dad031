"""distill: one network taught by another on images, `kdsim distill`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from kdsim.config import require_count
from kdsim.data import Cifar10, ImageSource, KnownImages
from kdsim.losses import KD, DistillationLoss, LabelCrossEntropy
from kdsim.studies.train import QUICK
from kdsim.study.base import Study
from kdsim.teachers import Deterministic
from kdsim.trainer import ImageNetwork, StudentTrainer
from kdsim.training import CRD, Recipe


@dataclass(frozen=True)
class Distill(Study):
    """A teacher trained on labels, and a student that learns from it. A teacher that is stored is not trained again.

    Attributes:
        teacher, student: names of networks.
        data: the images, the same for both.
        loss: of the student, see `kdsim.losses`.
        recipe: of the student.
        teacher_recipe: of the teacher.
        teachers: independent teachers; student replica r learns from teacher r modulo their number. Intervals are over
            students: with fewer teachers than replicas they leave out how much teachers differ.
        evaluations: number of evaluations on the validation images; none: one an epoch, and 12 at least.
        window: last part of the run over which convergence noise is taken.
        replicas: independent students.
        seed: draws and splits the data, and keys all randomness.
        device: cpu, cuda or cuda:N.
    """

    name: ClassVar[str] = "distill"
    summary: ClassVar[str] = "one network taught by another on images (kdsim distill)"
    figure: ClassVar[str] = "training-curves"

    teacher: str = "wrn-40-2"
    student: str = "wrn-16-2"
    data: ImageSource = field(default_factory=Cifar10)
    loss: DistillationLoss = field(default_factory=KD)
    recipe: Recipe = field(default_factory=CRD)
    teacher_recipe: Recipe = field(default_factory=CRD)
    teachers: int = 1
    evaluations: int | None = None
    window: float = 1 / 3
    replicas: int = 1
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        require_count("teachers", self.teachers)

    def quick(self) -> Self:
        short, teacher = (replace(r, epochs=min(r.epochs, 1.0)) for r in (self.recipe, self.teacher_recipe))
        data = KnownImages(QUICK)
        return replace(self, teacher="resnet8", student="resnet8", data=data, recipe=short, teacher_recipe=teacher)

    def cells(self) -> tuple[StudentTrainer, ...]:
        first = StudentTrainer(
            ImageNetwork(self.teacher),
            self.data,
            loss=LabelCrossEntropy(),  # the labels that a student's label term looks at
            recipe=self.teacher_recipe,
            evaluations=self.evaluations,
            window=self.window,
            replicas=self.teachers,
            seed=self.seed,
            device=self.device,
        )
        student = replace(
            first,
            student=ImageNetwork(self.student),
            supervision=Deterministic(first),
            loss=self.loss,
            recipe=self.recipe,
            replicas=self.replicas,
        )
        return first, student
