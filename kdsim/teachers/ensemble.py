"""Several networks trained alike from other first weights: each a sample, their mean the predictive distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import ConfigError, require_count
from kdsim.losses import OutputMSE
from kdsim.teachers.checks import refuse_loss
from kdsim.trainer import StudentTrainer, Teacher
from kdsim.training.evaluation import forward
from kdsim.training.fitted import FittedTeacher


@dataclass(frozen=True)
class DeepEnsemble(Teacher):
    """Log-probabilities of S = `size` networks, replicas of one training: teacher n has those from n size on.

    Without the adversarial examples of the paper.

    Attributes:
        training: what trains the networks; its replicas are a multiple of `size`.
        size: networks in one ensemble.

    Source: B. Lakshminarayanan, A. Pritzel, C. Blundell, "Simple and scalable predictive uncertainty estimation using
    deep ensembles", NeurIPS 2017, arXiv:1612.01474.
    """

    training: StudentTrainer = field(default_factory=lambda: StudentTrainer(replicas=5))
    size: int = 5

    name: ClassVar[str] = "deep-ensemble"

    def __post_init__(self) -> None:
        require_count("size", self.size)
        refuse_loss(self.training, OutputMSE, "its outputs are no logits")
        replicas = self.training.replicas
        if replicas % self.size:
            raise ConfigError(
                f"training.replicas = {replicas} is not allowed: must be a multiple of size = {self.size}, "
                "the networks of one ensemble"
            )

    @property
    def members(self) -> int:
        """Networks of one ensemble."""
        return self.size

    def predictor(self, fitted: FittedTeacher, device: torch.device, mixed: bool) -> Callable[[Tensor], Tensor]:
        members = [(network.module(device), network.normalisation) for network in fitted.networks]

        def predict(images: Tensor) -> Tensor:
            outputs = [forward(module, images, normalise, mixed) for module, normalise in members]
            return torch.log_softmax(torch.stack(outputs), -1)  # (S, b, K)

        return predict
