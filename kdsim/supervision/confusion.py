"""Class probabilities passed through a confusion matrix, or labels drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from kdsim import simplex
from kdsim.config import require_between
from kdsim.rng import Draws
from kdsim.supervision.base import Batch, Supervision, Target
from kdsim.supervision.sampling import level_like, one_hot_labels


@dataclass(frozen=True)
class Confusion(Supervision):
    """q = A p, or a one-hot label drawn from A p, with A = (1 - rate) I + rate B.

    Mean A p; covariance 0, or diag(A p) - A p (A p)' with labels.

    Attributes:
        rate: probability that a label is confused, in [0, 1].
        pattern: "symmetric", B moves a class to each of the K - 1 others alike; "cyclic", B moves class k
            to k + 1 mod K.
        labels: whether the target is a one-hot label drawn from A p; otherwise it is A p.

    Source: G. Patrini et al., "Making deep neural networks robust to label noise", CVPR 2017 (symmetric and
    class-conditional label noise); docs/theory.md.
    """

    rate: float = 0.2
    pattern: Literal["symmetric", "cyclic"] = "symmetric"
    labels: bool = False

    name: ClassVar[str] = "confusion"
    level_field: ClassVar[str] = "rate"
    unbiased: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_between("rate", self.rate, 0, 1)

    @property
    def noiseless(self) -> bool:
        """Whether the target is A p itself."""
        return not self.labels

    def sample(self, batch: Batch, draws: Draws) -> Target:
        """A p, or the label that the inverse distribution function of A p gives for slot 0."""
        q = self.mean(batch.p)
        return Target(q=one_hot_labels(q, draws.uniform(0)) if self.labels else q, y=batch.y)

    def mean(self, p: Tensor) -> Tensor:
        """E[q | p] = A p. (..., K) -> (..., K)."""
        rate = level_like(self.rate, p)[..., None]
        others = p.cumsum(-1)[..., -1:] - p  # `sum` adds in another order in another packing
        if p.shape[-1] == 1:  # one class is confused with no other
            return p
        moved = p.roll(1, -1) if self.pattern == "cyclic" else others / (p.shape[-1] - 1)
        return (1 - rate) * p + rate * moved

    def covariance(self, p: Tensor) -> Tensor:
        """Cov[q | p] = 0, or diag(A p) - A p (A p)' with labels. (..., K) -> (..., K, K)."""
        if self.labels:
            return simplex.one_hot_covariance(self.mean(p))
        return torch.zeros(*p.shape, p.shape[-1], dtype=p.dtype, device=p.device)
