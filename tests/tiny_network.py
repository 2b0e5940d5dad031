"""A network of images that trains some thousand images a second, for tests of what is done with networks.

It has what the real ones have: BatchNorm, features, a linear head. `conftest.py` puts it beside them under its name.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from kdsim import networks
from kdsim.networks.base import Network, convolution, initialise

TINY = "tiny"
WIDTH = 8


class TinyNetwork(Network):
    """Two convolutions of stride 4 and 2: a fiftieth of the operations of ResNet-8."""

    def __init__(self, classes: int, channels: int = 3) -> None:
        super().__init__(classes, channels)
        layers = (_layer(channels, WIDTH, 4), _layer(WIDTH, WIDTH, 2))
        self.body = nn.Sequential(OrderedDict(stem=layers[0], stage1=layers[1]))
        self.head = nn.Linear(WIDTH, classes)
        initialise(self)


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(convolution(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs), nn.ReLU())


def register() -> None:
    """Let configurations name it."""
    networks.NETWORKS[TINY] = TinyNetwork


PUBLISHED = tuple(name for name in networks.NETWORKS if name != TINY)
"""Names of the networks of kdsim."""
