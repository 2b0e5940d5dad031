"""The stored runs of studies: which one is meant, and what there is to know of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdsim.config import unknown_name
from kdsim.plain_text import listed
from kdsim.results.provenance import changed_files, other_sources
from kdsim.results.rows import unknown_columns
from kdsim.results.store import STUDY_FILE, Store, StudyResults


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


def notes(stored: StudyResults, changed: Sequence[str] = ()) -> Iterator[str]:
    """What there is to know of a stored run beside its table, a line each.

    Args:
        changed: what has changed since, beside files of data.
    """
    for failure in stored.info.get("failures", []):
        yield f"not in this table: {failure}"
    yield from notes_on_rows(stored.records)
    if changed := [*changed, *changed_files(stored.cells.values())]:
        yield f"{', '.join(changed)} changed since: these results are of before"


def notes_on_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where rows come from, if not from this kdsim."""
    if (line := other_sources(rows)) is not None:
        yield line
    if unknown := unknown_columns(rows):
        yield columns_kept(unknown)


def columns_kept(unknown: Sequence[str]) -> str:
    """What `unknown_columns` means, in one line."""
    return f"columns that this kdsim does not know, as of a newer one, are kept as they are: {listed(unknown)}"
