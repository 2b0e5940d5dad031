"""Distillation from a stronger teacher: correlations for distances."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_NORM = 1e-8
"""Centred vectors that are shorter count as if they had this length: a constant has correlation 0 with anything."""


def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """beta T^2 mean_i [1 - r(p_i, q_i)] + gamma T^2 mean_k [1 - r(p_k, q_k)], r the Pearson correlation.

    p_i is the row of example i, correlated over the K classes; p_k the column of class k, correlated over the B
    examples of the batch. So the loss is not a mean over examples, and it depends on how batches are made up. The
    columns of a batch of one have no correlation: they count as r = 0. The correlation of probabilities that vary by
    less than 1e-8 (`SMALLEST_NORM`), as those of a class that a confident student never gives, is shrunk towards 0.

    Args:
        student_logits, teacher_logits: (..., B, K).
        temperature: T > 0.
        beta, gamma: weights of rows and of columns.

    Returns:
        (...), between 0 and 2 T^2 (beta + gamma).

    Source: T. Huang, S. You, F. Wang, C. Qian, C. Xu, "Knowledge distillation from a stronger teacher", NeurIPS 2022,
    arXiv 2205.10536, section 3.
    """
    p = torch.softmax(teacher_logits / temperature, -1)  # (..., B, K)
    q = torch.softmax(student_logits / temperature, -1)
    rows = 1 - pearson(p, q, -1).mean(-1)
    columns = 1 - pearson(p, q, -2).mean(-1)
    return temperature**2 * (beta * rows + gamma * columns)


def pearson(u: Tensor, v: Tensor, axis: int) -> Tensor:
    """Pearson correlation of u and v along `axis`, which is dropped."""
    return (_standard(u, axis) * _standard(v, axis)).sum(axis)


def _standard(u: Tensor, axis: int) -> Tensor:
    """u centred along `axis`, of length one. The bound is under the root, which has no derivative at 0."""
    centred = u - u.mean(axis, keepdim=True)
    return centred / centred.square().sum(axis, keepdim=True).clamp(min=SMALLEST_NORM**2).sqrt()
