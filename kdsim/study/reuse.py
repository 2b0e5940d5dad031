"""Which stored results stand for cells that are to be run: those of the same data, whatever kdsim computed them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdsim import config
from kdsim.config import CLASS, FILES, SOURCE, ConfigError
from kdsim.files import Damaged
from kdsim.fingerprint import fingerprint
from kdsim.results.provenance import POPULATION, Fingerprint, counted, other_sources, same, sources_of
from kdsim.results.rows import unknown_columns
from kdsim.results.runs import columns_kept
from kdsim.results.store import Store, read_study_info
from kdsim.sources import kdsim_digest
from kdsim.study.base import Cell, Computation, Study
from kdsim.study.packs import pool
from kdsim.trainer import StudentTrainer, Teacher

SHOWN = 12
"""Digits of a digest in rows and lines."""
AnyCell = Cell | StudentTrainer | Teacher | Computation


def data_of(cell: AnyCell) -> Fingerprint | None:
    """Fingerprint of the points that a cell is computed on; None for a computation, which has none.

    Raises:
        ConfigError: there are none, as without the folder of real images.
    """
    if isinstance(cell, Computation):
        return None
    if isinstance(cell, Cell):
        return fingerprint(pool(cell))
    return data_of_training(cell.training if isinstance(cell, Teacher) else cell)


def data_of_training(training: StudentTrainer) -> Fingerprint:
    """Likewise, of the pools of a training, and of those of its teacher where they are others."""
    if not training.is_network:
        return fingerprint(training.data.population(training.seed))
    pools = training.pools()
    found = {name: fingerprint(getattr(pools, name)) for name in ("train", "validation", "test")}
    before = _teachers_training(training)
    if before is not None and (before.data, before.seed) != (training.data, training.seed):
        found["teacher"] = data_of_training(before)
    return found


def with_trainings(cells: Mapping[str, AnyCell]) -> dict[str, AnyCell]:
    """The cells by digest, and before each that needs one the training of its teacher, which may be no cell itself."""
    found: dict[str, AnyCell] = {}
    for digest, cell in cells.items():
        if (training := _teachers_training(cell)) is not None:
            found |= with_trainings({config.digest(training): training})
        found[digest] = cell
    return found


def _teachers_training(cell: AnyCell) -> StudentTrainer | None:
    teacher = cell.teacher if isinstance(cell, StudentTrainer) else cell if isinstance(cell, Teacher) else None
    return None if teacher is None else teacher.training


def stored(
    study: Study,
    store: Store,
    cells: Mapping[str, AnyCell],
    note: Callable[[str], None],
    *,
    repair: bool = False,
    rerun: bool = False,
) -> set[str]:
    """Digests of the cells whose stored results count. What does not count is superseded (`Store.supersede`).

    A result is reused only if its cell has the same data as now. One that another source of kdsim computed is reused,
    and this is said.

    Args:
        note: called with lines for people.
        repair: set damaged results aside instead of refusing them.
        rerun: do not reuse results of another source.

    Raises:
        Damaged: a stored cell is.
    """
    found: set[str] = set()
    others: dict[str, str] = {}  # results of another source, with that
    moved, unknown = [], {}
    rows: dict[str, dict[str, Any]] = {}
    made: dict[str, Fingerprint | str | None] = {}  # what is wrong with it is a text
    for digest, cell in with_trainings(cells).items():
        if not store.has_cell(digest):
            continue
        try:
            info = store.check_cell(digest)
            rows[digest] = store.row(study.name, digest, info)
        except Damaged as damage:
            if repair:
                note(store.set_aside(damage))
            elif digest in cells:
                raise
            continue  # of a teacher's training alone: its student says so, and the others run
        if (before := info.get(POPULATION)) is not None:
            if (key := _data_key(cell)) not in made:
                made[key] = _data_or_error(cell)
            if isinstance(now := made[key], str):
                unknown[digest] = now
            elif not same(before, now or {}):
                moved.append(digest)
                continue
        if other := [source for source in sources_of(info) if source != kdsim_digest()]:
            others[digest] = other[0]
        found.add(digest)
    if moved:
        store.supersede(moved)
        note(f"{counted(moved)} on other data than the problem gives now: run again")
    if unknown:
        why = next(iter(unknown.values()))
        note(f"whether {counted(unknown)} on the data that are there now could not be seen: {why}")
    if others and rerun:
        store.supersede(others)
        found -= others.keys()
        note(f"{counted(others)} computed by another source of kdsim: run again")
    elif others:
        note(str(other_sources({"source": source[:SHOWN]} for source in others.values())))
    if newer := unknown_columns(rows[digest] for digest in cells if digest in found):
        note(columns_kept(newer))
    return found & cells.keys()


def _data_or_error(cell: AnyCell) -> Fingerprint | str | None:
    try:
        return data_of(cell)
    except Exception as error:  # a study file's own problem can raise anything
        return config.error_line(error)


def _data_key(cell: AnyCell) -> str:
    if isinstance(cell, Cell):
        return config.digest((cell.problem, cell.seed))
    key: list[Any] = []
    training = cell.training if isinstance(cell, Teacher) else cell
    while isinstance(training, StudentTrainer):
        key += [training.data, training.seed]
        training = _teachers_training(training)
    return config.digest(key)


def changes(study: Study, store: Store, cells: Mapping[str, AnyCell]) -> str | None:
    """What has changed since the last run of the study with the same settings, in one line; None if nothing has.

    Args:
        cells: those of the study, by their digests.
    """
    folder = store.study_folder(study.name, config.digest(study))
    if folder.exists():  # its own sources and files are the same, those of its cells may not be
        names = _changed_cells(store, folder, cells)
        follows = "the cells that stand on it are run anew"
    else:
        names, folder = _changed_settings(study, store)
        follows = "its results stay there, and the study is run anew"
    return f"{', '.join(names)} changed since {folder.relative_to(store.root)}: {follows}" if names else None


def _changed_settings(study: Study, store: Store) -> tuple[list[str], Path]:
    now = config.encode(study)
    for _, folder in reversed(store.runs(study.name)):
        try:
            then = read_study_info(folder)["settings"]
        except ConfigError:
            continue
        if _bare(then) == _bare(now) and (names := _differing(then, now)):
            return names, folder
    return [], store.root


def _changed_cells(store: Store, folder: Path, cells: Mapping[str, AnyCell]) -> list[str]:
    """What the cells that were run stood on, and those of now do not."""
    try:
        before = set(read_study_info(folder)["cells"])
        gone = [store.read_info(digest)["cell"] for digest in sorted(before - cells.keys()) if store.has_cell(digest)]
    except ConfigError:
        return []
    then = {json.dumps(_bare(encoded), sort_keys=True): encoded for encoded in gone}
    new = [config.encode(cell) for digest, cell in cells.items() if digest not in before] if then else []
    pairs = [(then.get(json.dumps(_bare(encoded), sort_keys=True)), encoded) for encoded in new]
    return list(dict.fromkeys(name for old, encoded in pairs if old is not None for name in _differing(old, encoded)))


def _bare(encoded: Any) -> Any:
    """A configuration without what it stands on."""
    if isinstance(encoded, Mapping):
        return {key: _bare(value) for key, value in encoded.items() if key not in (SOURCE, FILES)}
    return [_bare(item) for item in encoded] if isinstance(encoded, (list, tuple)) else encoded


def _differing(then: Any, now: Any) -> list[str]:
    """Names of files, and of classes whose sources differ, of two configurations that are else the same."""
    if isinstance(now, Mapping):
        files, before = now.get(FILES) or {}, then.get(FILES) or {}
        found = [name for name in dict.fromkeys([*before, *files]) if before.get(name) != files.get(name)]
        if then.get(SOURCE) != now.get(SOURCE):
            found.append(f"the source of {now[CLASS]}")
        parts = [_differing(then[key], value) for key, value in now.items() if key not in (SOURCE, FILES)]
    else:
        found, parts = [], []
        if isinstance(now, (list, tuple)):
            parts = [_differing(*pair) for pair in zip(then, now, strict=True)]
    return list(dict.fromkeys([*found, *(name for part in parts for name in part)]))
