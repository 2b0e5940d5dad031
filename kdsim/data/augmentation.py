"""Random crops and flips of whole batches on the device, and normalisation. No loop runs over images.

What happens to an image is a function of (seed, replica, visit): the same in every packing, batch size and order, and
on every device, since crops and flips move pixels and calculate nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from kdsim.config import ConfigError, Configuration, require, require_count
from kdsim.data.base import require_images
from kdsim.rng import Draws, Stream, uniform_index


@dataclass(frozen=True)
class CropFlip(Configuration):
    """Shift each image by up to `padding` pixels in both directions, then mirror every other one.

    Padding all sides and cropping back to the size before is a shift, uniform over the (2 padding + 1)^2 crops.

    Attributes:
        padding: pixels, from 0 (no crop) to 31.
        fill: what comes in at the sides. "zero": the value 0, which is black in images of bytes and the mean colour in
            normalised ones (the usual recipes crop before they normalise); "reflect": the image mirrored at its outer
            pixels, which are not repeated.
        flip: whether an image is mirrored left to right, with probability 1/2.

    Slots of the draws: 0 the crop, 1 the flip.
    """

    padding: int = 4
    fill: Literal["zero", "reflect"] = "zero"
    flip: bool = True

    name: ClassVar[str] = "crop-flip"

    def __post_init__(self) -> None:
        require_count("padding", self.padding, least=0, most=31)

    def choices(self, draws: Draws) -> Tensor:
        """What is done at each visit: (3, R, V) int64, the crop's first row and column (0 .. 2 padding), flip (0 or 1).

        Drawing them for many steps at once costs little more than for one.
        """
        require(draws.stream == Stream.AUGMENTATION, "stream of the draws", draws.stream, "Stream.AUGMENTATION")
        side = 2 * self.padding + 1
        crop = uniform_index(draws.words(0), side * side)
        flip = draws.words(1) >> 31 if self.flip else torch.zeros_like(crop)
        return torch.stack([crop // side, crop % side, flip])

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Crop and flip.

        Args:
            images: (..., C, H, W) of any dtype, e.g. (b, 3, 32, 32) or (R, V, 3, 32, 32).
            choices: (3, ...), one for each image in the same order, on the same device; (3, 1, b) serves b images.

        Returns:
            A tensor like `images`.
        """
        batch = images.flatten(0, -4) if images.ndim > 4 else images  # (b, C, H, W)
        if images.ndim < 4 or choices[0].numel() != len(batch):
            shapes = f"{tuple(images.shape)} and {tuple(choices.shape)}"
            raise ConfigError(f"images and choices are {shapes}: must be (..., C, H, W) and one (3,) for each image")
        row, column, flip = choices.reshape(3, -1)  # (b,) each
        height, width = batch.shape[-2:]
        if self.padding >= min(height, width):
            raise ConfigError(f"padding = {self.padding} is not allowed for images {height} x {width}: must be smaller")
        # A view of all crops, (b, C, 2 padding + 1, 2 padding + 1, H, W), of which one is copied for each image: three
        # times faster on a CPU than to gather pixel by pixel.
        crops = self._padded(batch).unfold(2, height, 1).unfold(3, width, 1)
        out = crops[torch.arange(len(batch), device=batch.device), :, row, column]  # (b, C, H, W)
        if self.flip:
            out = torch.where((flip == 1)[:, None, None, None], out.flip(-1), out)
        return out.reshape(images.shape)

    def _padded(self, batch: Tensor) -> Tensor:
        """(b, C, H, W) -> (b, C, H + 2 padding, W + 2 padding)."""
        if self.fill == "zero":
            return functional.pad(batch, (self.padding,) * 4)
        height, width = (_reflected(size, self.padding, batch.device) for size in batch.shape[-2:])
        return batch.index_select(2, height).index_select(3, width)  # torch reflects no bytes

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Crop and flip images (..., C, H, W) as the draws of their visits say."""
        return self.apply(images, self.choices(draws))


def _reflected(size: int, padding: int, device: torch.device) -> Tensor:
    """Positions -padding .. size - 1 + padding, reflected at 0 and at size - 1 and neither repeated."""
    position = torch.arange(-padding, size + padding, device=device)
    return (size - 1) - ((size - 1) - position.abs()).abs()


@dataclass(frozen=True)
class Normalisation:
    """(x / 255 - mean) / std for each channel.

    Attributes:
        mean, std: of the pixels of the training images, on the scale 0 .. 1, one number a channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    name: ClassVar[str] = "normalisation"

    def __post_init__(self) -> None:
        require(len(self.mean) == len(self.std) > 0, "mean", self.mean, f"as many numbers as std ({len(self.std)})")
        require(all(map(math.isfinite, self.mean)), "mean", self.mean, "finite numbers")
        require(all(math.isfinite(s) and s > 0 for s in self.std), "std", self.std, "finite numbers > 0")

    @classmethod
    def of(cls, images: Tensor) -> Normalisation:
        """That of training images (N, 3, 32, 32) uint8: exact, from how often each channel has each of 256 values.

        Give it the training images alone, without those of a validation or test split.
        """
        require_images("images", images)
        values = torch.arange(256, dtype=torch.float64) / 255
        mean, std = [], []
        for channel in images.cpu().unbind(1):  # (N, 32, 32)
            share = channel.flatten().bincount(minlength=256).double() / channel.numel()  # (256,)
            mean.append((share @ values).item())
            std.append((share @ (values - mean[-1]).square()).sqrt().item())
        return cls(tuple(mean), tuple(std))

    def __call__(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Images of bytes (..., C, H, W), values 0 .. 255, as normalised numbers of `dtype`."""
        channels = images.shape[-3] if images.ndim >= 3 else 0
        if channels != len(self.mean):
            raise ConfigError(f"images are {tuple(images.shape)}: must be (..., {len(self.mean)}, H, W)")
        # In half precision x / 255 - mean would lose digits: scale and shift are applied in float32 or better.
        work = dtype if dtype in (torch.float32, torch.float64) else torch.float32
        std = torch.tensor(self.std, dtype=torch.float64)
        scale = (1 / (255 * std)).to(images.device, work)[:, None, None]  # (C, 1, 1)
        shift = (torch.tensor(self.mean, dtype=torch.float64) / std).to(images.device, work)[:, None, None]
        return (images.to(work) * scale - shift).to(dtype)


@dataclass(frozen=True)
class Unchanged:
    """Stands where a `Normalisation` does, for points: they stay as they are.

    Attributes:
        mean, std: none.
    """

    mean: ClassVar[tuple[float, ...]] = ()
    std: ClassVar[tuple[float, ...]] = ()

    name: ClassVar[str] = "unchanged"

    def __call__(self, points: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Points (..., d) of any floating type in `dtype`."""
        if not points.is_floating_point():
            shape = f"{tuple(points.shape)} {str(points.dtype).removeprefix('torch.')}"
            raise ConfigError(f"points are {shape}: must be (..., d) of a floating type")
        return points.to(dtype)
