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
from dataclasses import replace
from typing import ClassVar, Self, TypeVar

import torch
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.engines.base import DTYPES, SGD, Lane, State, check_run, reason, require_linear, require_plain
from kdsim.engines.recorder import Record, Recorder, Recording, join
from kdsim.engines.samples import Samples as _Samples
from kdsim.population import Population
from kdsim.students.base import LinearStudent

CHUNK_VISITS = {"cpu": 1 << 17, "cuda": 1 << 21}
"""Visits (replicas x steps x batch) drawn at a time: small enough for a CPU's caches, large enough for a GPU."""
SHARD_REPLICAS = {"cpu": 640}
"""Replicas walked by one thread. Shards depend on the lanes alone, never on the machine, so paths do not either.

Threads over shards, one torch thread each: a step is a dozen operations of some 20 microseconds, and a thread team
inside each of them loses more at its barriers than it gains, ruinously so when another process wants a core.
"""

Item, Result = TypeVar("Item"), TypeVar("Result")


class TorchBatched:
    """The engine that every other one is checked against. See `kdsim.engines.base.Engine`."""

    name: ClassVar[str] = "torch"

    def refusal(
        self,
        student: LinearStudent,
        population: Population,
        lanes: Sequence[Lane],
        sgd: SGD,
        recording: Recording,
        device: str = "cpu",
    ) -> str | None:
        """See `Engine.refusal`."""

        def check() -> None:
            require_linear(self.name, student)
            require_plain(self.name, sgd)
            check_run(population, sgd, device)

        return reason(check)

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
        if refused := self.refusal(student, population, lanes, sgd, recording, device):
            raise ConfigError(refused)
        where = torch.device(device)
        shards = []
        first = 0
        for part in split(lanes, SHARD_REPLICAS.get(where.type)):
            rows = slice(first, first + sum(lane.replicas for lane in part))
            first = rows.stop
            shard = _Shard(student, population, part, sgd, recording, reference, anchor, directions, where)
            shards.append(shard if state is None else shard.resume(state, rows))
        step = 0 if state is None else state.step
        chunk = max(1, CHUNK_VISITS.get(where.type, 1 << 17) // (shards[0].replicas * sgd.batch_size))
        with threads(len(shards)) as each:
            if state is None:  # there, since sums are rounded as the number of torch's threads has it
                each(lambda shard: shard.recorder.observe(0, shard.error), shards)
            while step < sgd.steps:
                # Chunks end at multiples of `chunk`, so a resumed run cuts them where an undisturbed one does.
                start, step = step, min((step // chunk + 1) * chunk, sgd.steps)
                each(lambda shard, start=start, end=step: shard.advance(start, end), shards)
                if stop is not None and stop(step) and step < sgd.steps:
                    return None, _state(step, shards)
        return join((shard.recorder.record() for shard in shards), first), _state(step, shards)


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
def threads(shards: int) -> Iterator[Callable[[Callable[[Item], Result], Sequence[Item]], list[Result]]]:
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

    def resume(self, state: State, rows: slice) -> Self:
        self.recorder.restore({name: tensor[..., rows] for name, tensor in state.recorder.items()})
        self.error.copy_(state.error[rows])
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
        self.pull_to = pull_to.expand(len(step_size), *pull_to.shape)
        self.centred = not pull_to.any().item()

    def __call__(self, error: Tensor, x: Tensor, outputs: Tensor, q: Tensor) -> None:
        """error (R, K, d), x (R, b, d), outputs of the reference (R, b, K), q (R, b, K)."""
        outputs = torch.baddbmm(outputs, x, error.transpose(1, 2))
        residual = self.student.output_gradient(outputs, q).mul_(self.rate).transpose(1, 2)  # (R, K, b)
        if self.student.ridge:
            if self.centred:
                error.addcmul_(error, self.pull, value=-1)  # 1 - pull would round a small pull away
            else:
                error.lerp_(self.pull_to, self.pull)
        if x.shape[1] == 1:
            error.addcmul_(residual, x)  # outer product
        else:
            error.baddbmm_(residual, x)
