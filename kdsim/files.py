"""Files that are whole or absent, and that notice when they were altered.

A file is written under a hidden temporary name in its folder, brought to the disk, and renamed. A process that is
killed leaves at most a temporary file, which `sweep` removes. What cannot be written raises `StorageError`.

Who writes holds a shared lock on the folder, which the system gives back when the process ends. The number of a process
would not do: it is another in another container, and is used again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kdsim.config import ConfigError

CHECKSUM = "sha256"
"""Key of a JSON file under which the SHA-256 of all its other content stands."""

STALE_SECONDS = 7 * 24 * 3600.0
"""Age from which a temporary file is left over, where no lock says whether somebody writes it."""

_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EFBIG)
"""What the system says of a file that is not there, or is something else than it should be."""
_HOST = re.sub(r"[^A-Za-z0-9-]", "", platform.node())[:40] or "host"
_TEMPORARY = re.compile(r"\..+\.(?P<host>[A-Za-z0-9-]+)\.(?P<pid>\d+)-[0-9a-f]{8}")


class StorageError(ConfigError):
    """A file cannot be written: the disk is full, the folder is read-only or gone."""


class Damaged(ConfigError):
    """A file or folder of results is truncated, altered, or of another kdsim.

    Attributes:
        path: what is damaged: without it, the work that it held is done again.
    """

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[type[Damaged], tuple[str, Path]]:
        """It travels between processes."""
        return Damaged, (str(self), self.path)


class Unreadable(ConfigError):
    """A file of results cannot be read here and now: no permission, or a disk that fails. It may be whole."""


def not_read(error: OSError, message: str, whole: Path) -> Damaged | Unreadable:
    """What it means that a file of results was not read.

    Args:
        message: says what is damaged, if it is damage.
        whole: what is damaged then.
    """
    if error.errno in _DAMAGE:
        return Damaged(message, whole)
    place = os.fsdecode(error.filename) if error.filename is not None else str(whole)
    return Unreadable(
        f"{place!r} cannot be read ({error.strerror}), which is no damage: it is left as it is; make it readable first"
    )


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Within the block an `OSError` becomes a `StorageError` that names the path."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise StorageError(f"{str(path)!r} cannot be written: {why}") from None


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A free temporary name in the folder of `path`; whatever is left under it in the end is removed."""
    temporary = path.with_name(f".{path.name}.{_HOST}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    with _locked(path.parent, alone=False):
        try:
            yield temporary
        finally:
            _remove(temporary)


def is_temporary(path: Path) -> bool:
    """Whether it has the name of a file or folder that is being written."""
    return _TEMPORARY.fullmatch(path.name) is not None


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder.

    These are all that were written on this host, if no process writes in the folder now; else, and those of other
    hosts, whose locks may not be seen here, what is older than `STALE_SECONDS`.
    """
    with _locked(folder, alone=True) as alone:
        for path in folder.glob(".*"):
            found = _TEMPORARY.fullmatch(path.name)
            if found and ((alone and found["host"] == _HOST) or _age(path) > STALE_SECONDS):
                _remove(path)


@contextmanager
def _locked(folder: Path, alone: bool) -> Iterator[bool]:
    """Within the block a lock on a folder is held; gives whether it is.

    Args:
        alone: try to be the only one, instead of waiting until nobody is.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # what is wrong with the folder is said by who writes there
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        except OSError:  # another process writes there, or the file system has no locks
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _age(path: Path) -> float:
    """Seconds since it was changed; of what is gone, none."""
    try:
        return time.time() - os.lstat(path).st_mtime
    except OSError:
        return 0.0


def _remove(path: Path) -> None:
    """Remove a file or folder, as far as that goes: its folder may be gone, or read-only by now."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    with storing(path), temporary_beside(path) as temporary:
        write_new(temporary, *parts, durable=True)
        temporary.replace(path)


def write_new(path: Path, *parts: bytes | memoryview, durable: bool) -> None:
    """Write a new file.

    Args:
        durable: wait until the disk has it, some milliseconds: a power cut then leaves no renamed file without content.
    """
    with open(path, "xb") as file:
        for part in parts:
            file.write(part)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def sha256(data: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


# JSON -------------------------------------------------------------------------------------------


def signed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a JSON file (strict, texts as keys) with its checksum."""
    bare = {key: value for key, value in content.items() if key != CHECKSUM}
    text = json.dumps(bare, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return {**bare, CHECKSUM: sha256(text.encode())}


def is_intact(content: Mapping[str, Any]) -> bool:
    """Whether the checksum in the content of a JSON file is right."""
    try:
        return signed(content)[CHECKSUM] == content.get(CHECKSUM)
    except (TypeError, ValueError, RecursionError):  # what strict JSON has not, as NaN, or depth without end
        return False
