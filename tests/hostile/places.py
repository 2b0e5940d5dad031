"""What may stand in the place of a file: nothing that reads it may follow, wait or fill the memory."""

from __future__ import annotations

import os
from pathlib import Path


def put(path: Path, kind: str) -> None:
    """Put something of a kind in a place that is free; of another kind than these nothing."""
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_bytes(b"x")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "link to /dev/zero":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 40)  # takes no place on the disk
    elif kind == "unreadable":
        path.write_bytes(b"")
        path.chmod(0)
