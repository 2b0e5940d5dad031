"""image-noise-sweep: noise-sweep with a convolutional student on images whose class probabilities are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from kdsim.config import require_positive
from kdsim.data import KnownImages
from kdsim.engines import GradientDescent, StepDecay
from kdsim.problems import Images
from kdsim.study.base import Study
from kdsim.supervision import Dirichlet, Exact, OneHot
from kdsim.trainer import ImageNetwork, StudentTrainer
from kdsim.training import Recipe

SMALL = Images(
    classes=5,
    samples=4_000,
    validation_samples=1_000,
    test_samples=2_000,
    dimension=2,
    entropy=0.7,
    clutter=0,
    shift=2.0,
)
RECIPE = Recipe(
    epochs=24.0,
    batch_size=64,
    step_size=0.03,
    optimiser=GradientDescent(momentum=0.9),
    schedule=StepDecay((0.5,), 0.1),
)


@dataclass(frozen=True)
class ImageNoiseSweep(Study):
    """A convolutional network taught by one-hot labels, noisy estimates of the BCP, and the exact BCP.

    Each replica has one target an image, as in a data set. The step size falls once, halfway, and is constant in the
    window: floor is the mean of KL(p, q) over the validation images there, fluctuation the standard deviation of the
    validation loss about its own line.

    Attributes:
        network: the student.
        problem: the images.
        concentrations: of the Dirichlet estimates of the BCP.
        recipe: see Recipe.
        targets: "frozen" (drawn once for each image and replica) or "fresh" (drawn at each visit, as theory has it).
        evaluations: number of evaluations on the validation images.
        window: last part of the run over which floor and fluctuation are taken.
        replicas: independent trainings of each cell.
        seed: draws the images and keys all randomness.
        device: cpu, cuda or cuda:N.
    """

    name: ClassVar[str] = "image-noise-sweep"
    summary: ClassVar[str] = "a convolutional student on images with known BCPs: one-hot, noisy and exact"
    figure: ClassVar[str] = "image-noise-sweep"

    network: str = "resnet8"
    problem: Images = SMALL
    concentrations: tuple[float, ...] = (5.0, 0.5)
    recipe: Recipe = RECIPE
    targets: Literal["frozen", "fresh"] = "frozen"
    evaluations: int = 36
    window: float = 1 / 3
    replicas: int = 8
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for concentration in self.concentrations:
            require_positive("concentrations", concentration)

    def quick(self) -> Self:
        return replace(
            self,
            problem=replace(self.problem, samples=1_000, validation_samples=200, test_samples=200),
            concentrations=(0.5,),
            recipe=replace(self.recipe, epochs=2.0),
            evaluations=12,
            replicas=2,
        )

    def cells(self) -> tuple[StudentTrainer, ...]:
        first = StudentTrainer(
            ImageNetwork(self.network),
            KnownImages(self.problem),
            OneHot(),
            recipe=self.recipe,
            targets=self.targets,
            evaluations=self.evaluations,
            window=self.window,
            replicas=self.replicas,
            seed=self.seed,
            device=self.device,
        )
        supervisions = [OneHot(), *map(Dirichlet, sorted(self.concentrations)), Exact()]
        return tuple(replace(first, supervision=supervision) for supervision in supervisions)
