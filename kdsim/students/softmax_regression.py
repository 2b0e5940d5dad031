"""Softmax regression: phi = softmax(theta x) under cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdsim import losses
from kdsim.losses.cross_entropy import LARGE
from kdsim.students.base import LinearStudent


@dataclass(frozen=True)
class SoftmaxRegression(LinearStudent):
    """Softmax regression in the redundant form with K rows.

    Every gradient lies in the subspace {theta : 1'theta = 0} when started there. Without a ridge the
    BCP risk is strictly convex on that subspace but not strongly convex globally.
    """

    name: ClassVar[str] = "softmax-regression"
    quadratic: ClassVar[bool] = False
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

    def moving_part(self, theta: Tensor) -> Tensor:
        """1'theta = 0: gradients of softmax regression sum to zero over the classes."""
        return theta - theta.mean(0)

    def probabilities(self, outputs: Tensor) -> Tensor:
        return torch.softmax(outputs, -1)

    def compare(self, error: Tensor, optimal: Tensor) -> tuple[Tensor, Tensor]:
        """KL(p || phi) = log E_p[exp e] and phi - p = p (exp e / E_p[exp e] - 1), e the error centred under p."""
        log_p = torch.log_softmax(optimal, -1)
        p = log_p.exp()
        error = error - (p * error).sum(-1, keepdim=True)
        large = error.amax(-1, keepdim=True) > LARGE
        near = torch.where(large, torch.zeros_like(error), error)
        growth = torch.expm1(near)
        excess = (p * (growth - near)).sum(-1, keepdim=True)  # E_p[exp e] - 1, since E_p[e] = 0
        divergence = torch.log1p(excess)[..., 0]
        gap = p * (growth - excess) / (1 + excess)
        if large.any():  # nothing cancels there, and p may be below the smallest float where exp e is above the largest
            divergence = torch.where(large[..., 0], torch.logsumexp(log_p + error, -1), divergence)
            gap = torch.where(large, torch.softmax(log_p + error, -1) - p, gap)
        return divergence, gap
