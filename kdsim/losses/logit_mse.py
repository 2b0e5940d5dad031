"""Squared error between the student's and the teacher's logits."""

from __future__ import annotations

from torch import Tensor


def logit_mse(student_logits: Tensor, teacher_logits: Tensor, *, centred: bool = False) -> Tensor:
    """Mean over batch *and* classes of (z_s - z_t)^2.

    Centred, each side loses its mean over the classes, and the loss is twice the limit of `kd` at T -> infinity,
    |centred z_s - centred z_t|^2 / (2 K). Uncentred, it is the one loss here that adding a constant to a row of logits
    changes: it needs the teacher's logits themselves, not log-probabilities.

    Args:
        student_logits, teacher_logits: (..., B, K).
        centred: whether to take the mean over the classes off each side.

    Returns:
        (...).

    Source: T. Kim, J. Oh, N. Kim, S. Cho, S.-Y. Yun, "Comparing Kullback-Leibler divergence and mean squared error
    loss in knowledge distillation", IJCAI 2021, arXiv 2105.08919.
    """
    difference = student_logits - teacher_logits  # (..., B, K)
    if centred:
        difference = difference - difference.mean(-1, keepdim=True)
    return difference.square().mean((-2, -1))
