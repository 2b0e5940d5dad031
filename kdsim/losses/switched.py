"""A loss that changes into another at an epoch: to distillation, or away from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from torch import Tensor

from kdsim.config import ConfigError, require_positive
from kdsim.losses.base import DistillationLoss
from kdsim.losses.distillation import KD, LabelCrossEntropy
from kdsim.losses.terms import require_labels


@dataclass(frozen=True)
class Switched(DistillationLoss):
    """`first`, and from the epoch `at_epoch` on `second`. Either of them may be switched itself.

    Both may look at the labels and the teacher, which are asked for from the start if one of them ever does. A warm-up
    counts epochs from the start of the training, not from the switch.

    Attributes:
        first, second: losses.
        at_epoch: number of the epoch from which on `second` holds, > 0; the first epoch is 1, and fractions are
            allowed.
    """

    first: DistillationLoss = field(default_factory=LabelCrossEntropy)
    second: DistillationLoss = field(default_factory=KD)
    at_epoch: float = 6.0

    name: ClassVar[str] = "switched"

    def __post_init__(self) -> None:
        require_positive("at_epoch", self.at_epoch)

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, epoch: float
    ) -> Tensor:
        """The loss of a batch, that of the epoch; see `DistillationLoss`."""
        label_weight, teacher_weight = self.weights
        if teacher_weight > 0 and teacher_logits is None:
            raise ConfigError(f"teacher logits = None is not allowed: {self.name} has weight {teacher_weight:g}")
        if label_weight > 0:
            require_labels(student_logits, labels)
        return self.at(epoch)(student_logits, teacher_logits, labels, epoch)

    def at(self, epoch: float) -> DistillationLoss:
        """The loss that holds then."""
        return self.first if epoch < self.at_epoch else self.second

    @property
    def weights(self) -> tuple[float, float]:
        """The larger of both losses' weights, of the labels and of the teacher."""
        labels, teachers = zip(self.first.weights, self.second.weights, strict=True)
        return max(labels), max(teachers)

    def for_class_shares(self, shares: Sequence[float]) -> Self:
        return replace(self, first=self.first.for_class_shares(shares), second=self.second.for_class_shares(shares))

    def for_epochs(self, epochs: float) -> Self:
        return replace(self, first=self.first.for_epochs(epochs), second=self.second.for_epochs(epochs))

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return self.at(epoch).teacher_term(student, teacher, labels, epoch)
