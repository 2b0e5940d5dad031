"""Real images and human labels, read from a folder of the user's; parts of them; augmentation on the device."""

from kdsim.data.augmentation import CropFlip, Normalisation, Unchanged
from kdsim.data.base import ImageData
from kdsim.data.cifar import DATA_SETS, read_cifar
from kdsim.data.cifar_sources import Cifar10, Cifar10H, Cifar100
from kdsim.data.fetch import check, fetch
from kdsim.data.human import HumanLabels, HumanVotes, read_cifar10h, read_cifar10n
from kdsim.data.points import KnownPoints
from kdsim.data.sources import ImageSource, KnownImages, PointSource, Pools, Source
from kdsim.data.subsets import FewShot, LongTailed, Subset, ValidationSplit

SUBSETS = (FewShot, LongTailed, ValidationSplit)
"""All implementations of `Subset`: what a stored config may name and the contract tests run over."""

SOURCES = (KnownImages, Cifar10, Cifar10H, Cifar100)
"""All implementations of `ImageSource`."""

POINT_SOURCES = (KnownPoints,)
"""All implementations of `PointSource`. Apart from the others: networks of images take no points."""

__all__ = [
    "DATA_SETS",
    "POINT_SOURCES",
    "SOURCES",
    "SUBSETS",
    "Cifar10",
    "Cifar10H",
    "Cifar100",
    "CropFlip",
    "FewShot",
    "HumanLabels",
    "HumanVotes",
    "ImageData",
    "ImageSource",
    "KnownImages",
    "KnownPoints",
    "LongTailed",
    "Normalisation",
    "PointSource",
    "Pools",
    "Source",
    "Subset",
    "Unchanged",
    "ValidationSplit",
    "check",
    "fetch",
    "read_cifar",
    "read_cifar10h",
    "read_cifar10n",
]
