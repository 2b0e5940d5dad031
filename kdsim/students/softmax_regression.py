"""Softmax regression: phi = softmax(theta x) under cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdsim import losses
from kdsim.students.base import LinearStudent


@dataclass(frozen=True)
class SoftmaxRegression(LinearStudent):
    """Softmax regression in the redundant form with K rows.

    Every gradient lies in the subspace {theta : 1'theta = 0} when started there. Without a ridge the
    BCP risk is strictly convex on that subspace but not strongly convex globally.
    """

    name: ClassVar[str] = "softmax-regression"
    curvature: ClassVar[float] = 0.5  # diag(phi) - phi phi' <= I / 2

    def loss(self, outputs: Tensor, q: Tensor) -> Tensor:
        return losses.cross_entropy(outputs, q)

    def output_gradient(self, outputs: Tensor, q: Tensor) -> Tensor:
        return losses.cross_entropy_gradient(outputs, q)

    def output_hessian(self, outputs: Tensor) -> Tensor:
        return losses.cross_entropy_hessian(outputs)

    def output_third(self, outputs: Tensor, covariance: Tensor) -> Tensor:
        """phi_k E[(e_k - phi'e)^2 - Var_phi(e)] for a displacement e of the logits with covariance C."""
        phi = torch.softmax(outputs, -1)
        along = torch.einsum("...kj,...j->...k", covariance, phi)  # C phi
        squares = covariance.diagonal(dim1=-2, dim2=-1) - 2 * along + (phi * along).sum(-1, keepdim=True)
        return phi * (squares - (phi * squares).sum(-1, keepdim=True))

    def output_noise(self, outputs: Tensor, covariance: Tensor) -> Tensor:
        """P C P' with P = I - phi 1'; equals C when targets sum to one (C 1 = 0)."""
        phi = torch.softmax(outputs, -1)
        projected = covariance - phi[..., :, None] * covariance.sum(-2, keepdim=True)  # P C
        return projected - projected.sum(-1, keepdim=True) * phi[..., None, :]  # (P C) P'

    def probabilities(self, outputs: Tensor) -> Tensor:
        return torch.softmax(outputs, -1)

    def compare(self, error: Tensor, optimal: Tensor) -> tuple[Tensor, Tensor]:
        """KL(p || phi) = log E_p[exp e] and phi - p = p (exp e / E_p[exp e] - 1), e the error centred under p."""
        p = torch.softmax(optimal, -1)
        error = error - (p * error).sum(-1, keepdim=True)
        # Far from the optimum there is nothing to cancel; the shift keeps the exponentials finite.
        shift = error.amax(-1, keepdim=True).sub_(40).clamp_(min=0)
        growth = torch.expm1(error - shift)
        excess = (p * (growth - error)).sum(-1, keepdim=True)  # E_p[exp e] - 1, as E_p[e] = 0, where shift = 0
        total = torch.where(shift > 0, (p * growth).sum(-1, keepdim=True), excess)
        divergence = torch.log1p(total) + shift
        return divergence[..., 0], p * (growth - total) / (1 + total)
