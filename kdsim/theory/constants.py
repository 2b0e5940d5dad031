"""Constants of the objective on a finite pool: strong convexity, PL, smoothness, expected smoothness."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kdsim.population import Population
from kdsim.students.base import LinearStudent
from kdsim.theory.polyak_lojasiewicz import pl_estimate

RANGE_TOLERANCE = 1e-10
"""Singular values of the inputs below this fraction of the largest count as zero, as in `realisable_optimum`."""


@dataclass(frozen=True)
class Constants:
    """Constants of a linear student's objective.

    Attributes:
        mu: strong convexity constant; 0 if the objective is not strongly convex.
        smoothness: L, smoothness of the objective.
        sample_smoothness: L_max, largest smoothness of a sample's objective.
        mu_pl: Polyak-Lojasiewicz constant, |grad f|^2 >= 2 mu_pl (f - f*); at least mu.
        mu_pl_kind: "exact": proved everywhere (least squares, strongly convex); "estimate": see `with_pl_estimate`,
            never enough for a bound; "unknown": not asked for, mu_pl is 0.
    """

    mu: float
    smoothness: float
    sample_smoothness: float
    mu_pl: float = 0.0
    mu_pl_kind: Literal["exact", "estimate", "unknown"] = "unknown"

    def expected_smoothness(self, batch_size: int) -> float:
        """L (b-1)/b + L_max / b: what replaces L_max for batches drawn with replacement.

        Source: Gower et al., "SGD: General Analysis and Improved Rates", ICML 2019, proposition 3.8.
        """
        return self.smoothness * (batch_size - 1) / batch_size + self.sample_smoothness / batch_size


def constants(student: LinearStudent, population: Population) -> Constants:
    """mu, L and L_max over the pool.

    With c the largest curvature of the loss in the outputs (1/2 for softmax cross-entropy, 1 for half squared
    error) and lambda the ridge:

        L_max = c max|x|^2 + lambda,   L = c eigmax(E xx') + lambda,
        mu = lambda (softmax regression),   mu = eigmin(E xx') + lambda (least squares),
        mu_pl = mu where it is positive,    mu_pl = smallest non-zero eigenvalue of E xx' (least squares).

    A ridge makes mu_pl = mu: in directions that no input has it is the only curvature there is.
    L and L_max of softmax regression are upper bounds, those of least squares are exact.
    Source: docs/theory.md.
    """
    x = population.x
    moments, _ = input_range(x)
    smallest, largest = (moments[0].item(), moments[-1].item()) if len(moments) else (0.0, 0.0)  # every input is zero
    mu = (smallest if student.quadratic and len(moments) == x.shape[1] else 0.0) + student.ridge
    pl = mu if mu > 0 else smallest if student.quadratic else 0.0
    return Constants(
        mu=mu,
        smoothness=student.curvature * largest + student.ridge,
        sample_smoothness=student.curvature * x.square().sum(-1).max().item() + student.ridge,
        mu_pl=pl,
        mu_pl_kind="exact" if pl > 0 else "unknown",
    )


def with_pl_estimate(student: LinearStudent, population: Population, known: Constants) -> Constants:
    """The constants with an ESTIMATE of mu_pl where `constants` knows none: softmax regression without a ridge.

    See `pl_estimate`; it costs some 500 gradients over the pool. Unknown stays what has no curvature at all.

    Raises:
        ConfigError: the objective has no finite minimiser.
    """
    if known.mu_pl_kind != "unknown":
        return known
    found = pl_estimate(student, population, known.smoothness)
    return known if found is None else replace(known, mu_pl=found, mu_pl_kind="estimate")


def input_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """Non-zero eigenvalues (r,) of G = E xx', ascending, and their eigenvectors (d, r), which span the pool.

    From singular values of x (N, d), so that eigenvalues down to RANGE_TOLERANCE^2 of the largest are seen.
    """
    _, values, vectors = torch.linalg.svd(x, full_matrices=False)
    keep = values > RANGE_TOLERANCE * values[0]
    return values[keep].flip(0).square() / x.shape[0], vectors[keep].flip(0).T
