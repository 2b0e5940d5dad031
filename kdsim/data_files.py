"""Files of data that a configuration names, by their content."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

SETTLED_SECONDS = 2.0
"""A file that was changed so recently may be changed again within one tick of the file system's clock, unnoticed."""

_known: dict[tuple[Any, ...], str] = {}


BESIDE = "{beside}/"
"""In place of the folder of a class in the name of a file that it declares there: the folder may be moved."""


def files_of(config: Any, *, texts: bool) -> dict[str, str]:
    """SHA-256 of each file that a configuration names itself, by its path as it is written there.

    A declared file with an absolute path below the folder of its class, as `Path(__file__).parent / "noise.csv"`, has
    the name "{beside}/noise.csv".

    These are the files that its class declares as `files` (an attribute or a method, one path or several), and the
    values of fields that are paths: a `Path`, or a text that is the path of a file. A folder stands for all files in
    it. Relative paths start at the current folder, as for `open`. Parts that are configurations speak for themselves.

    Args:
        texts: whether texts may be paths, as in a class of which nobody knows better.

    Raises:
        OSError: a declared file cannot be read, or one that a field names.
    """
    declared = getattr(config, "files", ())
    declared = declared() if callable(declared) else declared
    declared = [declared] if isinstance(declared, (str, PurePath)) else list(declared)
    named = [path for field in dataclasses.fields(config) for path in _paths(getattr(config, field.name), texts)]
    found = {_declared_name(type(config), Path(path)): sha256_of(Path(path)) for path in dict.fromkeys(declared)}
    return found | {os.fspath(path): sha256_of(Path(path)) for path in dict.fromkeys(named)}


def _declared_name(cls: type, path: Path) -> str:
    own = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if own is None or not path.is_absolute() or not path.is_relative_to(Path(own).absolute().parent):
        return os.fspath(path)
    return BESIDE + path.relative_to(Path(own).absolute().parent).as_posix()


def _paths(value: Any, texts: bool) -> Iterator[str | PurePath]:
    """Those of a field's value that are there."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _paths(item, texts)
        return
    is_path = os.path.exists(value) if isinstance(value, PurePath) else texts and _is_file(value)
    if is_path:
        yield value


def _is_file(value: Any) -> bool:
    try:
        return isinstance(value, str) and os.path.isfile(value)
    except ValueError:  # with a character that no path has
        return False


def sha256_of(path: Path) -> str:
    """In hexadecimal digits; of a folder that of the names and contents of all files below it.

    A file is read again when it was changed since.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = (f"{sha256_of(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    before = path.stat()
    if not stat.S_ISREG(before.st_mode):  # reading a pipe or a device may never end
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    key = (str(path.absolute()), before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns)
    if key not in _known:
        begun = time.time()
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if begun - max(before.st_mtime, before.st_ctime) < SETTLED_SECONDS:
            return found
        _known[key] = found
    return _known[key]
