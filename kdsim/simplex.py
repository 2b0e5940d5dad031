"""Mathematics on the probability simplex. The last axis holds the K classes; every function broadcasts."""

from __future__ import annotations

import torch
from torch import Tensor


def entropy(p: Tensor) -> Tensor:
    """Shannon entropy -sum_k p_k log p_k in nats, with 0 log 0 = 0. (..., K) -> (...).

    >>> entropy(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    tensor([0.6931, 0.5623])
    """
    return -torch.xlogy(p, p).sum(-1)


def cross_entropy(q: Tensor, log_phi: Tensor) -> Tensor:
    """-sum_k q_k log phi_k in nats, with 0 log 0 = 0. (..., K), (..., K) -> (...)."""
    return -torch.where(q == 0, torch.zeros_like(q), q * log_phi).sum(-1)


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats; infinite where q_k = 0 < p_k. (..., K), (..., K) -> (...)."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def one_hot_covariance(p: Tensor) -> Tensor:
    """Covariance diag(p) - p p' of a one-hot label y ~ p. (..., K) -> (..., K, K).

    >>> one_hot_covariance(torch.tensor([0.5, 0.25, 0.25]))
    tensor([[ 0.2500, -0.1250, -0.1250],
            [-0.1250,  0.1875, -0.0625],
            [-0.1250, -0.0625,  0.1875]])
    """
    return torch.diag_embed(p) - p[..., :, None] * p[..., None, :]


def gini(p: Tensor) -> Tensor:
    """Gini impurity 1 - |p|^2 = tr(diag(p) - p p'), the total variance of a one-hot label. (..., K) -> (...)."""
    return (p * (1 - p)).sum(-1)


def mean_class_variance(covariance: Tensor) -> Tensor:
    """nu = E_x[tr C(x)] / K, the mean per-class variance of a target. (N, K, K) -> ()."""
    return covariance.diagonal(dim1=-2, dim2=-1).mean()


def require_simplex(p: Tensor, what: str = "p", tolerance: float = 1e-6) -> None:
    """Raise ValueError unless every row of p is finite, non-negative and sums to one within `tolerance`."""
    if not torch.isfinite(p).all():
        raise ValueError(f"{what} has entries that are not finite")
    if (p < 0).any():
        raise ValueError(f"{what} has negative entries (smallest {p.min().item():.3g})")
    worst = (p.sum(-1) - 1).abs().max().item()
    if worst > tolerance:
        raise ValueError(f"{what} has rows that do not sum to one (off by {worst:.3g})")
