"""Pools that a user's own problem might hand over, sound and faulty, and studies on them."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from kdsim.data import KnownPoints
from kdsim.engines import SGD, Recording
from kdsim.losses import CrossEntropy, DistillationLoss
from kdsim.population import Population
from kdsim.problems import Problem
from kdsim.students import LinearStudent, NetworkStudent, SoftmaxRegression
from kdsim.study.base import Cell, Study
from kdsim.study.runner import RunResult, run
from kdsim.supervision import OneHot, Supervision
from kdsim.trainer import StudentTrainer
from kdsim.training.recipe import Recipe
from kdsim.training.students import PointNetwork

FLOAT64 = torch.float64
CPU_ENGINES = ("cpu_fused", "torch", "autograd")
ENGINE_CASES = ["torch", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cpu_fused", "autograd"))]
"""For `parametrize`: one of the engines for who leaves out the slow tests."""


def softmax_linear(points: int = 6, classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """x (N, 3) with a column of ones, p = softmax(theta x), theta with centred rows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(points, 2, generator=generator, dtype=FLOAT64)
    theta = torch.randn(classes, 3, generator=generator, dtype=FLOAT64)
    x, theta = torch.cat([x, torch.ones(points, 1, dtype=FLOAT64)], 1), theta - theta.mean(0)
    return x, torch.softmax(x @ theta.T, -1), theta


def linear(points: int = 6, classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """x (N, 3) and theta with columns on the simplex, so that p = theta x."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(points, 3, generator=generator, dtype=FLOAT64)
    theta = torch.rand(classes, 3, generator=generator, dtype=FLOAT64)
    x, theta = x / x.sum(1, keepdim=True), theta / theta.sum(0)
    return x, x @ theta.T, theta


def pool(x: Any, p: Any, optimum: Tensor | None = None, y: Any = None) -> Population:
    """With the most probable class as label where no labels are given."""
    if y is None and isinstance(p, Tensor) and p.ndim == 2 and p.numel():
        y = p.argmax(1)
    return Population(x, p, y, optimum)


def _changed(tensor: Tensor, value: Any, at: tuple[int, ...] = (0, 0)) -> Tensor:
    tensor = tensor.clone()
    tensor[at] = value
    return tensor


def _with(**changes: Callable[[Tensor, Tensor, Tensor], Any]) -> Callable[[], Population]:
    """The sound pool with some of its tensors replaced by functions of x, p and theta."""

    def make() -> Population:
        x, p, theta = softmax_linear()
        parts = {"x": x, "p": p, "optimum": theta, "y": p.argmax(1)}
        return Population(**parts | {name: change(x, p, theta) for name, change in changes.items()})

    return make


POOLS: dict[str, Callable[[], Any]] = {
    # Sound pools, some of them degenerate.
    "sound": _with(),
    "linear": lambda: pool(*linear()),
    "one-class": lambda: pool(softmax_linear()[0], torch.ones(6, 1, dtype=FLOAT64), torch.zeros(1, 3, dtype=FLOAT64)),
    "one-point": lambda: pool(*softmax_linear(1)),
    "one-linear-point": lambda: pool(*linear(1)),
    "copies-of-one-point": lambda: pool(*(part.repeat(6, 1) for part in softmax_linear(1)[:2]), softmax_linear(1)[2]),
    "copies-of-one-linear-point": lambda: pool(*(part.repeat(6, 1) for part in linear(1)[:2]), linear(1)[2]),
    "copies": lambda: pool(*(part.repeat(2, 1) for part in softmax_linear()[:2]), softmax_linear()[2]),
    "linear-copies": lambda: pool(*(part.repeat(2, 1) for part in linear()[:2]), linear()[2]),
    "uneven-copies": lambda: pool(*(part[[0, 0, 0, 1]] for part in linear()[:2]), linear()[2]),
    "constant-feature": lambda: pool(torch.cat([linear()[0], torch.full((6, 1), 0.5, dtype=FLOAT64)], 1), linear()[1],
                                     torch.cat([linear()[2], torch.zeros(3, 1, dtype=FLOAT64)], 1)),
    "zero-feature": lambda: pool(torch.cat([softmax_linear()[0], torch.zeros(6, 1, dtype=FLOAT64)], 1),
                                 softmax_linear()[1],
                                 torch.cat([softmax_linear()[2], torch.zeros(3, 1, dtype=FLOAT64)], 1)),
    "zero-inputs": lambda: pool(torch.zeros(6, 3, dtype=FLOAT64), torch.full((6, 3), 1 / 3, dtype=FLOAT64)),
    "zero-class": lambda: pool(linear(classes=2)[0],
                               torch.cat([linear(classes=2)[1], torch.zeros(6, 1, dtype=FLOAT64)], 1),
                               torch.cat([linear(classes=2)[2], torch.zeros(1, 3, dtype=FLOAT64)])),
    "vertices": _with(p=lambda x, p, t: torch.eye(3, dtype=FLOAT64).repeat(2, 1), optimum=lambda x, p, t: None,
                      y=lambda x, p, t: torch.arange(3).repeat(2)),
    "in-float32-and-back": _with(p=lambda x, p, t: p.float().double()),
    "negative-by-rounding": _with(p=lambda x, p, t: _changed(p, torch.tensor([-1e-17, 0.5, 0.5], dtype=FLOAT64), (0,))),
    "with-a-zero": _with(p=lambda x, p, t: _changed(p, torch.tensor([0, 0.5, 0.5], dtype=FLOAT64), (0,))),
    "huge": _with(x=lambda x, p, t: x * 1e30, optimum=lambda x, p, t: t / 1e30),
    "tiny": _with(x=lambda x, p, t: x * 1e-30, optimum=lambda x, p, t: None),
    # Pools that are refused.
    "nan": _with(x=lambda x, p, t: _changed(x, float("nan"))),
    "infinite": _with(x=lambda x, p, t: _changed(x, float("inf"))),
    "too-large": _with(x=lambda x, p, t: x * 1e200, optimum=lambda x, p, t: None),
    "too-small": _with(x=lambda x, p, t: x * 1e-200, optimum=lambda x, p, t: None),
    "beyond-float32": _with(x=lambda x, p, t: x * 1e39, optimum=lambda x, p, t: None),
    "below-float32": _with(x=lambda x, p, t: x * 1e-46, optimum=lambda x, p, t: None),
    "integers": _with(x=lambda x, p, t: x.round().long()),
    "float32": lambda: pool(*(part.float() for part in softmax_linear())),
    "images": _with(x=lambda x, p, t: x[:, :, None, None], optimum=lambda x, p, t: None),
    "no-points": lambda: Population(*(part[:0] for part in softmax_linear()[:2])),
    "no-features": _with(x=lambda x, p, t: x[:, :0], optimum=lambda x, p, t: None),
    "an-array": _with(x=lambda x, p, t: x.numpy()),
    "nothing": lambda: None,
    "negative-p": _with(p=lambda x, p, t: _changed(p, torch.tensor([-0.1, 0.6, 0.5], dtype=FLOAT64), (0,))),
    "p-off-by-a-thousandth": _with(p=lambda x, p, t: p * 1.001),
    "nan-p": _with(p=lambda x, p, t: _changed(p, float("nan"))),
    "no-p": _with(p=lambda x, p, t: None),
    "p-of-fewer-points": _with(p=lambda x, p, t: p[:5]),
    "p-in-one-dimension": _with(p=lambda x, p, t: p[:, 0]),
    "p-without-classes": _with(p=lambda x, p, t: p[:, :0]),
    "label-above": _with(y=lambda x, p, t: _changed(p.argmax(1), 7, (0,))),
    "label-below": _with(y=lambda x, p, t: _changed(p.argmax(1), -1, (0,))),
    "labels-as-numbers": _with(y=lambda x, p, t: p.argmax(1).double()),
    "labels-of-fewer-points": _with(y=lambda x, p, t: p.argmax(1)[:5]),
    "nan-optimum": _with(optimum=lambda x, p, t: _changed(t, float("nan"))),
    "infinite-optimum": _with(optimum=lambda x, p, t: _changed(t, float("inf"))),
    "optimum-of-another-shape": _with(optimum=lambda x, p, t: t[:, :2]),
}  # fmt: skip


@dataclass(frozen=True)
class Given(Problem):
    """One of `POOLS`."""

    kind: str = "sound"

    name: ClassVar[str] = "given"

    def population(self, seed: int) -> Population:
        return POOLS[self.kind]()


@dataclass(frozen=True)
class Table(Problem):
    """A pool of numbers that hypothesis chose.

    Attributes:
        x: rows of inputs; p: rows of class probabilities.
    """

    x: tuple[tuple[float, ...], ...] = ()
    p: tuple[tuple[float, ...], ...] = ()

    name: ClassVar[str] = "table"

    def population(self, seed: int) -> Population:
        return pool(torch.tensor(self.x, dtype=FLOAT64), torch.tensor(self.p, dtype=FLOAT64))


@dataclass(frozen=True)
class Cells(Study):
    """The cells that a test made."""

    given: tuple[Cell | StudentTrainer, ...] = ()

    name: ClassVar[str] = "cells"
    summary: ClassVar[str] = "the cells of a test"
    figure: ClassVar[str] = "noise-sweep"

    def cells(self) -> tuple[Cell | StudentTrainer, ...]:
        return self.given

    def quick(self) -> Cells:
        return self


def cell(
    problem: str | Problem = "sound",
    student: LinearStudent | NetworkStudent | None = None,
    supervision: Supervision | None = None,
    *,
    step_size: float = 0.05,
    engine: str = "torch",
    sgd: SGD | None = None,
    recording: Recording | None = None,
    replicas: int = 2,
) -> Cell:
    """A small cell; by default softmax regression with a ridge, one-hot labels, 40 steps in float64."""
    return Cell(
        problem=Given(problem) if isinstance(problem, str) else problem,
        student=student or SoftmaxRegression(0.1, "ordinary"),
        supervision=supervision or OneHot(),
        step_size=step_size,
        sgd=sgd or SGD(40, dtype="float64"),
        recording=recording or Recording(checkpoints=6, tail_stride=4),
        replicas=replicas,
        engine=engine,
    )


def outcome(*cells: Cell | StudentTrainer) -> RunResult:
    """What `run` gives in an empty folder. A warning of numpy or torch about numbers is an error."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        return run(Cells(cells), folder)


def only_row(*cells: Cell | StudentTrainer) -> dict[str, Any]:
    """The row of a run of one cell that went well."""
    result = outcome(*cells)
    assert result.failures == []
    (row,) = result.rows
    return row


def training(
    kind: str = "sound",
    loss: DistillationLoss | None = None,
    supervision: Supervision | None = None,
    *,
    step_size: float = 0.05,
    batch_size: int = 4,
    held_out: tuple[int, int] = (2, 2),
    **settings: Any,
) -> StudentTrainer:
    """A network of points, two replicas, two epochs."""
    return StudentTrainer(
        PointNetwork(),
        KnownPoints(Given(kind), *held_out),
        supervision or OneHot(),
        loss or CrossEntropy(),
        recipe=Recipe(epochs=2.0, batch_size=batch_size, step_size=step_size),
        **{"replicas": 2} | settings,
    )
