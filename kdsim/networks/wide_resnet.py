"""Wide residual networks WRN-depth-widening: pre-activation blocks, no dropout.

Zagoruyko, Komodakis, "Wide residual networks", BMVC 2016, arXiv:1605.07146, table 1: depth 6n + 4, three stages of n
blocks of widths 16k, 32k, 64k after a stem of 16 channels. Blocks: He, Zhang, Ren, Sun, "Identity mappings in deep
residual networks", ECCV 2016, arXiv:1603.05027, figure 4e.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from kdsim.networks.base import Network, convolution, initialise


class PreActivationBlock(nn.Module):
    """shortcut + branch(a), a = relu(BatchNorm(x)), branch = conv 3x3, BatchNorm, ReLU, conv 3x3.

    The shortcut is x itself where the width stays, and a 1 x 1 convolution of a, without BatchNorm, where it changes.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.branch = nn.Sequential(
            *(convolution(inputs, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()),
            convolution(width, width, 3),
        )
        self.projection = None if inputs == width else convolution(inputs, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation(x)
        shortcut = x if self.projection is None else self.projection(activated)
        return shortcut + self.branch(activated)


class WideResNet(Network):
    """Stem, three stages, BatchNorm, ReLU, head. The second and third stages halve height and width.

    Args:
        blocks: n, the number of blocks of a stage; the depth is 6n + 4.
        widening: k.
        classes: K.
        channels: of the images.
    """

    def __init__(self, blocks: int, widening: int, classes: int, channels: int) -> None:
        super().__init__(classes, channels)
        parts = OrderedDict[str, nn.Module](stem=convolution(channels, 16, 3))
        inputs = 16
        for stage, width in enumerate((16 * widening, 32 * widening, 64 * widening), start=1):
            first = PreActivationBlock(inputs, width, 1 if stage == 1 else 2)
            rest = (PreActivationBlock(width, width, 1) for _ in range(blocks - 1))
            parts[f"stage{stage}"] = nn.Sequential(first, *rest)
            inputs = width
        parts["activation"] = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.body = nn.Sequential(parts)
        self.head = nn.Linear(inputs, classes)
        initialise(self)
        nn.init.zeros_(self.head.bias)  # as published


def wrn_16_1(classes: int, channels: int = 3) -> WideResNet:
    """WRN-16-1: 0.18 million parameters for 100 classes."""
    return WideResNet(2, 1, classes, channels)


def wrn_16_2(classes: int, channels: int = 3) -> WideResNet:
    """WRN-16-2: 0.70 million parameters for 100 classes."""
    return WideResNet(2, 2, classes, channels)


def wrn_40_1(classes: int, channels: int = 3) -> WideResNet:
    """WRN-40-1: 0.57 million parameters for 100 classes."""
    return WideResNet(6, 1, classes, channels)


def wrn_40_2(classes: int, channels: int = 3) -> WideResNet:
    """WRN-40-2: 2.26 million parameters for 100 classes."""
    return WideResNet(6, 2, classes, channels)
