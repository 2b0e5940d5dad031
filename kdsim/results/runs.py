"""Which stored run is meant by the name of a study, or by a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from kdsim.config import unknown_name
from kdsim.results.store import STUDY_FILE, Store


def run_folder(target: str, known: Iterable[str], store: Store) -> Path:
    """Folder of a stored run: the most recent one of a study, by its name or its folder, or the folder itself.

    Args:
        known: names of studies beside those that are stored.

    Raises:
        ConfigError: nothing like that is stored; the message lists what is.
    """
    known = list(known)
    if target in known or store.runs(target):
        return store.latest(target)
    path = Path(target)
    if not _can_exist(path):
        raise unknown_name("study", target, dict.fromkeys([*known, *store.names()]))
    if any(path.glob(f"*/{STUDY_FILE}")):
        return Store(path.absolute().parent).latest(path.absolute().name)
    if path.exists() or len(path.parts) > 1:
        return path
    raise unknown_name("study", target, dict.fromkeys([*known, *store.names()]))


def _can_exist(path: Path) -> bool:
    """Whether a file can have this path: it may be too long, or hold what no name has."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return True
