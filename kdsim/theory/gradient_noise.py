"""Covariance of a sample's gradient: its label part and its input part."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from kdsim.population import Population
from kdsim.students.base import LinearStudent
from kdsim.students.optimum import kron_mean
from kdsim.supervision.base import Supervision


@lru_cache(maxsize=2)  # keyed by identity of the population
def target_moments(supervision: Supervision, population: Population) -> tuple[Tensor, Tensor]:
    """Mean (N, K) and covariance (N, K, K) of the targets on the pool; kept, as some families integrate for them."""
    return supervision.mean(population.p), supervision.covariance(population.p)


def target_sum_squares(student: LinearStudent, population: Population, supervision: Supervision) -> Tensor:
    """E[s^2 | x] = (1'm)^2 + 1'C1 of the sum s = 1'q of a target, (N,): by it the Hessian of a softmax sample scales.

    Ones where targets sum to one, and for a quadratic loss, whose Hessian does not depend on the target. 1 + K nu at
    every point for `Independent`.
    """
    if supervision.sums_to_one or student.quadratic:
        return torch.ones(population.size, dtype=torch.float64)
    mean, covariance = target_moments(supervision, population)
    return mean.sum(-1).square() + covariance.sum((-2, -1))


def gradient_covariance(
    student: LinearStudent, population: Population, supervision: Supervision, theta: Tensor
) -> Tensor:
    """Covariance Sg of the gradient of one sample, x uniform over the pool and q fresh, at theta (K, d).

        Sg = E[N(x) (x) xx'] + E[r r' (x) xx'] - g g',   r = residual at the mean target, g = E[r (x) x],

    N(x) the covariance of the output gradient given x (label part); the rest is the input part, which vanishes
    at the optimum of a realisable student without an ordinary ridge. Ridge terms carry no noise.

    Returns:
        (K d, K d), theta flattened row by row.
    """
    outputs = population.x @ theta.T
    mean_target, target_covariance = target_moments(supervision, population)
    label = student.output_noise(outputs, target_covariance)  # (N, K, K)
    residual = student.output_gradient(outputs, mean_target)  # (N, K)
    second = label + residual[:, :, None] * residual[:, None, :]
    mean = (residual.T @ population.x / population.size).flatten()
    return kron_mean(second, population.x) - torch.outer(mean, mean)


def gradient_noise(
    student: LinearStudent, population: Population, supervision: Supervision, theta: Tensor, batch_size: int = 1
) -> float:
    """sigma^2 = tr Sg / b at theta (K, d): the total variance of a batch gradient, batch drawn with replacement.

    At the optimum and for targets that sum to one it is E[|x|^2 tr C(x)] / b. Source: docs/theory.md.
    """
    outputs = population.x @ theta.T
    mean_target, target_covariance = target_moments(supervision, population)
    label = student.output_noise(outputs, target_covariance)
    residual = student.output_gradient(outputs, mean_target)
    second = label.diagonal(dim1=-2, dim2=-1).sum(-1) + residual.square().sum(-1)  # (N,)
    mean = residual.T @ population.x / population.size
    total = (second * population.x.square().sum(-1)).mean() - mean.square().sum()
    return max(total.item(), 0.0) / batch_size
