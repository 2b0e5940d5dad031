"""Decoupled knowledge distillation: the label's probability and the other classes, each with its weight."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.losses.terms import kl, require_labels

WARMUP_EPOCHS, PUBLISHED_EPOCHS = 20.0, 240.0
"""Epochs of the published recipe over which the teacher's term grows, and all of its epochs."""


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
    factor: float = 1.0,
) -> Tensor:
    """Batch mean of factor T^2 [alpha KL(b_t, b_s) + beta KL(p^, q^)].

    b = (p_y, 1 - p_y) and p^ = softmax of z / T over the K - 1 classes other than y. The two parts make up the whole,
    KL(p_T, q_T) = KL(b_t, b_s) + (1 - p_y) KL(p^, q^), so with beta = 1 - p_y for each example this would be `kd`.

    Args:
        student_logits, teacher_logits: (..., B, K). The teacher's are finite: one that is sure of y has no p^.
        labels: y, (..., B) int64.
        temperature: T > 0.
        alpha, beta: weights of the label's part and of the rest.
        factor: of the whole, see `warmup_factor`.

    Returns:
        (...) in nats.

    Raises:
        ConfigError: K = 2. There is one other class, p^ = q^ = (1), and the second part would be silently zero.

    Source: B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang, "Decoupled knowledge distillation", CVPR 2022,
    arXiv 2203.08679, section 3.
    """
    classes = student_logits.shape[-1]
    if classes < 3:
        raise ConfigError(f"dkd with K = {classes} classes is not allowed: must be at least 3; use kd")
    labels = require_labels(student_logits, labels)
    target_t, rest_t = decoupled(teacher_logits, labels, temperature)
    target_s, rest_s = decoupled(student_logits, labels, temperature)
    per_example = alpha * kl(target_t, target_s) + beta * kl(rest_t, rest_s)  # (..., B)
    return factor * temperature**2 * per_example.mean(-1)


def decoupled(logits: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log (p_y, 1 - p_y), (..., 2), and log p^ over the other classes, (..., K - 1).

    The label's entry is taken out, not pushed down by a large constant, so that it is gone at any scale of the logits.
    """
    scaled = logits / temperature  # (..., K)
    place = torch.arange(logits.shape[-1] - 1, device=logits.device)  # (K - 1,)
    others = scaled.gather(-1, place + (place >= labels[..., None]))  # (..., K - 1)
    target = torch.cat([scaled.gather(-1, labels[..., None]), others.logsumexp(-1, keepdim=True)], -1)
    return torch.log_softmax(target, -1), torch.log_softmax(others, -1)


def warmup_factor(epoch: float, epochs: float = WARMUP_EPOCHS) -> float:
    """min(epoch / epochs, 1), and 1 without warm-up (epochs = 0). The first epoch has the number 1."""
    return min(epoch / epochs, 1.0) if epochs > 0 else 1.0
