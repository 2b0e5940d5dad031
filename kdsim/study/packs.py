"""Cells packed into engine calls, and what they will cost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kdsim import config
from kdsim.config import ConfigError
from kdsim.engines import ENGINES
from kdsim.engines.base import SGD, Lane, State, check_device
from kdsim.engines.recorder import Record, Recording
from kdsim.population import Population
from kdsim.students import NetworkStudent, minimiser
from kdsim.study import dynamics, rows
from kdsim.study.base import Cell, Study

PROBE_SECONDS = 1.0
"""Length of the trial run from which a pack's duration is estimated."""

LANE_FIELDS = ("supervision", "step_size", "replicas")
"""Fields in which the cells of a pack may differ."""


@dataclass(frozen=True)
class Pack:
    """Cells that run as one engine call: they differ in supervision, step size and replicas only."""

    cells: tuple[Cell, ...]

    @property
    def replicas(self) -> int:
        """Replicas of all cells together."""
        return sum(cell.replicas for cell in self.cells)

    @property
    def steps(self) -> int:
        """Steps of each replica."""
        return self.cells[0].sgd.steps

    @property
    def digest(self) -> str:
        """Digest of the cells in this order: an interrupted pack goes on only as the same pack."""
        return config.digest(self.cells)

    def __str__(self) -> str:
        """What it is, for messages."""
        names = ", ".join(dict.fromkeys(config.kind_of(type(cell.supervision)) for cell in self.cells))
        return f"{len(self.cells)} cells of {config.kind_of(type(self.cells[0].problem))} ({names})"

    def prepare(self) -> Prepared:
        """The pool that its cells share, and the points that the engine is told."""
        cell = self.cells[0]
        population = cell.problem.population(cell.seed)
        if isinstance(cell.student, NetworkStudent):
            reference = cell.student.reference(population)
            return Prepared(self, population, reference, torch.zeros_like(reference))
        reference = minimiser(cell.student, population)
        directions = dynamics.pack_directions(cell, population, reference)
        return Prepared(self, population, reference, cell.student.anchor(population), directions)


@dataclass(frozen=True)
class Prepared:
    """A pack ready to run: its population, the reference point of the squared distance, the ridge's anchor, and the
    directions (m, K, d) along which the error is recorded, if any."""

    pack: Pack
    population: Population
    reference: Tensor
    anchor: Tensor
    directions: Tensor | None = None

    def run(
        self,
        *,
        state: State | None = None,
        stop: Callable[[int], bool] | None = None,
        sgd: SGD | None = None,
        recording: Recording | None = None,
    ) -> tuple[Record | None, State]:
        """Run on the engine from the start, or from `state`, until the end or until `stop`."""
        cell = self.pack.cells[0]
        return ENGINES[cell.engine].run(
            cell.student,
            self.population,
            [Lane(c.supervision, c.step_size, c.seed, c.replicas) for c in self.pack.cells],
            sgd or cell.sgd,
            recording or cell.recording,
            reference=self.reference,
            anchor=self.anchor,
            directions=self.directions,
            device=cell.device,
            state=state,
            stop=stop,
        )


def packs(cells: Sequence[Cell]) -> list[Pack]:
    """Group the cells by everything that an engine call shares; each cell once, in order."""
    groups: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        shared = {key: value for key, value in config.encode(cell).items() if key not in LANE_FIELDS}
        groups.setdefault(json.dumps(shared, sort_keys=True), {})[config.digest(cell)] = cell
    return [Pack(tuple(group.values())) for group in groups.values()]


def cells_of(study: Study) -> tuple[Cell, ...]:
    """The study's cells, at least one.

    Raises:
        ConfigError: there is none, one is no cell, or a study's own `cells` raises.
    """
    try:
        cells = tuple(study.cells() or ())
    except Exception as error:  # a study file's own code can raise anything
        if isinstance(error, ConfigError) or not config.in_study_file(error):
            raise
        raise ConfigError(f"cells of study {study.name!r}: {config.error_line(error)}") from error
    if not cells:
        raise ConfigError(f"study {study.name!r} has no cells with these settings")
    for cell in cells:
        if not isinstance(cell, Cell):
            raise ConfigError(f"study {study.name!r}: cells() must return Cell objects, it returned {cell!r}")
    return cells


def check_machine(cells: Sequence[Cell]) -> None:
    """Refuse cells that this machine cannot run: an unknown engine, a device that is not there."""
    for cell in cells:
        config.choose("engine", cell.engine, ENGINES)
        check_device(cell.device)


def predicted_rows(study: Study) -> list[dict[str, Any]]:
    """Theory without simulation: one row a cell, in the study's order. See `kdsim.study.rows`."""
    cells = cells_of(study)
    table = {}
    for pack in packs(cells):
        population = pack.cells[0].problem.population(pack.cells[0].seed)
        for cell in pack.cells:
            digest = config.digest(cell)
            predicted = rows.prediction(cell, population)
            table[digest] = rows.flat_row(study.name, digest, rows.summary(cell), predicted)
    return [table[config.digest(cell)] for cell in cells]


@dataclass(frozen=True)
class Estimate:
    """Cost of a study: its cells, their replica-steps, and the seconds that a short probe of the engine promises."""

    cells: int
    packs: int
    replica_steps: int
    seconds: float


def estimate(study: Study) -> Estimate:
    """What the whole study costs, from a probe of about a second for each pack."""
    cells = cells_of(study)
    check_machine(cells)
    groups = packs(cells)
    return Estimate(
        cells=sum(len(pack.cells) for pack in groups),
        packs=len(groups),
        replica_steps=sum(pack.replicas * pack.steps for pack in groups),
        seconds=sum(_probe(pack) for pack in groups),
    )


def _probe(pack: Pack) -> float:
    """Seconds that the pack will take: steps, and the checkpoints, which are dense at the start, timed apart."""
    prepared, cell = pack.prepare(), pack.cells[0]
    sparse = replace(cell.recording, checkpoints=2)
    short = replace(cell.sgd, steps=2)
    per_checkpoint = 0.0
    for _ in range(2):  # the first call warms up
        started = time.monotonic()
        prepared.run(sgd=short, recording=sparse)
        per_checkpoint = (time.monotonic() - started) / len(sparse.schedule(short.steps))
    started = time.monotonic()
    chunks = [(started, 0)]

    def stop(step: int) -> bool:
        chunks.append((time.monotonic(), step))
        return len(chunks) > 2 and chunks[-1][0] - started > PROBE_SECONDS

    _, state = prepared.run(stop=stop, recording=sparse)
    if chunks[-1][1] < state.step:
        chunks.append((time.monotonic(), state.step))
    if len(chunks) > 2:
        chunks = chunks[1:]  # the first chunk pays for what happens once
    seconds, steps = chunks[-1][0] - chunks[0][0], chunks[-1][1] - chunks[0][1]
    return seconds / steps * pack.steps + per_checkpoint * len(cell.recording.schedule(pack.steps))
