"""Directions along which fluctuations are looked at: eigenvectors of the Hessian, and what theory says of each."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kdsim.population import Population
from kdsim.students.base import LinearStudent
from kdsim.supervision.base import Supervision
from kdsim.theory.stationary import NoStationaryDistribution, curvature, lyapunov_covariance, noise_at, repels


def eigendirections(student: LinearStudent, population: Population, theta: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Curvatures (m,) and unit eigenvectors (m, K, d) of the Hessian at theta (K, d), largest first.

    m <= `count` of them, evenly spaced in rank from the largest curvature to the smallest that the loss without the
    ridge has: directions that only the ridge curves, where no sample's gradient points, are left out.
    """
    local = curvature(student, population, theta)
    moved = torch.nonzero(local.values - student.ridge > local.flat)[:, 0].flip(0)
    ranks = np.unique(np.linspace(0, len(moved) - 1, min(count, len(moved))).round().astype(int))
    chosen = moved[torch.from_numpy(ranks)]
    return local.values[chosen], local.vectors[:, chosen].T.reshape(len(chosen), *theta.shape)


def directional_theory(
    student: LinearStudent,
    population: Population,
    supervision: Supervision,
    step_size: float,
    batch_size: int,
    theta: Tensor,
    count: int,
) -> dict[str, np.ndarray]:
    """First order in the step size along each of the `eigendirections`, for a supervision that aims at theta.

    `curvature` h_i; `variance_theory` S_ii of the first-order stationary covariance, NaN where there is none;
    `time_theory` 1/(alpha h_i), the autocorrelation time in steps, NaN where alpha h_i >= 2. The autocorrelation over t
    steps is (1 - alpha h_i)^t exactly for the linearised dynamics, since the noise is new at each step.
    """
    values, directions = eigendirections(student, population, theta, count)
    local, noise = curvature(student, population, theta), noise_at(student, population, supervision, theta)
    nothing = torch.full_like(noise, float("nan"))
    try:
        covariance = nothing if repels(local, step_size) else lyapunov_covariance(local, noise, step_size, batch_size)
    except NoStationaryDistribution:  # noise in directions in which nothing pulls back: no variance to state
        covariance = nothing
    flat = directions.flatten(1)
    return {
        "curvature": values.numpy(),
        "variance_theory": ((flat @ covariance) * flat).sum(-1).numpy(),
        "time_theory": torch.where(step_size * values < 2, 1 / (step_size * values), float("nan")).numpy(),
    }
