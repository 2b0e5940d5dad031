"""Transformed teacher matching: a temperature on the teacher alone, as a power of its probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsim.losses.terms import kl, tempered


def ttm(student_logits: Tensor, teacher_logits: Tensor, *, gamma: float = 0.1) -> Tensor:
    """Batch mean of KL(p_T, q_1) with T = 1 / gamma: p_T is proportional to p^gamma. There is no T^2.

    Args:
        student_logits, teacher_logits: (..., B, K).
        gamma: exponent > 0.

    Returns:
        (...) in nats.

    Source: K. Zheng, E.-H. Yang, "Knowledge distillation based on transformed teacher matching", ICLR 2024,
    arXiv 2402.11148, section 3.
    """
    return _divergence(student_logits, teacher_logits, gamma).mean(-1)


def wttm(student_logits: Tensor, teacher_logits: Tensor, *, gamma: float = 0.1) -> Tensor:
    """Batch mean of U_i KL(p_T, q_1)_i, T = 1 / gamma, with the power sum U_i = sum_k p_ik^gamma of p = softmax(z_t).

    U lies between 1 (a sure teacher) and K^(1 - gamma) (a uniform one), for gamma <= 1: soft examples count more.
    It is also 1 / |p_T|_T, the inverse T-norm of what the student is matched to, and so is a function of p_T alone.

    Args, returns and source: as in `ttm`; section 4 of the paper.
    """
    return (power_sum(teacher_logits, gamma) * _divergence(student_logits, teacher_logits, gamma)).mean(-1)


def power_sum(logits: Tensor, gamma: float) -> Tensor:
    """U = sum_k softmax(z)_k^gamma. (..., K) -> (...)."""
    return (gamma * torch.log_softmax(logits, -1)).exp().sum(-1)


def _divergence(student_logits: Tensor, teacher_logits: Tensor, gamma: float) -> Tensor:
    return kl(tempered(teacher_logits, 1 / gamma), torch.log_softmax(student_logits, -1))  # (..., B)
