"""Factored least squares: W = A B under half squared error, the standard non-convex example with a PL region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import ConfigError, require, require_count, require_positive
from kdsim.population import LARGEST, Population
from kdsim.students.base import LinearStudent
from kdsim.students.least_squares import LeastSquares
from kdsim.students.network import AddGradient, NetworkStudent, add_outer, unflatten
from kdsim.students.optimum import minimiser


@dataclass(frozen=True)
class FactoredLeastSquares(NetworkStudent):
    """Outputs A B x with A (K, m) and B (m, d), flattened in this order, under half squared error.

    The objective is not convex; its minimisers are the sets {A T, T^-1 B}. Where A'A and BB' stay away from zero it
    satisfies the Polyak-Lojasiewicz inequality with a constant of the region.

    Attributes:
        rank: m; below min(K, d) the student cannot be every W.
        initial_scale: standard deviation of the entries of A and B at the start.
    """

    rank: int = 5
    initial_scale: float = 0.4

    name: ClassVar[str] = "factored-least-squares"
    head: ClassVar[LinearStudent] = LeastSquares()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("rank", self.rank)
        require_positive("initial_scale", self.initial_scale)
        require(self.initial_scale <= LARGEST, "initial_scale", self.initial_scale, f"at most {LARGEST:g}")

    def shapes(self, features: int, classes: int) -> list[tuple[tuple[int, ...], float]]:
        return [((classes, self.rank), self.initial_scale), ((self.rank, features), self.initial_scale)]

    def outputs(self, parameters: Tensor, x: Tensor) -> Tensor:
        left, right = self._factors(parameters, x.shape[-1])
        return (x @ right.T) @ left.T

    def linear_map(self, parameters: Tensor, features: int) -> Tensor:
        left, right = self._factors(parameters, features)
        return left @ right

    def reference(self, population: Population) -> Tensor:
        """Minimiser of the risk over all W (K, d); of rank at most m only if the student can be it."""
        return minimiser(LeastSquares(), population)

    def solution(self, population: Population) -> Tensor:
        """The balanced factors A = U sqrt(S), B = sqrt(S) V' of W* = U S V', flat (P,).

        A'A = BB'; of all factors of W* they have the smallest norm.

        Raises:
            ConfigError: m is below the rank of W*.
        """
        best = self.reference(population)
        u, s, vh = torch.linalg.svd(best, full_matrices=False)
        needed = int((s > 1e-10 * s[0]).sum())
        if self.rank < needed:
            raise ConfigError(f"rank = {self.rank} is not allowed: must be at least {needed}, the rank of W*")
        kept = min(self.rank, len(s))
        left, right = best.new_zeros(best.shape[0], self.rank), best.new_zeros(self.rank, best.shape[1])
        left[:, :kept], right[:kept] = u[:, :kept] * s[:kept].sqrt(), s[:kept].sqrt()[:, None] * vh[:kept]
        return torch.cat([left.flatten(), right.flatten()])

    def gradient_adder(self, parameters: Tensor, into: Tensor, features: int, classes: int) -> AddGradient:
        """By hand: with residual r = A B x - q the gradients are r (B x)' and A' r x'."""
        left, right = self._factors(parameters, features)
        left_into, right_into = self._factors(into, features)

        def add(x: Tensor, q: Tensor, rate: Tensor) -> None:
            rate = rate[:, :, None]  # (R, 1, 1)
            inner = torch.bmm(x, right.transpose(1, 2))  # B x, (R, b, m)
            outputs = torch.bmm(inner, left.transpose(1, 2))
            residual = self.head.output_gradient(outputs, q).mul_(rate / x.shape[1])  # (R, b, K)
            passed_on = torch.bmm(residual, left)  # A' r, (R, b, m)
            if self.ridge:  # `into` may be the parameters: each is changed after it was used
                left_into.addcmul_(left, rate, value=self.ridge)
                right_into.addcmul_(right, rate, value=self.ridge)
            add_outer(left_into, residual, inner)
            add_outer(right_into, passed_on, x)

        return add

    def _factors(self, parameters: Tensor, features: int) -> list[Tensor]:
        classes = parameters.shape[-1] // self.rank - features
        return unflatten(parameters, [(classes, self.rank), (self.rank, features)])
