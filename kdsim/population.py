"""A finite pool of inputs with known Bayes class probabilities: the population of a simulation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdsim import simplex
from kdsim.config import ConfigError


@dataclass(frozen=True, eq=False)  # compared and cached by identity: it holds tensors
class Population:
    """A finite pool, which IS the population: risk, optimum and constants are exact sums over it.

    Attributes:
        x: inputs as the student sees them (standardised, bias column included), (N, d) float64.
        p: exact Bayes class probabilities, (N, K) float64, or None where nobody knows them.
        y: labels in 0 .. K-1, (N,) int64, or None.
        optimum: parameters of a student that is exactly p (theta_star, rows centred for softmax), (K, d), or None.
    """

    x: Tensor
    p: Tensor | None = None
    y: Tensor | None = None
    optimum: Tensor | None = None

    def __post_init__(self) -> None:
        if not torch.isfinite(self.x).all():
            raise ConfigError("population: x has entries that are not finite")
        if self.p is not None:
            if self.p.shape[0] != self.x.shape[0]:
                raise ConfigError(f"population: x has {self.x.shape[0]} rows but p has {self.p.shape[0]}")
            try:
                simplex.require_simplex(self.p)
            except ValueError as error:
                raise ConfigError(f"population: {error}") from None

    def points(self, block: slice) -> Population:
        """Some of the points as a population of their own."""
        p, y = (None if table is None else table[block] for table in (self.p, self.y))
        return Population(self.x[block], p, y, self.optimum)

    def to(self, device: torch.device | str) -> Population:
        """The same on a device."""
        x, p, y, optimum = (None if t is None else t.to(device) for t in (self.x, self.p, self.y, self.optimum))
        return Population(x, p, y, optimum)

    @property
    def size(self) -> int:
        """Number of pool points N."""
        return self.x.shape[0]

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return self.p.shape[1]

    @property
    def features(self) -> int:
        """Number of features d, the bias column included."""
        return self.x.shape[1]

    @property
    def mean_entropy(self) -> float:
        """E_x[H(p(x))] in nats: the smallest risk that any student can reach."""
        return simplex.entropy(self.p).mean().item()
