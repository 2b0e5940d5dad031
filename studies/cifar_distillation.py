"""cifar-distillation: pairs of networks x losses x seeds on real images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from kdsim.config import ConfigError, by_name, choose, require_count
from kdsim.data import Cifar10, ImageSource
from kdsim.losses import DISTILLATION_LOSSES, KD, PRESETS, DistillationLoss, LabelCrossEntropy
from kdsim.networks import NETWORKS
from kdsim.study.base import Study
from kdsim.teachers import Deterministic
from kdsim.trainer import ImageNetwork, StudentTrainer
from kdsim.training import CRD, Recipe

STANDARDISED = "kd-standardised"


@dataclass(frozen=True)
class CifarDistillation(Study):
    """Students of a trained teacher under the distillation losses, beside a student alone.

    A loss has the published settings of its pair where there are any (`kdsim.losses.presets`), else the defaults of its
    class: they are a start, not a reproduction. The defaults of this study are a laptop's: a tenth of the published
    epochs and a part of the images. At full size:

        --set pairs="wrn-40-2 to wrn-16-2" --set recipe=crd --set teacher_recipe=crd --set data=cifar100 --device cuda

    Attributes:
        pairs: "teacher to student" each, names of networks.
        losses: names of losses; label-cross-entropy is the student alone, kd-standardised KD of standardised logits.
        data: the images.
        recipe, teacher_recipe: of students and teachers.
        teachers: independent teachers of a pair; student replica r learns from teacher r modulo their number. Intervals
            are over students: with fewer teachers than replicas they leave out how much teachers differ.
        evaluations: number of evaluations on the validation images.
        window: last part of the run over which convergence noise is taken.
        replicas: independent students of each pair and loss.
        seed: draws and splits the data, and keys all randomness.
        device: cpu, cuda or cuda:N.
    """

    name: ClassVar[str] = "cifar-distillation"
    summary: ClassVar[str] = "pairs of networks x distillation losses on real images, beside the student alone"
    figure: ClassVar[str] = "cifar-distillation"

    pairs: tuple[str, ...] = ("resnet20 to resnet8",)
    losses: tuple[str, ...] = ("label-cross-entropy", "kd", "dkd", "dist", "wttm", STANDARDISED)
    data: ImageSource = field(default_factory=lambda: Cifar10(few_shot=0.2))
    recipe: Recipe = field(default_factory=lambda: CRD(epochs=8.0))
    teacher_recipe: Recipe = field(default_factory=lambda: CRD(epochs=12.0))
    teachers: int = 1
    evaluations: int = 40
    window: float = 1 / 3
    replicas: int = 3
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        require_count("teachers", self.teachers)
        for pair in self.pairs:
            networks_of(pair)

    def quick(self) -> Self:
        short, teacher = (replace(r, epochs=min(r.epochs, 1.0)) for r in (self.recipe, self.teacher_recipe))
        return replace(
            self, losses=self.losses[:2], recipe=short, teacher_recipe=teacher, evaluations=12, replicas=2,
            pairs=("resnet8 to resnet8",),
        )  # fmt: skip

    def cells(self) -> tuple[StudentTrainer, ...]:
        cells = []
        for pair in self.pairs:
            teacher_name, student_name = networks_of(pair)
            teacher = StudentTrainer(
                ImageNetwork(teacher_name),
                self.data,
                loss=LabelCrossEntropy(),  # the labels that a student's label term looks at
                recipe=self.teacher_recipe,
                evaluations=self.evaluations,
                window=self.window,
                replicas=self.teachers,
                seed=self.seed,
                device=self.device,
            )
            cells.append(teacher)
            student = replace(teacher, student=ImageNetwork(student_name), recipe=self.recipe, replicas=self.replicas)
            for name in self.losses:
                loss = _loss(pair, name)
                alone = loss.weights[1] == 0
                taught = student if alone else replace(student, supervision=Deterministic(teacher))
                cells.append(replace(taught, loss=loss))
        return tuple(cells)


def networks_of(pair: str) -> tuple[str, str]:
    """Names of teacher and student."""
    names = [name.strip() for name in pair.split(" to ")]
    if len(names) != 2:
        raise ConfigError(f"pair = {pair!r} is not allowed: must be TEACHER to STUDENT, as in {next(iter(PRESETS))!r}")
    for name in names:
        choose("network", name, NETWORKS)
    return names[0], names[1]


def _loss(pair: str, name: str) -> DistillationLoss:
    """The published settings for the pair, else the defaults of the class."""
    published = PRESETS.get(pair, {})
    if name in published:
        return published[name]
    defaults = {kind: cls() for kind, cls in by_name(DISTILLATION_LOSSES).items()}
    return choose("loss", name, defaults | {STANDARDISED: KD(0.1, 9.0, 2.0, standardised=True)})
