"""First-order stationary distribution of SGD with a constant step size around the point it aims at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kdsim.population import Population
from kdsim.students.base import LinearStudent
from kdsim.students.optimum import flat_curvature, kron_mean, pool_hessian
from kdsim.supervision.base import Supervision
from kdsim.theory.gradient_noise import gradient_covariance


class NoStationaryDistribution(ValueError):
    """Noise in directions in which nothing pulls back: SGD wanders there without end."""


@dataclass(frozen=True)
class Stationary:
    """Floor of the squared distance and of the excess risk, to first order in the step size.

    floor = bias_sq + cross_term + variance, where theta_m is the point that SGD aims at and theta* the reference:
    |theta_m - theta*|^2 + 2 <theta_m - theta*, E[theta - theta_m]> + tr S.

    Attributes:
        variance: tr S.
        bias_sq, cross_term: 0 for unbiased supervision.
        mean_dist_sq: |theta_m - theta* + E[theta - theta_m]|^2, the squared distance of the mean of theta.
        excess_risk: tr(H S) / 2 with the Hessian of the loss without the ridge, or None where theta_m is not theta*.
    """

    variance: float
    bias_sq: float
    cross_term: float
    mean_dist_sq: float
    excess_risk: float | None

    @property
    def floor(self) -> float:
        """E|theta - theta*|^2."""
        return self.bias_sq + self.cross_term + self.variance


@dataclass(frozen=True)
class Curvature:
    """Hessian of the objective over the pool at one point, with its eigenvalues (ascending) and eigenvectors."""

    hessian: Tensor
    values: Tensor
    vectors: Tensor
    flat: float
    """Eigenvalues up to this are zero to rounding."""


@lru_cache(maxsize=8)  # keyed by identity of the population and of theta
def curvature(student: LinearStudent, population: Population, theta: Tensor) -> Curvature:
    """The Hessian at theta (K, d) and its eigendecomposition, shared by all supervisions that aim at one point."""
    hessian = pool_hessian(student, population.x, theta)
    values, vectors = torch.linalg.eigh(hessian)
    return Curvature(hessian, values, vectors, flat=flat_curvature(student, population.x))


def repels(local: Curvature, step_size: float) -> bool:
    """Whether the mean of linearised SGD leaves the point: some error is reversed by a step and not shortened."""
    return step_size * local.values[-1].item() >= 2


@lru_cache(maxsize=64)  # a sweep of step sizes asks for each supervision's noise again
def noise_at(student: LinearStudent, population: Population, supervision: Supervision, theta: Tensor) -> Tensor:
    """`gradient_covariance`, kept for the next call."""
    return gradient_covariance(student, population, supervision, theta)


def lyapunov_covariance(curvature: Curvature, noise: Tensor, step_size: float, batch_size: int) -> Tensor:
    """S solving H S + S H = (alpha / b) Sg on the range of H, the subspace in which SGD moves.

    Source: Mandt, Hoffman, Blei, "Stochastic Gradient Descent as Approximate Bayesian Inference", JMLR 18 (2017),
    equation (13), with their noise BB' = Sg / b.

    Args:
        noise: Sg, (D, D), in the range of the Hessian.

    Raises:
        NoStationaryDistribution: the noise leaves the range of the Hessian.
    """
    values, vectors = curvature.values, curvature.vectors
    rotated = vectors.T @ noise @ vectors
    if rotated.trace() <= 0:  # a difference of two moments that are equal but for rounding: there is no noise
        return torch.zeros_like(noise)
    keep = values > curvature.flat
    lost = rotated.diagonal()[~keep].clamp(min=0)
    # Flat directions are told to within `flat`, and so is noise there: one-hot noise equals the Hessian.
    if lost.sum() > 1e-9 * rotated.trace() + 10 * curvature.flat * lost.numel():
        raise NoStationaryDistribution("gradient noise in flat directions of the risk: no stationary distribution")
    sums = values[:, None] + values[None, :]
    inside = keep[:, None] & keep[None, :]
    solution = torch.where(inside, rotated / torch.where(inside, sums, 1.0), 0.0)
    return (step_size / batch_size) * (vectors @ solution @ vectors.T)


def stationary(
    student: LinearStudent,
    population: Population,
    supervision: Supervision,
    step_size: float,
    batch_size: int,
    aim: Tensor,
    reference: Tensor,
) -> Stationary:
    """First-order floor of SGD with fresh targets and batches drawn with replacement.

    To first order E[theta - theta_m] = -(1/2) H^-1 f'''[S]: the drift that skewness of the loss adds to a biased
    optimum. Source: docs/theory.md.

    Args:
        aim: theta_m, minimiser of the objective at the mean targets, (K, d).
        reference: theta*, from which distance is measured, (K, d).
    """
    local = curvature(student, population, aim)
    hessian = local.hessian
    noise = noise_at(student, population, supervision, aim)
    covariance = lyapunov_covariance(local, noise, step_size, batch_size)
    unbiased = supervision.unbiased
    shift = torch.zeros_like(aim).flatten() if unbiased else (aim - reference).flatten()
    drift = mean_shift(student, population, local, covariance, aim)
    loss_hessian = hessian - student.ridge * torch.eye(hessian.shape[0], dtype=hessian.dtype)
    return Stationary(
        variance=covariance.trace().item(),
        bias_sq=shift.square().sum().item(),
        cross_term=2 * (shift @ drift).item(),
        mean_dist_sq=(shift + drift).square().sum().item(),
        excess_risk=(loss_hessian * covariance).sum().item() / 2 if _at_bcp(student, population, unbiased) else None,
    )


def _at_bcp(student: LinearStudent, population: Population, unbiased: bool) -> bool:
    """Whether SGD aims at the exact BCP, where the gradient of the unregularised risk vanishes."""
    return unbiased and student.ridge_kind != "ordinary" and student.realisable_optimum(population) is not None


def mean_shift(
    student: LinearStudent, population: Population, local: Curvature, covariance: Tensor, theta: Tensor
) -> Tensor:
    """E[theta - theta_m] = -(1/2) H^-1 E[l'''[S_x] (x) x], S_x the covariance of the outputs at x. (K d,)."""
    classes, features = theta.shape
    blocks = covariance.view(classes, features, classes, features)
    outputs_covariance = torch.einsum("ni,kilj,nj->nkl", population.x, blocks, population.x)
    third = student.output_third(population.x @ theta.T, outputs_covariance)  # (N, K)
    skew = (third.T @ population.x / population.size).flatten()
    vectors = local.vectors[:, local.values > local.flat]
    return -0.5 * vectors @ ((vectors.T @ skew) / local.values[local.values > local.flat])


def effective_dimension(student: LinearStudent, population: Population, theta: Tensor) -> int:
    """d_eff: rank of the Hessian of the loss without the ridge."""
    values = torch.linalg.eigvalsh(kron_mean(student.output_hessian(population.x @ theta.T), population.x))
    return int((values > flat_curvature(student, population.x)).sum())
