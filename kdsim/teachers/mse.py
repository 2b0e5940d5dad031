"""Networks trained by squared error: on their probabilities (the Brier score), or on their outputs as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import require_between
from kdsim.losses import Brier, OutputMSE
from kdsim.teachers.checks import require_loss
from kdsim.teachers.deterministic import Deterministic
from kdsim.trainer import StudentTrainer, Teacher
from kdsim.training.evaluation import forward
from kdsim.training.fitted import FittedTeacher


@dataclass(frozen=True)
class MSETeacher(Deterministic):
    """A network trained by the Brier score, mean of (softmax(z) - one-hot)^2, which p minimises as well.

    Attributes:
        training: what trains it, under `Brier`.

    Source: S. M. Hamidi, X. Deng, R. Tan, L. Ye, A. H. Salamah, "How to train the teacher model for effective knowledge
    distillation", ECCV 2024, arXiv:2407.18041.
    """

    training: StudentTrainer = field(default_factory=lambda: StudentTrainer(loss=Brier()))

    name: ClassVar[str] = "mse"

    def __post_init__(self) -> None:
        require_loss(self.training, (Brier,))


@dataclass(frozen=True)
class MSELogitsTeacher(Teacher):
    """A network whose outputs z estimate p themselves, trained by mean (z - one-hot)^2.

    E[one-hot | x] = p minimises that as well. The outputs are no logits: their softmax is nearly flat. They are read
    out as q = (1 - K floor) project(z) + floor, project the nearest point of the simplex, which is never farther from
    p than z is. The floor stands against log 0: with 0 a class has no probability where the projection says so, and
    the teacher's loss on labels may be infinite.

    Attributes:
        training: what trains it, under `OutputMSE`.
        floor: least probability of a class, in [0, 1 / K).
    """

    training: StudentTrainer = field(default_factory=lambda: StudentTrainer(loss=OutputMSE()))
    floor: float = 1e-6

    name: ClassVar[str] = "mse-logits"

    def __post_init__(self) -> None:
        require_loss(self.training, (OutputMSE,))
        require_between("floor", self.floor, 0, 1 / self.training.data.classes, "[)")

    def predictor(self, fitted: FittedTeacher, device: torch.device, mixed: bool) -> Callable[[Tensor], Tensor]:
        (network,) = fitted.networks
        module, normalise = network.module(device), network.normalisation

        def predict(images: Tensor) -> Tensor:
            q = project(forward(module, images, normalise, mixed))
            return (q * (1 - q.shape[-1] * self.floor) + self.floor).log()[None]

        return predict


def project(outputs: Tensor) -> Tensor:
    """The nearest point of the simplex: max(z - t, 0) with the t that makes its sum one. (..., K) -> (..., K).

    t = (sum of the r largest - 1) / r for the largest r with z_(r) > t. Source: M. Held, P. Wolfe, H. P. Crowder,
    "Validation of subgradient optimization", Mathematical Programming 6 (1974); J. Duchi et al., ICML 2008.
    """
    falling = outputs.sort(-1, descending=True).values
    excess = falling.cumsum(-1) - 1
    rank = torch.arange(1, outputs.shape[-1] + 1, device=outputs.device, dtype=outputs.dtype)
    support = (falling * rank > excess).sum(-1, keepdim=True)  # r, at least 1
    threshold = excess.gather(-1, support - 1) / support
    return (outputs - threshold).clamp_min(0)
