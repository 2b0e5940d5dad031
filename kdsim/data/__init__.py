"""Real images and human labels, read from a folder of the user's; parts of them; augmentation on the device."""

from kdsim.data.augmentation import CropFlip, Normalisation
from kdsim.data.base import ImageData
from kdsim.data.cifar import DATA_SETS, read_cifar
from kdsim.data.cifar_sources import Cifar10, Cifar10H, Cifar100
from kdsim.data.fetch import check, fetch
from kdsim.data.human import HumanLabels, HumanVotes, read_cifar10h, read_cifar10n
from kdsim.data.sources import ImageSource, KnownImages, Pools
from kdsim.data.subsets import FewShot, LongTailed, Subset, ValidationSplit

SUBSETS = (FewShot, LongTailed, ValidationSplit)
"""All implementations of `Subset`: what a stored config may name and the contract tests run over."""

SOURCES = (KnownImages, Cifar10, Cifar10H, Cifar100)
"""All implementations of `ImageSource`."""

__all__ = [
    "DATA_SETS",
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
    "LongTailed",
    "Normalisation",
    "Pools",
    "Subset",
    "ValidationSplit",
    "check",
    "fetch",
    "read_cifar",
    "read_cifar10h",
    "read_cifar10n",
]
