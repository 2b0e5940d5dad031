"""Contract of a student that is linear in its parameters: theta (K, d) maps x (d,) to outputs theta x (K,).

The objective of a student with outputs z = theta x, target q and loss l is
E l(z, q) + (ridge / 2) |theta - anchor|^2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor

from kdsim.config import ConfigError, Configuration, require
from kdsim.population import LARGEST, Population

RidgeKind = Literal["none", "centred", "ordinary"]


@dataclass(frozen=True)
class LinearStudent(Configuration, ABC):
    """A linear student with a ridge.

    Attributes:
        ridge: lambda >= 0.
        ridge_kind: "none"; "centred", (lambda/2)|theta - theta_star|^2, which keeps the optimum of the
            BCP risk and makes it lambda-strongly convex; "ordinary", (lambda/2)|theta|^2, which moves it.
    """

    ridge: float = 0.0
    ridge_kind: RidgeKind = "none"

    name: ClassVar[str]
    quadratic: ClassVar[bool]
    """Whether the loss is quadratic in the outputs."""
    curvature: ClassVar[float]
    """Largest eigenvalue that the Hessian of the loss with respect to the outputs can have."""

    def __post_init__(self) -> None:
        require(0 <= self.ridge < float("inf"), "ridge", self.ridge, "a finite number >= 0")
        require(self.ridge <= LARGEST, "ridge", self.ridge, f"at most {LARGEST:g}")
        if self.ridge_kind == "none":
            require(self.ridge == 0, "ridge", self.ridge, "0 with ridge_kind 'none'")

    @abstractmethod
    def loss(self, outputs: Tensor, q: Tensor) -> Tensor:
        """Loss of outputs (..., K) against targets (..., K), without the ridge -> (...)."""

    @abstractmethod
    def output_gradient(self, outputs: Tensor, q: Tensor) -> Tensor:
        """Gradient of the loss with respect to the outputs, affine in q. (..., K)."""

    @abstractmethod
    def output_hessian(self, outputs: Tensor) -> Tensor:
        """Hessian of the loss with respect to the outputs, for a target that sums to one. (..., K, K)."""

    @abstractmethod
    def output_third(self, outputs: Tensor, covariance: Tensor) -> Tensor:
        """Third derivative of the loss with respect to the outputs, contracted twice with `covariance`.

        E of the second differential of the output gradient along a displacement of that covariance.
        (..., K), (..., K, K) -> (..., K).
        """

    @abstractmethod
    def output_noise(self, outputs: Tensor, covariance: Tensor) -> Tensor:
        """Covariance of the output gradient when the target has `covariance`. (..., K), (..., K, K) -> (..., K, K)."""

    def moving_part(self, theta: Tensor) -> Tensor:
        """Projection of theta (K, d) on the rows that gradients can move, whatever the inputs."""
        return theta

    @abstractmethod
    def probabilities(self, outputs: Tensor) -> Tensor:
        """Predicted class probabilities. (..., K) -> (..., K)."""

    @abstractmethod
    def compare(self, error: Tensor, optimal: Tensor) -> tuple[Tensor, Tensor]:
        """Excess loss and difference of the predictions at outputs `optimal + error`, where `optimal` is exactly p.

        The excess loss is the Bregman divergence E l(optimal + error, q) - E l(optimal, q) for E q = p. Both are
        evaluated without cancellation, so that floors down to rounding squared are meaningful.
        (..., K), (..., K) -> (...), (..., K).
        """

    def anchor(self, population: Population) -> Tensor:
        """The point to which the ridge pulls: theta_star (centred) or zero. (K, d).

        Raises:
            ConfigError: centred ridge on a population whose BCP this student cannot be.
        """
        zero = population.x.new_zeros(population.classes, population.features)
        if self.ridge_kind != "centred":
            return zero
        optimum = self.realisable_optimum(population)
        if optimum is None:
            raise ConfigError(
                f"ridge_kind 'centred' needs a problem whose BCP is a {self.name} of known parameters; "
                "use 'ordinary' or 'none'"
            )
        return optimum

    def realisable_optimum(self, population: Population) -> Tensor | None:
        """The parameters (K, d) at which this student is exactly the BCP and to which SGD goes, or None.

        `Population.optimum` counts only if this student's predictions there equal p to 1e-8. Without a ridge, SGD
        started at zero moves in the span of its gradients, and the optimum is projected there.
        """
        return _realisable_optimum(self, population)

    def gradient(self, theta: Tensor, x: Tensor, q: Tensor, anchor: Tensor) -> Tensor:
        """Mean gradient over a batch. theta (..., K, d), x (..., b, d), q (..., b, K) -> (..., K, d)."""
        residual = self.output_gradient(torch.einsum("...kd,...bd->...bk", theta, x), q)
        return torch.einsum("...bk,...bd->...kd", residual, x) / x.shape[-2] + self.ridge * (theta - anchor)

    def objective(self, theta: Tensor, x: Tensor, q: Tensor, anchor: Tensor) -> Tensor:
        """Mean loss over a batch plus the ridge; shapes as in `gradient` -> (...)."""
        outputs = torch.einsum("...kd,...bd->...bk", theta, x)
        return self.loss(outputs, q).mean(-1) + self.ridge / 2 * (theta - anchor).square().sum((-2, -1))


@lru_cache(maxsize=16)  # keyed by identity of the population
def _realisable_optimum(student: LinearStudent, population: Population) -> Tensor | None:
    optimum = population.optimum
    if optimum is None:
        return None
    predicted = student.probabilities(population.x @ optimum.T)
    if (predicted - population.p).abs().max() > 1e-8:
        return None
    if student.ridge > 0:
        return optimum
    _, sizes, directions = torch.linalg.svd(population.x, full_matrices=False)
    rows = directions[sizes > sizes[0] * 1e-10]  # orthonormal basis of the span of the pool
    if len(rows) < population.features:
        optimum = optimum @ rows.T @ rows
    return student.moving_part(optimum)
