"""One-hot labels drawn from the Bayes class probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from kdsim import simplex
from kdsim.rng import Draws
from kdsim.supervision.base import Batch, Supervision, Target, require_nu_number
from kdsim.supervision.sampling import one_hot_labels


@dataclass(frozen=True)
class OneHot(Supervision):
    """One-hot label of a class y ~ p(x).

    Mean p, covariance diag(p) - p p'; nu = E[1 - |p|^2] / K is the largest that an unbiased target
    inside the simplex can have.

    Source: docs/theory.md; the usual data set, drawn afresh at each visit or frozen.
    """

    name: ClassVar[str] = "one-hot"
    unbiased: ClassVar[bool] = True

    def sample(self, batch: Batch, draws: Draws) -> Target:
        """The inverse distribution function of slot 0. A class with p_k = 0 is never drawn."""
        return Target(q=one_hot_labels(batch.p, draws.uniform(0)), y=batch.y)

    def mean(self, p: Tensor) -> Tensor:
        """E[q | p] = p. (..., K) -> (..., K)."""
        return p

    def covariance(self, p: Tensor) -> Tensor:
        """Cov[q | p] = diag(p) - p p'. (..., K) -> (..., K, K)."""
        return simplex.one_hot_covariance(p)

    def with_nu(self, nu: float, p: Tensor) -> Self:
        """Itself for its own nu (to a relative 1e-9); `ConfigError` for any other nu."""
        require_nu_number(nu)
        if math.isclose(nu, self.nu(p), rel_tol=1e-9):
            return self
        return super().with_nu(nu, p)
