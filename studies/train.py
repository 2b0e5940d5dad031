"""train: one network on images, `kdsim train`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from kdsim.data import Cifar10, ImageSource, KnownImages
from kdsim.losses import CrossEntropy, DistillationLoss
from kdsim.problems import Images
from kdsim.study.base import Study
from kdsim.supervision import OneHot, Supervision
from kdsim.trainer import ImageNetwork, StudentTrainer
from kdsim.training import CRD, Recipe

QUICK = Images(classes=5, samples=1_000, validation_samples=200, test_samples=200, dimension=2, clutter=0)
"""Of the quick versions: drawn within seconds, no folder is needed."""


@dataclass(frozen=True)
class Train(Study):
    """A network of images, trained on labels, on people's votes or on class probabilities that are known.

    Attributes:
        network: its name.
        data: the images.
        supervision: a noise model on what is known of the images: with labels alone one-hot and exact are the labels.
        loss: what is minimised; cross-entropy is that against the target's probabilities.
        recipe: epochs, batches, optimiser, schedule, augmentation, precision.
        targets: "frozen" (a data set) or "fresh" (drawn at each visit).
        evaluations: number of evaluations on the validation images; none: one an epoch, and 12 at least.
        window: last part of the run over which convergence noise is taken.
        replicas: independent trainings.
        seed: draws and splits the data, and keys all randomness.
        device: cpu, cuda or cuda:N.
    """

    name: ClassVar[str] = "train"
    summary: ClassVar[str] = "one network on images (kdsim train)"
    figure: ClassVar[str] = "training-curves"

    network: str = "wrn-16-2"
    data: ImageSource = field(default_factory=Cifar10)
    supervision: Supervision = field(default_factory=OneHot)
    loss: DistillationLoss = field(default_factory=CrossEntropy)
    recipe: Recipe = field(default_factory=CRD)
    targets: Literal["frozen", "fresh"] = "frozen"
    evaluations: int | None = None
    window: float = 1 / 3
    replicas: int = 1
    seed: int = 0
    device: str = "cpu"

    def quick(self) -> Self:
        recipe = replace(self.recipe, epochs=min(self.recipe.epochs, 1.0))
        return replace(self, network="resnet8", data=KnownImages(QUICK), recipe=recipe)

    def trainer(self) -> StudentTrainer:
        """What runs."""
        return StudentTrainer(
            ImageNetwork(self.network),
            self.data,
            self.supervision,
            self.loss,
            self.recipe,
            self.targets,
            self.evaluations,
            self.window,
            self.replicas,
            self.seed,
            self.device,
        )

    def cells(self) -> tuple[StudentTrainer, ...]:
        return (self.trainer(),)
