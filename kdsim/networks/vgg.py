"""VGG networks with BatchNorm in the forms of the distillation benchmarks on CIFAR.

Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, arXiv:1409.1556,
table 1, column B for VGG-13; VGG-8 has one convolution a stage. As in the code of Tian, Krishnan, Isola (ICLR 2020,
arXiv:1910.10699):

- The mean over positions and one Linear stand in for the three fully connected layers. The names still count these:
  VGG-8 has 5 convolutions and 1 Linear.
- There are three max-poolings, after the first three stages: the last two stages both work at 4 x 4. (The published
  code pools once more for images of 64 x 64; this one does not.)
- Convolutions keep their biases although BatchNorm takes them out again: they count as parameters, but in training
  change no output and have no gradient beyond rounding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from kdsim.networks.base import Network, initialise

WIDTHS = (64, 128, 256, 512, 512)


class VGG(Network):
    """Five stages of convolutions, head.

    Args:
        depths: the number of convolutions, one number a stage.
        classes: K.
        channels: of the images.
    """

    def __init__(self, depths: Sequence[int], classes: int, channels: int) -> None:
        super().__init__(classes, channels)
        parts = OrderedDict[str, nn.Module]()
        inputs = channels
        for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True), start=1):
            layers: list[nn.Module] = []
            for _ in range(depth):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            if stage <= 3:
                layers.append(nn.MaxPool2d(2))
            parts[f"stage{stage}"] = nn.Sequential(*layers)
        self.body = nn.Sequential(parts)
        self.head = nn.Linear(inputs, classes)
        initialise(self)
        nn.init.normal_(self.head.weight, std=0.01)  # as published
        nn.init.zeros_(self.head.bias)


def vgg8(classes: int, channels: int = 3) -> VGG:
    """VGG-8: 3.97 million parameters for 100 classes."""
    return VGG((1, 1, 1, 1, 1), classes, channels)


def vgg13(classes: int, channels: int = 3) -> VGG:
    """VGG-13: 9.46 million parameters for 100 classes."""
    return VGG((2, 2, 2, 2, 2), classes, channels)
