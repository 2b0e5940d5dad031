"""Label smoothing of the Bayes class probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import require_between
from kdsim.rng import Draws
from kdsim.supervision.base import Batch, Supervision, Target
from kdsim.supervision.sampling import level_like


@dataclass(frozen=True)
class LabelSmoothing(Supervision):
    """q = (1 - epsilon) p + epsilon / K.

    Mean q, covariance 0.

    Attributes:
        epsilon: weight of the uniform distribution, in [0, 1].

    Source: C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, "Rethinking the Inception architecture
    for computer vision", CVPR 2016, section 7.
    """

    epsilon: float = 0.1

    name: ClassVar[str] = "label-smoothing"
    level_field: ClassVar[str] = "epsilon"
    unbiased: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_between("epsilon", self.epsilon, 0, 1)

    @property
    def noiseless(self) -> bool:
        """True: the target is a function of p."""
        return True

    def sample(self, batch: Batch, draws: Draws) -> Target:
        """q = (1 - epsilon) p + epsilon / K. Uses no slot."""
        return Target(q=self.mean(batch.p), y=batch.y)

    def mean(self, p: Tensor) -> Tensor:
        """E[q | p] = (1 - epsilon) p + epsilon / K. (..., K) -> (..., K)."""
        epsilon = level_like(self.epsilon, p)[..., None]
        return (1 - epsilon) * p + epsilon / p.shape[-1]

    def covariance(self, p: Tensor) -> Tensor:
        """Cov[q | p] = 0. (..., K) -> (..., K, K)."""
        return torch.zeros(*p.shape, p.shape[-1], dtype=p.dtype, device=p.device)
