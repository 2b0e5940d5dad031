"""A network trained with dropout, thinned at random once for each sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import require, require_count
from kdsim.teachers.checks import generator, require_memory, require_network
from kdsim.trainer import ImageNetwork, StudentTrainer, Teacher
from kdsim.training.evaluation import BATCH, forward
from kdsim.training.fitted import FittedTeacher


def _with_dropout() -> StudentTrainer:
    return StudentTrainer(ImageNetwork(dropout=0.2))


@dataclass(frozen=True)
class MCDropout(Teacher):
    """S networks whose head sees a random part of the features: logits = head(features * mask / (1 - rate)).

    A mask is drawn once for each sample and is the same for all images: it is a sample of the weights (columns of the
    head that are zero), as in the variational reading of dropout. Codes that draw masks anew for each image have the
    same predictive distribution of one image; theirs is not a network. The posterior is one over the head: features
    are computed once for all samples.

    Attributes:
        training: what trains it, with the rate of the dropout (`ImageNetwork.dropout`, `PointNetwork.dropout`).
        samples: S.

    Source: Y. Gal, Z. Ghahramani, "Dropout as a Bayesian approximation", ICML 2016, arXiv:1506.02142, section 3.
    """

    training: StudentTrainer = field(default_factory=_with_dropout)
    samples: int = 8

    name: ClassVar[str] = "mc-dropout"

    def __post_init__(self) -> None:
        require_network(self.training)
        require_count("samples", self.samples)
        rate = self.training.student.dropout
        require(rate > 0, "training.student.dropout", rate, "above 0")

    def predictor(self, fitted: FittedTeacher, device: torch.device, mixed: bool) -> Callable[[Tensor], Tensor]:
        (network,) = fitted.networks
        module, normalise, keep = network.module(device), network.normalisation, 1 - network.dropout
        classes, features = module.head.weight.shape
        needed = 4 * self.samples * (classes * features + 2 * classes * BATCH)
        require_memory(f"{self.name} with {self.samples} samples of a {network.network}", needed, device)
        uniform = torch.rand((self.samples, 1, features), generator=generator(self, fitted.number))
        heads = module.head.weight * ((uniform < keep) / keep).to(device)  # (S, K, F)

        def thinned(x: Tensor) -> Tensor:
            return module.features(x) @ heads.mT + module.head.bias  # (b, F) -> (S, b, K)

        return lambda images: torch.log_softmax(forward(thinned, images, normalise, mixed), -1)
