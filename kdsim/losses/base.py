"""Contract of a distillation loss: a configuration that is called with logits, what the teacher says, and labels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import ConfigError, Configuration, require, require_between, require_positive
from kdsim.losses.posterior import PosteriorOrder, average_posterior
from kdsim.losses.standardise import standardise
from kdsim.losses.terms import label_cross_entropy, require_same_shape

LARGEST_WEIGHT = 1e30
"""Largest weight of a term: float32 holds its product with a loss."""
TEMPERATURES = 1e-3, 1e4
"""Ends of the temperatures. Beyond them T^2 KL(p_T, q_T) in float32 is 0, infinite, or all rounding."""


class DistillationLoss(Configuration, ABC):
    """label weight * label term + teacher weight * teacher term. Implementations are frozen dataclasses."""

    name: ClassVar[str]

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, epoch: float
    ) -> Tensor:
        """The loss of a batch.

        Args:
            student_logits: (B, K), or (..., B, K) with replicas in front. Half precision is raised to float32.
            teacher_logits: logits or log-probabilities in the student's shape, or (S, ..., B, K) for S posterior
                samples; None where the teacher's weight is zero.
            labels: (..., B) int64; None where no term looks at them.
            epoch: number of the current epoch, the first is 1; fractions are allowed. Only a warm-up looks at it.

        Returns:
            () for (B, K), else (...).
        """
        label_weight, teacher_weight = self.weights
        student_logits = student_logits.to(torch.promote_types(student_logits.dtype, torch.float32))
        loss = student_logits.new_zeros(student_logits.shape[:-2])
        if label_weight > 0:
            loss = loss + label_weight * self.label_term(student_logits, labels)
        if teacher_weight > 0:
            if teacher_logits is None:
                raise ConfigError(f"teacher logits = None is not allowed: {self.name} has weight {teacher_weight:g}")
            teacher, student = self.prepared(teacher_logits.to(student_logits)), self.prepared(student_logits)
            if teacher.dim() == student.dim() + 1:
                require_same_shape(student, teacher[0])
                teacher = self.average(teacher)
            require_same_shape(student, teacher)
            loss = loss + teacher_weight * self.teacher_term(student, teacher, labels, epoch)
        return loss

    @property
    @abstractmethod
    def weights(self) -> tuple[float, float]:
        """Weights >= 0 of the label term and of the teacher term."""

    def for_class_shares(self, shares: Sequence[float]) -> DistillationLoss:
        """The loss for training data with these shares of the classes; one that was told none of its own takes them."""
        return self

    def for_epochs(self, epochs: float) -> DistillationLoss:
        """The loss for a training of so many epochs; one whose schedule is a share of the run takes it from them."""
        return self

    def label_term(self, student_logits: Tensor, labels: Tensor | None) -> Tensor:
        """Cross-entropy against the labels, batch mean. (..., B, K) -> (...)."""
        return label_cross_entropy(student_logits, labels)

    def prepared(self, logits: Tensor) -> Tensor:
        """Student or teacher as the teacher term sees them. (..., K) -> (..., K)."""
        return logits

    @abstractmethod
    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        """What the teacher adds, batch mean. (..., B, K), (..., B, K) -> (...)."""

    def average(self, samples: Tensor) -> Tensor:
        """Logits that stand for S posterior samples of the teacher: their predictive distribution, unless overridden.

        (S, ..., B, K) -> (..., B, K).
        """
        return average_posterior(samples, temperature=1.0, order="average-then-temper")


@dataclass(frozen=True, kw_only=True)
class SoftmaxLoss(DistillationLoss):
    """A loss that looks at the teacher through a softmax at a temperature.

    Attributes:
        posterior_order: of tempering and averaging posterior samples, "temper-then-average" or "average-then-temper";
            see `kdsim.losses.posterior`.
        standardised: whether student and teacher (each of its samples) are standardised first, for the teacher term
            only; see `kdsim.losses.standardise`.
    """

    posterior_order: PosteriorOrder = "temper-then-average"
    standardised: bool = False

    @property
    @abstractmethod
    def seen_at(self) -> float:
        """The temperature at which the teacher is seen."""

    def prepared(self, logits: Tensor) -> Tensor:
        return standardise(logits) if self.standardised else logits

    def average(self, samples: Tensor) -> Tensor:
        return average_posterior(samples, temperature=self.seen_at, order=self.posterior_order)


def require_weight(what: str, value: float) -> None:
    """Refuse anything but a finite number >= 0 (NaN included)."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(number and math.isfinite(value) and value >= 0, what, value, "a finite number >= 0")
    require(value <= LARGEST_WEIGHT, what, value, f"at most {LARGEST_WEIGHT:g}")


def require_temperature(what: str, value: float) -> None:
    """Refuse a temperature that is no number > 0, or so extreme that float32 loses the loss without a word."""
    require_positive(what, value)
    require_between(what, value, *TEMPERATURES)


def require_weights(label_weight: float, teacher_weight: float) -> None:
    """Refuse weights that are not >= 0, or all zero."""
    require_weight("label_weight", label_weight)
    require_weight("teacher_weight", teacher_weight)
    require(label_weight + teacher_weight > 0, "teacher_weight", teacher_weight, "> 0 where label_weight is 0")
