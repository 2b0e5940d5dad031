"""Frozen targets: minimiser of a data set, its excess risk and its generalisation gap, to first order in 1/N.

A data set is N points drawn without replacement from the pool, each with one target that is drawn once. Its empirical
minimiser theta_hat is an M-estimator: with H the Hessian of the objective (ridge included) and Sg the covariance of a
sample's gradient at theta*,

    theta_hat - theta* = -H^-1 g_N + O(1/N),   E|theta_hat - theta*|^2 = tr(H^-1 Sg H^-1) / N + O(1/N^2).

Source: A. W. van der Vaart, "Asymptotic Statistics", 1998, theorem 5.21; H. White, "Maximum likelihood estimation of
misspecified models", Econometrica 50 (1982), theorem 3.2 (the sandwich). The gap is Takeuchi's penalty (K. Takeuchi,
"Distribution of informational statistics and a criterion of model fitting", Suri-Kagaku 153, 1976).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdsim.config import require_between
from kdsim.population import Population
from kdsim.students.base import LinearStudent
from kdsim.students.optimum import kron_mean
from kdsim.supervision.base import Supervision
from kdsim.theory.gradient_noise import target_moments
from kdsim.theory.stationary import Curvature, curvature

LARGEST_EXPANSION = 1.0
"""Largest `Frozen.expansion` at which the first order counts as valid; its error is then a quarter at most."""


@dataclass(frozen=True)
class Frozen:
    """First order in 1/N for a data set of N points with frozen targets.

    Attributes:
        dist_sq: E|theta_hat - theta*|^2 = tr(H^-1 Sg H^-1) / N.
        excess_risk: tr(H_0 H^-1 Sg H^-1) / (2N), H_0 the Hessian without the ridge: the BCP loss of theta_hat over the
            pool above that of theta*, in nats for cross-entropy.
        gap: tr(H^-1 Sg) / N, expected loss of theta_hat at fresh points and fresh targets above its loss on its own
            data, the ridge in neither (it would cancel).
        expansion: the expansion's own parameter, of order 1/N: expected squared relative error of the empirical
            Hessian plus the mean squared change of the outputs,

                E|H^-1/2 (H_N - H) H^-1/2|_F^2 + E_x tr Cov[theta_hat x].
    """

    dist_sq: float
    excess_risk: float
    gap: float
    expansion: float

    @property
    def valid(self) -> bool:
        """Whether the data set is large enough: the first order is then off by about a fifth of `expansion`."""
        return self.expansion <= LARGEST_EXPANSION


def frozen(
    student: LinearStudent, population: Population, supervision: Supervision, optimum: Tensor, training_set: int
) -> Frozen:
    """First order in 1/N around theta*, for fresh data sets of unbiased targets that sum to one.

    The student is realisable and has no ordinary ridge, so that the gradient at theta* given x has mean zero: only the
    label part of its covariance counts, and that the points are drawn without replacement changes nothing but the
    fluctuation of the Hessian, which falls by (P - N) / (P - 1) on a pool of P points.

    Args:
        optimum: theta*, (K, d).
        training_set: N.
    """
    require_between("training_set", training_set, 1, population.size)
    local = curvature(student, population, optimum)
    outputs = population.x @ optimum.T
    _, target_covariance = target_moments(supervision, population)
    noise = kron_mean(student.output_noise(outputs, target_covariance), population.x)  # Sg, (K d, K d)
    inverse = _inverse(local)
    spread = inverse @ noise @ inverse / training_set
    loss_hessian = local.hessian - student.ridge * torch.eye(len(inverse), dtype=inverse.dtype)
    finite_pool = (population.size - training_set) / max(population.size - 1, 1)
    if noise.abs().max() == 0:  # the targets are p: theta_hat is theta* for every data set
        expansion = 0.0
    else:
        hessian_error = _hessian_error(student, population, outputs, inverse, loss_hessian) / training_set
        moved = _output_covariance(spread, population.x).diagonal(dim1=-2, dim2=-1).sum(-1).mean().item()
        expansion = finite_pool * hessian_error + moved
    return Frozen(
        dist_sq=spread.trace().item(),
        excess_risk=(loss_hessian * spread).sum().item() / 2,
        gap=(inverse * noise).sum().item() / training_set,
        expansion=expansion,
    )


def _inverse(local: Curvature) -> Tensor:
    """H^-1 on the range of H."""
    keep = local.values > local.flat
    return (local.vectors[:, keep] / local.values[keep]) @ local.vectors[:, keep].T


def _output_covariance(covariance: Tensor, x: Tensor) -> Tensor:
    """Covariance of the outputs theta x at each x, from that of theta (K d, K d). (N, K, K)."""
    features = x.shape[1]
    blocks = covariance.view(-1, features, len(covariance) // features, features)
    return torch.einsum("ni,kilj,nj->nkl", x, blocks, x)


def _hessian_error(
    student: LinearStudent, population: Population, outputs: Tensor, inverse: Tensor, loss_hessian: Tensor
) -> float:
    """E|H^-1/2 (A (x) xx' - H_0) H^-1/2|_F^2 for one sample, A the Hessian of its loss in the outputs."""
    sample = student.output_hessian(outputs) @ _output_covariance(inverse, population.x)  # (N, K, K)
    relative = inverse @ loss_hessian
    return ((sample * sample.mT).sum((-2, -1)).mean() - (relative * relative.T).sum()).item()
