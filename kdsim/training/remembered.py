"""A teacher whose images stay the same says the same at every visit: it is asked once for each."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from kdsim.training.evaluation import BATCH

Said = Callable[[Tensor, Tensor], Tensor]
"""What a teacher says at a visit: images uint8 (b, 3, h, w) or points (b, d), their numbers (b,) -> logits (b, K) or
(S, b, K)."""


def asked_each_time(predict: Callable[[Tensor], Tensor]) -> Said:
    """A teacher that sees each batch as the student does, crops and all."""
    return lambda images, numbers: predict(images)


class Remembered:
    """A teacher asked once about all training images, by the first replica that needs it.

    Asked at every visit, four samples of a ResNet-20 cost more than the steps of the ResNet-8 that they teach. Table:
    (S, N, K) float32, which is 240 MB for 12 samples, 50,000 images and 100 classes.
    """

    def __init__(self, predict: Callable[[Tensor], Tensor], images: Tensor) -> None:
        self.predict, self.images = predict, images
        self.lock = threading.Lock()
        self.table: Tensor | None = None

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        with self.lock:
            if self.table is None:
                self.table = torch.cat([self.predict(part) for part in self.images.split(BATCH)], -2)
        return self.table[..., numbers, :]
