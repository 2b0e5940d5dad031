"""Constants of the objective on a finite pool: strong convexity, smoothness, expected smoothness."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kdsim.population import Population
from kdsim.students.base import LinearStudent


@dataclass(frozen=True)
class Constants:
    """Constants of a linear student's objective.

    Attributes:
        mu: strong convexity constant; 0 if the objective is not strongly convex.
        smoothness: L, smoothness of the objective.
        sample_smoothness: L_max, largest smoothness of a sample's objective.
    """

    mu: float
    smoothness: float
    sample_smoothness: float

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
        mu = lambda (softmax regression),   mu = eigmin(E xx') + lambda (least squares).

    L and L_max of softmax regression are upper bounds, those of least squares are exact.
    Source: shared theory, section 4.
    """
    x = population.x
    moments = torch.linalg.eigvalsh(x.T @ x / population.size)  # ascending
    quadratic = student.curvature == 1.0
    smallest = moments[0].item() if quadratic and moments[0] > 1e-12 * moments[-1] else 0.0
    return Constants(
        mu=smallest + student.ridge,
        smoothness=student.curvature * moments[-1].item() + student.ridge,
        sample_smoothness=student.curvature * x.square().sum(-1).max().item() + student.ridge,
    )
