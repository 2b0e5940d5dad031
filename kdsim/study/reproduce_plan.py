"""Which stored cells are to be run again, and as which packs and jobs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdsim import config
from kdsim.config import ConfigError
from kdsim.engines import Choice, choose_engine
from kdsim.engines.base import Lane, check_device
from kdsim.files import Damaged
from kdsim.results.cells import CELLS
from kdsim.results.store import STUDY_FILE, Store, read_study_info
from kdsim.study.base import Cell
from kdsim.study.executors import Job
from kdsim.study.packs import Pack, check_machine, packs, pool, require_memory
from kdsim.study.stored_configs import Classes, on_device, read_config
from kdsim.study.trainings import jobs


@dataclass
class Selection:
    """Stored cells that are to be run again.

    Attributes:
        store: where they are stored.
        cells: digest to configuration, of those that can be.
        infos: content of cell.json, of all that were asked for and can be read.
        refused: the others, with the reason.
        damaged: those of them that are damaged.
    """

    store: Store
    cells: dict[str, Any] = field(default_factory=dict)
    infos: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)


def stored_cells(folder: Path) -> tuple[Store, list[str]]:
    """The results folder, and digests of the cells that are stored there, or that one run of a study consists of.

    Args:
        folder: of results, or DIR/<study>/<digest>.

    Raises:
        ConfigError: it is neither, or holds no cell.
    """
    if (folder / STUDY_FILE).is_file():
        store = Store(folder.absolute().parent.parent)
        digests = list(dict.fromkeys(read_study_info(folder)["cells"]))
    elif (folder / CELLS).is_dir():
        store = Store(folder)
        digests = stored_digests(store)
    else:
        raise ConfigError(f"{str(folder)!r} is no results folder (no {CELLS}) and no run of a study (no {STUDY_FILE})")
    if not digests:
        raise ConfigError(f"{str(folder)!r} holds no cell")
    return store, digests


def stored_digests(store: Store) -> list[str]:
    """Of all cells in a results folder; those that are being written have hidden names."""
    return sorted(path.name for path in (store.root / CELLS).iterdir() if not path.name.startswith("."))


def choose(digests: Sequence[str], only: Sequence[str], count: int | None, seed: int) -> list[str]:
    """Those that begin with a text of `only`, and of these a random sample of `count`.

    Raises:
        ConfigError: no digest begins so.
    """
    for prefix in only:
        if not any(digest.startswith(prefix) for digest in digests):
            raise ConfigError(f"--only {config.shown(prefix)}: none of the {len(digests)} stored cells begins so")
    found = [digest for digest in digests if not only or digest.startswith(tuple(only))]
    if count is None or count >= len(found):
        return found
    drawn = set(random.Random(seed).sample(sorted(found), count))
    return [digest for digest in found if digest in drawn]


def select(store: Store, digests: Iterable[str], classes: Classes) -> Selection:
    """Read the configurations of cells."""
    found = Selection(store)
    for digest in digests:
        try:
            found.infos[digest] = store.read_info(digest)
            found.cells[digest] = read_config(digest, found.infos[digest], classes)
        except ConfigError as error:
            found.refused[digest] = str(error)
            if isinstance(error, Damaged):
                found.damaged.add(digest)
    return found


# Packs and jobs ---------------------------------------------------------------------------------


@dataclass
class Plan:
    """What is to be run.

    Attributes:
        todo: packs and jobs.
        names: digest of a stored cell to its digest in the rerun, which is another one on another device.
    """

    todo: list[Pack | Job] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)


def plan_of(selection: Selection, classes: Classes, engine: str | None, device: str | None) -> Plan:
    """Packs and jobs of the selected cells. What cannot run here is refused in `selection`.

    Args:
        classes: what other cells of their packs may name.
        engine, device: instead of those on which they ran.

    Raises:
        ConfigError: there is not enough memory.
    """
    plan = Plan()
    simulated: dict[str, Cell] = {}
    others: list[Any] = []
    chosen: dict[str, Choice] = {}  # by digest in the rerun
    for digest in sorted(selection.cells, key=lambda digest: _pool_key(selection.cells[digest])):
        cell = selection.cells[digest] if device is None else on_device(selection.cells[digest], device)
        try:
            if isinstance(cell, Cell):
                ran_on = selection.infos[digest].get("engine") if device is None else None
                chosen[config.digest(cell)] = _choice(cell, str(engine or ran_on or cell.engine))
                simulated[digest] = cell
            else:
                check_machine([cell])
                others.append(cell)
        except ConfigError as error:
            selection.refused[digest] = str(error)
            del selection.cells[digest]
            continue
        plan.names[digest] = config.digest(cell)
    for pack in _packs_as_stored(selection, simulated, classes):
        here = [simulated.pop(digest) for digest in map(config.digest, pack.cells) if digest in simulated]
        cells = pack.cells if device is None else tuple(on_device(cell, device) for cell in pack.cells)
        plan.todo.append(Pack(cells, chosen[config.digest(here[0])], pack.block_replicas))
    plan.todo += packs(list(simulated.values()), None, lambda cell: chosen[config.digest(cell)])
    require_memory(plan.todo)
    plan.todo += jobs(others, None)
    return plan


def _pool_key(cell: Any) -> str:
    """Cells of one pool follow each other: only a few pools are kept."""
    return config.digest((cell.problem, cell.seed)) if isinstance(cell, Cell) else ""


def _choice(cell: Cell, engine: str) -> Choice:
    check_device(cell.device)
    lane = Lane(cell.supervision, cell.step_size, cell.seed, cell.replicas)
    try:
        population = pool(cell)
    except ConfigError:
        raise
    except Exception as error:  # a study file's own problem can raise anything
        raise ConfigError(f"it has no pool: {config.error_line(error)}") from error
    return choose_engine(engine, cell.student, population, [lane], cell.sgd, cell.recording, cell.device)


def _packs_as_stored(selection: Selection, wanted: Iterable[str], classes: Classes) -> list[Pack]:
    """The packs of which the wanted cells were part, those that can be put together again."""
    names = {_pack_of(selection.infos[digest]) for digest in wanted} - {None}
    groups: dict[str, dict[int, tuple[str, Mapping[str, Any]]]] = {name: {} for name in names if name is not None}
    for digest in stored_digests(selection.store) if names else ():
        try:
            info = selection.infos.get(digest) or selection.store.read_info(digest)
        except Damaged:
            continue
        name, position = _pack_of(info), info.get("pack_position")
        if name in groups and isinstance(position, int):
            groups[name][position] = digest, info
    found = []
    for name, group in groups.items():
        members = [group[position] for position in sorted(group)]
        try:
            cells = [selection.cells.get(digest) or read_config(digest, info, classes) for digest, info in members]
            limit = members[0][1].get("block_replicas") if members else None
            config.require_count("block_replicas", limit)
        except ConfigError:
            continue
        pack = Pack(tuple(cells), Choice("", ""), limit)
        if all(isinstance(cell, Cell) for cell in cells) and pack.digest == name:
            found.append(pack)
    return found


def _pack_of(info: Mapping[str, Any]) -> str | None:
    name = info.get("pack")
    return name if isinstance(name, str) else None
