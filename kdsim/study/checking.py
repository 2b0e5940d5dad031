"""What lies in a results folder, and whether all of it can be read. Nothing is written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdsim.config import ConfigError
from kdsim.files import Damaged, Unreadable, is_temporary
from kdsim.plain_text import counted
from kdsim.results.cells import CELL_FILE, CELLS, SUPERSEDED, UNSIGNED
from kdsim.results.provenance import files_of, sha256_now, source_of
from kdsim.results.store import (
    DAMAGED,
    OWN_FOLDERS,
    RESERVED_NAMES,
    STUDY_FILE,
    TABLE_FILE,
    TEACHERS,
    Store,
    read_study_info,
)
from kdsim.results.unfinished import PLAN, Unfinished
from kdsim.sources import kdsim_digest
from kdsim.study.states import read_state
from kdsim.study.weights import read_weights
from kdsim.tensors import OLD_SUFFIX, SUFFIX, read_checked
from kdsim.training.fitted import FittedTeacher
from kdsim.training.trained import TrainedNetwork

BROKEN, UNREAD, NOTICE = "damaged", "unreadable", "notice"

_PIECE = re.compile(r"(?P<digest>[0-9a-f]+)(-\d+)?(?P<done>\.done)?\.safetensors")
_CHECKPOINT = re.compile(r"(?P<digest>[0-9a-f]+)-(?P<replica>r\d+|all)\.safetensors")
_REASON = re.compile(r"is damaged: .* \((.*)\)$", re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """Something to know of a results folder.

    Attributes:
        kind: `BROKEN`, `UNREAD`, or `NOTICE` for what needs nothing to be done.
        path: what it is about, inside of the folder.
        what: what is the matter.
        advice: what to do.
    """

    kind: str
    path: str
    what: str
    advice: str


@dataclass
class Checked:
    """All that was found.

    Attributes:
        counts: of what was read, damaged or not, by its name.
        findings: in the order of the folder.
    """

    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def damaged(self) -> list[Finding]:
        """Findings that ask for something to be done."""
        return [finding for finding in self.findings if finding.kind != NOTICE]


def check(root: Path) -> Checked:
    """Read everything in a results folder: checksums, contents, and whether what is named is there.

    Raises:
        ConfigError: there is no results folder.
    """
    if not any((root / name).is_dir() for name in OWN_FOLDERS) and not any(root.glob(f"*/*/{STUDY_FILE}")):
        raise ConfigError(f"{str(root)!r} is no results folder: it holds neither {', '.join(OWN_FOLDERS)} nor a study")
    checked, store = Checked(), Store(root)
    for name, part in (("cells", _cells), ("teachers", _teachers), ("unfinished", _unfinished), ("studies", _studies)):
        checked.counts[name] = 0
        for finding in part(store):
            if finding is None:
                checked.counts[name] += 1
            else:
                checked.findings.append(finding)
    checked.findings.extend(_set_aside(store))
    checked.findings.extend(_temporary(store))
    return checked


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder under names that are not hidden."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def _place(store: Store, path: Path) -> str:
    return str(path.relative_to(store.root))


def _broken(store: Store, path: Path, error: Exception | str, advice: str) -> Finding:
    if isinstance(error, Unreadable):
        return Finding(UNREAD, _place(store, path), str(error), "")
    reason = _REASON.search(str(error))  # what stands before it is advice
    return Finding(BROKEN, _place(store, path), reason[1] if reason else str(error), advice)


# Each part yields None for everything that it reads, and findings -------------------------------


def _cells(store: Store) -> Iterator[Finding | None]:
    again = "run-study --repair of its study moves it aside and runs it again"
    origins = _Origins()
    for folder in _entries(store.root / CELLS):
        yield None
        try:
            info = store.read_cell(folder.name).info
            store.row("", folder.name, info)
            files = store.weights_files(folder.name)
            if len(files) != info.get("weights", len(files)):
                raise Damaged(f"{len(files)} files of weights, it should be {info['weights']}", folder)
            if info["schema"] != UNSIGNED and files:
                read_weights(store, folder.name)
            for file in files if info["schema"] == UNSIGNED else ():  # of which the store would write checksums
                TrainedNetwork.load(file)
        except ConfigError as error:
            yield _broken(store, folder, error, again)
            continue
        origins.add(info)
        if info["schema"] == UNSIGNED:
            what = f"of version {UNSIGNED}, without checksums: it can be read, but not whether it was altered"
            yield Finding(NOTICE, _place(store, folder), what, "run-study of its study adds them")
        expected = {CELL_FILE, *info.get("files", {}), *(file.name for file in files)}
        if info["schema"] != UNSIGNED and (others := sorted({path.name for path in _entries(folder)} - expected)):
            yield Finding(NOTICE, _place(store, folder), f"holds {', '.join(others)}, not of kdsim", "nothing reads it")
    yield from origins.findings()


@dataclass
class _Origins:
    """Where cells come from, if not from this kdsim and the files that are there now.

    Attributes:
        sources: of kdsim, and the number of their cells.
        files: path and SHA-256 of files of data that are others now, and the number of their cells.
    """

    sources: Counter[str] = field(default_factory=Counter)
    files: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, info: Mapping[str, Any]) -> None:
        """Count a cell, by the content of its cell.json."""
        if (source := source_of(info)) != kdsim_digest():
            self.sources[source] += 1
        self.files.update(dict.fromkeys(files_of(info["cell"]), 1))

    def findings(self) -> Iterator[Finding]:
        """What is to be said of them."""
        for source, count in sorted(self.sources.items()):
            what = f"{count} were computed by another source of kdsim ({source[:12] or 'not known'})"
            yield Finding(NOTICE, CELLS, what, "run-study --rerun of their study runs them again")
        for (path, before), count in sorted(self.files.items()):
            now = sha256_now(path)
            if now != before:
                what = f"{count} were computed from {path} with SHA-256 {before[:12]}..., "
                what += f"which has {now[:12]}... now" if now else "which is not there, from this folder"
                advice = "nothing: run-study of their study runs other cells on the other file"
                yield Finding(NOTICE, CELLS, what, advice)


def _teachers(store: Store) -> Iterator[Finding | None]:
    for file in _entries(store.root / TEACHERS):
        yield None
        try:
            FittedTeacher.load(file)
        except ConfigError as error:
            advice = "run-study --repair of its study moves it aside and fits it again; or delete it"
            yield _broken(store, file, error, advice)


def _unfinished(store: Store) -> Iterator[Finding | None]:
    yield from _under_way(store, store.unfinished, "the same run-study goes on from there")
    for other in store.begun_elsewhere():
        advice = "another source of kdsim began it, and this one starts over; delete it, unless you go back to that one"
        yield from _under_way(store, other, advice)


def _under_way(store: Store, unfinished: Unfinished, goes_on: str) -> Iterator[Finding | None]:
    start_over = "run-study --repair moves it aside and starts over; or delete it"
    files = [path for path in _entries(unfinished.folder) if not path.is_dir()]
    plans = {file.name.removesuffix(PLAN) for file in files if file.name.endswith(PLAN)}
    steps: dict[str, list[str]] = {}
    for file in files:
        if file.suffix == OLD_SUFFIX:
            what = "is of a kdsim that wrote other files, and nothing goes on from it"
            yield Finding(NOTICE, _place(store, file), what, "delete it, unless you go back to that kdsim")
        if file.suffix != SUFFIX:
            continue
        yield None
        try:
            content = read_checked(file)
            state = content.get("state")
            if isinstance(state, dict):
                read_state(unfinished, file.name.removesuffix(".safetensors"), None)
        except ConfigError as error:
            yield _broken(store, file, error, start_over)
            continue
        piece = _PIECE.fullmatch(file.name)
        if checkpoint := _CHECKPOINT.fullmatch(file.name):
            what = f"interrupted training {checkpoint['digest']}, replica {checkpoint['replica'].removeprefix('r')}"
            yield Finding(NOTICE, _place(store, file), what, goes_on)
        elif piece is None:
            yield Finding(NOTICE, _place(store, file), "has no name of unfinished work", "delete it: nothing reads it")
        elif piece["digest"] not in plans:
            yield Finding(NOTICE, _place(store, file), "belongs to no plan", "delete it: nothing goes on from it")
        else:
            step = "a finished block" if piece["done"] else f"step {state['step']}" if isinstance(state, dict) else "?"
            steps.setdefault(piece["digest"], []).append(step)
    for file in files:
        if file.name.endswith(PLAN):
            yield None
            try:
                plan = unfinished.read_plan(file)
            except ConfigError as error:
                yield _broken(store, file, error, start_over)
                continue
            if plan is not None:
                where = f", at {', '.join(steps[plan.pack])}" if plan.pack in steps else ""
                what = f"interrupted pack of {counted(len(plan.cells), 'cell')}{where}"
                yield Finding(NOTICE, _place(store, file), what, goes_on)
        elif file.suffix == ".lock":
            what = "a process runs this, or was killed while it did"
            yield Finding(NOTICE, _place(store, file), what, "nothing: a lock that nobody holds locks nothing")


def _studies(store: Store) -> Iterator[Finding | None]:
    again = "run-study with its settings writes it again from the stored cells"
    for file in sorted(store.root.glob(f"*/*/{STUDY_FILE}")):
        folder = file.parent
        if folder.parent.name in RESERVED_NAMES:
            continue
        yield None
        try:
            info = read_study_info(folder)
            if (info["study"], info["digest"]) != (folder.parent.name, folder.name):
                raise Damaged(f"{STUDY_FILE} is that of {info['study']!s:.60}/{info['digest']!s:.60}", folder)
        except ConfigError as error:
            yield _broken(store, folder, error, again)
            continue
        if missing := [digest for digest in dict.fromkeys(info["cells"]) if not store.has_cell(digest)]:
            what = f"{len(missing)} of {len(info['cells'])} cells are missing: {', '.join(missing[:3])}"
            advice = "run-study with its settings runs them again"
            yield _broken(store, folder, what + ("..." if len(missing) > 3 else ""), advice)
        if not (folder / TABLE_FILE).is_file():
            yield _broken(store, folder, f"{TABLE_FILE} is missing", again)


def _set_aside(store: Store) -> Iterator[Finding]:
    for path in _entries(store.root / DAMAGED):
        yield Finding(NOTICE, _place(store, path), "was set aside by --repair", "look at it, or delete it")
    for path in _entries(store.root / SUPERSEDED):
        yield Finding(NOTICE, _place(store, path), "was replaced by a newer result", "compare them, or delete it")


def _temporary(store: Store) -> Iterator[Finding]:
    for pattern in (".*", "*/.*", "*/*/.*"):
        for path in sorted(store.root.glob(pattern)):
            if is_temporary(path):
                what = "is being written, or was when its process was killed"
                yield Finding(
                    NOTICE, _place(store, path), what, "nothing: run-study removes what killed processes left"
                )
