"""Half squared error of linear outputs against a target. The last axis holds K classes."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_error(outputs: Tensor, q: Tensor) -> Tensor:
    """|outputs - q|^2 / 2. (..., K), (..., K) -> (...)."""
    return (outputs - q).square().sum(-1) / 2


def squared_error_gradient(outputs: Tensor, q: Tensor) -> Tensor:
    """Gradient outputs - q with respect to the outputs. (..., K)."""
    return outputs - q


def squared_error_hessian(outputs: Tensor) -> Tensor:
    """Hessian with respect to the outputs: the identity. (..., K, K)."""
    classes = outputs.shape[-1]
    return torch.eye(classes, dtype=outputs.dtype, device=outputs.device).expand(*outputs.shape, classes)
