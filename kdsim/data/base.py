"""What a data set of images is, once it is in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdsim.config import ConfigError

IMAGE_SHAPE = (3, 32, 32)
"""Channels (red, green, blue), rows, columns."""


@dataclass(frozen=True, eq=False)  # compared and cached by identity: it holds tensors
class ImageData:
    """Images with one label each, in the order of their source.

    Attributes:
        train_images, test_images: (N, 3, 32, 32) uint8.
        train_labels, test_labels: (N,) int64 in 0 .. K-1.
        classes: the K class names; label k is classes[k].
        source: what was read, in words for people.
        source_sha256: SHA-256 of the file that was read; of several files, of the text that `sha256sum` prints for them
            (names without folders), in the order train, test, class names.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    source: str
    source_sha256: str

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            require_images(f"{self.source}: {split} images", getattr(self, f"{split}_images"))
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            require_labels(f"{self.source}: {split} labels", labels, len(images), len(self.classes))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of images and labels as they are in memory.

        It does not depend on the container: the python and the binary archive of CIFAR-10 agree in it; a JPEG copy does
        not, nor does JPEG decoded by a library that rounds otherwise. So it names what a result depends on.
        """
        digest = hashlib.sha256()
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            little_endian = "|u1" if tensor.dtype == torch.uint8 else "<i8"  # the same on every machine
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.cpu().contiguous().numpy().astype(little_endian, copy=False).data)
        return digest.hexdigest()


def require_images(what: str, images: Tensor) -> None:
    """Refuse anything but a uint8 tensor (N, 3, 32, 32) with N >= 1."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != IMAGE_SHAPE or not len(images):
        shape = f"{tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
        raise ConfigError(f"{what} are {shape}: must be (N, 3, 32, 32) uint8 with N >= 1")


def require_labels(what: str, labels: Tensor, size: int, classes: int) -> None:
    """Refuse anything but an int64 tensor (size,) with entries in 0 .. classes - 1."""
    if labels.dtype != torch.int64 or labels.shape != (size,):
        shape = f"{tuple(labels.shape)} {str(labels.dtype).removeprefix('torch.')}"
        raise ConfigError(f"{what} are {shape}: must be ({size},) int64")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ConfigError(f"{what} reach from {low} to {high}: must lie in 0 .. {classes - 1}")


def reason(error: BaseException) -> str:
    """What an error of another library says, in one line."""
    lines = str((isinstance(error, OSError) and error.strerror) or error).splitlines()
    return lines[0] if lines and lines[0] else type(error).__name__
