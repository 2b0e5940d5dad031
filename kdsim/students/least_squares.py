"""Least squares: outputs theta x under half squared error, for problems whose BCP is linear in x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdsim import losses
from kdsim.students.base import LinearStudent


@dataclass(frozen=True)
class LeastSquares(LinearStudent):
    """Linear regression on the target. The risk is quadratic, so floors and curves have exact expressions."""

    name: ClassVar[str] = "least-squares"
    quadratic: ClassVar[bool] = True
    curvature: ClassVar[float] = 1.0

    def loss(self, outputs: Tensor, q: Tensor) -> Tensor:
        return losses.squared_error(outputs, q)

    def output_gradient(self, outputs: Tensor, q: Tensor) -> Tensor:
        return losses.squared_error_gradient(outputs, q)

    def output_hessian(self, outputs: Tensor) -> Tensor:
        return losses.squared_error_hessian(outputs)

    def output_third(self, outputs: Tensor, covariance: Tensor) -> Tensor:
        return torch.zeros_like(outputs)

    def output_noise(self, outputs: Tensor, covariance: Tensor) -> Tensor:
        return covariance

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The outputs themselves: a linear BCP is predicted without a link, and may leave the simplex."""
        return outputs

    def compare(self, error: Tensor, optimal: Tensor) -> tuple[Tensor, Tensor]:
        return error.square().sum(-1) / 2, error
