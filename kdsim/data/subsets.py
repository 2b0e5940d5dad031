"""Parts of a training set: few-shot, long-tailed, and a validation split. Each is a frozen config, stored with results.

Every image gets one random word from (seed, its position), and within a class images are taken in the order of these
words. So a part depends on seed and labels alone, and with one seed a smaller few-shot set lies within a larger one.
A part of a part:

    train = ValidationSplit(0.1).indices(labels, seed)
    few = train[FewShot(0.05).indices(labels[train], seed)]
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import ConfigError, Configuration, require, require_between, require_count
from kdsim.rng import Draws, Stream

ROUNDING = 1e-9
"""A product such as 0.29 * 100 = 28.999999999999996 counts as the integer that it stands for."""


class Subset(Configuration, ABC):
    """A rule that chooses images by their labels. Implementations are frozen dataclasses."""

    name: ClassVar[str]
    slot: ClassVar[int]
    """Slot of the random words: parts of different kinds are independent of each other."""

    @abstractmethod
    def sizes(self, counts: Sequence[int]) -> list[int]:
        """Number of images to keep of each class, given how many there are of each."""

    def indices(self, labels: Tensor, seed: int) -> Tensor:
        """Positions of the images kept, ascending, int64, on the CPU.

        Args:
            labels: (N,) int64; every class in 0 .. max(labels) occurs.
            seed: what the choice depends on.

        Raises:
            ConfigError: a bad seed, bad labels, a class without images, or one of which nothing would be kept.
        """
        require_count("seed", seed, least=0)
        labels = labels.cpu()
        if labels.dtype != torch.int64 or labels.ndim != 1 or (labels < 0).any():
            raise ConfigError(
                f"{self.name}: labels are {tuple(labels.shape)} {labels.dtype}: must be (N,) int64, all >= 0"
            )
        counts = labels.bincount().tolist()
        if not counts or min(counts) == 0:
            raise ConfigError(f"{self.name}: class {counts.index(0) if counts else 0} has no images, must have some")
        sizes = self.sizes(counts)
        if min(sizes) < 1:
            where = f"class {sizes.index(min(sizes))} of {counts[sizes.index(min(sizes))]} images"
            raise ConfigError(f"{self} keeps nothing of {where}: must keep at least 1 of each class")
        by_class = self._shuffled(labels, seed).split(counts)
        kept = [positions[:size] for positions, size in zip(by_class, sizes, strict=True)]
        return torch.cat(kept).sort().values

    def _shuffled(self, labels: Tensor, seed: int) -> Tensor:
        """Positions ordered by class and, within a class, by their random words. (N,) -> (N,)."""
        visit = torch.arange(len(labels))[None]  # (1, N)
        draws = Draws(torch.tensor([[seed]]), torch.tensor([[0]]), visit, Stream.SPLIT, torch.float64, start=0)
        words = draws.words(self.slot)[0]  # (N,), below 2^32, so that class and word share an int64
        return ((labels << 32) | words).sort(stable=True).indices


@dataclass(frozen=True)
class FewShot(Subset):
    """The same share of every class, rounded to the nearest number (halves up).

    Attributes:
        fraction: in (0, 1]. The Bayesian-teacher study (Morad et al., 2026) has 5, 10, 15, 25, 35 and 50 %.
    """

    fraction: float = 0.05

    name: ClassVar[str] = "few-shot"
    slot: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require_between("fraction", self.fraction, 0, 1, "(]")

    def sizes(self, counts: Sequence[int]) -> list[int]:
        return [math.floor(self.fraction * count + 0.5 + ROUNDING) for count in counts]


@dataclass(frozen=True)
class LongTailed(Subset):
    """Class sizes that fall exponentially from class 0 to class K - 1:

        n_k = floor(n ratio^(-k / (K - 1))),  n = size of the smallest class before.

    Ratio 100 leaves 12,406 images of CIFAR-10 and 10,847 of CIFAR-100.

    Attributes:
        ratio: size of the largest class over that of the smallest, >= 1.

    Source: K. Cao, C. Wei, A. Gaidon, N. Arechiga, T. Ma, "Learning imbalanced datasets with label-distribution-aware
    margin loss", NeurIPS 2019, section 4; profile of Y. Cui et al., "Class-balanced loss based on effective number of
    samples", CVPR 2019.
    """

    ratio: float = 100.0

    name: ClassVar[str] = "long-tailed"
    slot: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require_between("ratio", self.ratio, 1, 1e6)

    def sizes(self, counts: Sequence[int]) -> list[int]:
        require(len(counts) > 1, "number of classes", len(counts), "at least 2 for a long tail")
        largest, last = min(counts), len(counts) - 1
        return [math.floor(largest * self.ratio ** (-k / last) + ROUNDING) for k in range(len(counts))]


@dataclass(frozen=True)
class ValidationSplit(Subset):
    """All but a stratified share of the images, which are held out: to choose an epoch, never to report it.

    Attributes:
        fraction: share of every class that is held out, in (0, 1), rounded to the nearest number (halves up); at least
            one image of each class is held out and one is kept.
    """

    fraction: float = 0.1

    name: ClassVar[str] = "validation-split"
    slot: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require_between("fraction", self.fraction, 0, 1, "()")

    def sizes(self, counts: Sequence[int]) -> list[int]:
        held = [math.floor(self.fraction * count + 0.5 + ROUNDING) for count in counts]
        if min(held) < 1:
            where = f"class {held.index(min(held))} of {counts[held.index(min(held))]} images"
            raise ConfigError(f"{self} holds out nothing of {where}: must hold out at least 1 of each class")
        return [count - out for count, out in zip(counts, held, strict=True)]

    def held_out(self, labels: Tensor, seed: int) -> Tensor:
        """Positions of the images held out, ascending int64: the complement of `indices`."""
        out = torch.ones(len(labels), dtype=torch.bool)
        out[self.indices(labels, seed)] = False
        return out.nonzero()[:, 0]
