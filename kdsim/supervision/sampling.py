"""Steps that several supervisions share. Sampling keeps the classes in front, (K, R, V): a CPU walks that fastest."""

from __future__ import annotations

import torch
from torch import Tensor


def classes_first(p: Tensor) -> Tensor:
    """(..., K) -> contiguous (K, ...)."""
    return p.movedim(-1, 0).contiguous()


def classes_last(q: Tensor) -> Tensor:
    """(K, ...) -> contiguous (..., K)."""
    return q.movedim(0, -1).contiguous()


def level_like(level: float | Tensor, p: Tensor) -> Tensor:
    """The level in the dtype and on the device of p: () or (R, 1), which broadcasts against (K, R, V)."""
    return torch.as_tensor(level, dtype=p.dtype, device=p.device)


def is_zero(level: float | Tensor) -> bool:
    """Whether the level, or every one of stacked levels, is zero."""
    return bool(torch.as_tensor(level == 0).all())


def cumulative(p: Tensor) -> Tensor:
    """Running sums of p over the classes, which come first in the result. (..., K) -> (K, ...).

    The scan over a leading axis is sequential, so the sums never decrease and stand still where p_k = 0.
    """
    return classes_first(p).cumsum(0)


def reached(cdf: Tensor, uniform: Tensor) -> Tensor:
    """Whether the label drawn by the inverse distribution function is at most k. (K, R, V), (R, V) -> (K, R, V) bool.

    The uniform is scaled by the last running sum and not the sums by it: uniform * total stays below
    total in floating point, so the label always exists, and a class where the sum stands still is never drawn.
    """
    return uniform * cdf[-1] < cdf


def one_hot_labels(p: Tensor, uniform: Tensor) -> Tensor:
    """One-hot labels y ~ p from one uniform in (0, 1) each. (R, V, K), (R, V) -> (R, V, K)."""
    at_most = reached(cumulative(p), uniform).to(p.dtype)
    at_most[1:] -= at_most[:-1].clone()
    return classes_last(at_most)


def softmax(logits: Tensor) -> Tensor:
    """Softmax over the leading axis. (K, ...) -> (K, ...).

    `torch.softmax` and `sum` add in an order that depends on the place in memory, so a target would depend on what
    it is packed with. A running sum and elementwise operations do not.
    """
    weights = (logits - logits.amax(0)).exp_()
    return weights / weights.cumsum(0)[-1]
