"""Replica-batched SGD in torch: all replicas of all lanes are one (R, K, d) tensor, on any device.

Random numbers and targets do not depend on theta, so they are drawn for a chunk of steps at a
time; the loop over steps is left with a gather, two small batched products and the residual.

Parameters are held as the error e = theta - reference, and the outputs as x reference (a table) + x e. In these
coordinates a floor far below float32's resolution of theta is not lost to rounding: an update smaller than half
a unit in the last place of theta would leave theta unchanged, and exact BCP would seem to stop at 4e-8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from kdsim import config
from kdsim.engines.base import DTYPES, SGD, Lane, State, check_device
from kdsim.engines.recorder import Record, Recorder, Recording, join
from kdsim.population import Population
from kdsim.rng import MAX_VISITS, Draws, Stream, permuted_index, uniform_index
from kdsim.students.base import LinearStudent
from kdsim.supervision.base import Batch, Supervision

CHUNK_VISITS = {"cpu": 1 << 17, "cuda": 1 << 21}
"""Visits (replicas x steps x batch) drawn at a time: small enough for a CPU's caches, large enough for a GPU."""
SHARD_REPLICAS = {"cpu": 640}
"""Replicas walked by one thread. Shards depend on the lanes alone, never on the machine, so paths do not either.

Threads over shards, one torch thread each: a step is a dozen operations of some 20 microseconds, and a thread team
inside each of them loses more at its barriers than it gains, ruinously so when another process wants a core.
"""


class TorchBatched:
    """The engine that every other one is checked against. See `kdsim.engines.base.Engine`."""

    name: ClassVar[str] = "torch"

    def run(
        self,
        student: LinearStudent,
        population: Population,
        lanes: Sequence[Lane],
        sgd: SGD,
        recording: Recording,
        *,
        reference: Tensor,
        anchor: Tensor,
        directions: Tensor | None = None,
        device: str = "cpu",
        state: State | None = None,
        stop: Callable[[int], bool] | None = None,
    ) -> tuple[Record | None, State]:
        """Walk from zero, or from `state`, to `sgd.steps`. See `Engine.run`."""
        where = check_device(device)
        visits = sgd.steps * sgd.batch_size
        config.require(visits < MAX_VISITS, "steps * batch_size", visits, f"below {MAX_VISITS}")
        shards = []
        first = 0
        for part in split(lanes, SHARD_REPLICAS.get(where.type)):
            rows = slice(first, first + sum(lane.replicas for lane in part))
            first = rows.stop
            shard = _Shard(student, population, part, sgd, recording, reference, anchor, directions, where)
            shards.append(shard.begin() if state is None else shard.resume(state, rows))
        step = 0 if state is None else state.step
        chunk = max(1, CHUNK_VISITS.get(where.type, 1 << 17) // (shards[0].replicas * sgd.batch_size))
        with _threads(len(shards)) as each:
            while step < sgd.steps:
                # Chunks end at multiples of `chunk`, so a resumed run cuts them where an undisturbed one does.
                start, step = step, min((step // chunk + 1) * chunk, sgd.steps)
                each(lambda shard, start=start, end=step: shard.advance(start, end), shards)
                if stop is not None and stop(step) and step < sgd.steps:
                    return None, _state(step, shards)
        return join([shard.recorder.record() for shard in shards]), _state(step, shards)


def split(lanes: Sequence[Lane], limit: int | None) -> list[list[Lane]]:
    """Cut the replica axis of the lanes into parts of nearly equal size, at most `limit` replicas each."""
    total = sum(lane.replicas for lane in lanes)
    count = 1 if limit is None else -(-total // limit)
    ends = [total * (number + 1) // count for number in range(count)]
    parts: list[list[Lane]] = [[] for _ in range(count)]
    done, part = 0, 0
    for lane in lanes:
        first = 0
        while first < lane.replicas:
            if done == ends[part]:
                part += 1
            size = min(lane.replicas - first, ends[part] - done)
            parts[part].append(replace(lane, replicas=size, first_replica=lane.first_replica + first))
            first, done = first + size, done + size
    return parts


@contextmanager
def _threads(shards: int) -> Iterator[Callable[[Callable[[_Shard], None], Sequence[_Shard]], None]]:
    """A function that applies another to all shards, on as many threads as torch was given."""
    workers = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(min(workers, shards), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield lambda function, items: [future.result() for future in [pool.submit(function, i) for i in items]]
    finally:
        torch.set_num_threads(workers)


def _state(step: int, shards: Sequence[_Shard]) -> State:
    recorders = [shard.recorder.state() for shard in shards]
    joined = {name: torch.cat([state[name] for state in recorders], dim=-1) for name in recorders[0]}
    return State(step, torch.cat([shard.error for shard in shards]), joined)


class _Shard:
    """A block of replicas: its samples, its parameters and its recorder."""

    def __init__(
        self,
        student: LinearStudent,
        population: Population,
        lanes: Sequence[Lane],
        sgd: SGD,
        recording: Recording,
        reference: Tensor,
        anchor: Tensor,
        directions: Tensor | None,
        device: torch.device,
    ) -> None:
        dtype = DTYPES[sgd.dtype]
        self.batch_size = sgd.batch_size
        self.replicas = sum(lane.replicas for lane in lanes)
        self.samples = _Samples(population, lanes, sgd, dtype, device)
        self.recorder = Recorder(
            recording, student, population, reference, self.replicas, sgd.steps, dtype, device, directions
        )
        self.outputs = (population.x @ reference.T).to(device, dtype)  # (N, K)
        step_size = torch.cat([torch.full((lane.replicas, 1, 1), lane.step_size, dtype=dtype) for lane in lanes])
        pull_to = (anchor - reference).to(device, dtype)
        self.update = _Update(student, step_size.to(device), sgd.batch_size, pull_to)
        self.error = (-reference).to(device, dtype).repeat(self.replicas, 1, 1)  # theta = 0

    def begin(self) -> Self:
        self.recorder.observe(0, self.error)
        return self

    def resume(self, state: State, rows: slice) -> Self:
        self.error.copy_(state.error[rows])
        self.recorder.restore({name: tensor[..., rows] for name, tensor in state.recorder.items()})
        return self

    def advance(self, start: int, end: int) -> None:
        """Walk from step `start` to step `end`."""
        index, q = self.samples.chunk(start, end)
        for t in range(end - start):
            visits = slice(t * self.batch_size, (t + 1) * self.batch_size)
            visited = index[:, visits]
            self.update(self.error, self.samples.x[visited], self.outputs[visited], q[:, visits])
            self.recorder.observe(start + t + 1, self.error)


class _Update:
    """One SGD step on all replicas, in place: error <- error - step_size * gradient."""

    def __init__(self, student: LinearStudent, step_size: Tensor, batch_size: int, pull_to: Tensor) -> None:
        """step_size (R, 1, 1); pull_to = anchor - reference (K, d), where the ridge pulls the error."""
        self.student = student
        self.rate = -step_size / batch_size
        self.pull = step_size * student.ridge
        self.keep = 1 - self.pull
        self.pull_to = pull_to.expand(len(step_size), *pull_to.shape)
        self.centred = not pull_to.any().item()

    def __call__(self, error: Tensor, x: Tensor, outputs: Tensor, q: Tensor) -> None:
        """error (R, K, d), x (R, b, d), outputs of the reference (R, b, K), q (R, b, K)."""
        outputs = torch.baddbmm(outputs, x, error.transpose(1, 2))
        residual = self.student.output_gradient(outputs, q).mul_(self.rate).transpose(1, 2)  # (R, K, b)
        if self.student.ridge:
            if self.centred:
                error.mul_(self.keep)
            else:
                error.lerp_(self.pull_to, self.pull)
        if x.shape[1] == 1:
            error.addcmul_(residual, x)  # outer product
        else:
            error.baddbmm_(residual, x)


@dataclass(frozen=True)
class _Family:
    """Rows of the replica axis whose supervisions differ in level only, served by one `sample` call."""

    supervision: Supervision
    rows: Tensor


class _Samples:
    """Indices, inputs and targets of all replicas, a chunk of steps at a time."""

    def __init__(
        self, population: Population, lanes: Sequence[Lane], sgd: SGD, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.sgd, self.dtype, self.device = sgd, dtype, device
        self.size = population.size
        self.x = population.x.to(device, dtype)
        self.p = None if population.p is None else population.p.to(device, dtype)
        self.y = None if population.y is None else population.y.to(device)
        self.classes = population.classes
        if sgd.training_set is not None:
            config.require_between("training_set", sgd.training_set, 1, population.size)
        pairs = [(lane.seed, lane.first_replica + r) for lane in lanes for r in range(lane.replicas)]
        # Lanes of one study share seed and replica numbers: their common random numbers are generated once.
        unique = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        keys = torch.tensor(list(unique), dtype=torch.int64, device=device)  # (U, 2)
        self.seed, self.replica = keys[:, :1], keys[:, 1:]
        self.rows = torch.tensor([unique[pair] for pair in pairs], device=device)  # (R,)
        self.families = _families(lanes, device)

    def chunk(self, first_step: int, last_step: int) -> tuple[Tensor, Tensor]:
        """Pool indices (R, V) and targets (R, V, K) of the visits of these steps."""
        start, end = first_step * self.sgd.batch_size, last_step * self.sgd.batch_size
        visit = torch.arange(start, end, device=self.device)[None, :]  # (1, V)
        index = self._index(visit, start)[self.rows]  # (R, V)
        q = torch.empty(*index.shape, self.classes, dtype=self.dtype, device=self.device)
        for family in self.families:
            q[family.rows] = self._targets(family, index[family.rows], visit, start)
        return index, q

    def _index(self, visit: Tensor, start: int) -> Tensor:
        """Pool index of each visit of each distinct (seed, replica), (U, V)."""
        size = self.sgd.training_set or self.size
        if self.sgd.index == "permutation":
            index = permuted_index(self.seed, self.replica, visit, size)
        else:
            draws = Draws(self.seed, self.replica, visit, Stream.INDEX, self.dtype, start=start)
            index = uniform_index(draws.words(0), size)
        return index if self.sgd.training_set is None else self.members(index)

    def members(self, number: Tensor) -> Tensor:
        """Pool index of member `number` (U, V) of each training set: a permutation of the pool, keyed apart."""
        return permuted_index(self.seed, self.replica, number, self.size, Stream.SPLIT)

    def _targets(self, family: _Family, index: Tensor, visit: Tensor, start: int) -> Tensor:
        rows = self.rows[family.rows]
        if self.sgd.targets == "frozen":  # keyed by pool index: every visit of a point draws the same target
            draws = Draws(self.seed[rows], self.replica[rows], index, Stream.LABEL, self.dtype)
        else:
            draws = Draws(self.seed, self.replica, visit, Stream.LABEL, self.dtype, start=start, rows=rows)
        batch = Batch(
            index=index,
            p=None if self.p is None else self.p[index],
            y=None if self.y is None else self.y[index],
            x=self.x[index] if family.supervision.uses_x else None,
        )
        return family.supervision.sample(batch, draws).q


def _families(lanes: Sequence[Lane], device: torch.device) -> list[_Family]:
    groups: dict[str, list[int]] = {}
    for number, lane in enumerate(lanes):
        form = config.encode(lane.supervision)
        form.pop(lane.supervision.level_field, None)
        groups.setdefault(str(sorted(form.items())), []).append(number)
    first_row = [0]
    for lane in lanes:
        first_row.append(first_row[-1] + lane.replicas)
    families = []
    for members in groups.values():
        rows = torch.cat([torch.arange(first_row[m], first_row[m + 1]) for m in members]).to(device)
        supervisions, counts = [lanes[m].supervision for m in members], [lanes[m].replicas for m in members]
        families.append(_Family(type(supervisions[0]).stacked(supervisions, counts, device), rows))
    return families
