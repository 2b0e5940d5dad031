"""Class probabilities that are linear in x, for least squares: everything about SGD is known exactly there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from kdsim.config import require, require_between, require_count
from kdsim.population import Population
from kdsim.problems.base import Problem
from kdsim.problems.sampling import draw_labels, generator

KEY = 3


@dataclass(frozen=True)
class SimplexLinear(Problem):
    """p(x) = theta_star x, with x ~ Dirichlet(a 1_d) and each column of theta_star ~ Dirichlet(c 1_K).

    x_j mixes d prototypes whose class probabilities are the columns of theta_star, so p is on the simplex with no
    clipping and 0.5 |theta x - q|^2 is realisable. No bias column: sum_j x_j = 1 already spans the constant.

    With a `rank`, x = B u with u ~ Dirichlet(a 1_rank) and columns of B (d, rank) ~ Dirichlet(a 1_d): features lie in
    a subspace and G = E xx' is singular. So it is with fewer samples than dimensions, where the student has more
    parameters than the pool determines. `Population.optimum` is then the solution of least norm, theta_star projected
    on the span of the pool: SGD from zero stays in that span and converges there, so the squared distance to it is
    the squared distance to the set of all solutions. p = optimum x holds on the pool as before.

    Attributes:
        classes: number of classes K.
        dimension: number of features d.
        concentration: a > 0; small puts x near the prototypes, large near their centre (G = E xx' near rank one).
        column_concentration: c > 0; small makes the prototypes' class probabilities sharp.
        samples: pool size N.
        rank: dimension of the subspace of the features, 1 .. d; none: all d.
    """

    classes: int = 5
    dimension: int = 8
    concentration: float = 1.0
    column_concentration: float = 0.5
    samples: int = 4096
    rank: int | None = None

    name: ClassVar[str] = "simplex-linear"
    student: ClassVar[str] = "least-squares"

    def __post_init__(self) -> None:
        require_count("classes", self.classes, least=2)
        require_count("dimension", self.dimension)
        require_between("concentration", self.concentration, 0, 1e6, "(]")
        require_between("column_concentration", self.column_concentration, 0, 1e6, "(]")
        require_count("samples", self.samples)
        if self.rank is not None:
            require_count("rank", self.rank)
            require(self.rank <= self.dimension, "rank", self.rank, f"<= dimension = {self.dimension}")

    def population(self, seed: int) -> Population:
        """Draw theta_star, features and labels."""
        rng = generator(seed, KEY)
        theta = rng.dirichlet(np.full(self.classes, self.column_concentration), size=self.dimension).T.copy()
        if self.rank is None:
            points = rng.dirichlet(np.full(self.dimension, self.concentration), size=self.samples)
        else:
            frame = rng.dirichlet(np.full(self.dimension, self.concentration), size=self.rank)  # B', (rank, d)
            points = rng.dirichlet(np.full(self.rank, self.concentration), size=self.samples) @ frame
        x, optimum = torch.from_numpy(points), torch.from_numpy(theta)  # (N, d), (K, d)
        p = x @ optimum.T
        optimum = least_norm(optimum, x)
        return Population(x=x, p=p, y=torch.from_numpy(draw_labels(p.numpy(), rng)), optimum=optimum)


def least_norm(theta: Tensor, x: Tensor) -> Tensor:
    """The parameters of least norm that have theta's outputs on the rows of x (N, d): its projection on their span.

    theta (K, d) itself where the rows span everything. Singular values below 1e-10 of the largest count as zero.
    """
    _, values, span = torch.linalg.svd(x, full_matrices=False)
    span = span[values > 1e-10 * values[0]]  # (r, d)
    return theta if len(span) == x.shape[1] else (theta @ span.T) @ span
