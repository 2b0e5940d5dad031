"""Download the official archives, and say what a data folder holds. Nothing here is called by a reader."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kdsim.config import ConfigError, choose
from kdsim.data.base import reason
from kdsim.data.cifar import DATA_SETS, Source, sources
from kdsim.data.human import CIFAR10H_FILE, CIFAR10N_FILE, find_human, labels_in, votes_in
from kdsim.data.official import Layout, md5_of, read_official, require_md5
from kdsim.data.parquet import SPLITS, check_columns, parquet_files, split_files

SITE = "https://www.cs.toronto.edu/~kriz/"
TIMEOUT = 30
"""Seconds without an answer after which the connection counts as broken."""

BLOCK = 1 << 20
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes in all (None: the server does not say)."""


def fetch(
    name: str, data_dir: str | Path, progress: Progress | None = None, kind: str = "python", site: str = SITE
) -> Path:
    """Download an official archive into a folder, unless it is there; an interrupted download goes on where it stopped.

    What has come lies in `<archive>.part` until all is there and its MD5 digest is the official one.

    Args:
        name: "cifar10" or "cifar100".
        data_dir: folder, made if it is not there.
        progress: see `Progress`.
        kind: "python" or "binary".
        site: address of the folder that has the archives.

    Returns:
        The archive's path.

    Raises:
        ConfigError: no connection (what has come is kept), a wrong digest, or a folder that cannot be written.
    """
    data_set = choose("data set", name, DATA_SETS)
    layout = choose("kind", kind, {layout.kind: layout for layout in data_set.layouts})
    target = Path(data_dir) / layout.archive
    part = target.with_name(f"{layout.archive}.part")
    url = f"{site.rstrip('/')}/{layout.archive}"
    try:
        if target.exists():
            _require_whole(target, layout)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, progress)
        with part.open("rb") as file:
            found = md5_of(file)
        if found != layout.md5:
            part.unlink()  # to go on would never mend it
            raise ConfigError(f"{url}: what came has the MD5 digest {found}, must be {layout.md5}: deleted, try again")
        os.replace(part, target)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise ConfigError(
            f"{url} cannot be downloaded ({reason(error)}): try again to go on, or put the file at {target} yourself"
        ) from None
    except OSError as error:
        raise ConfigError(f"data_dir = {str(data_dir)!r} cannot be used: {reason(error)}") from None
    return target


def _require_whole(path: Path, layout: Layout) -> None:
    with path.open("rb") as file:
        require_md5(path, md5_of(file), layout)


def _download(url: str, part: Path, progress: Progress | None) -> None:
    """Append to `part` what it lacks of the file at `url`."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing lies beyond: the part is whole, or of something else; MD5 will tell
            return
        raise
    with answer:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", "")) if answer.status == 206 else None
        if found is None or int(found[1]) != have:
            have = 0  # the server sends all of it
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with part.open("ab" if have else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                have += len(block)
                if progress is not None:
                    progress(have, total)
    if total is not None and have < total:  # a connection that is cut ends `read` without an error
        raise ConnectionError(f"the connection ended after {have} of {total} bytes")


# What is there -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """Something in a data folder.

    Attributes:
        what: data set or labels, and their form.
        path: where it lies.
        fault: None if it is whole as far as was checked, else one line.
    """

    what: str
    path: Path
    fault: str | None = None

    def __str__(self) -> str:
        return f"{self.what}: {self.path}" if self.fault is None else f"{self.what}: NOT USABLE: {self.fault}"


def check(data_dir: str | Path) -> list[Finding]:
    """What a data folder holds, in the order in which readers prefer it; empty if nothing.

    Archives are checked against their MD5 digests; everything else is read, but images are not decoded.

    Raises:
        ConfigError: there is no such folder, or it cannot be read.
    """
    findings = []
    for name, data_set in DATA_SETS.items():
        for source in sources(name, data_dir):
            if source.layout is not None or _is_of(source, data_set.label_column):
                fault = _fault(partial(_require, source, data_set.label_column), source.path)
                findings.append(Finding(f"{data_set.title}, {source}", source.path, fault))
        for layout in data_set.layouts:
            part = Path(data_dir) / f"{layout.archive}.part"
            if part.exists():
                fault = f"{part} has {part.stat().st_size} bytes of an interrupted download: fetch it again to go on"
                findings.append(Finding(f"{data_set.title}, official {layout.kind} archive", part, fault))
    cifar10 = DATA_SETS["cifar10"]
    for title, file, read in (
        ("CIFAR-10H, human votes", CIFAR10H_FILE, lambda: votes_in(data_dir, cifar10.test_size)),
        ("CIFAR-10N, human labels", CIFAR10N_FILE, lambda: labels_in(data_dir, cifar10.train_size)),
    ):
        path = find_human(data_dir, file)
        if path is not None:
            findings.append(Finding(title, path, _fault(read, path)))
    return findings


def _fault(read: Callable[[], object], path: Path) -> str | None:
    """Why something cannot be used; None if it can."""
    try:
        read()
    except ConfigError as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read: {reason(error)}"
    return None


def _require(source: Source, label_column: str) -> None:
    """Refuse a data set that is not whole."""
    if source.layout is None:
        files = {split: split_files(source.path, split) for split in SPLITS}
        if empty := [split for split in SPLITS if not files[split]]:
            raise ConfigError(f"{source.path} has no files of {' and '.join(empty)}")
        for path in (path for split in SPLITS for path in files[split]):
            check_columns(path, label_column)
    elif source.path.is_file():
        _require_whole(source.path, source.layout)
    else:
        read_official(source.layout, source.path)


def _is_of(source: Source, label_column: str) -> bool:
    """Whether parquet files that lie in the data folder itself have this data set's labels; unreadable ones count."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return label_column in pq.read_schema(parquet_files(source.path)[0]).names
    except (pa.ArrowException, OSError):
        return True
