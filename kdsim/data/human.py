"""Labels that people gave to CIFAR-10's images, from npz files in a folder of the user's.

CIFAR-10H: J. C. Peterson, R. M. Battleday, T. L. Griffiths, O. Russakovsky, "Human uncertainty makes classification
more robust", ICCV 2019 (about 51 people for each test image).
CIFAR-10N: J. Wei, Z. Zhu, H. Cheng, T. Liu, G. Niu, Y. Liu, "Learning with noisy labels revisited: a study using
real-world human annotations", ICLR 2022 (three people for each training image).

Neither licence lets a program pass the files on: they are read, and never shipped or downloaded.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdsim.config import ConfigError, choose
from kdsim.data.base import reason
from kdsim.untrusted import read_file

CLASSES = 10
CIFAR10H_FILE, CIFAR10N_FILE = "cifar10h.npz", "cifar10n.npz"
LABEL_SETS = ("aggre_label", "worse_label", "random_label1", "random_label2", "random_label3")
"""Of CIFAR-10N: majority of three people, a wrong one of the three where there is one, and each of the three."""

CLEAN = "clean_label"
LEAST_AGREEMENT = 0.9
"""Share of images on which most people choose the official label: 99.2 % in CIFAR-10H, 10 % if rows are shuffled."""

_SIZE_LIMIT = 64_000_000
"""Bytes of all unpacked entries; some 3 million are needed."""
_VOTES_LIMIT = 1_000_000
"""Of an image for a class; some 50 people were asked."""


@dataclass(frozen=True, eq=False)
class HumanVotes:
    """How many people chose each class.

    Attributes:
        counts: (N, K) int64, row i for test image i.
        probs: counts divided by their row's sum, (N, K) float64.
        source_sha256: SHA-256 of the file.
    """

    counts: Tensor
    probs: Tensor
    source_sha256: str


@dataclass(frozen=True, eq=False)
class HumanLabels:
    """Several labellings of the training images.

    Attributes:
        clean: official labels, (N,) int64.
        sets: (N,) int64 each, under the names in `LABEL_SETS`.
        source_sha256: SHA-256 of the file.
    """

    clean: Tensor
    sets: Mapping[str, Tensor]
    source_sha256: str

    def labels(self, name: str) -> Tensor:
        """One labelling, (N,) int64."""
        return choose("label set", name, self.sets)

    def noise_rate(self, name: str) -> float:
        """Share of images whose label differs from the official one."""
        return (self.labels(name) != self.clean).double().mean().item()


def read_cifar10h(data_dir: str | Path, test_labels: Tensor) -> HumanVotes:
    """Votes for CIFAR-10's test images from `cifar10h.npz`: `counts` (N, 10), and `probs` to check them.

    Args:
        data_dir: folder that holds the file, itself or in a subfolder `cifar10`.
        test_labels: official labels, (N,) int64, which must agree with most people on 90 % of the images.

    Raises:
        ConfigError: the file is missing, not as described, or belongs to other images.
    """
    path, found = votes_in(data_dir, len(test_labels))
    agreement = (found.counts.argmax(1) == test_labels.cpu()).double().mean().item()
    if agreement < LEAST_AGREEMENT:
        raise ConfigError(
            f"{path}: most people agree with the label on {agreement:.1%} of the images, must be at least "
            f"{LEAST_AGREEMENT:.0%}: its rows are of other images or in another order"
        )
    return found


def votes_in(data_dir: str | Path, size: int) -> tuple[Path, HumanVotes]:
    """The file of `read_cifar10h` and the votes in it, for so many images, whichever these are.

    Raises:
        ConfigError: the file is missing, or not as described.
    """
    path, sha256, (counts, probs) = _read(data_dir, CIFAR10H_FILE, ("counts", "probs"))
    shape = (size, CLASSES)
    for name, array, kind in (("counts", counts, "integers"), ("probs", probs, "floats")):
        _require(path, name, array, shape, kind)
    if counts.min() < 0 or counts.max() > _VOTES_LIMIT or (counts.sum(1) == 0).any():
        what = f"entries that are negative or above {_VOTES_LIMIT}, or rows without votes"
        raise ConfigError(f"{path}: counts has {what}, must have none")
    votes = torch.from_numpy(counts.astype(np.int64))
    exact = votes.double() / votes.sum(1, keepdim=True)
    if not np.allclose(probs, exact.numpy(), rtol=0, atol=1e-6):  # NaN is not close either
        raise ConfigError(f"{path}: probs are not counts divided by their sum, must be (to 1e-6)")
    return path, HumanVotes(votes, exact, sha256)


def read_cifar10n(data_dir: str | Path, train_labels: Tensor) -> HumanLabels:
    """Labellings of CIFAR-10's training images from `cifar10n.npz`: `clean_label` and those in `LABEL_SETS`, (N,).

    Args:
        data_dir: folder that holds the file, itself or in a subfolder `cifar10`.
        train_labels: official labels, (N,) int64, which `clean_label` must equal.

    Raises:
        ConfigError: the file is missing, not as described, or belongs to other images.
    """
    path, found = labels_in(data_dir, len(train_labels))
    wrong = int((found.clean != train_labels.cpu()).sum())
    if wrong:
        raise ConfigError(f"{path}: {CLEAN} differs from the label of {wrong} training images, must equal all of them")
    return found


def labels_in(data_dir: str | Path, size: int) -> tuple[Path, HumanLabels]:
    """The file of `read_cifar10n` and the labels in it, of so many images, whichever these are.

    Raises:
        ConfigError: the file is missing, or not as described.
    """
    path, sha256, arrays = _read(data_dir, CIFAR10N_FILE, (CLEAN, *LABEL_SETS))
    labels = {}
    for name, array in zip((CLEAN, *LABEL_SETS), arrays, strict=True):
        _require(path, name, array, (size,), "integers")
        if array.min() < 0 or array.max() >= CLASSES:
            raise ConfigError(f"{path}: {name} reaches from {array.min()} to {array.max()}, must lie in 0 .. 9")
        labels[name] = torch.from_numpy(array.astype(np.int64))
    return path, HumanLabels(labels.pop(CLEAN), labels, sha256)


def find_human(data_dir: str | Path, file: str) -> Path | None:
    """Where a file of human labels lies, or None."""
    places = (Path(data_dir) / file, Path(data_dir) / "cifar10" / file)
    return next((place for place in places if place.is_file()), None)


def _read(data_dir: str | Path, file: str, names: tuple[str, ...]) -> tuple[Path, str, list[NDArray]]:
    """Path, digest and the named arrays of an npz; entries that are pickles are refused by numpy."""
    try:
        path = find_human(data_dir, file)
        if path is None:
            raise ConfigError(f"data_dir = {str(data_dir)!r} has no {file}: must hold it or cifar10/{file}")
        data = read_file(path, _SIZE_LIMIT)
    except OSError as error:
        raise ConfigError(f"{file} in data_dir = {str(data_dir)!r} cannot be read: {reason(error)}") from None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
        found = [entry.filename.removesuffix(".npy") for entry in entries]
        if missing := [name for name in names if name not in found]:
            raise ConfigError(f"{path}: has no {', '.join(missing)}, only {', '.join(found[:20]) or 'nothing'}")
        if twice := [name for name in names if found.count(name) > 1]:
            raise ConfigError(f"{path}: has {', '.join(twice)} more than once, must have each once")
        size = sum(entry.file_size for entry in entries)
        if size > _SIZE_LIMIT:
            raise ConfigError(f"{path}: has {size} bytes when it is unpacked, must have at most {_SIZE_LIMIT}")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return path, hashlib.sha256(data).hexdigest(), [arrays[name] for name in names]
    except ConfigError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types on bad bytes
        raise ConfigError(f"{path}: not a whole npz file of arrays: {reason(error)}") from None


def _require(path: Path, name: str, array: NDArray, shape: tuple[int, ...], kind: str) -> None:
    if not isinstance(array, np.ndarray):  # numpy hands out the bytes of an entry that is no array
        raise ConfigError(f"{path}: {name} is not an array, must be {shape} {kind}")
    right = np.issubdtype(array.dtype, np.integer if kind == "integers" else np.floating)
    if array.shape != shape or not right:
        raise ConfigError(f"{path}: {name} is {array.shape} {array.dtype}, must be {shape} {kind}")
