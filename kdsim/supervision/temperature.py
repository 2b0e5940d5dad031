"""Bayes class probabilities at a temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import require_positive
from kdsim.rng import Draws
from kdsim.supervision.base import Batch, Supervision, Target
from kdsim.supervision.sampling import classes_first, classes_last, level_like, softmax


@dataclass(frozen=True)
class Temperature(Supervision):
    """q = p^(1/T) / Z: flatter than p for T > 1, sharper for T < 1, p itself at T = 1.

    Mean q, covariance 0. A class with p_k = 0 keeps 0.

    Attributes:
        temperature: T > 0, pure number.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", 2015, equation 1.
    """

    temperature: float = 2.0

    name: ClassVar[str] = "temperature"
    level_field: ClassVar[str] = "temperature"
    unbiased: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_positive("temperature", self.temperature)

    @property
    def noiseless(self) -> bool:
        """True: the target is a function of p."""
        return True

    @property
    def logit_scale(self) -> float:
        """1/T."""
        return 1 / self.temperature

    def sample(self, batch: Batch, draws: Draws) -> Target:
        """q = p^(1/T) / Z. Uses no slot."""
        return Target(q=self.mean(batch.p), y=batch.y)

    def mean(self, p: Tensor) -> Tensor:
        """E[q | p] = softmax(log p / T). (..., K) -> (..., K)."""
        log_p = classes_first(p).log()  # (K, ...)
        # Relative to the largest, so that neither end of T overflows in every class.
        temperature = level_like(self.temperature, p).clamp(min=torch.finfo(p.dtype).tiny)
        scaled = (log_p - log_p.amax(0)) / temperature
        return classes_last(softmax(torch.where(log_p > -torch.inf, scaled, log_p)))

    def covariance(self, p: Tensor) -> Tensor:
        """Cov[q | p] = 0. (..., K) -> (..., K, K)."""
        return torch.zeros(*p.shape, p.shape[-1], dtype=p.dtype, device=p.device)
