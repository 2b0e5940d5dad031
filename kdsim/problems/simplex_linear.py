"""Class probabilities that are linear in x, for least squares: everything about SGD is known exactly there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from kdsim.config import require_between, require_count
from kdsim.population import Population
from kdsim.problems.base import Problem
from kdsim.problems.sampling import draw_labels, generator

KEY = 3


@dataclass(frozen=True)
class SimplexLinear(Problem):
    """p(x) = theta_star x, with x ~ Dirichlet(a 1_d) and each column of theta_star ~ Dirichlet(c 1_K).

    x_j mixes d prototypes whose class probabilities are the columns of theta_star, so p is on the simplex with no
    clipping and 0.5 |theta x - q|^2 is realisable. No bias column: sum_j x_j = 1 already spans the constant.

    Attributes:
        classes: number of classes K.
        dimension: number of features d.
        concentration: a > 0; small puts x near the prototypes, large near their centre (G = E xx' near rank one).
        column_concentration: c > 0; small makes the prototypes' class probabilities sharp.
        samples: pool size N.
    """

    classes: int = 5
    dimension: int = 8
    concentration: float = 1.0
    column_concentration: float = 0.5
    samples: int = 4096

    name: ClassVar[str] = "simplex-linear"
    student: ClassVar[str] = "least-squares"

    def __post_init__(self) -> None:
        require_count("classes", self.classes, least=2)
        require_count("dimension", self.dimension)
        require_between("concentration", self.concentration, 0, 1e6, "(]")
        require_between("column_concentration", self.column_concentration, 0, 1e6, "(]")
        require_count("samples", self.samples)

    def population(self, seed: int) -> Population:
        """Draw theta_star, features and labels."""
        rng = generator(seed, KEY)
        theta = rng.dirichlet(np.full(self.classes, self.column_concentration), size=self.dimension).T.copy()
        x = torch.from_numpy(rng.dirichlet(np.full(self.dimension, self.concentration), size=self.samples))
        optimum = torch.from_numpy(theta)  # (K, d)
        p = x @ optimum.T
        return Population(x=x, p=p, y=torch.from_numpy(draw_labels(p.numpy(), rng)), optimum=optimum)
