"""Runs a study: finished cells are skipped, the rest is packed into few engine calls that survive interruption."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsim import config
from kdsim.config import ConfigError
from kdsim.files import Damaged, StorageError
from kdsim.results.json_files import json_ready
from kdsim.results.labels import labelled
from kdsim.results.store import Store
from kdsim.results.unfinished import Plan
from kdsim.study import reuse, work
from kdsim.study.base import Cell, Study
from kdsim.study.executors import Executor, ExecutorGone, Job
from kdsim.study.loading import figure_reference
from kdsim.study.local import Local
from kdsim.study.packs import Pack, cells_of, packs, require_memory
from kdsim.study.provenance import stamp
from kdsim.study.session import Interrupted, Progress, Session
from kdsim.study.trainings import jobs, warn_of_emulation

__all__ = ["SLICE_SECONDS", "Interrupted", "Progress", "RunResult", "deferred_signals", "run"]

SLICE_SECONDS = 5.0
"""Time between two saves of a running pack: what a killed run loses at most, but for a chunk of the engine."""


@dataclass(frozen=True)
class RunResult:
    """What a run gave.

    Attributes:
        name, settings: the study's name and its settings in JSON form.
        rows: one a finished cell, in the order of the study's cells.
        failures: one line a pack that could not be run; its cells have no row.
        user_error: whether there are failures and each is a `ConfigError`.
        replica_steps, engine_seconds, wall_seconds: spent in this call, not what stored cells had cost.
        folder: where the study is stored; nothing is stored if there is no row.
    """

    name: str
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    failures: list[str]
    user_error: bool
    replica_steps: int
    engine_seconds: float
    wall_seconds: float
    folder: Path


def run(
    study: Study,
    out: str | Path = "results",
    *,
    executor: Executor | None = None,
    progress: Callable[[Progress], None] | None = None,
    note: Callable[[str], None] = lambda line: None,
    slice_seconds: float = SLICE_SECONDS,
    block_replicas: int | None = None,
    repair: bool = False,
    rerun: bool = False,
) -> RunResult:
    """Run the cells of a study that are not finished, store each, and store the study.

    Args:
        study: the study, settings applied.
        out: the results folder. Several processes may run studies in one folder; they leave each other's work alone.
        executor: computes; `Local` if not given.
        progress: called between chunks of an engine's steps.
        note: called with lines for people.
        slice_seconds: time between two saves of a running pack.
        block_replicas: replicas that are simulated at a time, see `packs`. What was interrupted goes on as it began.
        repair: move damaged files to DIR/damaged and run again what they held, instead of refusing them.
        rerun: run again what another source of kdsim computed; its results go to DIR/superseded.

    Raises:
        ConfigError: a setting is not allowed, or a stored cell is damaged (`Damaged`).
        ExecutorGone: the scheduler of the executor is gone.
        StorageError: `out` cannot be written, now or in the middle; what is stored stays.
        Interrupted: SIGINT or SIGTERM arrived; the same call goes on where this one stopped.
    """
    started = time.monotonic()
    executor = executor or Local()
    store = Store(out)
    digest = config.digest(study)  # of a class without a source file it is refused now, not after the run
    settings = json_ready(config.encode(study))
    cells = cells_of(study)
    if block_replicas is not None:
        config.require_count("block_replicas", block_replicas)
    executor.check(cells)
    store.prepare()
    executor.check_folder(store.root, cells)
    digests = [config.digest(cell) for cell in cells]  # once: a file of data may change while the study runs
    by_digest = dict(zip(digests, cells, strict=True))
    work.doubt_data()
    if (line := reuse.changes(study, store, by_digest)) is not None:
        note(line)
    stored = reuse.stored(study, store, by_digest, note, repair=repair, rerun=rerun)
    missing = {digest: cell for digest, cell in by_digest.items() if digest not in stored}
    todo: list[Pack] | list[Job]
    if isinstance(cells[0], Cell):
        limit = executor.block_replicas if block_replicas is None else block_replicas
        todo = _interrupted(store, executor, by_digest, stored, missing, block_replicas, note, repair)
        todo += packs(list(missing.values()), limit, executor.choose)
        if isinstance(executor, Local):
            require_memory(todo)
    else:
        todo = jobs(missing.values(), store)
        if isinstance(executor, Local):
            warn_of_emulation(todo, note)
    _require_all(missing, todo)
    _say_what_starts_over(store, {*missing, *(item.digest for item in todo)}, note)
    with deferred_signals() as told_to_stop:
        session = Session(store, executor, todo, stored, told_to_stop, slice_seconds, progress, note, repair)
        try:
            session.run()
        except (Interrupted, StorageError, ExecutorGone) as end:
            count = f"{len(stored & by_digest.keys())} of {len(by_digest)} cells are stored in {str(out)!r}"
            raise type(end)(f"{end}; {count}; the same command goes on from there") from None
        finally:
            store.unfinished.remove_if_empty()
    failures = [failure.line for failure in session.failures]
    finished = [digest for digest in digests if digest in stored]
    table = labelled([store.row(study.name, digest, store.read_info(digest)) for digest in finished])
    info = {
        "study": study.name,
        "digest": digest,
        "settings": settings,
        "cells": finished,
        "failures": failures,
        "figure": figure_reference(study),
        **stamp(),
    }
    if table:
        store.write_study(info, table)
    return RunResult(
        name=study.name,
        settings=settings,
        rows=table,
        failures=failures,
        user_error=bool(failures) and all(failure.user_error for failure in session.failures),
        replica_steps=session.replica_steps,
        engine_seconds=session.engine_seconds,
        wall_seconds=time.monotonic() - started,
        folder=store.study_folder(study.name, info["digest"]),
    )


def _require_all(missing: Iterable[str], todo: Iterable[Pack | Job]) -> None:
    """Refuse to run if what is to be run has other names by now: its cells would be stored, and no row show them."""
    names = {digest for item in todo for digest in (item.digests if isinstance(item, Pack) else (item.digest,))}
    if any(digest not in names for digest in missing):
        raise ConfigError("a file of data has changed since the run began: run the study again")


def _say_what_starts_over(store: Store, digests: set[str], note: Callable[[str], None]) -> None:
    """Of what is to be run, some may have been begun by another source of kdsim."""
    for other in store.begun_elsewhere():
        if begun := digests & other.names():
            count = f"{len(begun)} of what is to be run {'was' if len(begun) == 1 else 'were'}"
            note(f"{count} begun by another source of kdsim ({other.folder}): it starts over with this one")


def _interrupted(
    store: Store,
    executor: Executor,
    cells: Mapping[str, Cell],
    stored: Container[str],
    missing: dict[str, Cell],
    block_replicas: int | None,
    note: Callable[[str], None],
    repair: bool,
) -> list[Pack]:
    """Packs of this study that were interrupted, as they were begun; their cells are no longer `missing`."""
    found = []
    for plan in _plans(store, note, repair):
        if not cells.keys() >= set(plan.cells):  # of another study, or with other settings
            continue
        first = cells[plan.cells[0]]
        pack = Pack(tuple(cells[digest] for digest in plan.cells), executor.choose(first), plan.block_replicas)
        if pack.digest != plan.pack:
            file = store.unfinished.plan_file(plan.pack)
            damage = Damaged(f"plan {file} is of another pack, or of another version: delete it to start over", file)
            if not repair:
                raise damage
            note(store.set_aside(damage))
            continue
        if left := [digest for digest in plan.cells if digest in missing]:
            if block_replicas not in (None, plan.block_replicas):
                begun = f"{pack} goes on in blocks of {plan.block_replicas} replicas, as it was begun"
                note(f"{begun}: delete {store.unfinished.plan_file(plan.pack)} to start over with {block_replicas}")
            found.append(pack)
            for digest in left:
                del missing[digest]
        elif all(digest in stored for digest in plan.cells):  # killed after its last cell, or about to delete it
            store.unfinished.forget(pack.digest, [block.key for block in pack.blocks()])
    return found


def _plans(store: Store, note: Callable[[str], None], repair: bool) -> list[Plan]:
    while True:
        try:
            return list(store.unfinished.plans())
        except Damaged as damage:
            if not repair:
                raise
            note(store.set_aside(damage))


@contextmanager
def deferred_signals() -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set the event instead of ending the process; a second SIGINT raises KeyboardInterrupt.

    Elsewhere than in the main thread, where Python allows no handlers, signals keep their meaning.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
