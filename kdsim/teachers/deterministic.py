"""One trained network as it is: the teacher of Hinton, Vinyals and Dean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.losses import OutputMSE
from kdsim.teachers.checks import refuse_loss
from kdsim.trainer import StudentTrainer, Teacher
from kdsim.training.evaluation import forward
from kdsim.training.fitted import FittedTeacher


@dataclass(frozen=True)
class Deterministic(Teacher):
    """The logits of one trained network at its last epoch.

    Attributes:
        training: what trains it.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", 2015, arXiv:1503.02531.
    """

    training: StudentTrainer = field(default_factory=StudentTrainer)

    name: ClassVar[str] = "deterministic"

    def __post_init__(self) -> None:
        refuse_loss(self.training, OutputMSE, "its outputs are no logits; the teacher mse-logits reads them")

    def predictor(self, fitted: FittedTeacher, device: torch.device, mixed: bool) -> Callable[[Tensor], Tensor]:
        (network,) = fitted.networks
        module, normalise = network.module(device), network.normalisation
        return lambda images: forward(module, images, normalise, mixed)[None]
