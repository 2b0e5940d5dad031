"""Long-tailed knowledge distillation: between groups of classes, rebalanced, and within groups, equally weighted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdsim.config import require
from kdsim.losses.terms import kl, weighted

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
    rebalance: bool = True,
    equal_groups: bool = True,
) -> Tensor:
    """Batch mean of T^2 [alpha KL(P', Q) + beta sum_G KL(p~_G, q~_G)].

    P_G and Q_G are the probabilities of group G, p~_G and q~_G the distributions within it, all at T; they make up the
    whole, KL(p_T, q_T) = KL(P, Q) + sum_G P_G KL(p~_G, q~_G). Two corrections, each of which may be left out, turn that
    into the loss. P' is the teacher's P rebalanced over the batch, see `rebalanced`: so the loss is not a mean over
    independent examples, and teacher = student is no zero of the first part unless the batch is balanced. And all
    groups count alike within, in place of P_G. Without both corrections and with alpha = beta = 1 it is KD.

    Args:
        student_logits, teacher_logits: (..., B, K). The teacher's may be -inf. Within a group to which it gives no
            probability at all there is nothing to match, and that part is zero.
        groups: class indices of each group, (K_G,) int64, see `class_groups`.
        temperature: T > 0.
        alpha, beta: weights between and within groups; 0 switches a part off. Those of the paper are not known here.
        rebalance: whether P' stands between groups; else P.
        equal_groups: whether the parts within groups have equal weights; else P_G.

    Returns:
        (...) in nats.

    At temperature 1 the student's limit is the teacher under equally frequent groups, up to the size of the batch, with
    the first correction, and the teacher without it: docs/theory.md, "Long tails".

    Source: S. Kim, "Distilling balanced knowledge from a biased teacher", CVPR 2026, arXiv 2506.18496.
    """
    whole_t, within_t = grouped(teacher_logits / temperature, groups)
    whole_s, within_s = grouped(student_logits / temperature, groups)
    between = kl(rebalanced(whole_t) if rebalance else whole_t, whole_s)  # (..., B)
    # A group to which the teacher gives no probability at all has no p~: the student is matched with itself there.
    there = (whole_t > -torch.inf)[..., None].unbind(-2)
    seen = [torch.where(known, p, q.detach()) for known, p, q in zip(there, within_t, within_s, strict=True)]
    parts = torch.stack([kl(p, q) for p, q in zip(seen, within_s, strict=True)], -1)  # (..., B, M)
    within = (parts if equal_groups else weighted(whole_t.exp(), parts)).sum(-1)  # (..., B)
    return temperature**2 * (alpha * between + beta * within).mean(-1)


def grouped(logits: Tensor, groups: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """log P over the M groups, (..., M), and log p~_G within each, [(..., K_G)]."""
    members = [logits[..., group.to(logits.device)] for group in groups]
    whole = torch.stack([each.logsumexp(-1) for each in members], -1)
    return torch.log_softmax(whole, -1), [torch.log_softmax(each, -1) for each in members]


def rebalanced(log_whole: Tensor) -> Tensor:
    """log P', with P'_iG proportional to s_G P_iG for each example i. (..., B, M) -> (..., B, M).

    s_G = (1/M) sum_{i,G'} P_iG' / sum_i P_iG brings the batch's total of each group to B / M. A group without any
    probability in the batch keeps none.
    """
    # The numerator of s is one for all groups, and the normalisation over G removes it.
    total = log_whole.logsumexp(-2, keepdim=True)
    return torch.log_softmax(log_whole - total.masked_fill(total == -torch.inf, 0.0), -1)


def class_groups(class_counts: Sequence[float], shares: Sequence[float] = SHARES) -> tuple[Tensor, ...]:
    """Class indices of each group, from many to few training examples; ties in the order of the classes.

    Args:
        class_counts: training examples of each class, (K,).
        shares: share of the classes in each group, in order; sum to one.
    """
    classes = len(class_counts)
    ends = [round(sum(shares[: number + 1]) * classes) for number in range(len(shares))]
    require(len(shares) > 0, "shares", tuple(shares), "at least one share")
    filled = all(first < second for first, second in zip([0, *ends[:-1]], ends, strict=True))
    require(filled and math.isclose(sum(shares), 1), "shares", tuple(shares),
            f"shares that sum to one and leave no group of {classes} classes empty")  # fmt: skip
    falling = sorted(range(classes), key=lambda number: -class_counts[number])
    return tuple(torch.tensor(falling[low:high]) for low, high in zip([0, *ends[:-1]], ends, strict=True))
