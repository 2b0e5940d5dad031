"""CIFAR in the layout of the Hugging Face hub: parquet files with one encoded image and its label a row.

Files of a split are `train-00000-of-00001.parquet`, ...; a row is img = struct(bytes: PNG or JPEG, path), and `label`
for CIFAR-10 or `fine_label` and `coarse_label` for CIFAR-100. Decoding 60,000 images takes seconds: the decoded array
can be kept in a folder that the user names.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsim.config import ConfigError
from kdsim.data.base import IMAGE_SHAPE, reason
from kdsim.data.official import Part
from kdsim.untrusted import read_file, require_small_table

SPLITS = ("train", "test")
LARGEST_ROWS, LARGEST_TABLE = 1_000_000, 2_000_000_000
"""Images, and bytes when it is unpacked, of a file; those of CIFAR have 50,000 and 150 million."""
_CHANNELS, _ROWS, _COLUMNS = IMAGE_SHAPE
_SHARD = re.compile(r"(train|test)-(\d{5})-of-(\d{5})\.parquet")


def parquet_files(folder: Path) -> list[Path]:
    """All files of a folder that have such a name, of both splits."""
    return sorted(path for path in folder.glob("*.parquet") if _SHARD.fullmatch(path.name) and not path.is_dir())


def split_files(folder: Path, split: str) -> list[Path]:
    """The files of a split in order; empty if the folder has none.

    Raises:
        ConfigError: some of the files that their names number are missing.
    """
    found = {path.name: path for path in parquet_files(folder) if path.name.startswith(split)}
    if not found:
        return []
    count = int(_SHARD.fullmatch(min(found))[3])  # type: ignore[index]  # `parquet_files` names no others
    names = [f"{split}-{number:05d}-of-{count:05d}.parquet" for number in range(count)]
    if sorted(found) != names:
        whole = f"{names[0]} to {names[-1]}" if names else "files numbered from 0"
        raise ConfigError(f"{folder}: holds {', '.join(sorted(found))}, must hold {whole} and no others")
    return [found[name] for name in names]


def read_split(files: list[Path], label_column: str, cache_dir: Path | None) -> tuple[Part, list[tuple[str, str]]]:
    """Images, labels and file digests of a split.

    Args:
        files: as `split_files` gives them.
        label_column: the column that has the class numbers.
        cache_dir: where decoded images are kept, under a name that depends on the files' bytes and on the decoder's
            version; None: nowhere.

    Returns:
        (images (n, 3, 32, 32) uint8, labels (n,) int64), and (name, SHA-256) of each file.

    Raises:
        ConfigError: a file cannot be read or is not as described above, or the cache cannot be written.
    """
    images, labels, digests = [], [], []
    for path in files:
        data = _bytes(path)
        digests.append((path.name, hashlib.sha256(data).hexdigest()))
        encoded, file_labels = _columns(data, label_column, path)
        cached = None if cache_dir is None else cache_dir / f"images-{_key(digests[-1][1])}.npy"
        if cached is not None and cached.is_file():
            images.append(_load(cached, len(file_labels)))
        else:
            images.append(_decode(encoded, path))
            if cached is not None:
                _store(cached, images[-1])
        labels.append(file_labels)
    joined = images[0] if len(images) == 1 else np.concatenate(images)
    return (joined, np.concatenate(labels)), digests


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {reason(error)}") from None


def check_columns(path: Path, label_column: str) -> None:
    """Read images and labels of a file without decoding the images.

    Raises:
        ConfigError: it cannot be read, or is not as described above.
    """
    _columns(_bytes(path), label_column, path)


def _columns(data: bytes, label_column: str, path: Path) -> tuple[list[bytes | None], NDArray[np.int64]]:
    """Encoded images and labels of a file, the columns checked first."""
    import pyarrow as pa  # slow to import, and only this layout needs it
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data or b""))
        schema = file.schema_arrow
        names = schema.names
        if "img" not in names or label_column not in names:
            hint = "; label belongs to CIFAR-10, fine_label to CIFAR-100"
            raise ConfigError(f"{path}: has columns {', '.join(names)}, must have img and {label_column}{hint}")
        image, label = schema.field("img").type, schema.field(label_column).type
        if not pa.types.is_struct(image) or image.get_field_index("bytes") < 0 or not pa.types.is_integer(label):
            raise ConfigError(f"{path}: img is {image}, {label_column} {label}: must be struct(bytes, path), integers")
        require_small_table(file.metadata, LARGEST_ROWS, LARGEST_TABLE)
        table = file.read(columns=["img.bytes", label_column])
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: not a whole parquet file: {reason(error)}") from None
    encoded = pc.struct_field(table.column("img"), "bytes").to_pylist()
    labels = table.column(label_column)
    if labels.null_count:
        raise ConfigError(f"{path}: {label_column} has {labels.null_count} empty entries, must have none")
    return encoded, labels.to_numpy().astype(np.int64)


def _decode(encoded: list[bytes | None], path: Path) -> NDArray[np.uint8]:
    """Decode PNG or JPEG images. n of them -> (n, 3, 32, 32)."""
    from PIL import Image, UnidentifiedImageError  # slow to import, and only this layout needs it

    pixels = np.empty((len(encoded), _ROWS, _COLUMNS, _CHANNELS), np.uint8)
    with warnings.catch_warnings(action="ignore"):  # what an image is refused for is said in one line
        for row, data in enumerate(encoded):
            try:
                with Image.open(io.BytesIO(data or b""), formats=("PNG", "JPEG")) as image:
                    if image.size != (_COLUMNS, _ROWS) or image.mode != "RGB":  # before any pixel is decoded
                        raise ValueError(f"{image.size[0]} x {image.size[1]} {image.mode}, must be 32 x 32 RGB")
                    pixels[row] = np.asarray(image)
            except UnidentifiedImageError:
                raise ConfigError(f"{path}: image {row} is neither PNG nor JPEG, must be one of them") from None
            except Exception as error:  # decoders raise many types on bad bytes, SyntaxError among them
                raise ConfigError(f"{path}: image {row} cannot be read: {reason(error)}") from None
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


# The cache ---------------------------------------------------------------------------------


def _key(sha256: str) -> str:
    """Name of what is decoded from a file: another version of a decoder may round JPEG otherwise."""
    from PIL import __version__, features

    decoder = f"pillow {__version__}, jpeg {features.version('jpg')}"
    return hashlib.sha256(f"{sha256} {decoder}".encode()).hexdigest()[:20]


def _load(path: Path, size: int) -> NDArray[np.uint8]:
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path}: not a cached array ({reason(error)}): delete it") from None
    if getattr(images, "shape", None) != (size, *IMAGE_SHAPE) or images.dtype != np.uint8:
        raise ConfigError(f"{path}: not the cached array of {size} images: delete it")
    return images


def _store(path: Path, images: NDArray[Any]) -> None:
    """Write under a temporary name and rename: a cached array is whole or absent."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, suffix=".tmp", delete=False) as file:
            temporary = file.name
            np.save(file, images)
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"cache_dir = {str(path.parent)!r} cannot be written: {reason(error)}") from None
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
