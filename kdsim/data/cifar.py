"""CIFAR-10 and CIFAR-100 from a folder of the user's: official archives (packed or extracted) or parquet files.

    data = read_cifar("cifar10", "my/data")

A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kdsim.config import ConfigError, choose
from kdsim.data.base import ImageData, reason
from kdsim.data.official import BinaryLayout, Layout, Part, PythonLayout, digest_of_files, read_official
from kdsim.data.parquet import SPLITS, parquet_files, read_split, split_files

KINDS = ("python", "binary", "parquet")
"""Containers, the preferred first: the official ones are checked against published digests."""

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100_TEXT = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_CLASSES = tuple(_CIFAR100_TEXT.split())


@dataclass(frozen=True)
class DataSet:
    """What a data set must be, and the forms in which it comes.

    Attributes:
        title: its name for people.
        classes: class names where the container has none (parquet).
        train_size, test_size: numbers of images; every class has the same share of both.
        layouts: its official archives.
        label_column: labels in parquet files.
        parquet_folders: where parquet files lie below the data folder or its subfolder of the data set's name.
    """

    title: str
    classes: tuple[str, ...]
    train_size: int
    test_size: int
    layouts: tuple[Layout, ...]
    label_column: str
    parquet_folders: tuple[str, ...]


DATA_SETS: dict[str, DataSet] = {
    "cifar10": DataSet(
        "CIFAR-10", CIFAR10_CLASSES, 50_000, 10_000,
        (
            PythonLayout(
                "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "cifar-10-batches-py",
                tuple(f"data_batch_{number}" for number in range(1, 6)), ("test_batch",), "batches.meta",
                "labels", "label_names",
            ),
            BinaryLayout(
                "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", "cifar-10-batches-bin",
                tuple(f"data_batch_{number}.bin" for number in range(1, 6)), ("test_batch.bin",), "batches.meta.txt",
                1,
            ),
        ),
        "label", (".", "plain_text"),
    ),
    "cifar100": DataSet(
        "CIFAR-100", CIFAR100_CLASSES, 50_000, 10_000,
        (
            PythonLayout(
                "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python",
                ("train",), ("test",), "meta", "fine_labels", "fine_label_names",
            ),
            BinaryLayout(
                "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary",
                ("train.bin",), ("test.bin",), "fine_label_names.txt", 2,
            ),
        ),
        "fine_label", (".", "cifar100"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A place from which a data set can be read: `path` is an archive, or a folder of its files."""

    kind: str
    path: Path
    layout: Layout | None = None

    def __str__(self) -> str:
        if self.layout is None:
            return "parquet files"
        return f"official {self.kind} {'folder' if self.path.is_dir() else 'archive'}"


def read_cifar(
    name: str, data_dir: str | Path, kind: str | None = None, cache_dir: str | Path | None = None
) -> ImageData:
    """Read CIFAR-10 or CIFAR-100 (its 100 fine classes).

    Args:
        name: "cifar10" or "cifar100".
        data_dir: folder that holds an official archive, its extracted folder or parquet files, either itself or in a
            subfolder called `name`. Nothing is written there.
        kind: "python", "binary" or "parquet"; None: the first of these that is there.
        cache_dir: folder for images decoded from parquet files, made if it is not there; None: decode each time.

    Raises:
        ConfigError: nothing is found, or what is found is not whole or is not the data set. Another container is then
            not tried.
    """
    data_set = choose("data set", name, DATA_SETS)
    if kind is not None:
        choose("kind", kind, dict.fromkeys(KINDS))
    found = [source for source in sources(name, data_dir) if kind in (None, source.kind)]
    if not found:
        wanted = [layout.archive for layout in data_set.layouts if kind in (None, layout.kind)]
        wanted += [f"{name}/train-00000-of-00001.parquet"] if kind in (None, "parquet") else []
        raise ConfigError(f"data_dir = {str(data_dir)!r} has no {data_set.title}: must hold {' or '.join(wanted)}")
    source = found[0]
    where = f"{source.path}"
    names = data_set.classes
    if source.layout is None:
        train, test, digest = _read_parquet(data_set, source.path, None if cache_dir is None else Path(cache_dir))
    else:
        parts, names, digest = read_official(source.layout, source.path)
        train, test = (_joined([parts[file] for file in files]) for files in (source.layout.train, source.layout.test))
        if len(set(names)) != len(data_set.classes):
            raise ConfigError(f"{where}: names {len(set(names))} classes, {data_set.title} has {len(data_set.classes)}")
    for split, (_, labels) in zip(SPLITS, (train, test), strict=True):
        _require_balance(f"{where}: {split}", labels, getattr(data_set, f"{split}_size"), data_set)
    train_images, train_labels, test_images, test_labels = (torch.from_numpy(array) for array in (*train, *test))
    return ImageData(
        train_images, train_labels, test_images, test_labels,
        classes=names, source=f"{data_set.title}, {source}", source_sha256=digest,
    )  # fmt: skip


def sources(name: str, data_dir: str | Path) -> list[Source]:
    """All places from which a data set can be read, in the order of `KINDS`, archives before extracted folders.

    Raises:
        ConfigError: there is no such folder, or it cannot be read.
    """
    data_set, folder = choose("data set", name, DATA_SETS), Path(data_dir)
    try:
        if not folder.is_dir():
            raise ConfigError(f"data_dir = {str(data_dir)!r} is not allowed: must be a folder that exists")
        roots = (folder, folder / name)
        found = []
        for layout in data_set.layouts:
            archives = [root / layout.archive for root in roots]
            folders = [root / layout.folder for root in roots] + ([folder] if folder.name == layout.folder else [])
            found += [Source(layout.kind, path, layout) for path in archives if path.is_file()]
            found += [Source(layout.kind, path, layout) for path in folders if path.is_dir() and _holds(path, layout)]
        # The subfolder of the data set's name comes first: two data sets may lie side by side.
        places = [root / place for root in reversed(roots) for place in data_set.parquet_folders]
        return found + [Source("parquet", place) for place in dict.fromkeys(places) if parquet_files(place)]
    except OSError as error:
        raise ConfigError(f"data_dir = {str(data_dir)!r} cannot be read: {reason(error)}") from None


def _holds(folder: Path, layout: Layout) -> bool:
    """Whether any of the members is there; `read_official` then asks for all."""
    return any((folder / member).is_file() for member in layout.members)


def _read_parquet(data_set: DataSet, folder: Path, cache_dir: Path | None) -> tuple[Part, Part, str]:
    parts, digests = [], []
    for split in SPLITS:
        files = split_files(folder, split)
        if not files:
            raise ConfigError(f"{folder}: has no {split}-00000-of-00001.parquet, must hold both train and test")
        part, found = read_split(files, data_set.label_column, cache_dir)
        parts.append(part)
        digests += found
    return parts[0], parts[1], digest_of_files(digests)


def _joined(parts: list[Part]) -> Part:
    """One array that owns its memory: what was read from bytes cannot be written, as torch wants."""
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _require_balance(where: str, labels: np.ndarray, size: int, data_set: DataSet) -> None:
    """Refuse all but the data set's number of images, in equal shares: it tells a data set under a wrong name."""
    classes = len(data_set.classes)
    if len(labels) != size:
        raise ConfigError(f"{where} has {len(labels)} images, {data_set.title} has {size}")
    inside = labels.min() >= 0 and labels.max() < classes  # asked first: bincount fills memory up to the largest label
    if not inside or (np.bincount(labels, minlength=classes) != size // classes).any():
        found = f"labels from {labels.min()} to {labels.max()}, {len(np.unique(labels))} different"
        share = f"{size // classes} images of each of {classes} classes"
        raise ConfigError(f"{where} is not {data_set.title}: {found}; must be {share}")
