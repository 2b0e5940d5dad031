"""Mean learning curve of the linearised dynamics: how the squared distance falls to its floor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kdsim.population import Population
from kdsim.students.base import LinearStudent
from kdsim.supervision.base import Supervision
from kdsim.theory.stationary import (
    NoStationaryDistribution,
    curvature,
    lyapunov_covariance,
    mean_shift,
    noise_at,
    repels,
)


def linearised_curve(
    student: LinearStudent,
    population: Population,
    supervision: Supervision,
    step_size: float,
    batch_size: int,
    aim: Tensor,
    reference: Tensor,
    initial: Tensor,
    steps: Sequence[int],
) -> np.ndarray:
    """E|theta_t - theta*|^2 of the linearised dynamics, first order in the step size.

    In the eigenbasis of H at theta_m, with e_0 = theta_0 - theta_m, decay_i = 1 - alpha h_i and S the first-order
    stationary covariance,

        E|theta_t - theta_m|^2 = sum_i decay_i^{2t} e_{0,i}^2 + sum_i S_ii (1 - decay_i^{2t}),
        E[theta_t - theta_m]_i = decay_i^t e_{0,i} + (1 - decay_i^t) m_i,

    m the first-order shift of the stationary mean, needed where theta_m is not theta* only. Both sums end at the
    first-order floor. It is right near the optimum, where the Hessian is that of theta_m, and for small alpha L_max:
    it leaves out that the Hessian changes along the way (exact for least squares) and the noise that the choice of the
    batch adds while e is large, of relative order alpha L_max.

    Args:
        aim: theta_m, minimiser of the objective at the mean targets, (K, d).
        reference: theta*, from which distance is measured, (K, d).
        initial: theta_0, (K, d).
        steps: t.

    Returns:
        (len(steps),). NaN where there is no stationary covariance: noise in directions in which nothing pulls back, or
        a step size from which on the mean runs away.
    """
    local = curvature(student, population, aim)
    if repels(local, step_size):
        return np.full(len(steps), np.nan)
    start = local.vectors.T @ (initial - aim).flatten()  # (D,)
    noise = noise_at(student, population, supervision, aim)
    try:
        covariance = lyapunov_covariance(local, noise, step_size, batch_size)
    except NoStationaryDistribution:
        return np.full(len(steps), np.nan)
    variances = (local.vectors * (covariance @ local.vectors)).sum(0)  # S_ii, (D,)
    time = torch.from_numpy(np.array(steps, dtype=np.float64))[:, None]
    decay = torch.where(local.values > local.flat, 1 - step_size * local.values, 1.0).pow(time)  # (T, D)
    curve = decay.square() @ start.square() + (1 - decay.square()) @ variances
    if not supervision.unbiased:
        shift = (aim - reference).flatten()
        drift = local.vectors.T @ mean_shift(student, population, local, covariance, aim)
        mean = decay * start + (1 - decay) * drift  # (T, D)
        curve = curve + shift.square().sum() + 2 * mean @ (local.vectors.T @ shift)
    return curve.numpy()
