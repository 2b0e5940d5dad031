"""Independent Gaussian noise on each class probability: the noise model of the paper."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from kdsim.config import require, require_between
from kdsim.population import LARGEST
from kdsim.rng import Draws
from kdsim.supervision.base import Batch, Supervision, Target, require_feasible
from kdsim.supervision.sampling import classes_first, classes_last, is_zero, level_like


@dataclass(frozen=True)
class Independent(Supervision):
    """q = p + sqrt(nu) z, z ~ N(0, I). Targets neither sum to one nor stay inside the simplex.

    Mean p, covariance nu I.

    Attributes:
        variance: nu >= 0, variance of each class.

    Source: Morad, Shlezinger, Eldar, ICLR 2026 (arXiv 2601.01484), noisy Bayes class probabilities.
    """

    variance: float = 0.01

    name: ClassVar[str] = "independent"
    level_field: ClassVar[str] = "variance"
    unbiased: ClassVar[bool] = True
    sums_to_one: ClassVar[bool] = False
    on_simplex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_between("variance", self.variance, 0, math.inf, ends="[)")
        require(self.variance <= LARGEST, "variance", self.variance, f"at most {LARGEST:g}")

    @property
    def noiseless(self) -> bool:
        """Whether the variance is zero."""
        return is_zero(self.variance)

    def sample(self, batch: Batch, draws: Draws) -> Target:
        """K normals from the slots 0 .. K-1 (K odd: .. K)."""
        p = classes_first(batch.p)  # (K, R, V)
        q = p + draws.normals(len(p)) * level_like(self.variance, p).sqrt()
        return Target(q=classes_last(q).to(p.dtype), y=batch.y)

    def mean(self, p: Tensor) -> Tensor:
        """E[q | p] = p. (..., K) -> (..., K)."""
        return p

    def covariance(self, p: Tensor) -> Tensor:
        """Cov[q | p] = nu I. (..., K) -> (..., K, K)."""
        return self.variance * torch.diag_embed(torch.ones_like(p))

    def largest_nu(self, p: Tensor) -> float:
        """Infinity: nothing keeps these targets inside the simplex."""
        return math.inf

    def with_nu(self, nu: float, p: Tensor) -> Self:
        """The variance is nu, any finite number >= 0."""
        require_feasible(self.name, nu, math.inf, open_end=True)
        return replace(self, variance=nu)
