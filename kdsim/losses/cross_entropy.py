"""Cross-entropy of softmax outputs against a target that need not sum to one. The last axis holds K classes."""

from __future__ import annotations

import torch
from torch import Tensor

LARGE = 40.0
"""Error of a logit, in nats, from which on a divergence has nothing to cancel and its exponentials may overflow."""


def cross_entropy(logits: Tensor, q: Tensor) -> Tensor:
    """-sum_k q_k log softmax(logits)_k in nats. (..., K), (..., K) -> (...)."""
    return -(q * torch.log_softmax(logits, -1)).sum(-1)


def cross_entropy_gradient(logits: Tensor, q: Tensor) -> Tensor:
    """Gradient (sum_j q_j) softmax(logits) - q with respect to the logits. (..., K).

    The factor sum_j q_j matters for targets off the simplex: with it the gradient sums to zero
    for every q; without it ("phi - q") it does not, and is not the gradient of the loss.
    """
    return q.sum(-1, keepdim=True) * torch.softmax(logits, -1) - q


def cross_entropy_hessian(logits: Tensor) -> Tensor:
    """Hessian diag(phi) - phi phi' with respect to the logits, for a target that sums to one. (..., K, K)."""
    phi = torch.softmax(logits, -1)
    return torch.diag_embed(phi) - phi[..., :, None] * phi[..., None, :]
