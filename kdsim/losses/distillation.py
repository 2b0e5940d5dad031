"""The distillation losses as configurations: weights, temperatures and exponents are fields, part of a digest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from kdsim.config import require, require_between, require_count, require_positive
from kdsim.losses.abkd import abkd
from kdsim.losses.base import (
    TEMPERATURES,
    DistillationLoss,
    SoftmaxLoss,
    require_temperature,
    require_weight,
    require_weights,
)
from kdsim.losses.bayesian_kd import bayesian_kd
from kdsim.losses.brier import brier
from kdsim.losses.cross_entropy import cross_entropy
from kdsim.losses.dist import dist
from kdsim.losses.dkd import PUBLISHED_EPOCHS, WARMUP_EPOCHS, dkd, warmup_factor
from kdsim.losses.kd import kd
from kdsim.losses.logit_mse import logit_mse
from kdsim.losses.ltkd import SHARES, class_groups, ltkd
from kdsim.losses.terms import require_labels
from kdsim.losses.ttm import ttm, wttm


@dataclass(frozen=True)
class LabelCrossEntropy(DistillationLoss):
    """Cross-entropy against the labels: a student alone, or a deterministic teacher. The teacher is not looked at."""

    name: ClassVar[str] = "label-cross-entropy"

    @property
    def weights(self) -> tuple[float, float]:
        return 1.0, 0.0

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return student.new_zeros(student.shape[:-2])


@dataclass(frozen=True)
class CrossEntropy(DistillationLoss):
    """-sum_k p_k log softmax(z)_k against the probabilities that are taught, whatever they are; labels are not read.

    For targets on the simplex: exact BCP, a noisy estimate of it, one-hot labels, a teacher. Posterior samples enter by
    their mean probabilities.
    """

    name: ClassVar[str] = "cross-entropy"

    @property
    def weights(self) -> tuple[float, float]:
        return 0.0, 1.0

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return cross_entropy(student, torch.softmax(teacher, -1)).mean(-1)


@dataclass(frozen=True)
class _Weighted(SoftmaxLoss):
    """label_weight CE + teacher_weight * divergence.

    Attributes:
        label_weight, teacher_weight: >= 0, not both zero.
    """

    label_weight: float = 1.0
    teacher_weight: float = 1.0

    def __post_init__(self) -> None:
        require_weights(self.label_weight, self.teacher_weight)

    @property
    def weights(self) -> tuple[float, float]:
        return self.label_weight, self.teacher_weight


@dataclass(frozen=True)
class _Tempered(_Weighted):
    """A weighted loss at a temperature.

    Attributes:
        temperature: T > 0.
    """

    temperature: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_temperature("temperature", self.temperature)

    @property
    def seen_at(self) -> float:
        return self.temperature


@dataclass(frozen=True)
class KD(_Tempered):
    """label_weight CE + teacher_weight T^2 KL(p_T, q_T). See `kdsim.losses.kd`.

    The defaults are those of the CIFAR-100 benchmarks; standardised, (0.1, 9, T = 2) are the published ones.
    """

    label_weight: float = 0.1
    teacher_weight: float = 0.9

    name: ClassVar[str] = "kd"

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return kd(student, teacher, temperature=self.temperature)


@dataclass(frozen=True)
class BayesianKD(SoftmaxLoss):
    """(1 - alpha) CE + alpha T S KL(p~_T, q_S). See `kdsim.losses.bayesian_kd`.

    Attributes:
        alpha: weight of the teacher, in [0, 1]; the paper has 0.5 to 1.
        teacher_temperature: T > 0; the paper has 1, 2 and 4.
        student_temperature: S > 0; the paper has 1 and 2.
    """

    alpha: float = 1.0
    teacher_temperature: float = 1.0
    student_temperature: float = 1.0

    name: ClassVar[str] = "bayesian-kd"

    def __post_init__(self) -> None:
        require_weight("alpha", self.alpha)
        require(self.alpha <= 1, "alpha", self.alpha, "in [0, 1]")
        require_temperature("teacher_temperature", self.teacher_temperature)
        require_temperature("student_temperature", self.student_temperature)

    @property
    def weights(self) -> tuple[float, float]:
        return 1 - self.alpha, self.alpha

    @property
    def seen_at(self) -> float:
        return self.teacher_temperature

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return bayesian_kd(
            student,
            teacher,
            teacher_temperature=self.teacher_temperature,
            student_temperature=self.student_temperature,
        )


@dataclass(frozen=True)
class LogitMSE(DistillationLoss):
    """label_weight CE + teacher_weight mean over B and K of (z_s - z_t)^2. See `kdsim.losses.logit_mse`.

    Posterior samples enter by the mean of their logits, which has the gradient of the mean of their losses.

    Attributes:
        label_weight, teacher_weight: >= 0, not both zero.
        centred: whether each side loses its mean over the classes. Log-probabilities are logits only up to a constant:
            where the teacher gives them, this must be true.
    """

    label_weight: float = 1.0
    teacher_weight: float = 1.0
    centred: bool = False

    name: ClassVar[str] = "logit-mse"

    def __post_init__(self) -> None:
        require_weights(self.label_weight, self.teacher_weight)

    @property
    def weights(self) -> tuple[float, float]:
        return self.label_weight, self.teacher_weight

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return logit_mse(student, teacher, centred=self.centred)

    def average(self, samples: Tensor) -> Tensor:
        return samples.mean(0)


@dataclass(frozen=True)
class DKD(_Tempered):
    """label_weight CE + teacher_weight warm-up T^2 [alpha KL(b_t, b_s) + beta KL(p^, q^)]. See `kdsim.losses.dkd`.

    Attributes:
        alpha, beta: weights >= 0 of the label's part and of the other classes.
        warmup_epochs: epochs over which the teacher's term grows to its full size, min(epoch / warmup_epochs, 1);
            0 for none. None: the published share of the training, 20 of 240 epochs.
    """

    alpha: float = 1.0
    beta: float = 8.0
    warmup_epochs: float | None = None

    name: ClassVar[str] = "dkd"

    def __post_init__(self) -> None:
        super().__post_init__()
        for what in ("alpha", "beta"):
            require_weight(what, getattr(self, what))
        if self.warmup_epochs is not None:
            require_weight("warmup_epochs", self.warmup_epochs)

    def for_epochs(self, epochs: float) -> Self:
        share = WARMUP_EPOCHS / PUBLISHED_EPOCHS
        return self if self.warmup_epochs is not None else replace(self, warmup_epochs=share * epochs)

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        warmup = WARMUP_EPOCHS if self.warmup_epochs is None else self.warmup_epochs  # None: no training is known
        weights = {"alpha": self.alpha, "beta": self.beta, "factor": warmup_factor(epoch, warmup)}
        return dkd(student, teacher, labels, temperature=self.temperature, **weights)


@dataclass(frozen=True)
class DIST(_Tempered):
    """label_weight CE + teacher_weight T^2 [beta mean_i (1 - r(p_i, q_i)) + gamma mean_k (1 - r(p_k, q_k))].

    r is Pearson's correlation. See `kdsim.losses.dist`.

    Attributes:
        beta, gamma: weights >= 0 of rows (examples) and columns (classes).
    """

    beta: float = 1.0
    gamma: float = 1.0

    name: ClassVar[str] = "dist"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_weight("beta", self.beta)
        require_weight("gamma", self.gamma)

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return dist(student, teacher, temperature=self.temperature, beta=self.beta, gamma=self.gamma)


@dataclass(frozen=True)
class TTM(_Weighted):
    """label_weight CE + teacher_weight KL(p_T, q_1), T = 1 / gamma. See `kdsim.losses.ttm`.

    Attributes:
        gamma: exponent on the teacher's probabilities, > 0.
    """

    gamma: float = 0.1

    name: ClassVar[str] = "ttm"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("gamma", self.gamma)
        require_between("gamma", self.gamma, 1 / TEMPERATURES[1], 1 / TEMPERATURES[0])

    @property
    def seen_at(self) -> float:
        return 1 / self.gamma

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return ttm(student, teacher, gamma=self.gamma)


@dataclass(frozen=True)
class WTTM(TTM):
    """label_weight CE + teacher_weight mean_i U_i KL_i(p_T, q_1), U_i = sum_k p_ik^gamma. See `kdsim.losses.ttm`."""

    name: ClassVar[str] = "wttm"

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return wttm(student, teacher, gamma=self.gamma)


@dataclass(frozen=True)
class LTKD(_Tempered):
    """label_weight CE + teacher_weight T^2 [alpha KL(P', Q) + beta sum_G KL(p~_G, q~_G)]. See `kdsim.losses.ltkd`.

    Attributes:
        alpha, beta: weights >= 0 between and within groups. The paper's are not known here: 1 and 1 are not from it.
        class_counts: training examples of each class. Empty: the classes come in falling order, as in CIFAR-100-LT.
        shares: share of the classes in each group, from head to tail.
        rebalance: the first correction: the teacher's P' between groups; false: its P as it is.
        equal_groups: the second: equal weights of the parts within groups; false: P_G. Without both, it is KD.
    """

    alpha: float = 1.0
    beta: float = 1.0
    class_counts: tuple[int, ...] = ()
    shares: tuple[float, ...] = SHARES
    rebalance: bool = True
    equal_groups: bool = True

    name: ClassVar[str] = "ltkd"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_weight("alpha", self.alpha)
        require_weight("beta", self.beta)
        for number, count in enumerate(self.class_counts):
            require_count(f"class_counts[{number}]", count, least=0)
        for number, share in enumerate(self.shares):
            require_positive(f"shares[{number}]", share)
        class_groups(self.class_counts or (1,) * 100, self.shares)

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        classes = student.shape[-1]
        counts = self.class_counts or (1,) * classes
        require(len(counts) == classes, "class_counts", f"{len(counts)} numbers", f"{classes}, one for each class")
        groups = class_groups(counts, self.shares)
        return ltkd(
            student, teacher, groups, temperature=self.temperature, alpha=self.alpha, beta=self.beta,
            rebalance=self.rebalance, equal_groups=self.equal_groups,
        )  # fmt: skip


NEAREST = 1e-3
"""Smallest exponent of ABKD, or sum of both, that is not zero: closer to a limit float32 has no digits left."""


@dataclass(frozen=True)
class ABKD(_Tempered):
    """label_weight CE + teacher_weight D(p_T, q_T), the alpha-beta divergence, without T^2. See `kdsim.losses.abkd`.

    Attributes:
        alpha, beta: exponents >= 0. 0 is the limit; otherwise at least 0.001.
    """

    alpha: float = 0.5
    beta: float = 0.5

    name: ClassVar[str] = "abkd"

    def __post_init__(self) -> None:
        super().__post_init__()
        for what in ("alpha", "beta"):
            value = getattr(self, what)
            require_weight(what, value)
            require(value == 0 or value >= NEAREST, what, value, f"0, which is the limit, or >= {NEAREST:g}")

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return abkd(student, teacher, temperature=self.temperature, alpha=self.alpha, beta=self.beta)


@dataclass(frozen=True)
class Brier(DistillationLoss):
    """label_weight Brier(labels) + teacher_weight Brier(the teacher's probabilities). See `kdsim.losses.brier`.

    The defaults train on labels alone, as a teacher is; posterior samples enter by their mean probabilities.

    Attributes:
        label_weight, teacher_weight: >= 0, not both zero.
    """

    label_weight: float = 1.0
    teacher_weight: float = 0.0

    name: ClassVar[str] = "brier"

    def __post_init__(self) -> None:
        require_weights(self.label_weight, self.teacher_weight)

    @property
    def weights(self) -> tuple[float, float]:
        return self.label_weight, self.teacher_weight

    def label_term(self, student_logits: Tensor, labels: Tensor | None) -> Tensor:
        return self.score(student_logits, _one_hot(student_logits, labels))

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return self.score(student, torch.softmax(teacher, -1))

    def score(self, student_logits: Tensor, q: Tensor) -> Tensor:
        """The score against target probabilities. (..., B, K), (..., B, K) -> (...)."""
        return brier(student_logits, q)


@dataclass(frozen=True)
class OutputMSE(Brier):
    """As `Brier`, with the outputs themselves for softmax(z): mean over B and K of (z - q)^2.

    The outputs estimate the probabilities as they are: read them out on the simplex, not through a softmax.
    """

    name: ClassVar[str] = "output-mse"

    def score(self, student_logits: Tensor, q: Tensor) -> Tensor:
        return logit_mse(student_logits, q)


def _one_hot(student_logits: Tensor, labels: Tensor | None) -> Tensor:
    labels = require_labels(student_logits, labels)
    return torch.nn.functional.one_hot(labels, student_logits.shape[-1]).to(student_logits.dtype)
