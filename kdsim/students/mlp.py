"""A multilayer perceptron under cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from kdsim.config import choose, require, require_count, require_positive
from kdsim.students.base import LinearStudent
from kdsim.students.network import NetworkStudent, unflatten
from kdsim.students.softmax_regression import SoftmaxRegression

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}
GAINS = {"tanh": 1.0, "relu": 2.0**0.5}


@dataclass(frozen=True)
class MLP(NetworkStudent):
    """d - widths - K with a softmax: z = V s(...s(U x)... + b) + c.

    The first layer has no bias, since the inputs of every problem span the constant (a column of ones, or features
    that sum to one). Weights start normal with variance gain^2 / fan-in, times `initial_scale`^2, biases at zero. With
    relu and a first width of at least 2 K a softmax-linear BCP is realisable, since u = relu(u) - relu(-u).

    Attributes:
        widths: of the hidden layers, at least one.
        activation: "tanh" or "relu".
        initial_scale: factor on the weights at the start.
    """

    widths: tuple[int, ...] = (16,)
    activation: Literal["tanh", "relu"] = "tanh"
    initial_scale: float = 1.0

    name: ClassVar[str] = "mlp"
    head: ClassVar[LinearStudent] = SoftmaxRegression()

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = isinstance(self.widths, tuple) and len(self.widths) > 0
        require(widths, "widths", self.widths, "a tuple of integers, at least one")
        for number, width in enumerate(self.widths):
            require_count(f"widths[{number}]", width)
        choose("activation", self.activation, ACTIVATIONS)
        require_positive("initial_scale", self.initial_scale)

    def shapes(self, features: int, classes: int) -> list[tuple[tuple[int, ...], float]]:
        gain = GAINS[self.activation] * self.initial_scale
        blocks = [((self.widths[0], features), self.initial_scale / features**0.5)]
        for below, above in pairwise((*self.widths, classes)):
            blocks += [((above, below), gain / below**0.5), ((above,), 0.0)]
        return blocks

    def outputs(self, parameters: Tensor, x: Tensor) -> Tensor:
        features = x.shape[-1]
        fixed = sum(torch.Size(shape).numel() for shape, _ in self.shapes(features, 0))
        classes = (parameters.shape[-1] - fixed) // (self.widths[-1] + 1)
        first, *rest = unflatten(parameters, [shape for shape, _ in self.shapes(features, classes)])
        hidden = x @ first.T
        for weight, bias in zip(rest[::2], rest[1::2], strict=True):
            hidden = ACTIVATIONS[self.activation](hidden) @ weight.T + bias
        return hidden
