"""The official CIFAR archives, python and binary: what is in them and how it is read, from a tar.gz or a folder.

A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009; formats as described on
https://www.cs.toronto.edu/~kriz/cifar.html. Members of an archive are read in memory and never extracted.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdsim.config import ConfigError, require
from kdsim.data.base import IMAGE_SHAPE, reason
from kdsim.data.unpickle import unpickle
from kdsim.untrusted import read_file

PIXELS = 3 * 32 * 32
LARGEST_MEMBER = 200_000_000
"""Bytes; the largest official one (train of CIFAR-100) has 155 million. What claims more is not read into memory."""
LARGEST_ARCHIVE = 400_000_000
"""Bytes of an unpacked archive; the official ones have up to 187 million."""

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (n, 3, 32, 32) and labels (n,)."""


@dataclass(frozen=True)
class Layout(ABC):
    """Names and digest of an official archive.

    Attributes:
        archive, md5: name and MD5 digest of the tar.gz, from the page above.
        folder: what all members lie in.
        train, test, names: members with training images, test images and class names.
    """

    archive: str
    md5: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str

    kind: ClassVar[str]

    @property
    def members(self) -> tuple[str, ...]:
        """All members that are read, in the order of `ImageData.source_sha256`."""
        return (*self.train, *self.test, self.names)

    @abstractmethod
    def images(self, data: bytes, where: str) -> Part:
        """Images and labels in the bytes of a member; `where` names it in errors."""

    @abstractmethod
    def class_names(self, data: bytes, where: str) -> tuple[str, ...]:
        """Class names in the bytes of the member `names`."""


@dataclass(frozen=True)
class PythonLayout(Layout):
    """Pickled dictionaries: `data` (n, 3072) uint8, channel by channel, and lists of labels and names."""

    label_key: str
    name_key: str

    kind: ClassVar[str] = "python"

    def images(self, data: bytes, where: str) -> Part:
        batch = unpickle(data, where)
        pixels, labels = self._entry(batch, "data", where), self._entry(batch, self.label_key, where)
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
            shape = getattr(pixels, "shape", type(pixels).__name__)
            raise ConfigError(f"{where}: data is {shape}, must be an array (n, {PIXELS})")
        if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
            raise ConfigError(f"{where}: {self.label_key} must be a list of class numbers")
        if len(labels) != len(pixels):
            raise ConfigError(f"{where}: {len(pixels)} images and {len(labels)} labels, must be as many")
        return pixels.reshape(-1, *IMAGE_SHAPE), np.array(labels, np.int64)

    def class_names(self, data: bytes, where: str) -> tuple[str, ...]:
        names = self._entry(unpickle(data, where), self.name_key, where)
        if not isinstance(names, list) or not all(isinstance(name, (str, bytes)) for name in names):
            raise ConfigError(f"{where}: {self.name_key} must be a list of names")
        return tuple(name.decode("latin-1") if isinstance(name, bytes) else name for name in names)

    def _entry(self, batch: dict, key: str, where: str) -> object:
        if key not in batch:
            hint = "; labels belongs to CIFAR-10, fine_labels to CIFAR-100" if "labels" in key else ""
            raise ConfigError(f"{where}: no entry {key!r}, only {', '.join(sorted(batch)) or 'nothing'}{hint}")
        return batch[key]


@dataclass(frozen=True)
class BinaryLayout(Layout):
    """Records of fixed length: `label_bytes` labels of one byte (the last one counts), then 3072 bytes of pixels."""

    label_bytes: int

    kind: ClassVar[str] = "binary"

    def images(self, data: bytes, where: str) -> Part:
        record = self.label_bytes + PIXELS
        if not data or len(data) % record:
            other = 3 - self.label_bytes + PIXELS
            hint = "" if not data or len(data) % other else f"; records of {other} bytes would fit: another CIFAR?"
            raise ConfigError(f"{where}: {len(data)} bytes, must be records of {record} bytes each{hint}")
        table = np.frombuffer(data, np.uint8).reshape(-1, record)  # (n, record)
        return table[:, self.label_bytes :].reshape(-1, *IMAGE_SHAPE), table[:, self.label_bytes - 1].astype(np.int64)

    def class_names(self, data: bytes, where: str) -> tuple[str, ...]:
        return tuple(data.decode("latin-1").split())


def read_official(layout: Layout, path: Path) -> tuple[dict[str, Part], tuple[str, ...], str]:
    """Read an archive or an extracted folder.

    Args:
        layout: what to expect.
        path: the tar.gz, or the folder that has the members.

    Returns:
        Images and labels of each member, class names, and the SHA-256 of `ImageData.source_sha256`.

    Raises:
        ConfigError: a file is missing, cannot be read, is not whole or is not what its name says.
    """
    try:
        if path.is_dir():
            return _read_members(layout, path, _folder_members(layout, path))
        with path.open("rb") as file:  # one handle: what is hashed is what is read
            size = os.fstat(file.fileno()).st_size
            require(size <= LARGEST_ARCHIVE, f"{path}: bytes", size, f"at most {LARGEST_ARCHIVE}")
            require_md5(path, md5_of(file), layout)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            parts, names, _ = _read_members(layout, path, _archive_members(layout, file))
            return parts, names, sha256
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ConfigError(f"{path}: not a whole tar.gz archive ({reason(error)}): download it again") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {reason(error)}") from None


def md5_of(file: BufferedReader) -> str:
    """MD5 of an open binary file from where it stands; the digest that the official page gives."""
    return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def require_md5(path: Path, found: str, layout: Layout) -> None:
    """Refuse an archive whose MD5 digest is not the official one."""
    if found != layout.md5:
        raise ConfigError(
            f"{path}: its MD5 digest is {found}, must be {layout.md5} ({layout.archive}): "
            "it is not whole, changed or another archive; delete it and download it again"
        )


def digest_of_files(files: list[tuple[str, str]]) -> str:
    """SHA-256 of several files given as (name, SHA-256): that of the lines which `sha256sum` prints."""
    return hashlib.sha256("".join(f"{sha256}  {name}\n" for name, sha256 in files).encode()).hexdigest()


def _read_members(
    layout: Layout, path: Path, members: Iterator[tuple[str, bytes]]
) -> tuple[dict[str, Part], tuple[str, ...], str]:
    """Parse members as they come, so that only one is in memory unparsed."""
    parts: dict[str, Part] = {}
    names: tuple[str, ...] = ()
    digests: dict[str, str] = {}
    for member, data in members:
        digests[member] = hashlib.sha256(data).hexdigest()
        where = f"{path}: {member}"
        if member == layout.names:
            names = layout.class_names(data, where)
        else:
            parts[member] = layout.images(data, where)
    missing = [member for member in layout.members if member not in digests]
    if missing:
        raise ConfigError(f"{path}: has no {', '.join(missing)}, must hold {', '.join(layout.members)}")
    return parts, names, digest_of_files([(member, digests[member]) for member in layout.members])


def _folder_members(layout: Layout, folder: Path) -> Iterator[tuple[str, bytes]]:
    for member in layout.members:
        path = folder / member
        if path.is_file():
            _require_size(str(path), os.path.getsize(path))
            yield member, read_file(path)


def _archive_members(layout: Layout, file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Regular files under their exact names; links, folders and any other path are passed over."""
    wanted = {f"{layout.folder}/{member}": member for member in layout.members}
    with (
        gzip.GzipFile(fileobj=file) as unpacked,
        tarfile.open(fileobj=_Bounded(unpacked), mode="r|") as archive,  # type: ignore[call-overload]  # it only reads
    ):
        for item in archive:
            member = wanted.get(item.name.removeprefix("./"))
            if member is not None and item.isreg():
                _require_size(item.name, item.size)
                yield member, archive.extractfile(item).read()


class _Bounded:
    """A stream that ends with an error behind `LARGEST_ARCHIVE`: a short tar.gz can unpack to any length."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self.stream, self.left = stream, LARGEST_ARCHIVE

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise ConfigError(f"{self.stream.name}: more than {LARGEST_ARCHIVE} bytes when it is unpacked")
        return data


def _require_size(what: str, size: int) -> None:
    if size > LARGEST_MEMBER:
        raise ConfigError(f"{what}: {size} bytes, must be at most {LARGEST_MEMBER}")
