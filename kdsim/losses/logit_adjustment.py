"""Losses for long tails that move the logits by the classes' log prior while training, not the targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from kdsim.config import require, require_positive
from kdsim.losses.base import DistillationLoss, require_weight, require_weights
from kdsim.losses.cross_entropy import cross_entropy
from kdsim.losses.terms import label_cross_entropy


def adjusted(logits: Tensor, class_counts: Sequence[float], tau: float = 1.0) -> Tensor:
    """z_k + tau log n_k. (..., K) -> (..., K).

    With softmax(z + log n) fitted to the BCP under the prior pi proportional to n, softmax(z) is the BCP under equal
    priors: Bayes' rule. At other tau it is that under the prior pi^(1 - tau).
    """
    classes = logits.shape[-1]
    count = len(class_counts)
    require(count == classes, "class_counts", f"{count} numbers", f"{classes}, one for each class")
    return logits + tau * torch.tensor(class_counts, dtype=logits.dtype, device=logits.device).log()


@dataclass(frozen=True)
class BalancedSoftmax(DistillationLoss):
    """Cross-entropy of softmax(z + log n): label_weight of the labels + teacher_weight of the target's probabilities.

    The student is read out as softmax(z). Posterior samples enter by their mean probabilities.

    Attributes:
        label_weight, teacher_weight: >= 0, not both zero. Labels alone are the published loss.
        class_counts: n, training examples of each class, or numbers in proportion to them. Empty: those of the training
            data where these are long-tailed, or equal at an imbalance of 1; nothing else is assumed.

    Source: J. Ren, C. Yu, S. Sheng, X. Ma, H. Zhao, S. Yi, H. Li, "Balanced meta-softmax for long-tailed visual
    recognition", NeurIPS 2020, arXiv 2007.10740.
    """

    label_weight: float = 1.0
    teacher_weight: float = 0.0
    class_counts: tuple[float, ...] = ()

    name: ClassVar[str] = "balanced-softmax"

    def __post_init__(self) -> None:
        require_weights(self.label_weight, self.teacher_weight)
        for number, count in enumerate(self.class_counts):
            require_positive(f"class_counts[{number}]", count)

    @property
    def weights(self) -> tuple[float, float]:
        return self.label_weight, self.teacher_weight

    @property
    def strength(self) -> float:
        """Factor on the log prior."""
        return 1.0

    def for_class_shares(self, shares: Sequence[float]) -> Self:
        return self if self.class_counts else replace(self, class_counts=tuple(shares))

    def label_term(self, student_logits: Tensor, labels: Tensor | None) -> Tensor:
        return label_cross_entropy(self._adjusted(student_logits), labels)

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return cross_entropy(self._adjusted(student), torch.softmax(teacher, -1)).mean(-1)

    def _adjusted(self, logits: Tensor) -> Tensor:
        return adjusted(logits, self.class_counts, self.strength)


@dataclass(frozen=True)
class LogitAdjustment(BalancedSoftmax):
    """As `BalancedSoftmax`, with softmax(z + tau log pi), pi proportional to n. At tau = 1 the two are one loss.

    Attributes:
        tau: factor on the log prior, >= 0; 0 is the cross-entropy.

    Source: A. K. Menon, S. Jayasumana, A. S. Rawat, H. Jain, A. Veit, S. Kumar, "Long-tail learning via logit
    adjustment", ICLR 2021, arXiv 2007.07314, the logit adjusted softmax cross-entropy.
    """

    tau: float = 1.0

    name: ClassVar[str] = "logit-adjustment"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_weight("tau", self.tau)

    @property
    def strength(self) -> float:
        return self.tau
