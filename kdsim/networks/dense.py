"""Networks of points: softmax regression and a multilayer perceptron as plain torch modules, for x (b, d)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from kdsim.config import require, require_count

HIDDEN = (128, 128)
"""Widths of the hidden layers of `mlp`.

Source: Morad, Shlezinger, Eldar, ICLR 2026, arXiv:2601.01484, the synthetic experiment.
"""


class DenseNetwork(nn.Module):
    """Logits = head(features(x)), features = the last hidden layer after its ReLU, or x itself where there is none.

    First weights are those of PyTorch's Linear, drawn from torch's generator (`torch.manual_seed`): weights and biases
    uniform within +-1/sqrt(inputs of the layer). So softmax regression does not start at zero, where a `LinearStudent`
    of the engines starts.

    Attributes:
        body: (b, inputs) -> (b, F).
        head: the last layer, F -> K; nothing comes after it, so that it can be replaced or given a posterior.
    """

    body: nn.Sequential
    head: nn.Linear

    def __init__(self, classes: int, inputs: int, hidden: tuple[int, ...]) -> None:
        require_count("classes", classes, least=2)
        require_count("inputs", inputs)
        super().__init__()
        self.classes, self.inputs = classes, inputs
        widths = (inputs, *hidden)
        pairs = [(nn.Linear(*ends), nn.ReLU()) for ends in pairwise(widths)]
        self.body = nn.Sequential(*[layer for pair in pairs for layer in pair])
        self.head = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features. (b, inputs) -> (b, F).

        Raises:
            ConfigError: x has another number of axes or columns.
        """
        shape = tuple(x.shape)
        require(len(shape) == 2 and shape[1] == self.inputs, "shape of x", shape, f"(b, {self.inputs})")
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits. (b, inputs) -> (b, K)."""
        return self.head(self.features(x))


def linear(classes: int, inputs: int) -> DenseNetwork:
    """Softmax regression: one Linear."""
    return DenseNetwork(classes, inputs, ())


def mlp(classes: int, inputs: int) -> DenseNetwork:
    """Two hidden layers of 128 with ReLUs."""
    return DenseNetwork(classes, inputs, HIDDEN)
