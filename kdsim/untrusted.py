"""Reading what somebody else may have made: files that are no files, and tables that are larger than they look."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

LARGEST_FILE = 4 << 30
"""Bytes of a file that is read into memory."""


def read_file(path: Path, most: int = LARGEST_FILE) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: see `require_file`; or it cannot be read.
    """
    require_file(path, most)
    return path.read_bytes()


def require_file(path: Path, most: int = LARGEST_FILE) -> None:
    """Refuse what is not a regular file of at most so many bytes.

    Raises:
        OSError: it is not there, is larger, or is a folder, or something that never ends, as a pipe or a device.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, must have at most {most}")


def require_small_table(metadata: Any, rows: int, size: int) -> None:
    """Refuse a parquet file that unpacks to more than it may; `metadata` is that of `pyarrow.parquet.ParquetFile`.

    Raises:
        ValueError: it has more rows, or more bytes when it is unpacked.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    found = sum(group.column(number).total_uncompressed_size for group in groups for number in range(group.num_columns))
    if metadata.num_rows > rows or found > size:
        what = f"{metadata.num_rows} rows and {found} bytes when it is unpacked"
        raise ValueError(f"it has {what}, must have at most {rows} and {size}")
