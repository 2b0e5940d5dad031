"""Contract of a source of images or points: three pools for the trainer of networks, and what is known of their labels.

    pools = Cifar10(labels="worse_label").pools(seed=0, data_dir="my/data")
    pools.train.x, pools.train.p, pools.train.y, pools.provenance

The sources that read CIFAR are in `kdsim.data.cifar_sources`, that of points in `kdsim.data.points`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from kdsim.config import ConfigError, Configuration, require_between
from kdsim.data.base import ImageData, require_images, require_labels
from kdsim.population import Population
from kdsim.problems import Images

Truth = Literal["bcp", "people", "labels"]
"""What `Population.p` is: "bcp" the exact Bayes class probabilities; "people" how often people chose each class, an
estimate of them; "labels" one-hot of y, where nobody knows more."""

Provenance = dict[str, str | int | float]


@dataclass(frozen=True, eq=False)  # compared and cached by identity: it holds tensors
class Pools:
    """Training, validation and test images or points, none in two of them; all on the CPU.

    Attributes:
        train, validation, test: x uint8 (N, 3, 32, 32), or points (N, d) of a floating type, p float64 (N, K) and y
            int64 (N,) in 0 .. K-1 each.
        provenance: what a stored result must say about the data. Every source has the keys
            source: what was read or drawn, in words for people;
            source_sha256: `ImageData.source_sha256` of the files with the images, "" where none was read;
            digest: `ImageData.digest`, SHA-256 of all images and official labels of the source, used or not (of those
                drawn, where images are drawn);
            classes, train_size, validation_size, test_size: numbers of classes and of images in the pools;
            train_truth, test_truth: `ImageSource.train_truth`, `test_truth`.
            A source may add keys of its own.
    """

    train: Population
    validation: Population
    test: Population
    provenance: Provenance

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            pool = getattr(self, part)
            if pool.p is None or pool.y is None:
                raise ConfigError(f"{part} pool: p and y must be given")
            if pool.p.dtype != torch.float64 or pool.p.ndim != 2 or pool.classes != self.train.classes:
                shape = f"{tuple(pool.p.shape)} {str(pool.p.dtype).removeprefix('torch.')}"
                raise ConfigError(f"{part} pool: p is {shape}: must be (N, K) float64 with the K of all pools")
            if self.train.x.ndim == 2 and self.train.x.is_floating_point():
                require_points(f"{part} pool: points", pool.x, self.train.x.shape[1])
            else:
                require_images(f"{part} pool: images", pool.x)
            require_labels(f"{part} pool: labels", pool.y, pool.size, pool.classes)


def require_points(what: str, points: Tensor, features: int) -> None:
    """Refuse anything but a tensor (N, features) of a floating type with N >= 1."""
    if not points.is_floating_point() or points.ndim != 2 or points.shape[1] != features or not len(points):
        shape = f"{tuple(points.shape)} {str(points.dtype).removeprefix('torch.')}"
        raise ConfigError(f"{what} are {shape}: must be (N, {features}) of a floating type with N >= 1")


class Described(Protocol):
    """What was read or drawn, as the provenance tells it; see `Pools`."""

    @property
    def source(self) -> str: ...
    @property
    def source_sha256(self) -> str: ...
    @property
    def digest(self) -> str: ...


class Source(Configuration, ABC):
    """Where images or points come from. Implementations are frozen dataclasses whose fields are keys of `--set`."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def classes(self) -> int:
        """Number of classes K."""

    @property
    @abstractmethod
    def train_truth(self) -> Truth:
        """What p of the training and validation pools is."""

    @property
    @abstractmethod
    def test_truth(self) -> Truth:
        """What p of the test pool is."""

    @abstractmethod
    def pools(self, seed: int, data_dir: str | Path | None = None) -> Pools:
        """Read or draw the pools. What is read is kept for the next call; the pools are copies and may be changed.

        Args:
            seed: decides which images are held out and kept and, where they are drawn, the images or points.
            data_dir: folder with the files; a source that draws its images ignores it.

        Raises:
            ConfigError: a bad seed; no folder; or files that are missing or not as they must be.
        """

    @property
    def class_shares(self) -> tuple[float, ...] | None:
        """Share of each class of the training images where these have a long tail by construction; None elsewhere.

        Validation and test images of such a source are balanced: as many of each class, and p is the BCP under equal
        priors.
        """
        return None

    @property
    def class_prior(self) -> tuple[float, ...] | None:
        """Shares of the classes that a loss may assume: `class_shares`, equal ones at an imbalance of 1, else None."""
        return self.class_shares

    def _described(
        self, data: Described, train: Population, validation: Population, test: Population, **more: str | int | float
    ) -> Pools:
        """The pools with their provenance, to which `more` is added."""
        provenance = {
            "source": data.source,
            "source_sha256": data.source_sha256,
            "digest": data.digest,
            "classes": self.classes,
            "train_size": train.size,
            "validation_size": validation.size,
            "test_size": test.size,
            "train_truth": self.train_truth,
            "test_truth": self.test_truth,
            **more,
        }
        return Pools(train, validation, test, provenance)


class ImageSource(Source):
    """Where images come from."""


class PointSource(Source):
    """Where points come from: x (N, d) of a floating type, for networks of points."""


@dataclass(frozen=True)
class KnownImages(ImageSource):
    """Drawn images with exactly known class probabilities; labels are drawn from them. Nothing is read.

    Attributes:
        problem: the images, their number and how hard they are. With an imbalance the validation images are balanced
            here, as the test images are.
        few_shot: share of the training images that are there, the first ones, in (0, 1]; the BCP stays as it is.
    """

    problem: Images = field(default_factory=Images)
    few_shot: float = 1.0

    name: ClassVar[str] = "known-images"  # "images" is the problem's, and both stand in one stored config
    train_truth: ClassVar[Truth] = "bcp"
    test_truth: ClassVar[Truth] = "bcp"

    def __post_init__(self) -> None:
        require_between("few_shot", self.few_shot, 0, 1, "(]")

    @property
    def classes(self) -> int:
        return self.problem.classes

    @property
    def class_shares(self) -> tuple[float, ...] | None:
        """The priors of the problem."""
        return tuple(self.problem.prior.tolist()) if self.problem.imbalance > 1 else None

    @property
    def class_prior(self) -> tuple[float, ...]:
        """The priors of the problem, equal ones without a long tail."""
        return tuple(self.problem.prior.tolist())

    def pools(self, seed: int, data_dir: str | Path | None = None) -> Pools:
        """Draw the pools; see `Source.pools`. `data_dir` is ignored."""
        train, validation, test = self.problem.split(seed)
        if self.class_shares is not None:  # balanced, like the test images and beyond them
            first, more = self.problem.test_samples, self.problem.validation_samples
            validation = self.problem.pool(seed, "test", range(first, first + more))
        train = train.points(slice(max(1, round(self.few_shot * train.size))))
        drawn = ImageData(
            train.x, train.y, torch.cat([validation.x, test.x]), torch.cat([validation.y, test.y]),
            classes=tuple(f"class {k}" for k in range(self.classes)),
            source="images drawn by kdsim, with known class probabilities", source_sha256="",
        )  # fmt: skip
        return self._described(drawn, train, validation, test)
