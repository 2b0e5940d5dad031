"""Step sizes: the largest one whose error floor stays under a tolerance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from scipy.optimize import brentq
from torch import Tensor

from kdsim.config import ConfigError, require_positive
from kdsim.population import Population
from kdsim.students.base import LinearStudent
from kdsim.supervision.base import Supervision
from kdsim.theory.gradient_noise import target_sum_squares
from kdsim.theory.second_order import linearised_moments, one_factor
from kdsim.theory.stationary import curvature, lyapunov_covariance, noise_at

RELATIVE_ACCURACY = 1e-9
"""Of the step size that is found."""
NEAREST = 1 - 1e-6
"""Largest fraction of the stability limit that is returned where there is noise."""


@dataclass(frozen=True)
class LargestStepSize:
    """Largest step sizes at which the floor of the squared distance is at most a tolerance.

    Attributes:
        step_size: by the second-order floor, which is exact for least squares; below `stability_limit`. For other
            losses an extrapolation where `predict` states no second-order floor at it: below 2/3 of `first_order`.
        first_order: by the first-order floor, which is proportional to the step size: tolerance / (floor / alpha).
            Infinite without noise, and no guarantee of stability.
        stability_limit: of the linearised dynamics; exact for least squares. Noise that is not multiplied into the
            Hessian does not change it.
    """

    step_size: float
    first_order: float
    stability_limit: float


def largest_step_size(
    student: LinearStudent,
    population: Population,
    supervision: Supervision,
    batch_size: int,
    tolerance: float,
    theta: Tensor,
) -> LargestStepSize:
    """Largest step size whose floor E|theta - theta*|^2 is at most `tolerance`, for unbiased supervision.

    The floor grows with the step size from 0 to infinity at the stability limit, so there is exactly one root of
    floor = tolerance. Without noise (exact BCP) every stable step size has floor 0: the answer is the limit itself.

    Args:
        tolerance: in units of |theta|^2, > 0.
        theta: theta*, (K, d).

    Raises:
        ConfigError: the tolerance is not positive, the supervision is biased, or the pool is too large.
    """
    require_positive("tolerance", tolerance)
    if not supervision.unbiased:
        raise ConfigError(f"{supervision.name} is biased: its floor does not vanish with the step size")
    sum_squares = target_sum_squares(student, population, supervision)
    if not one_factor(sum_squares):
        raise ConfigError(f"{supervision.name}: the sums of its targets vary from point to point, which has no formula")
    moments = linearised_moments(student, population, theta, batch_size, sum_squares.max().item())
    limit = moments.stability_limit
    noise = noise_at(student, population, supervision, theta)
    slope = lyapunov_covariance(curvature(student, population, theta), noise, 1.0, batch_size).trace().item()
    if supervision.noiseless or slope <= 0:
        return LargestStepSize(limit, float("inf"), limit)

    first = tolerance / slope

    @cache
    def excess(log_step_size: float) -> float:
        """log(floor / tolerance), nearly linear in the logarithm of the step size."""
        step_size = math.exp(log_step_size)
        adjoint = moments.solve(torch.ones_like(moments.values), step_size)
        return math.log(step_size / batch_size * (adjoint * noise).sum().item() / tolerance)

    # Op^-1 = first^-1 + alpha first^-1 second first^-1 + ... keeps matrices positive, so the floor is at least first
    # order's, and `high` no less than the root.
    high = math.log(min(first, NEAREST * limit))
    if excess(high) <= 0:
        return LargestStepSize(math.exp(high), first, limit)
    low = math.log(1 / (1 / first + 1 / limit))  # floor alpha slope / (1 - alpha / limit): a guess
    while excess(low) > 0:
        high, low = low, low - 0.1
    return LargestStepSize(math.exp(brentq(excess, low, high, xtol=RELATIVE_ACCURACY)), first, limit)
