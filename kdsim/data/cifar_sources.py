"""Sources of real images: CIFAR-10 with official or human labels, CIFAR-10H, and CIFAR-100.

All parts are stratified by the *official* labels, so which images a pool has depends on seed and sizes alone: runs with
other labels train on the same images and differ in nothing but what they are taught.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from kdsim.config import ConfigError, require, require_between, require_count
from kdsim.data.base import ImageData
from kdsim.data.cifar import DATA_SETS, DataSet, read_cifar
from kdsim.data.human import read_cifar10h, read_cifar10n
from kdsim.data.sources import ImageSource, Pools, Provenance, Truth
from kdsim.data.subsets import FewShot, LongTailed, Subset, ValidationSplit
from kdsim.population import Population

LabelSet = Literal["official", "aggre_label", "worse_label", "random_label1", "random_label2", "random_label3"]
VOTERS = ("random_label1", "random_label2", "random_label3")
"""The sets of CIFAR-10N that have one person's label of each image; the other two are made from these."""

Folder = str | Path
Taught = tuple[Tensor, Tensor]
"""p (N, K) float64 and y (N,) int64."""


@dataclass(frozen=True, kw_only=True)
class TrainingImages(ImageSource):
    """Pools from the official training images, of which a share is held out, and the official test images.

    The share is held out first. Then what is left is made few-shot or long-tailed; the validation pool never is, and
    its images are the same for all training sets of one seed and `validation`. With one seed a smaller few-shot set
    lies within a larger one.

    `Pools.provenance` also has `train_label_noise`, the share of training images whose y is not the official label.

    Attributes:
        few_shot: share of every class that is kept for training, in (0, 1]; see `FewShot`.
        imbalance: training images of class 0 over those of the last class, >= 1; see `LongTailed`. Not together with
            `few_shot`: the order of the two would matter, and no protocol that we know has both.
        validation: share of every class that is held out, in (0, 1).
        test_images: number of test images: the first ones in the official order, which mixes the classes. None: all.
    """

    few_shot: float = 1.0
    imbalance: float = 1.0
    validation: float = 0.1
    test_images: int | None = None

    data_set: ClassVar[str]
    """Its name in `DATA_SETS`."""

    def __post_init__(self) -> None:
        require_between("few_shot", self.few_shot, 0, 1, "(]")
        require_between("imbalance", self.imbalance, 1, 1e6)
        _require_validation(self.validation)
        if self.few_shot < 1 < self.imbalance:
            both = f"few_shot = {self.few_shot!r} and imbalance = {self.imbalance!r}"
            raise ConfigError(f"{both} are not allowed together: one of them must be 1")
        _require_some_of_each(self, self._facts.train_size, [ValidationSplit(self.validation), self._subset])
        if self.test_images is not None:
            require_count("test_images", self.test_images, most=self._facts.test_size)

    @property
    def classes(self) -> int:
        return len(self._facts.classes)

    @property
    def _facts(self) -> DataSet:
        return DATA_SETS[self.data_set]

    @property
    def _subset(self) -> Subset:
        """What is kept of the images that are not held out; FewShot(1) keeps all."""
        return LongTailed(self.imbalance) if self.imbalance > 1 else FewShot(self.few_shot)

    @property
    def class_shares(self) -> tuple[float, ...] | None:
        """Of the official labels."""
        if self.imbalance == 1:
            return None
        counts = [self._facts.train_size // self.classes] * self.classes
        kept = self._subset.sizes(ValidationSplit(self.validation).sizes(counts))
        return tuple(count / sum(kept) for count in kept)

    @property
    def class_prior(self) -> tuple[float, ...]:
        """Of the official labels, of which there are equally many in each class but for a long tail."""
        return self.class_shares or (1 / self.classes,) * self.classes

    def pools(self, seed: int, data_dir: Folder | None = None) -> Pools:
        """See `ImageSource.pools`."""
        data, folder = _images(self.data_set, data_dir)
        official = data.train_labels
        split = ValidationSplit(self.validation)
        kept, held_out = split.indices(official, seed), split.held_out(official, seed)
        kept = kept[self._subset.indices(official[kept], seed)]
        first = torch.arange(len(data.test_images) if self.test_images is None else self.test_images)

        train, test, sources = self._taught(data, folder)
        training, validation = (_population(data.train_images, train, index) for index in (kept, held_out))
        noise = (training.y != official[kept]).double().mean().item()
        testing = _population(data.test_images, test, first)
        return self._described(data, training, validation, testing, train_label_noise=noise, **sources)

    @abstractmethod
    def _taught(self, data: ImageData, folder: Folder) -> tuple[Taught, Taught, Provenance]:
        """p and y of all training images, of all test images, and from which other files they are."""


@dataclass(frozen=True)
class Cifar10(TrainingImages):
    """CIFAR-10, taught with its official labels or with those that people gave in CIFAR-10N.

    Attributes (and those of `TrainingImages`):
        labels: y of the training *and* validation images, since who has such labels has no others to choose an epoch
            by: the official ones, or a set of CIFAR-10N (noise of Wei et al. 2022, table 1, over all images):
            "aggre_label" the majority of three people (9 %), "worse_label" a wrong one of the three where there is one
            (40 %), "random_label1" .. 3 one person's (17 to 18 %). y of the test images is always official.
        people: whether p is what people say: of training and validation images the frequencies of the three random
            labels of CIFAR-10N, of test images those of CIFAR-10H (about 51 people each). y stays as `labels` says; the
            official label of one training image in 50 is a class that none of its three people chose. False: p is
            one-hot of y.

    Reads cifar10n.npz unless labels is "official" and people False; reads cifar10h.npz if people is True.
    """

    labels: LabelSet = "official"
    people: bool = False

    name: ClassVar[str] = "cifar10"
    data_set: ClassVar[str] = "cifar10"

    @property
    def train_truth(self) -> Truth:
        return "people" if self.people else "labels"

    @property
    def test_truth(self) -> Truth:
        return "people" if self.people else "labels"

    def _taught(self, data: ImageData, folder: Folder) -> tuple[Taught, Taught, Provenance]:
        y, test_y = data.train_labels, data.test_labels
        sources: Provenance = {}
        if self.people or self.labels != "official":
            human = read_cifar10n(folder, y)
            sources["cifar10n_sha256"] = human.source_sha256
            y = y if self.labels == "official" else human.labels(self.labels)
        if not self.people:
            return (_one_hot(y, self.classes), y), (_one_hot(test_y, self.classes), test_y), sources
        votes = read_cifar10h(folder, test_y)
        sources["cifar10h_sha256"] = votes.source_sha256
        three = torch.stack([_one_hot(human.labels(voter), self.classes) for voter in VOTERS])  # (3, N, K)
        return (three.mean(0), y), (votes.probs, test_y), sources


@dataclass(frozen=True)
class Cifar100(TrainingImages):
    """CIFAR-100, its 100 fine classes, with official labels.

    Attributes: those of `TrainingImages`.
    """

    name: ClassVar[str] = "cifar100"
    data_set: ClassVar[str] = "cifar100"
    train_truth: ClassVar[Truth] = "labels"
    test_truth: ClassVar[Truth] = "labels"

    def _taught(self, data: ImageData, folder: Folder) -> tuple[Taught, Taught, Provenance]:
        train, test = ((_one_hot(y, self.classes), y) for y in (data.train_labels, data.test_labels))
        return train, test, {}


@dataclass(frozen=True)
class Cifar10H(ImageSource):
    """CIFAR-10 the other way round: trains on the official *test* images, of which about 51 people each said what they
    see (CIFAR-10H), and tests on official *training* images, as Peterson et al. (2019) do.

    In the training and validation pools p is the share of people who chose each class; in the test pool it is one-hot
    of the official label. y is the official label throughout.

    Attributes:
        validation: share of every class of the images with votes that is held out, in (0, 1).
        test_images: number of test images: the first of the 50,000 official training images, whose order mixes the
            classes.

    Reads cifar10h.npz.

    Source: J. C. Peterson, R. M. Battleday, T. L. Griffiths, O. Russakovsky, "Human uncertainty makes classification
    more robust", ICCV 2019.
    """

    validation: float = 0.1
    test_images: int = 10_000

    name: ClassVar[str] = "cifar10h"
    train_truth: ClassVar[Truth] = "people"
    test_truth: ClassVar[Truth] = "labels"

    def __post_init__(self) -> None:
        facts = DATA_SETS["cifar10"]
        _require_validation(self.validation)
        _require_some_of_each(self, facts.test_size, [ValidationSplit(self.validation)])
        require_count("test_images", self.test_images, most=facts.train_size)

    @property
    def classes(self) -> int:
        return len(DATA_SETS["cifar10"].classes)

    def pools(self, seed: int, data_dir: Folder | None = None) -> Pools:
        """See `ImageSource.pools`."""
        data, folder = _images("cifar10", data_dir)
        votes = read_cifar10h(folder, data.test_labels)
        split = ValidationSplit(self.validation)
        kept, held_out = split.indices(data.test_labels, seed), split.held_out(data.test_labels, seed)
        voted = votes.probs, data.test_labels
        training, validation = (_population(data.test_images, voted, index) for index in (kept, held_out))
        official = _one_hot(data.train_labels, self.classes), data.train_labels
        testing = _population(data.train_images, official, torch.arange(self.test_images))
        return self._described(data, training, validation, testing, cifar10h_sha256=votes.source_sha256)


def _images(name: str, data_dir: Folder | None) -> tuple[ImageData, Folder]:
    """The data set in the folder, and the folder."""
    if not data_dir:
        where = "data_dir (--data-dir or the environment variable KDSIM_DATA)"
        raise ConfigError(f"{where} must name the folder with {name}: see `kdsim data fetch {name}`")
    return _read(name, os.path.abspath(data_dir), _changes(Path(os.path.abspath(data_dir)))), data_dir


def _changes(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Path, time of change and size of what lies in a folder and in its folders."""
    try:
        found = [(path, path.stat()) for path in (*folder.glob("*"), *folder.glob("*/*"))]
    except OSError:  # which the reader says better
        return ()
    return tuple(sorted((str(path), status.st_mtime_ns, status.st_size) for path, status in found))


@lru_cache(maxsize=2)  # 185 MB each
def _read(name: str, folder: str, changes: tuple[tuple[str, int, int], ...]) -> ImageData:
    """Read once a process and state of the folder: decoding takes seconds. Never handed out: tensors can be changed."""
    return read_cifar(name, folder)


def _population(images: Tensor, taught: Taught, index: Tensor) -> Population:
    """The images of these positions, copied."""
    p, y = taught
    return Population(images[index], p[index], y[index])


def _one_hot(y: Tensor, classes: int) -> Tensor:
    """(N,) int64 -> (N, K) float64."""
    return functional.one_hot(y, classes).double()


def _require_validation(share: float) -> None:
    """Refuse a training without validation images."""
    inside = isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share < 1
    require(inside, "validation", share, "in (0, 1): trainings are followed, and teachers tuned, on images held out")


def _require_some_of_each(source: ImageSource, size: int, steps: Sequence[Subset]) -> None:
    """Refuse subsets, applied in turn to `size` images in equal classes, that leave a class without training images."""
    counts = [size // source.classes] * source.classes
    for step in steps:
        counts = step.sizes(counts)
    if min(counts) < 1:
        raise ConfigError(f"{source} keeps no training images of class {counts.index(0)}: must keep at least 1 of each")
