"""What the distillation losses are made of. The last axis holds the K classes, the one before it the batch of B.

Teachers enter as logits or as log-probabilities: both have the same softmax at every temperature. A teacher is a
constant. Where its probability of a class is zero (a log-probability of -inf), gradients reach the student alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdsim.config import ConfigError


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """log softmax(z / T). (..., K) -> (..., K)."""
    return torch.log_softmax(logits / temperature, -1)


def weighted(weight: Tensor, value: Tensor) -> Tensor:
    """`weight` times `value`, and zero where the weight is zero, also against an infinite value."""
    return torch.where(weight == 0, torch.zeros_like(value), weight * value)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p, q) = sum_k p_k (log p_k - log q_k) in nats, with 0 log 0 = 0. (..., K), (..., K) -> (...)."""
    return weighted(log_p.exp(), log_p - log_q).sum(-1)


def label_cross_entropy(student_logits: Tensor, labels: Tensor | None) -> Tensor:
    """Batch mean of -log softmax(z)_y. (..., B, K), (..., B) int64 -> (...)."""
    labels = require_labels(student_logits, labels)
    return -torch.log_softmax(student_logits, -1).gather(-1, labels[..., None])[..., 0].mean(-1)


def require_labels(student_logits: Tensor, labels: Tensor | None) -> Tensor:
    """`labels`, or a `ConfigError` where they are missing or are not one class index for each row of the logits."""
    if labels is None:
        raise ConfigError("labels = None is not allowed: this loss needs the class of each example")
    if labels.is_floating_point() or labels.shape != student_logits.shape[:-1]:
        raise ConfigError(
            f"labels of shape {tuple(labels.shape)} and type {labels.dtype} are not allowed: "
            f"must be int64 class indices of shape {tuple(student_logits.shape[:-1])}"
        )
    return labels.long()


def require_same_shape(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Refuse a teacher that does not say one thing about each of the student's outputs."""
    if teacher_logits.shape != student_logits.shape:
        raise ConfigError(
            f"teacher logits of shape {tuple(teacher_logits.shape)} are not allowed: "
            f"must be {tuple(student_logits.shape)} like the student's, or (S, *that) for S posterior samples"
        )
