"""Runs a study: finished cells are skipped, the rest is packed into few engine calls that survive interruption."""

from __future__ import annotations

import datetime
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

import kdsim
from kdsim import config
from kdsim.config import ConfigError
from kdsim.engines.recorder import Record, join
from kdsim.study import dynamics, rows
from kdsim.study.base import Cell, Study
from kdsim.study.computations import Computing
from kdsim.study.costs import step_cost
from kdsim.study.loading import figure_reference
from kdsim.study.packs import Block, Pack, Prepared, cells_of, check_machine, packs, require_memory
from kdsim.study.risk_curves import risk_curves
from kdsim.study.store import Store
from kdsim.study.tables import curves_table, replicas_table
from kdsim.study.training_rows import labelled
from kdsim.study.trainings import Fitting, Training, jobs

SLICE_SECONDS = 5.0
"""Time between two saves of a running pack: what a killed run loses at most, but for a chunk of the engine."""


class Interrupted(Exception):
    """The run was told to stop (SIGINT or SIGTERM) and saved what it had."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done, total: replica-steps of all packs of this run; `done` includes what an interrupted run had done.
        step, steps, replicas: of the pack that is running.
        share: of the cost of all packs that is done, in [0, 1]; see `kdsim.study.costs`.
    """

    done: int
    total: int
    step: int
    steps: int
    replicas: int
    share: float


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
    progress: Callable[[Progress], None] | None = None,
    slice_seconds: float = SLICE_SECONDS,
) -> RunResult:
    """Run the cells of a study that are not finished, store each, and store the study.

    Args:
        study: the study, settings applied.
        out: the results folder.
        progress: called between chunks of an engine's steps.
        slice_seconds: time between two saves of a running pack.

    Raises:
        ConfigError: a setting is not allowed, `out` cannot be written, or a stored cell is damaged.
        Interrupted: SIGINT or SIGTERM arrived; the same call goes on where this one stopped.
    """
    started = time.monotonic()
    cells = cells_of(study)
    check_machine(cells)
    store = Store(out)
    store.prepare()
    digests = [config.digest(cell) for cell in cells]
    stored = {digest: store.read_cell(digest).info for digest in dict.fromkeys(digests) if store.has_cell(digest)}
    for digest, info in stored.items():
        store.row(study.name, digest, info)  # a damaged cell is refused before anything is computed
    missing = [cell for cell, digest in zip(cells, digests, strict=True) if digest not in stored]
    todo: list[Pack] | list[Training | Fitting | Computing]
    if isinstance(cells[0], Cell):
        todo = packs(missing)
        require_memory(todo)
    else:
        todo = jobs(missing, store)
    failures: list[str] = []
    errors: list[BaseException] = []
    with deferred_signals() as told_to_stop:
        session = _Session(store, told_to_stop, progress, slice_seconds, todo)
        for pack in todo:
            try:
                stored |= session.run(pack) if isinstance(pack, Pack) else session.train(pack)
            except Interrupted as interruption:
                count = f"{len(stored.keys() & set(digests))} of {len(set(digests))} cells are stored in {str(out)!r}"
                raise Interrupted(f"{interruption}; {count}; the same command goes on from there") from None
            except (Exception, SystemExit) as error:  # a study file's own code can raise anything
                errors.append(error)
                failures.append(f"{pack} failed: {config.error_line(error)}")
            session.leave(pack)
    finished = [digest for digest in digests if digest in stored]
    table = labelled([store.row(study.name, digest, stored[digest]) for digest in finished])
    info = {
        "study": study.name,
        "digest": config.digest(study),
        "settings": rows.json_ready(config.encode(study)),
        "cells": finished,
        "failures": failures,
        "figure": figure_reference(study),
        "versions": versions(),
        "date": _now(),
    }
    if table:
        store.write_study(info, table)
    return RunResult(
        name=study.name,
        settings=info["settings"],
        rows=table,
        failures=failures,
        user_error=bool(errors) and all(isinstance(error, ConfigError) for error in errors),
        replica_steps=session.replica_steps,
        engine_seconds=session.engine_seconds,
        wall_seconds=time.monotonic() - started,
        folder=store.study_folder(study.name, info["digest"]),
    )


class _Session:
    """One call of `run`: what it has spent, and its engine calls, cut into slices."""

    def __init__(
        self,
        store: Store,
        told_to_stop: threading.Event,
        progress: Callable[[Progress], None] | None,
        slice_seconds: float,
        todo: Sequence[Pack | Training | Fitting | Computing],
    ) -> None:
        self.store, self.told_to_stop, self.progress = store, told_to_stop, progress
        self.slice_seconds, self.total = slice_seconds, sum(map(_size, todo))
        self._cost = sum(_size(pack) * step_cost(pack) for pack in todo)
        self.replica_steps = 0
        self.engine_seconds = 0.0
        self._left_behind = 0  # replica-steps of the packs that are over
        self._cost_behind = 0.0  # likewise

    def run(self, pack: Pack) -> dict[str, dict[str, Any]]:
        """Run a pack to its end and store its cells: digest to the content of cell.json."""
        self._check(pack, 0)
        prepared = pack.prepare()
        predictions = [rows.prediction(cell, prepared.population) for cell in pack.cells]
        blocks = pack.blocks()
        done, seconds = 0, 0.0
        for block in blocks:
            record, parameters, spent = self._block(prepared, block, done, keep=len(blocks) > 1)
            seconds += spent
            done += block.replicas
        if len(blocks) > 1:
            record, parameters = self._joined(pack, blocks)
        infos = self._keep(prepared, record, parameters, predictions, seconds)
        for block in blocks:
            self.store.delete_partial(block.key)
        return infos

    def _joined(self, pack: Pack, blocks: Sequence[Block]) -> tuple[Record, Tensor | None]:
        """Record and last parameters of finished blocks, read back one after the other."""
        kept: list[Tensor] = []

        def records() -> Iterator[Record]:
            for block in blocks:
                record, parameters, _ = self.store.read_block(block.key)
                if parameters is not None:
                    kept.append(parameters)
                yield record

        return join(records(), pack.replicas), torch.cat(kept) if kept else None

    def _block(self, prepared: Prepared, block: Block, done: int, *, keep: bool) -> tuple[Record, Tensor | None, float]:
        """Record and last parameters of a block, and the seconds that it took; `keep` stores them when it is over.

        Args:
            done: replicas of the blocks before.
        """
        pack = prepared.pack
        if keep and (kept := self.store.read_block(block.key)):
            return kept
        state, seconds = self.store.read_partial(block.key)
        record = None
        while record is None:
            first_step, started = (state.step if state else 0), time.monotonic()
            stop = self._stop(pack, block, done, started)
            record, state = prepared.run(block.lanes, state=state, stop=stop)
            elapsed = time.monotonic() - started
            seconds += elapsed
            self.engine_seconds += elapsed
            self.replica_steps += (state.step - first_step) * block.replicas
            if record is None:
                self.store.write_partial(block.key, state, seconds)
                self._check(pack, state.step)
        last = state.error.cpu() if any(map(rows.needs_parameters, pack.cells)) else None
        if keep:
            self.store.write_block(block.key, record, last, seconds)
            if done + block.replicas < pack.replicas:
                self._check(pack, pack.steps)
        return record, last, seconds

    def train(self, job: Training | Fitting | Computing) -> dict[str, dict[str, Any]]:
        """Run a training, fit teachers or compute, to the end, and store: digest to the content of cell.json."""
        started = time.monotonic()
        first, last = None, 0

        def report(done: int, total: int) -> None:
            nonlocal first, last
            first, last = done if first is None else first, done
            self._report(job, done, done // job.replicas, total // job.replicas, job.replicas)

        self._check(job, 0)
        content = job.run(self.store, report, self.told_to_stop.is_set, {"versions": versions(), "date": _now()})
        self.engine_seconds += time.monotonic() - started
        self.replica_steps += last - (first or 0)
        if content is None:
            self._check(job, last // job.replicas)
        return {job.digest: content}

    def leave(self, pack: Pack | Training | Fitting | Computing) -> None:
        """Count the pack as over, whether it ran or failed."""
        self._left_behind += _size(pack)
        self._cost_behind += _size(pack) * step_cost(pack)

    def _report(
        self, pack: Pack | Training | Fitting | Computing, done: int, step: int, steps: int, replicas: int
    ) -> None:
        """Tell how far the run is, from the replica-steps done of this pack and where it stands."""
        if self.progress is not None:
            share = (self._cost_behind + done * step_cost(pack)) / self._cost if self._cost else 0.0
            self.progress(Progress(self._left_behind + done, self.total, step, steps, replicas, min(share, 1.0)))

    def _check(self, pack: Pack | Training | Fitting | Computing, step: int) -> None:
        if self.told_to_stop.is_set():
            raise Interrupted(f"interrupted at step {step} of {pack.steps}")

    def _stop(self, pack: Pack, block: Block, before: int, started: float) -> Callable[[int], bool]:
        def stop(step: int) -> bool:
            self._report(pack, step * block.replicas + pack.steps * before, step, pack.steps, block.replicas)
            return self.told_to_stop.is_set() or time.monotonic() - started > self.slice_seconds

        return stop

    def _keep(
        self,
        prepared: Prepared,
        record: Record,
        parameters: Tensor | None,
        predictions: Sequence[dict[str, Any]],
        seconds: float,
    ) -> dict[str, dict[str, Any]]:
        """Store the cells of a finished pack."""
        pack, infos, first = prepared.pack, {}, 0
        initial_dist_sq = prepared.reference.square().sum().item()  # SGD starts at zero
        for cell, predicted in zip(pack.cells, predictions, strict=True):
            block = slice(first, first + cell.replicas)
            part, first = record.replicas(block), block.stop
            error = None if parameters is None else parameters[block]
            digest = config.digest(cell)
            infos[digest] = {
                "cell": config.encode(cell),
                "summary": rows.summary(cell) | {"engine": pack.choice.engine},
                "prediction": predicted,
                "measurement": rows.measurement(
                    cell, prepared.population, part, error, reference=prepared.reference, anchor=prepared.anchor
                ),
                "versions": versions(),
                "seed": cell.seed,
                "engine": pack.choice.engine,
                "engine_reason": pack.choice.reason,
                "device": cell.device,
                "replica_steps": cell.replicas * pack.steps,
                "pack_replicas": pack.replicas,
                "wall_seconds": seconds * cell.replicas / pack.replicas,  # the cell's share of the pack's time
                "date": _now(),
            }
            curves = curves_table(part)
            curves["bound"] = rows.bound_curve(predicted, cell.step_size, initial_dist_sq, curves["step"].to_numpy())
            curves["linearised"] = dynamics.linearised(
                cell, prepared.population, prepared.reference, curves["step"].to_numpy()
            )
            curves = curves.assign(
                **risk_curves(cell, prepared.population, prepared.reference, predicted, curves["step"].to_numpy())
            )
            spectrum = dynamics.spectrum_table(cell, prepared.population, prepared.reference, part)
            self.store.write_cell(digest, infos[digest], curves, replicas_table(part), spectrum)
        return infos


def _size(pack: Pack | Training | Fitting | Computing) -> int:
    """Replica-steps; 0 where the data that they depend on is missing, which the pack says when it is its turn."""
    try:
        return pack.replicas * pack.steps
    except ConfigError:
        return 0


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


def versions() -> dict[str, str | int]:
    """What a result depends on beside its config."""
    return {
        "kdsim": kdsim.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
