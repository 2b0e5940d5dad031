"""What a study costs: core hours or GPU hours of each pack and training, from rates that are measured here and now.

Of a pack the engine's steps and checkpoints are timed several times, on all threads, and theory and measurement on two
of its cells, on one thread: the first pays for what the cells share. Of a training some steps and an evaluation are
timed, of a teacher's fit a small one. All else is multiplication.
"""

from __future__ import annotations

import heapq
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean

import psutil
import torch

from kdsim import config
from kdsim.config import ConfigError
from kdsim.networks import build
from kdsim.results.store import Store
from kdsim.results.tables import CURVES_FILE
from kdsim.study import work
from kdsim.study.base import Cell, Study
from kdsim.study.computations import Computing
from kdsim.study.executors import FINISH_CELLS
from kdsim.study.on_dask import BLOCK_REPLICAS
from kdsim.study.packs import Pack, cells_of, check_machine, packs, probe
from kdsim.study.provenance import hardware
from kdsim.study.training_probes import probe as probe_training
from kdsim.study.training_probes import probe_fit
from kdsim.study.trainings import Fitting, Training, jobs
from kdsim.trainer import StudentTrainer
from kdsim.training.replicas import replica_threads

PROBES = 3
"""Times that a rate is measured."""
PACK_SECONDS = 0.5
"""Length of one measurement of an engine's rate."""
SHORT_STEPS = 400
"""Steps after which the cells are finished whose theory and measurement is timed."""
HOUR = 3600.0


@dataclass(frozen=True)
class Piece:
    """What one worker with one thread, or one GPU, does at a stretch.

    Attributes:
        needs: numbers of costs of which all pieces must be over before it begins.
        last: whether the pieces of its own cost that are not `last` must be over as well.
    """

    seconds: float
    needs: tuple[int, ...] = ()
    last: bool = False


@dataclass(frozen=True)
class Cost:
    """A pack, training or fit.

    Attributes:
        what: in words.
        cells: of the study.
        replica_steps: of all; 0 for a fit.
        device: where it runs.
        seconds: of the engine or training on `threads` threads, by each probe; empty where it cannot be told.
        threads: cores that it takes meanwhile; 1 for a GPU.
        finish: seconds of theory and measurement of all cells, on one core.
        finish_spread: half of their range over the probes.
        left: share of it that is not stored.
        bytes: on disk when it is stored; None where it is not known.
        problem: why something could not be measured.
        needs: numbers of costs that must be over before.
        blocks: pieces that can run at the same time on several workers.
    """

    what: str
    cells: int
    replicas: int
    steps: int
    device: str
    seconds: list[float]
    threads: int
    finish: float = 0.0
    finish_spread: float = 0.0
    left: float = 1.0
    bytes: float | None = None
    problem: str = ""
    needs: tuple[int, ...] = ()
    blocks: int = 1

    @property
    def on_gpu(self) -> bool:
        """Whether its hours are those of a GPU."""
        return self.device.startswith("cuda")

    @property
    def rates(self) -> list[float]:
        """Replica-steps a second, by each probe."""
        return [self.replicas * self.steps / seconds for seconds in self.seconds if self.steps > 1]

    @property
    def hours(self) -> float:
        """Core hours, or GPU hours, theory and measurement included where they run on a core as well."""
        walked = mean(self.seconds) * self.threads if self.seconds else 0.0
        return (walked + (0.0 if self.on_gpu else self.finish)) / HOUR

    @property
    def spread(self) -> float:
        """Half of the range of `hours` over the probes."""
        walked = (max(self.seconds) - min(self.seconds)) / 2 * self.threads if self.seconds else 0.0
        return (walked + (0.0 if self.on_gpu else self.finish_spread)) / HOUR

    def pieces(self) -> list[Piece]:
        """What workers do for what is left of it."""
        walked = mean(self.seconds) * self.threads * self.left / self.blocks if self.seconds else 0.0
        found = [Piece(walked, self.needs)] * self.blocks
        if not self.finish:
            return found
        groups = -(-self.cells // FINISH_CELLS)
        return found + [Piece(self.finish * self.left / groups, self.needs, last=True)] * groups


@dataclass(frozen=True)
class StudyCost:
    """What a study costs.

    Attributes:
        costs: those on which others depend first.
        not_counted: number of computations.
        cells, stored: of the study, and of these in the results folder.
        load: other processes' share of the machine while it was measured: load average over cores.
    """

    costs: list[Cost]
    not_counted: int
    cells: int
    stored: int
    load: float

    def hours(self, on_gpu: bool, left: bool = False) -> tuple[float, float]:
        """Core or GPU hours and their uncertainty, of all or of what is left.

        Half ranges are added: what slows one probe, as another process does, slows all.
        """
        chosen = [cost for cost in self.costs if cost.on_gpu == on_gpu]
        shares = [cost.left if left else 1.0 for cost in chosen]
        total = sum(cost.hours * share for cost, share in zip(chosen, shares, strict=True))
        spread = sum(cost.spread * share for cost, share in zip(chosen, shares, strict=True))
        for cost in self.costs:
            if cost.on_gpu and not on_gpu:  # theory and measurement of cells on a GPU
                share = cost.left if left else 1.0
                total += cost.finish / HOUR * share
                spread += cost.finish_spread / HOUR * share
        return total, spread

    def wall(self, workers: int) -> float:
        """Seconds that so many workers take for what is left, one core or GPU each.

        Who is free takes the first piece that can begin, as the runner does.
        """
        waiting = [(number, piece) for number, cost in enumerate(self.costs) if cost.left for piece in cost.pieces()]
        walks = Counter(number for number, piece in waiting if not piece.last)
        pieces = Counter(number for number, _ in waiting)
        running: list[tuple[float, int, bool]] = []
        now = 0.0
        while waiting or running:
            ready = (
                place
                for place, (number, piece) in enumerate(waiting)
                if not any(pieces[other] for other in piece.needs) and not (piece.last and walks[number])
            )
            place = next(ready, None) if len(running) < workers else None
            if place is not None:
                number, piece = waiting.pop(place)
                heapq.heappush(running, (now + piece.seconds, number, piece.last))
                continue
            now, number, last = heapq.heappop(running)
            pieces[number] -= 1
            walks[number] -= not last
        return now


def study_cost(study: Study, store: Store) -> StudyCost:
    """Measure what a study costs; takes a few seconds for each pack and training.

    Args:
        store: the results folder in which to look for what is stored.
    """
    cells = cells_of(study)
    check_machine(cells)
    digests = list(dict.fromkeys(map(config.digest, cells)))
    stored = {digest for digest in digests if store.has_cell(digest)}
    if isinstance(cells[0], Cell):
        costs = [_pack_cost(pack, store) for pack in packs(cells)]
        todo = []
    else:
        todo = jobs(cells, None)
        costs = _job_costs([job for job in todo if not isinstance(job, Computing)], set(digests), store)
    load = psutil.getloadavg()[0] / hardware()["cores"]
    return StudyCost(costs, sum(isinstance(job, Computing) for job in todo), len(digests), len(stored), load)


# Packs ------------------------------------------------------------------------------------------


def _pack_cost(pack: Pack, store: Store) -> Cost:
    prepared, block, cell = pack.prepare(), pack.blocks()[0], pack.cells[0]
    looks = len(cell.recording.schedule(pack.steps))
    times = [probe(prepared, block, PACK_SECONDS) for _ in range(PROBES)]
    blocks = pack.replicas / block.replicas
    seconds = [(step * pack.steps + checkpoint * looks) * blocks for step, checkpoint in times]
    finish, finish_spread, size, problem = _finish_cost(pack)
    missing = [cell for cell in pack.cells if not store.has_cell(config.digest(cell))]
    on_gpu = cell.device.startswith("cuda")
    return Cost(
        what=f"{pack}, {pack.choice.engine}",
        cells=len(pack.cells),
        replicas=pack.replicas,
        steps=pack.steps,
        device=cell.device,
        seconds=seconds,
        threads=1 if on_gpu else torch.get_num_threads(),
        finish=finish,
        finish_spread=finish_spread,
        left=sum(cell.replicas for cell in missing) / pack.replicas,
        bytes=size,
        problem=problem,
        blocks=-(-pack.replicas // BLOCK_REPLICAS),
    )


def _finish_cost(pack: Pack) -> tuple[float, float, float | None, str]:
    """Seconds of theory and measurement of all cells of a pack, half of their range over the probes, their bytes on
    disk, and why not if they are unknown.

    Two cells are finished after a few steps. The first pays for what cells of one pool share, and only once; the second
    is timed as often as rates are.
    """
    full, count = pack.cells[0], min(2, len(pack.cells))
    steps = min(pack.steps, SHORT_STEPS)
    cells = tuple(replace(cell, sgd=replace(cell.sgd, steps=steps)) for cell in pack.cells[:count])
    short = replace(pack, cells=cells, block_replicas=sum(cell.replicas for cell in cells))
    try:
        walked = work.walk(short, 0, None, None)
        wanted = {config.digest(cell) for cell in cells}
        times, found = [], None
        for seen in work.seen(short, work.Ended(walked.record, walked.parameters, 0.0, walked.marks), wanted):
            for _ in range(PROBES if times else 1):
                started = time.monotonic()
                (found,) = work.finish(short, [seen], 0.0, walked.marks)
                times.append(time.monotonic() - started)
    except ConfigError as error:
        return 0.0, 0.0, None, f"theory and measurement of {pack}: {config.error_line(error)}"
    more = len(full.recording.schedule(pack.steps)) / len(full.recording.schedule(steps))
    size = sum(len(data) * (more if name == CURVES_FILE else 1) for name, data in found.tables.items())
    size += len(json.dumps(found.info, indent=1))
    first, others, count = times[0], times[1:], len(pack.cells) - 1
    if not others:
        return first, 0.0, size, ""
    return first + count * mean(others), count * (max(others) - min(others)) / 2, size * len(pack.cells), ""


# Trainings --------------------------------------------------------------------------------------


def _job_costs(todo: Sequence[Training | Fitting], cells: set[str], store: Store) -> list[Cost]:
    numbers = {job.digest: number for number, job in enumerate(todo)}
    left = {job.digest for job in jobs([_configuration(job) for job in todo if job.digest in cells], store)}
    costs = []
    for job in todo:
        training = job.trainer if isinstance(job, Training) else job.teacher.training
        problem, threads, seconds = "", 1, []
        try:
            if isinstance(job, Training):
                found = probe_training(job, PROBES)
                seconds, threads = found.seconds, found.threads
            else:
                seconds, threads = [probe_fit(job)], replica_threads()
        except ConfigError as error:
            problem = f"{job}: {config.error_line(error)}"
        needs = [] if isinstance(job, Training) else [numbers.get(config.digest(training))]
        if isinstance(job, Training) and training.teacher is not None:
            teacher = training.teacher
            needs = [numbers.get(config.digest(teacher)), numbers.get(config.digest(teacher.training))]
        costs.append(
            Cost(
                what=str(job),
                cells=int(job.digest in cells),
                replicas=job.replicas,
                steps=job.steps,
                device=training.device,
                seconds=seconds,
                threads=1 if training.device.startswith("cuda") else threads,
                left=float(job.digest in left),
                bytes=_weights(training) * job.replicas,
                problem=problem,
                needs=tuple(number for number in needs if number is not None),
            )
        )
    return costs


def _weights(trainer: StudentTrainer) -> float:
    """Bytes of the weights of a network; a teacher's file holds those of its networks again. Tables are small."""
    if not trainer.on_images:
        return 0.0
    state = build(trainer.student.network, trainer.data.classes).state_dict()
    return float(sum(tensor.numel() * tensor.element_size() for tensor in state.values()))


def _configuration(job: Training | Fitting) -> object:
    return job.trainer if isinstance(job, Training) else job.teacher
