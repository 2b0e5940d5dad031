"""The Bayes class probabilities themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from kdsim.rng import Draws
from kdsim.supervision.base import Batch, Supervision, Target, require_feasible


@dataclass(frozen=True)
class Exact(Supervision):
    """Exact Bayes class probabilities, q = p.

    Mean p, covariance 0. The noiseless end of Dirichlet (c -> infinity) and of annotators (a -> infinity).

    Source: Morad, Shlezinger, Eldar, ICLR 2026 (arXiv 2601.01484), the deterministic Bayesian teacher.
    """

    name: ClassVar[str] = "exact"
    unbiased: ClassVar[bool] = True

    @property
    def noiseless(self) -> bool:
        """True: the target is p."""
        return True

    def sample(self, batch: Batch, draws: Draws) -> Target:
        """q = p. Uses no slot."""
        return Target(q=batch.p, y=batch.y)

    def mean(self, p: Tensor) -> Tensor:
        """E[q | p] = p. (..., K) -> (..., K)."""
        return p

    def covariance(self, p: Tensor) -> Tensor:
        """Cov[q | p] = 0. (..., K) -> (..., K, K)."""
        return torch.zeros(*p.shape, p.shape[-1], dtype=p.dtype, device=p.device)

    def with_nu(self, nu: float, p: Tensor) -> Self:
        """Itself for nu = 0; `ConfigError` for any other nu."""
        require_feasible(self.name, nu, 0.0)
        return self
