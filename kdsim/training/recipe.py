"""Recipes: how a network is trained. A recipe is a configuration; the published ones are its defaults under a name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from kdsim.config import Configuration, require, require_between, require_count, require_positive
from kdsim.data.augmentation import CropFlip
from kdsim.engines.optimisers import Adam, GradientDescent, Optimiser
from kdsim.engines.schedules import Constant, Schedule, StepDecay
from kdsim.rng import MAX_VISITS
from kdsim.training.precision import Precision


@dataclass(frozen=True)
class Recipe(Configuration):
    """Epochs, batches, optimiser, schedule, augmentation. The defaults are plain SGD, as theory has it.

    Attributes:
        epochs: passes over the training images, > 0; a fraction is allowed.
        batch_size: images a step.
        step_size: before the schedule's factor.
        optimiser: what is done with a gradient.
        schedule: factor on the step size, as a function of the step.
        augmentation: crops and flips of the training images. It is left out where images have known BCPs: the BCP of a
            mirrored image is not known.
        precision: of convolutions and products: "float32", "bfloat16" (mixed: parameters, statistics, loss and
            optimiser stay in float32), or "auto", which the device decides and never the hardware: float32 on a CPU,
            bfloat16 on a CUDA device. Mixed precision doubles the speed of GPUs and of CPUs with AVX-512 BF16 or AMX;
            other CPUs emulate it, ten times slower, and older GPUs are refused.
    """

    epochs: float = 10.0
    batch_size: int = 64
    step_size: float = 0.05
    optimiser: Optimiser = field(default_factory=GradientDescent)
    schedule: Schedule = field(default_factory=Constant)
    augmentation: CropFlip = field(default_factory=lambda: CropFlip(padding=0, flip=False))
    precision: Precision = "auto"

    name: ClassVar[str] = "plain"

    def __post_init__(self) -> None:
        require_positive("epochs", self.epochs)
        require_count("batch_size", self.batch_size)
        require_positive("step_size", self.step_size)
        held = torch.finfo(torch.float32)
        require_between("step_size", self.step_size, held.tiny, held.max)  # trainings are in float32

    def steps(self, images: int) -> int:
        """Steps on so many training images: visits rounded up to whole batches.

        Raises:
            ConfigError: more visits than the random numbers can be told apart by.
        """
        fits = self.epochs * images + self.batch_size <= MAX_VISITS
        require(fits, "epochs", self.epochs, f"below {MAX_VISITS // images} on {images} images")
        return max(1, -(-round(self.epochs * images) // self.batch_size))


@dataclass(frozen=True)
class CRD(Recipe):
    """The recipe of the CIFAR-100 distillation benchmarks.

    Source: Y. Tian, D. Krishnan, P. Isola, "Contrastive representation distillation", ICLR 2020, arXiv:1910.10699:
    240 epochs, batch 64, SGD 0.05 with momentum 0.9 and weight decay 5e-4, a tenth at 150, 180 and 210.
    """

    epochs: float = 240.0
    batch_size: int = 64
    step_size: float = 0.05
    optimiser: Optimiser = field(default_factory=lambda: GradientDescent(momentum=0.9, weight_decay=5e-4))
    schedule: Schedule = field(default_factory=lambda: StepDecay((150 / 240, 180 / 240, 210 / 240), 0.1))
    augmentation: CropFlip = field(default_factory=lambda: CropFlip(4, "zero"))

    name: ClassVar[str] = "crd"


@dataclass(frozen=True)
class BayesianKDRecipe(Recipe):
    """The recipe of the Bayesian teachers: 200 epochs, batch 100, Adam 1e-3, a tenth at 100, reflected borders.

    Source: Morad, Shlezinger, Eldar, ICLR 2026, arXiv:2601.01484.
    """

    epochs: float = 200.0
    batch_size: int = 100
    step_size: float = 1e-3
    optimiser: Optimiser = field(default_factory=Adam)
    schedule: Schedule = field(default_factory=lambda: StepDecay((0.5,), 0.1))
    augmentation: CropFlip = field(default_factory=lambda: CropFlip(4, "reflect"))

    name: ClassVar[str] = "bayesian-kd"


RECIPES = (Recipe, CRD, BayesianKDRecipe)
"""Every recipe, in the order in which messages list them."""
