"""What is computed for a pack of cells: pure functions of things that travel between processes.

Nothing here reads or writes results, so it runs in this process (`kdsim.study.local`) and on workers
(`kdsim.study.on_dask`) alike, and gives the same numbers: populations, theory and measurements are computed on one
thread, and an engine's path does not depend on their number.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdsim import config, trainer
from kdsim.config import ConfigError
from kdsim.engines.base import State
from kdsim.engines.recorder import Record, join
from kdsim.results.provenance import POPULATION, Fingerprint, same
from kdsim.results.tables import parquets
from kdsim.study import dynamics, rows
from kdsim.study.base import Cell
from kdsim.study.packs import KEPT_POOLS, Pack, Prepared, doubt_pools, pool
from kdsim.study.provenance import stamp
from kdsim.study.risk_curves import risk_curves
from kdsim.study.tables import curves_table, replicas_table
from kdsim.threads import one_thread


@dataclass(frozen=True, eq=False)  # holds tensors
class Walked:
    """Where a block has come.

    Attributes:
        state: after the last step, from which the block goes on.
        record: None if it is not at its end.
        parameters: theta - reference at the end, (R, K, d), where a cell's measurement needs it.
        marks: the fingerprint of the points on which it walked; at its end also where it ran, see `stamp`.
    """

    state: State
    record: Record | None = None
    parameters: Tensor | None = None
    marks: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)  # holds tensors
class Ended:
    """A block, or a pack, at its end.

    Attributes:
        record, parameters: see `Walked`.
        seconds: that the engine took.
        marks: see `Walked`; of a pack those of its last block, and as `elsewhere` those of blocks that ran on other
            hardware or versions.
    """

    record: Record
    parameters: Tensor | None
    seconds: float
    marks: Mapping[str, Any]


@dataclass(frozen=True)
class FinishedCell:
    """A cell as it is stored.

    Attributes:
        digest: its name.
        info: the content of cell.json.
        tables: its files, see `kdsim.results.tables.parquets`.
    """

    digest: str
    info: dict[str, Any]
    tables: dict[str, bytes]


def walk(pack: Pack, number: int, state: State | None, stop: Callable[[int], bool] | None) -> Walked:
    """Walk a block of the pack from the start, or from `state`, to its end or until `stop`.

    Args:
        number: of the block.
        stop: see `Engine.run`.
    """
    ready = prepared(pack)
    record, state = ready.run(pack.blocks()[number].lanes, state=state, stop=stop)
    if record is None:
        return Walked(state, marks={POPULATION: ready.fingerprint})
    kept = state.error.cpu() if any(map(rows.needs_parameters, pack.cells)) else None
    return Walked(state, record, kept, {**stamp(), POPULATION: ready.fingerprint})


def require_same_points(before: Fingerprint, now: Fingerprint) -> None:
    """Refuse to go on with what was begun on other points: its numbers would belong to neither.

    Raises:
        ConfigError: the points, but for rounding, are others.
    """
    if not same(before, now):
        raise ConfigError("the points are others than when it began: what they are read from has changed; run it again")


def joined(blocks: Iterator[Ended], replicas: int) -> Ended:
    """A pack from its blocks, which are looked at one after the other.

    Raises:
        ConfigError: they walked on different points.
    """
    kept: list[Tensor] = []
    marks: list[Mapping[str, Any]] = []
    seconds = 0.0

    def records() -> Iterator[Record]:
        nonlocal seconds
        for block in blocks:
            if block.parameters is not None:
                kept.append(block.parameters)
            marks.append(block.marks)
            require_same_points(marks[0][POPULATION], block.marks[POPULATION])
            seconds += block.seconds
            yield block.record

    record = join(records(), replicas)
    last = marks[-1]
    others = [each for each in marks if any(each.get(key) != last.get(key) for key in ("versions", "hardware"))]
    others = [{key: value for key, value in each.items() if key != POPULATION} for each in others]
    different = [each for number, each in enumerate(others) if each not in others[:number]]
    elsewhere = {"elsewhere": different} if different else {}
    return Ended(record, torch.cat(kept) if kept else None, seconds, {**last, **elsewhere})


@dataclass(frozen=True, eq=False)  # holds tensors
class Seen:
    """What is known of one cell when its replicas are at their end.

    Attributes:
        cell: the cell.
        digest: its name.
        position: number of its first replica in the pack.
        record, parameters: of its replicas, see `Walked`.
    """

    cell: Cell
    digest: str
    position: int
    record: Record
    parameters: Tensor | None


def seen(pack: Pack, ended: Ended, wanted: Container[str]) -> Iterator[Seen]:
    """The wanted cells of a pack at its end, by digest."""
    first = 0
    for cell, digest in zip(pack.cells, pack.digests, strict=True):
        block, first = slice(first, first + cell.replicas), first + cell.replicas
        if digest in wanted:
            error = None if ended.parameters is None else ended.parameters[block]
            yield Seen(cell, digest, block.start, ended.record.replicas(block), error)


def finish(pack: Pack, cells: Sequence[Seen], seconds: float, marks: Mapping[str, Any]) -> list[FinishedCell]:
    """Theory, measurement and tables of some cells of a pack.

    Args:
        seconds, marks: see `Ended`.
    """
    ready = prepared(pack)
    with one_thread():
        return [_finished(ready, cell, seconds, marks) for cell in cells]


def _finished(ready: Prepared, item: Seen, seconds: float, marks: Mapping[str, Any]) -> FinishedCell:
    pack, population, cell, record = ready.pack, ready.population, item.cell, item.record
    config.require_unchanged(cell, item.digest)
    require_same_points(marks[POPULATION], ready.fingerprint)
    places = {"reference": ready.reference, "anchor": ready.anchor}
    predicted = rows.prediction(cell, population)
    info = {
        "cell": config.encode(cell),
        "summary": rows.summary(cell) | {"engine": pack.choice.engine},
        "prediction": predicted,
        "measurement": rows.measurement(cell, population, record, item.parameters, **places),
        "seed": cell.seed,
        "engine": pack.choice.engine,
        "engine_reason": pack.choice.reason,
        "device": cell.device,
        "replica_steps": cell.replicas * pack.steps,
        "pack": pack.digest,
        "pack_position": item.position,
        "pack_replicas": pack.replicas,
        "block_replicas": pack.block_replicas,
        "wall_seconds": seconds * cell.replicas / pack.replicas,  # the cell's share of the pack's time
        **marks,
    }
    curves = curves_table(record)
    steps = curves["step"].to_numpy()
    initial_dist_sq = ready.reference.square().sum().item()  # SGD starts at zero
    curves["bound"] = rows.bound_curve(predicted, cell.step_size, initial_dist_sq, steps)
    curves["linearised"] = dynamics.linearised(cell, population, ready.reference, steps)
    curves = curves.assign(**risk_curves(cell, population, ready.reference, predicted, steps))
    spectrum = dynamics.spectrum_table(cell, population, ready.reference, record)
    return FinishedCell(item.digest, info, parquets(curves, replicas_table(record), spectrum))


def doubt_data() -> None:
    """From now on all data are made anew when they are asked for: files may have changed since. A run begins so.

    What was derived of data that turn out the same bit for bit stays.
    """
    with _guard:
        _unsure.update(_kept)
    doubt_pools()
    trainer.forget_pools()


_kept: dict[tuple[str, str], Prepared] = {}
_unsure: set[tuple[str, str]] = set()
_guard = threading.Lock()


def prepared(pack: Pack) -> Prepared:
    """The pack ready to run. The last few are kept: the slices of a pack follow each other."""
    key = pack.digest, pack.choice.engine  # a digest says nothing of the engine that "auto" stands for
    with _guard:
        if key in _unsure:
            _unsure.discard(key)
            if key in _kept and _kept[key].population is not pool(pack.cells[0]):
                del _kept[key]
        if key not in _kept:
            with one_thread():
                found = pack.prepare()
            while len(_kept) >= KEPT_POOLS:
                del _kept[next(iter(_kept))]
            _kept[key] = found
        return _kept[key]
