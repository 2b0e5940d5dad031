"""A multilayer perceptron under cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from kdsim.config import require, require_count, require_positive
from kdsim.population import LARGEST
from kdsim.students.base import LinearStudent
from kdsim.students.network import AddGradient, NetworkStudent, add_outer, unflatten
from kdsim.students.softmax_regression import SoftmaxRegression

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}
IN_PLACE = {"tanh": torch.tanh_, "relu": torch.relu_}
SLOPES = {"tanh": lambda hidden: 1 - hidden.square(), "relu": lambda hidden: hidden > 0}
"""Derivative of each activation as a function of its value."""
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
        require(len(self.widths) > 0, "widths", self.widths, "a tuple of integers, at least one")
        for number, width in enumerate(self.widths):
            require_count(f"widths[{number}]", width)
        require_positive("initial_scale", self.initial_scale)
        require(self.initial_scale <= LARGEST, "initial_scale", self.initial_scale, f"at most {LARGEST:g}")

    def shapes(self, features: int, classes: int) -> list[tuple[tuple[int, ...], float]]:
        gain = GAINS[self.activation] * self.initial_scale
        blocks: list[tuple[tuple[int, ...], float]] = [((self.widths[0], features), self.initial_scale / features**0.5)]
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

    def pool_outputs(self, parameters: Tensor, x: Tensor, classes: int) -> Tensor:
        """One product of matrices a layer, replica by replica, with points last in memory.

        What follows are then passes over a few long planes. Widths (128, 128) at 4,500 points on one core: 2.3 ms a
        replica, of which 1.8 are the product of the second layer; 3.3 to 4.0 by vmap of `outputs`.
        """
        shapes = [shape for shape, _ in self.shapes(x.shape[-1], classes)]
        weights, biases = _layers(unflatten(parameters, shapes))
        outputs = parameters.new_empty(len(parameters), classes, len(x))
        for row, place in enumerate(outputs):
            hidden = weights[0][row] @ x.T  # (n, N)
            for weight, bias in zip(weights[1:], biases, strict=True):
                hidden = torch.addmm(bias[row][:, None], weight[row], IN_PLACE[self.activation](hidden))
            place.copy_(hidden)
        return outputs.transpose(1, 2)

    def gradient_adder(self, parameters: Tensor, into: Tensor, features: int, classes: int) -> AddGradient:
        """Backpropagation by hand. A layer's gradient is delta' h, which is added where it belongs layer by layer.

        Widths (128, 128), d = 30, K = 5, batch 1, float32, 64 replicas as two blocks of 32 on two cores, nothing else
        running, the steps alone: 203,000 replica-steps/s, where vmap of grad gives 42,000. One backward of the summed
        losses through batched products (baddbmm) is no faster than vmap: 28,000 against 32,000 on one core.
        """
        shapes = [shape for shape, _ in self.shapes(features, classes)]
        weights, biases = _layers(unflatten(parameters, shapes))
        weights_into, biases_into = _layers(unflatten(into, shapes))
        activation, slope = ACTIVATIONS[self.activation], SLOPES[self.activation]

        def add(x: Tensor, q: Tensor, rate: Tensor) -> None:
            below = [x]  # what each layer sees, (R, b, n)
            outputs = torch.bmm(x, weights[0].transpose(1, 2))
            for weight, bias in zip(weights[1:], biases, strict=True):
                below.append(activation(outputs))
                outputs = torch.baddbmm(bias[:, None], below[-1], weight.transpose(1, 2))
            rate = rate[:, :, None]  # (R, 1, 1)
            delta = self.head.output_gradient(outputs, q).mul_(rate / x.shape[1])  # (R, b, n)
            for layer in range(len(weights) - 1, -1, -1):
                weight, hidden = weights[layer], below[layer]
                passed_on = torch.bmm(delta, weight).mul_(slope(hidden)) if layer else delta
                if self.ridge:  # after the weight was used, before it changes: `into` may be the weight itself
                    weights_into[layer].addcmul_(weight, rate, value=self.ridge)
                add_outer(weights_into[layer], delta, hidden)
                if layer:
                    if self.ridge:
                        biases_into[layer - 1].addcmul_(biases[layer - 1], rate[..., 0], value=self.ridge)
                    biases_into[layer - 1].add_(delta.sum(1))
                delta = passed_on

        return add


def _layers(blocks: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Blocks of parameters as the weights of all layers, and the biases of all but the first."""
    return [blocks[0], *blocks[1::2]], blocks[2::2]
