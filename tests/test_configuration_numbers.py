"""Numbers of numpy and torch in a configuration are those of Python: the same fields, digest, text and refusals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from kdsim.config import ConfigError, digest, encode, python_numbers
from kdsim.data import Cifar10, CropFlip, KnownPoints
from kdsim.engines import SGD, Adam, Cosine, GradientDescent, Recording
from kdsim.losses import DKD, KD, LTKD
from kdsim.problems import Digits, GaussianMixture, Images, SoftmaxLinear
from kdsim.students import MLP, SoftmaxRegression
from kdsim.studies import NoiseSweep
from kdsim.study.base import Cell
from kdsim.supervision import Confusion, Dirichlet, OneHot, Supervision
from kdsim.teachers import Deterministic
from kdsim.trainer import PointNetwork, StudentTrainer
from kdsim.training import Recipe

PAIRS = [
    (lambda: Dirichlet(np.int64(3)), Dirichlet(3)),
    (lambda: Dirichlet(np.float32(0.5)), Dirichlet(0.5)),
    (lambda: Dirichlet(np.float32(0.1)), Dirichlet(float(np.float32(0.1)))),
    (lambda: Dirichlet(np.float64(0.1)), Dirichlet(0.1)),
    (lambda: Dirichlet(np.array(2.0)), Dirichlet(2.0)),
    (lambda: Dirichlet(torch.tensor(2.0)), Dirichlet(2.0)),
    (lambda: Dirichlet(np.float16(2.0)), Dirichlet(2.0)),
    (lambda: Confusion(np.float32(0.25), labels=np.bool_(True)), Confusion(0.25, labels=True)),
    (lambda: SGD(np.int32(10), np.uint8(4), held_out=np.int64(2)), SGD(10, 4, held_out=2)),
    (lambda: SGD(optimiser=GradientDescent(np.float32(0.5), np.bool_(False))), SGD(optimiser=GradientDescent(0.5))),
    (lambda: SGD(optimiser=Adam(np.float32(0.5)), schedule=Cosine(np.float32(0.5))),
     SGD(optimiser=Adam(0.5), schedule=Cosine(0.5))),
    (lambda: Recording(np.int64(6), tail_stride=np.int16(4)), Recording(6, tail_stride=4)),
    (lambda: GaussianMixture(np.int64(3), np.int64(2), mean_values=tuple(np.array([1, 2], np.float32))),
     GaussianMixture(3, 2, mean_values=(1.0, 2.0))),
    (lambda: SoftmaxLinear(samples=np.int64(100), entropy=np.float32(0.5), bias=np.bool_(True)),
     SoftmaxLinear(samples=100, entropy=0.5, bias=True)),
    (lambda: Digits(samples=np.int64(100)), Digits(samples=100)),
    (lambda: Images(entropy=np.float32(0.5), samples=np.int64(9)), Images(entropy=0.5, samples=9)),
    (lambda: SoftmaxRegression(np.float32(0.5), "centred"), SoftmaxRegression(0.5, "centred")),
    (lambda: MLP((np.int64(3), np.int64(4))), MLP((3, 4))),
    (lambda: KD(np.float32(0.5), np.int64(1), np.int64(4)), KD(0.5, 1, 4)),
    (lambda: DKD(warmup_epochs=np.int64(2)), DKD(warmup_epochs=2)),
    (lambda: LTKD(class_counts=tuple(np.arange(1, 4)), rebalance=np.bool_(False)),
     LTKD(class_counts=(1, 2, 3), rebalance=False)),
    (lambda: Cifar10(few_shot=np.float32(0.5), test_images=np.int64(5)), Cifar10(few_shot=0.5, test_images=5)),
    (lambda: KnownPoints(Digits(), np.int64(5)), KnownPoints(Digits(), 5)),
    (lambda: CropFlip(np.int64(2)), CropFlip(2)),
    (lambda: Recipe(np.int64(3), np.int64(8), np.float32(0.5)), Recipe(3, 8, 0.5)),
    (lambda: PointNetwork("mlp", np.float32(0.5)), PointNetwork("mlp", 0.5)),
    (lambda: NoiseSweep(replicas=np.int64(8), seed=np.uint8(3)), NoiseSweep(replicas=8, seed=3)),
]  # fmt: skip


@pytest.mark.parametrize(("build", "same"), PAIRS, ids=[type(same).__name__ for _, same in PAIRS])
def test_a_number_of_numpy_is_that_of_python(build, same):
    found = build()
    assert found == same and digest(found) == digest(same) and encode(found) == encode(same)
    assert "np." not in repr(found) and "tensor" not in repr(found)


def test_in_a_cell_and_in_a_training():
    cell = Cell(
        Digits(), SoftmaxRegression(), OneHot(), np.float32(0.25), SGD(10), replicas=np.int64(4), seed=np.int64(1)
    )
    assert digest(cell) == digest(Cell(Digits(), SoftmaxRegression(), OneHot(), 0.25, SGD(10), replicas=4, seed=1))
    assert type(cell.replicas) is type(cell.seed) is int and type(cell.step_size) is float
    training = StudentTrainer(
        PointNetwork("linear"), KnownPoints(Digits()), replicas=np.int64(2), window=np.float32(0.5)
    )
    assert type(training.replicas) is int and type(training.window) is float
    assert digest(Deterministic(training)) == digest(Deterministic(replace(training, replicas=2, window=0.5)))


@pytest.mark.parametrize(
    "value",
    [np.float32("nan"), np.float32(0), np.int64(-1), np.complex64(1), np.array([1.0]), np.bool_(True), "1", None],
)
def test_what_python_would_be_refused_is_refused(value):
    with pytest.raises(ConfigError, match=r"concentration = .* is not allowed") as caught:
        Dirichlet(value)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Own(Supervision):
    """A user's class: validated after its numbers are Python's, and without a word of its own on numbers."""

    level: float = 1.0
    parts: tuple[int, ...] = ()

    name: ClassVar[str] = "own"
    unbiased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        assert type(self.level) is float and all(type(part) is int for part in self.parts)

    def sample(self, batch, draws):
        """Not used."""

    def mean(self, p):
        """Not used."""

    def covariance(self, p):
        """Not used."""


@dataclass(frozen=True)
class Plain:
    """A configuration that is no `Configuration`."""

    level: float = 1.0
    parts: tuple[int, ...] = ()


def test_in_a_users_own_class():
    assert digest(Own(np.float32(2), (np.int64(1),))) == digest(Own(2.0, (1,)))
    assert digest(Plain(np.int64(2), (np.int64(1),))) == digest(Plain(2.0, (1,)))


def test_what_is_no_number_stays_as_it_is():
    for value in ("a", None, (1, "b"), np.arange(2), torch.ones(2), np.array("text"), np.complex64(1), OneHot()):
        assert python_numbers(value) is value
