"""Two-point noise between the two largest Bayes class probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from kdsim import simplex
from kdsim.config import require_between
from kdsim.rng import Draws
from kdsim.supervision.base import Batch, Supervision, Target, require_feasible
from kdsim.supervision.sampling import classes_first, classes_last, is_zero, level_like


@dataclass(frozen=True)
class TwoPoint(Supervision):
    """q = p + delta v or p - delta v with equal probability, v = (e_i - e_j) / sqrt 2, p_i >= p_j the two largest.

    Mean p, covariance delta^2 v v' = (fraction p_j)^2 (e_i - e_j)(e_i - e_j)'.

    Both points lie in the simplex iff delta / sqrt 2 <= min(p_i, p_j, 1 - p_i, 1 - p_j). That minimum is
    p_j, because p_j <= p_i <= 1 - p_j. Ties are broken by the smaller index.

    Attributes:
        fraction: delta in units of its largest value sqrt 2 p_j, in [0, 1].

    Source: docs/theory.md.
    """

    fraction: float = 1.0

    name: ClassVar[str] = "two-point"
    level_field: ClassVar[str] = "fraction"
    unbiased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_between("fraction", self.fraction, 0, 1)

    @property
    def noiseless(self) -> bool:
        """Whether the fraction is zero."""
        return is_zero(self.fraction)

    def sample(self, batch: Batch, draws: Draws) -> Target:
        """p + delta v where the uniform of slot 0 is below 1/2, p - delta v elsewhere."""
        p = classes_first(batch.p)  # (K, R, V)
        first, second, smaller = _two_largest(p)  # (R, V)
        shift = level_like(self.fraction, p) * smaller
        shift = torch.where(draws.uniform(0) < 0.5, shift, -shift)
        q = p.scatter_add(0, first[None], shift[None]).scatter_add_(0, second[None], -shift[None])
        return Target(q=classes_last(q), y=batch.y)

    def mean(self, p: Tensor) -> Tensor:
        """E[q | p] = p. (..., K) -> (..., K)."""
        return p

    def covariance(self, p: Tensor) -> Tensor:
        """Cov[q | p] = (fraction p_j)^2 (e_i - e_j)(e_i - e_j)'. (..., K) -> (..., K, K)."""
        first, second, smaller = _two_largest(p.movedim(-1, 0))
        direction = torch.zeros_like(p)
        direction.scatter_(-1, first[..., None], self.fraction * smaller[..., None])
        direction.scatter_(-1, second[..., None], -self.fraction * smaller[..., None])
        return direction[..., :, None] * direction[..., None, :]

    def largest_nu(self, p: Tensor) -> float:
        """nu = 2 E[p_j^2] / K, at fraction 1."""
        return simplex.mean_class_variance(replace(self, fraction=1.0).covariance(p)).item()

    def with_nu(self, nu: float, p: Tensor) -> Self:
        """fraction = sqrt(nu / nu_largest), because nu is proportional to fraction^2.

        Raises:
            ConfigError: nu above the largest, which the message states.
        """
        largest = self.largest_nu(p)
        require_feasible(self.name, nu, largest)
        return replace(self, fraction=min(1.0, math.sqrt(nu / largest)) if nu > 0 else 0.0)


def _two_largest(p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the largest and second largest class, and p of the second. (K, ...) -> (...) each."""
    first = p.max(0).indices  # the first of equal ones; argmax is ten times slower
    if len(p) == 1:  # there is no second class, and nothing to take from it
        return first, first, torch.zeros_like(p[0])
    smaller, second = p.scatter(0, first[None], -1.0).max(0)
    return first, second, smaller
