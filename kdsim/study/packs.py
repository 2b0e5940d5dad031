"""Cells packed into engine calls, and what they will cost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import psutil
import torch
from torch import Tensor

from kdsim import config
from kdsim.config import ConfigError
from kdsim.engines import AUTO, ENGINES, Choice, choose_engine
from kdsim.engines.base import SGD, Lane, State, check_device
from kdsim.engines.recorder import METRICS, Record, Recording
from kdsim.engines.shards import split
from kdsim.fingerprint import fingerprint
from kdsim.plain_text import counted
from kdsim.population import Population
from kdsim.problems.base import drawn
from kdsim.results.provenance import Fingerprint
from kdsim.results.rows import flat_row
from kdsim.students import NetworkStudent, minimiser
from kdsim.study import dynamics, rows
from kdsim.study.base import Cell, Computation, Study
from kdsim.supervision.base import Supervision
from kdsim.supervision.checks import require_sound
from kdsim.threads import one_thread
from kdsim.trainer import StudentTrainer, Teacher

PROBE_SECONDS = 1.0
"""Length of the trial run from which a pack's duration is estimated."""

BLOCK_REPLICAS = 1 << 16
"""Replicas that are simulated at a time. Memory stays bounded, and an interruption loses nothing of what ran before."""

KEPT_POOLS = 2
"""Populations that stay in memory."""

LANE_FIELDS = ("supervision", "step_size", "replicas")
"""Fields in which the cells of a pack may differ."""


@dataclass(frozen=True)
class Pack:
    """Cells that run as one engine call: they differ in supervision, step size and replicas only.

    Attributes:
        choice: the engine, and why this one.
        block_replicas: a cell of more replicas is a pack of its own and runs in blocks of at most so many, one engine
            call each.
    """

    cells: tuple[Cell, ...]
    choice: Choice
    block_replicas: int = BLOCK_REPLICAS

    @property
    def replicas(self) -> int:
        """Replicas of all cells together."""
        return sum(cell.replicas for cell in self.cells)

    @property
    def steps(self) -> int:
        """Steps of each replica."""
        return self.cells[0].sgd.steps

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """Of its cells, in their order: under these names they are stored."""
        return tuple(config.digest(cell) for cell in self.cells)

    @cached_property
    def digest(self) -> str:
        """Digest of the cells in this order and of the blocks: an interrupted pack goes on only as the same pack."""
        return config.digest((*self.cells, self.block_replicas))

    def blocks(self) -> list[Block]:
        """The replicas in blocks of at most `block_replicas`; several only where the pack is one cell."""
        return self._blocks

    @cached_property
    def _blocks(self) -> list[Block]:
        parts = split([_lane(cell) for cell in self.cells], self.block_replicas)
        if len(parts) == 1:
            return [Block(self.digest, tuple(parts[0]))]
        return [Block(f"{self.digest}-{number}", tuple(lanes)) for number, lanes in enumerate(parts)]

    def memory(self, population: Population) -> int:
        """Bytes that the pack takes at most, beside the pool and the program: parameters of a block, records of all."""
        cell = self.cells[0]
        number = 4 if cell.sgd.dtype == "float32" else 8
        parameters = population.features * population.classes
        if isinstance(cell.student, NetworkStudent):
            parameters = cell.student.size(population.features, population.classes)
        checkpoints = len(cell.recording.schedule(cell.sgd.steps))
        tail = len(cell.recording.tail_steps(cell.sgd.steps))
        recorded = len(METRICS) * checkpoints * number + 6 * 8 + cell.recording.directions * tail * number
        recorded += parameters * (8 * cell.recording.mean_error + number * rows.needs_parameters(cell))
        largest_cell = max(cell.replicas for cell in self.cells)
        block = min(self.replicas, self.block_replicas) * (4 * parameters * number + recorded)
        # In the end all records, and the values of one metric of a cell, sorted, ranked and squared.
        return block + self.replicas * recorded + largest_cell * checkpoints * (2 * number + 2 * 8)

    def __str__(self) -> str:
        """What it is, for messages."""
        names = ", ".join(dict.fromkeys(config.kind_of(type(cell.supervision)) for cell in self.cells))
        return f"{counted(len(self.cells), 'cell')} of {config.kind_of(type(self.cells[0].problem))} ({names})"

    def prepare(self) -> Prepared:
        """The pool that its cells share, and the points that the engine is told."""
        cell = self.cells[0]
        population = pool(cell)
        if isinstance(cell.student, NetworkStudent):
            reference = cell.student.reference(population)
            return Prepared(self, population, reference, torch.zeros_like(reference))
        reference = minimiser(cell.student, population)
        directions = dynamics.pack_directions(cell, population, reference)
        return Prepared(self, population, reference, cell.student.anchor(population), directions)


@dataclass(frozen=True)
class Block:
    """Replicas that are simulated together, and the name under which their state is kept."""

    key: str
    lanes: tuple[Lane, ...]

    @property
    def replicas(self) -> int:
        """Replicas of all its lanes."""
        return sum(lane.replicas for lane in self.lanes)


@dataclass(frozen=True)
class Prepared:
    """A pack ready to run: its population, the reference point of the squared distance, the ridge's anchor, and the
    directions (m, K, d) along which the error is recorded, if any."""

    pack: Pack
    population: Population
    reference: Tensor
    anchor: Tensor
    directions: Tensor | None = None

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Of its population, which is stored with every result."""
        return fingerprint(self.population)

    def run(
        self,
        lanes: Sequence[Lane],
        *,
        state: State | None = None,
        stop: Callable[[int], bool] | None = None,
        sgd: SGD | None = None,
        recording: Recording | None = None,
    ) -> tuple[Record | None, State]:
        """Run lanes of the pack on its engine, from the start, or from `state`, until the end or until `stop`."""
        cell = self.pack.cells[0]
        return ENGINES[self.pack.choice.engine].run(
            cell.student,
            self.population,
            lanes,
            sgd or cell.sgd,
            recording or cell.recording,
            reference=self.reference,
            anchor=self.anchor,
            directions=self.directions,
            device=cell.device,
            state=state,
            stop=stop,
        )


_pools: dict[str, Population] = {}
_unsure: set[str] = set()
"""Those of which the files may have changed since they were made."""
_guard = threading.Lock()


def pool(cell: Cell) -> Population:
    """The cell's population. The last few are kept: cells of one pool follow each other, and what is derived of a
    population is kept by its identity."""
    key = config.digest((cell.problem, cell.seed))
    with _guard:
        if key not in _pools or key in _unsure:
            with one_thread():
                found = drawn(cell.problem, cell.seed)
            _unsure.discard(key)
            before = _pools.pop(key, None)
            while len(_pools) >= KEPT_POOLS:
                del _pools[next(iter(_pools))]
            _pools[key] = before if before is not None and _is_same(found, before) else found
        return _pools[key]


def _is_same(one: object, other: Population) -> bool:
    """Whether two populations are the same bit for bit: theory that was derived of the one is that of the other."""
    return isinstance(one, Population) and fingerprint(one) == fingerprint(other)


def doubt_pools() -> None:
    """From now on populations are made anew when they are asked for: the files that they stand on may have changed."""
    with _guard:
        _unsure.update(_pools)


def _lane(cell: Cell) -> Lane:
    return Lane(cell.supervision, cell.step_size, cell.seed, cell.replicas)


def require_memory(packs: Sequence[Pack]) -> None:
    """Refuse packs that this machine's free memory does not hold, before anything is computed.

    Raises:
        ConfigError: with the memory that is needed and that is free.
    """
    free = psutil.virtual_memory().available
    for pack in packs:
        try:
            population = pool(pack.cells[0])
        except Exception:  # the pack says so when it is its turn
            continue
        needed = pack.memory(population)
        if needed > free:
            raise ConfigError(
                f"{pack}: {pack.replicas:,} replicas need about {needed / 2**30:.2g} GiB of memory, and "
                f"{free / 2**30:.2g} GiB are free: ask for fewer replicas or checkpoints"
            )


def choice_of(cell: Cell) -> Choice:
    """The engine that runs the cell, and why.

    Raises:
        ConfigError: there is no such engine or device, or the engine cannot run the cell; with the reason.
    """
    try:
        population = pool(cell)
    except Exception:  # the pack says so when it is its turn, and the others run
        return Choice("torch", "there is no pool")
    _check_noise(cell.supervision, population)
    return choose_engine(cell.engine, cell.student, population, [_lane(cell)], cell.sgd, cell.recording, cell.device)


def _check_noise(supervision: Supervision, population: Population) -> None:
    """Refuse a noise model of which theory could make nothing, before it is simulated."""
    if not isinstance(getattr(population, "p", None), Tensor):  # of a study file's pool that is none an engine says so
        return
    try:
        require_sound(supervision, population)
    except ConfigError:
        raise
    except Exception:  # a study file's own code; the pack says so when it is its turn
        return


def packs(
    cells: Sequence[Cell], block_replicas: int | None = None, choose: Callable[[Cell], Choice] | None = None
) -> list[Pack]:
    """Group the cells by everything that an engine call shares, engine included; each cell once, in order.

    Args:
        block_replicas: replicas of a pack at most, unless one cell alone has more; None is `BLOCK_REPLICAS`.
        choose: finds the engine of a cell, `choice_of` if not given.

    Raises:
        ConfigError: see `choice_of`.
    """
    limit = BLOCK_REPLICAS if block_replicas is None else block_replicas
    groups: dict[str, dict[str, Cell]] = {}
    choices: dict[str, Choice] = {}
    for cell in cells:
        choice = (choose or choice_of)(cell)
        shared = {key: value for key, value in config.encode(cell).items() if key not in LANE_FIELDS}
        key = json.dumps({**shared, "engine": choice.engine}, sort_keys=True)
        groups.setdefault(key, {})[config.digest(cell)] = cell
        choices.setdefault(key, choice)
    return [
        Pack(part, choices[key], limit) for key, group in groups.items() for part in _parts(list(group.values()), limit)
    ]


def _parts(cells: Sequence[Cell], limit: int) -> list[tuple[Cell, ...]]:
    """The cells in parts of at most `limit` replicas; a cell of more is a part of its own."""
    parts: list[list[Cell]] = []
    room = 0
    for cell in cells:
        if cell.replicas > room:
            parts.append([])
            room = limit
        parts[-1].append(cell)
        room -= cell.replicas
    return [tuple(part) for part in parts]


def cells_of(study: Study) -> tuple[Cell, ...] | tuple[StudentTrainer | Teacher | Computation, ...]:
    """The study's cells, at least one, all of them simulations or none.

    They are made on one thread: a ridge that is a fraction of L would be rounded as the threads are many, and the same
    study would have other cells on another machine.

    Raises:
        ConfigError: there is none, one is no cell, or a study's own `cells` raises.
    """
    try:
        with one_thread():
            returned = study.cells()
            if not isinstance(returned, Iterable) or isinstance(returned, (str, bytes, Mapping, Set)):
                what = f"a tuple of cells, it returned {config.shown(returned)}"
                raise ConfigError(f"study {study.name!r}: cells() must return {what}")
            cells = tuple(returned)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a study file's own code can raise anything
        if isinstance(error.__cause__, StopIteration):  # which Python makes another error of, that comes from here
            error = error.__cause__
        if isinstance(error, ConfigError) or not config.in_study_file(error):
            raise
        raise ConfigError(f"cells of study {study.name!r}: {config.error_line(error)}") from error
    if not cells:
        raise ConfigError(f"study {study.name!r} has no cells with these settings")
    kind = Cell if isinstance(cells[0], Cell) else (StudentTrainer, Teacher, Computation)
    for cell in cells:
        if not isinstance(cell, kind):
            allowed = "all Cell, or all StudentTrainer, Teacher and Computation objects"
            raise ConfigError(f"study {study.name!r}: cells() must return {allowed}, it returned {config.shown(cell)}")
    config.require_told_apart(cells, f"study {study.name!r}")
    return cells


def check_machine(cells: Sequence[Cell]) -> None:
    """Refuse cells that name an engine or a device that is not there."""
    for cell in cells:
        if isinstance(cell, Cell):
            config.choose("engine", cell.engine, {AUTO: None, **ENGINES})
            check_device(cell.device)
        elif not isinstance(cell, Computation):
            (cell.training if isinstance(cell, Teacher) else cell).check_machine()


def predicted_rows(study: Study) -> list[dict[str, Any]]:
    """Theory without simulation: one row a cell, in the study's order. See `kdsim.results.rows`."""
    table = []
    for cell in cells_of(study):
        predicted = rows.prediction(cell, pool(cell))
        table.append(flat_row(study.name, config.digest(cell), rows.summary(cell), predicted))
    return table


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
    """Seconds that the pack will take."""
    block = pack.blocks()[0]
    step, checkpoint = probe(pack.prepare(), block)
    cell = pack.cells[0]
    one = step * pack.steps + checkpoint * len(cell.recording.schedule(pack.steps))
    return one * pack.replicas / block.replicas


def probe(prepared: Prepared, block: Block, seconds: float = PROBE_SECONDS) -> tuple[float, float]:
    """Seconds a step and a checkpoint of a block, timed apart, since checkpoints are dense at the start.

    Args:
        seconds: that the steps are timed.
    """
    cell = prepared.pack.cells[0]
    sparse = replace(cell.recording, checkpoints=2)
    short = replace(cell.sgd, steps=2)
    per_checkpoint = 0.0
    for _ in range(2):  # the first call warms up
        started = time.monotonic()
        prepared.run(block.lanes, sgd=short, recording=sparse)
        per_checkpoint = (time.monotonic() - started) / len(sparse.schedule(short.steps))
    started = time.monotonic()
    chunks = [(started, 0)]

    def stop(step: int) -> bool:
        chunks.append((time.monotonic(), step))
        return len(chunks) > 2 and chunks[-1][0] - started > seconds

    _, state = prepared.run(block.lanes, stop=stop, recording=sparse)
    if chunks[-1][1] < state.step:
        chunks.append((time.monotonic(), state.step))
    if len(chunks) > 2:
        chunks = chunks[1:]  # the first chunk pays for what happens once
    return (chunks[-1][0] - chunks[0][0]) / (chunks[-1][1] - chunks[0][1]), per_checkpoint
