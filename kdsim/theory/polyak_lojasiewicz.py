"""Polyak-Lojasiewicz (PL) objectives: the constant along a path, where none is proved.

f is mu-PL if |grad f(theta)|^2 >= 2 mu (f(theta) - f*) everywhere. A mu-strongly convex f is mu-PL; least squares with
a singular G = E xx' is PL but not strongly convex; softmax regression without a ridge is PL on bounded sets only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdsim.population import Population
from kdsim.students.base import LinearStudent
from kdsim.students.optimum import flat_curvature, minimiser, pool_hessian

PATH_STEPS = 500
"""Gradient-descent steps along which the PL ratio is looked at. Later ones near the smallest eigenvalue at theta*."""
CONVERGED = 1e-10
"""The path ends once f - f* is below this fraction of its start."""


def excess_objective(student: LinearStudent, population: Population, theta: Tensor, optimum: Tensor) -> float:
    """f(theta) - f(optimum) over the pool, f the objective at the BCP with its ridge.

    Where the optimum's outputs are exactly p it is a divergence, without cancellation; otherwise a difference.

    Args:
        theta, optimum: (K, d); the optimum is a minimiser of f.
    """
    x, p, anchor = population.x, population.p, student.anchor(population)
    exact = student.realisable_optimum(population)
    if exact is not None and torch.equal(exact, optimum):
        error = theta - optimum
        risk = student.compare(x @ error.T, x @ optimum.T)[0].mean()
        ridge = (theta - anchor).square().sum() - (optimum - anchor).square().sum()
        return (risk + student.ridge / 2 * ridge).item()
    return (student.objective(theta, x, p, anchor) - student.objective(optimum, x, p, anchor)).item()


def pl_estimate(student: LinearStudent, population: Population, smoothness: float) -> float | None:
    """ESTIMATE of the PL constant: no proof that it holds off the path on which it was found.

    The smallest of |grad f|^2 / (2 (f - f*)) along gradient descent from zero with step 1 / L, over PATH_STEPS steps
    or until f - f* has fallen by CONVERGED, and of the smallest non-zero eigenvalue of the Hessian at theta*, to which
    that ratio tends along the slowest direction. A noisy path of SGD may visit points with a smaller ratio.

    None where the Hessian at theta* is zero: one class, inputs that are all zero, certain predictions.

    Args:
        smoothness: L.

    Raises:
        ConfigError: the objective has no finite minimiser.
    """
    optimum, anchor = minimiser(student, population), student.anchor(population)
    values = torch.linalg.eigvalsh(pool_hessian(student, population.x, optimum))
    curved = values[values > flat_curvature(student, population.x)]
    if not len(curved):
        return None
    estimate = curved.min().item()
    theta = torch.zeros_like(optimum)
    start = excess_objective(student, population, theta, optimum)
    for _ in range(PATH_STEPS):
        excess = excess_objective(student, population, theta, optimum)
        if excess <= CONVERGED * start:
            break
        gradient = student.gradient(theta, population.x, population.p, anchor)
        estimate = min(estimate, (gradient.square().sum() / (2 * excess)).item())
        theta = theta - gradient / smoothness
    return estimate
