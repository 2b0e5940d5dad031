"""Residual networks for images of 32 x 32: no first max-pooling, a 3 x 3 stem of stride 1, projection shortcuts.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, arXiv:1512.03385: section 4.1 with
table 1 (ResNet-18, 34, 50) and section 4.2 (depth 6n + 2 in three stages). The forms are those of the distillation
benchmarks of Tian, Krishnan, Isola, "Contrastive representation distillation", ICLR 2020, arXiv:1910.10699; they differ
from the paper in two places:

- Shortcuts where shapes change are 1 x 1 convolutions with BatchNorm (option B), also in section 4.2's networks, where
  the paper pads with zeros (option A): 2,752 parameters more in ResNet-20 and ResNet-56. ResNet-8x4 and 32x4 change the
  width already in the first stage, from 32 to 64, and have a projection there too.
- A bottleneck has its stride in the 3 x 3 convolution; the paper's own code has it in the first 1 x 1. Counts of
  parameters do not depend on it, counts of operations do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from kdsim.networks.base import Network, convolution, initialise


class BasicBlock(nn.Module):
    """relu(shortcut(x) + branch(x)), branch = conv 3x3, BatchNorm, ReLU, conv 3x3, BatchNorm. Figure 5 left."""

    expansion: ClassVar[int] = 1
    """Channels of the output over `width`."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *(convolution(inputs, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()),
            *(convolution(width, width, 3), nn.BatchNorm2d(width)),
        )
        self.shortcut = _shortcut(inputs, width, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.shortcut(x) + self.branch(x))


class Bottleneck(nn.Module):
    """As BasicBlock, with three convolutions: 1x1 to `width`, 3x3, 1x1 to 4 `width`. Figure 5 right."""

    expansion: ClassVar[int] = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.branch = nn.Sequential(
            *(convolution(inputs, width, 1), nn.BatchNorm2d(width), nn.ReLU()),
            *(convolution(width, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()),
            *(convolution(width, outputs, 1), nn.BatchNorm2d(outputs)),
        )
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.shortcut(x) + self.branch(x))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNet(Network):
    """Stem, stages of blocks, head. Every stage but the first halves height and width in its first block.

    Args:
        block: BasicBlock or Bottleneck.
        stem: channels after the first convolution.
        widths: the blocks' width, one number a stage.
        depths: the number of blocks, one number a stage.
        classes: K.
        channels: of the images.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        stem: int,
        widths: Sequence[int],
        depths: Sequence[int],
        classes: int,
        channels: int,
    ) -> None:
        super().__init__(classes, channels)
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            stem=nn.Sequential(convolution(channels, stem, 3), nn.BatchNorm2d(stem), nn.ReLU())
        )
        inputs = stem
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            blocks = []
            for position in range(depth):
                stride = 2 if stage > 1 and position == 0 else 1
                blocks.append(block(inputs, width, stride))
                inputs = block.expansion * width
            parts[f"stage{stage}"] = nn.Sequential(*blocks)
        self.body = nn.Sequential(parts)
        self.head = nn.Linear(inputs, classes)
        initialise(self)


def resnet18(classes: int, channels: int = 3) -> ResNet:
    """ResNet-18: widths 64, 128, 256, 512; 11.22 million parameters for 100 classes."""
    return ResNet(BasicBlock, 64, (64, 128, 256, 512), (2, 2, 2, 2), classes, channels)


def resnet34(classes: int, channels: int = 3) -> ResNet:
    """ResNet-34: widths 64, 128, 256, 512; 21.33 million parameters for 100 classes."""
    return ResNet(BasicBlock, 64, (64, 128, 256, 512), (3, 4, 6, 3), classes, channels)


def resnet50(classes: int, channels: int = 3) -> ResNet:
    """ResNet-50: bottlenecks of widths 64, 128, 256, 512; 23.71 million parameters for 100 classes."""
    return ResNet(Bottleneck, 64, (64, 128, 256, 512), (3, 4, 6, 3), classes, channels)


def resnet8(classes: int, channels: int = 3) -> ResNet:
    """ResNet-8: widths 16, 32, 64; 0.08 million parameters for 10 classes."""
    return ResNet(BasicBlock, 16, (16, 32, 64), (1, 1, 1), classes, channels)


def resnet20(classes: int, channels: int = 3) -> ResNet:
    """ResNet-20: widths 16, 32, 64; 0.28 million parameters for 100 classes."""
    return ResNet(BasicBlock, 16, (16, 32, 64), (3, 3, 3), classes, channels)


def resnet56(classes: int, channels: int = 3) -> ResNet:
    """ResNet-56: widths 16, 32, 64; 0.86 million parameters for 100 classes."""
    return ResNet(BasicBlock, 16, (16, 32, 64), (9, 9, 9), classes, channels)


def resnet8x4(classes: int, channels: int = 3) -> ResNet:
    """ResNet-8 four times as wide after a stem of 32: widths 64, 128, 256; 1.23 million parameters for 100 classes."""
    return ResNet(BasicBlock, 32, (64, 128, 256), (1, 1, 1), classes, channels)


def resnet32x4(classes: int, channels: int = 3) -> ResNet:
    """ResNet-32 four times as wide after a stem of 32: widths 64, 128, 256; 7.43 million parameters for 100 classes."""
    return ResNet(BasicBlock, 32, (64, 128, 256), (5, 5, 5), classes, channels)
