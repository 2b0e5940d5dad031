"""Minimisers of a linear student's objective over the whole pool."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.population import Population
from kdsim.students.base import LinearStudent


def minimiser(
    student: LinearStudent,
    population: Population,
    mean_target: Tensor | None = None,
    logit_scale: float | None = None,
) -> Tensor:
    """argmin over theta of E_x[l(theta x, m(x))] + (ridge/2) |theta - anchor|^2, in float64.

    The loss is affine in the target, so this is the point that SGD with targets of mean m aims at.

    Args:
        student: the linear student, with its ridge.
        population: the pool.
        mean_target: m(x), (N, K); by default the BCP p(x).
        logit_scale: c, where m is known to be the softmax of c log p. Without a ridge the minimiser of a student that
            is exactly p at theta* is then c theta*: found so, it may be of any size.

    Returns:
        theta (K, d). Where the minimiser is not unique, the one to which SGD started at zero goes.

    Raises:
        ConfigError: the objective has no finite minimiser (separable targets and no ridge).
    """
    anchor = student.anchor(population)
    moved = student.ridge > 0 and student.ridge_kind == "ordinary"
    optimum = None if moved else student.realisable_optimum(population)
    target = population.p if mean_target is None else mean_target
    if optimum is not None and torch.equal(target, population.p):
        return optimum
    if logit_scale is not None and optimum is not None and student.ridge == 0:
        scaled = logit_scale * optimum
        # The student's prediction is a softmax of its outputs if it says m here.
        if (student.probabilities(population.x @ scaled.T) - target).abs().max() <= 1e-8:
            return scaled
    return _newton(student, population.x, target, anchor)


def pool_hessian(student: LinearStudent, x: Tensor, theta: Tensor) -> Tensor:
    """Hessian of the objective over the pool, (K d, K d) with theta flattened row by row.

    H = E[A(x) (x) xx'] + ridge I, A the Hessian of the loss with respect to the outputs.
    """
    return kron_mean(student.output_hessian(x @ theta.T), x) + student.ridge * torch.eye(theta.numel(), dtype=x.dtype)


def kron_mean(matrices: Tensor, x: Tensor) -> Tensor:
    """E_x[A(x) (x) xx'] over the pool: matrices (N, K, K), symmetric; x (N, d) -> (K d, K d)."""
    classes, features = matrices.shape[-1], x.shape[-1]
    blocks = x.new_empty(classes, classes, features, features)
    for k in range(classes):
        for j in range(k + 1):
            blocks[k, j] = blocks[j, k] = (x * matrices[:, k, j, None]).T @ x / x.shape[0]
    return blocks.permute(0, 2, 1, 3).reshape(classes * features, classes * features)


def _newton(student: LinearStudent, x: Tensor, target: Tensor, anchor: Tensor, iterations: int = 100) -> Tensor:
    """Newton's method with step halving, started at the anchor; steps of least norm where H is singular."""
    theta = anchor.clone()
    value = student.objective(theta, x, target, anchor)
    scale = x.norm(dim=-1).mean() + student.ridge * anchor.norm()  # size of a gradient with residuals of order one
    flat = flat_curvature(student, x)
    vanished = 1e3 * flat
    full_rank = _rank(student, x, theta, vanished)
    for _ in range(iterations):
        gradient = student.gradient(theta, x, target, anchor)
        step = _least_norm_solve(pool_hessian(student, x, theta), gradient.flatten(), flat).view_as(theta)
        decrement = (gradient * step).sum()
        # The decrement has the size of the objective, which tiny inputs under a ridge do not tell.
        if gradient.norm() <= 1e-13 * scale or (decrement <= 1e-30 and gradient.norm() <= 1e-10 * scale):
            break
        rate = 1.0
        while rate > 1e-10:
            candidate = theta - rate * step
            new = student.objective(candidate, x, target, anchor)
            # Near the optimum the decrease is below rounding: accept the full Newton step there.
            if new <= value - 0.1 * rate * decrement or decrement <= 1e-12 * (1 + value.abs()):
                break
            rate /= 2
        theta, value = candidate, new
    # On separable targets theta runs to infinity, where gradient and curvature vanish together.
    if gradient.norm() > 1e-10 * scale or _rank(student, x, theta, vanished) < full_rank:
        raise ConfigError(
            "the objective has no finite minimiser to working precision (separable targets): give the student a ridge"
        )
    return theta


def _rank(student: LinearStudent, x: Tensor, theta: Tensor, flat: float) -> int:
    return int((torch.linalg.eigvalsh(pool_hessian(student, x, theta)) > flat).sum())


def flat_curvature(student: LinearStudent, x: Tensor) -> float:
    """Eigenvalues of the pool Hessian up to this are zero to rounding: 1e-14 of the largest trace it can have.

    Not relative to the largest eigenvalue: where predictions are nearly certain the whole Hessian is small, and
    rounding of the predictions leaves some 1e-16 in directions that are exactly flat.
    """
    return 1e-14 * student.curvature * x.square().sum(-1).mean().item()


def _least_norm_solve(matrix: Tensor, right: Tensor, flat: float) -> Tensor:
    """Solution of least norm of a symmetric positive semidefinite system; eigenvalues <= flat count as zero."""
    values, vectors = torch.linalg.eigh(matrix)
    keep = values > flat
    return vectors[:, keep] @ ((vectors[:, keep].T @ right) / values[keep])
