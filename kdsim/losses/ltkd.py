"""Long-tailed knowledge distillation: between groups of classes, rebalanced, and within groups, equally weighted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdsim.config import require
from kdsim.losses.terms import kl

SHARES = (0.33, 0.34, 0.33)
"""Shares of the classes that are head, medium and tail."""


def ltkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    groups: Sequence[Tensor],
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> Tensor:
    """Batch mean of T^2 [alpha KL(P', Q) + beta sum_G KL(p~_G, q~_G)].

    P_G and Q_G are the probabilities of group G, p~_G and q~_G the distributions within it, all at T; they make up the
    whole, KL(p_T, q_T) = KL(P, Q) + sum_G P_G KL(p~_G, q~_G). P' is the teacher's rebalanced over the batch, see
    `rebalanced`: so the loss is not a mean over independent examples. Teacher = student is no zero of the first part
    unless the batch is balanced.

    Args:
        student_logits, teacher_logits: (..., B, K). The teacher's are finite: within a group that it gives no
            probability at all there is nothing to match.
        groups: class indices of each group, (K_G,) int64, see `class_groups`.
        temperature: T > 0.
        alpha, beta: weights between and within groups; 0 switches a part off. Those of the paper are not known here.

    Returns:
        (...) in nats.

    Source: S. Kim, "Distilling balanced knowledge from a biased teacher", CVPR 2026, arXiv 2506.18496.
    """
    whole_t, within_t = grouped(teacher_logits / temperature, groups)
    whole_s, within_s = grouped(student_logits / temperature, groups)
    between = kl(rebalanced(whole_t), whole_s)  # (..., B)
    within = sum(kl(p, q) for p, q in zip(within_t, within_s, strict=True))  # (..., B)
    return temperature**2 * (alpha * between + beta * within).mean(-1)


def grouped(logits: Tensor, groups: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """log P over the M groups, (..., M), and log p~_G within each, [(..., K_G)]."""
    members = [logits[..., group.to(logits.device)] for group in groups]
    whole = torch.stack([each.logsumexp(-1) for each in members], -1)
    return torch.log_softmax(whole, -1), [torch.log_softmax(each, -1) for each in members]


def rebalanced(log_whole: Tensor) -> Tensor:
    """log P', with P'_iG proportional to s_G P_iG for each example i. (..., B, M) -> (..., B, M).

    s_G = (1/M) sum_{i,G'} P_iG' / sum_i P_iG brings the batch's total of each group to B / M.
    """
    # The numerator of s is one for all groups, and the normalisation over G removes it.
    return torch.log_softmax(log_whole - log_whole.logsumexp(-2, keepdim=True), -1)


def class_groups(class_counts: Sequence[int], shares: Sequence[float] = SHARES) -> tuple[Tensor, ...]:
    """Class indices of each group, from many to few training examples; ties in the order of the classes.

    Args:
        class_counts: training examples of each class, (K,).
        shares: share of the classes in each group, in order; sum to one.
    """
    classes = len(class_counts)
    ends = [round(sum(shares[: number + 1]) * classes) for number in range(len(shares))]
    filled = all(first < second for first, second in zip([0, *ends[:-1]], ends, strict=True))
    require(filled and math.isclose(sum(shares), 1), "shares", tuple(shares),
            f"shares that sum to one and leave no group of {classes} classes empty")  # fmt: skip
    falling = sorted(range(classes), key=lambda number: -class_counts[number])
    return tuple(torch.tensor(falling[low:high]) for low, high in zip([0, *ends[:-1]], ends, strict=True))
