"""Replica-batched SGD in torch: all replicas of all lanes are one (R, K, d) tensor, on any device.

Random numbers and targets do not depend on theta, so they are drawn for a chunk of steps at a
time; the loop over steps is left with a gather, two small batched products and the residual.

Parameters are held as the error e = theta - reference, and the outputs as x reference (a table) + x e. In these
coordinates a floor far below float32's resolution of theta is not lost to rounding: an update smaller than half
a unit in the last place of theta would leave theta unchanged, and exact BCP would seem to stop at 4e-8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.engines.base import DTYPES, SGD, Lane, State, check_run, reason, require_linear, require_plain
from kdsim.engines.recorder import Record, Recorder, Recording
from kdsim.engines.samples import Samples
from kdsim.engines.shards import count_replicas, split, walk
from kdsim.population import Population
from kdsim.students.base import LinearStudent

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
            check_run(student, population, lanes, sgd, device)

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
        if state is not None:
            state.require_run(student, population, lanes, sgd)
        where = torch.device(device)
        parts = split(lanes, SHARD_REPLICAS.get(where.type))
        chunk = max(1, CHUNK_VISITS.get(where.type, 1 << 17) // (count_replicas(parts[0]) * sgd.batch_size))

        def make(part: Sequence[Lane], found: State | None) -> _Shard:
            return _Shard(student, population, part, sgd, recording, reference, anchor, directions, where, found)

        return walk(parts, make, sgd.steps, chunk, state, stop)


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
        found: State | None,
    ) -> None:
        dtype, replicas = DTYPES[sgd.dtype], count_replicas(lanes)
        self.batch_size = sgd.batch_size
        self.samples = Samples(population, lanes, sgd, dtype, device)
        self.recorder = Recorder(
            recording, student, population, reference, replicas, sgd.steps, dtype, device, directions
        )
        self.outputs = (population.x @ reference.T).to(device, dtype)  # (N, K)
        step_size = torch.cat([torch.full((lane.replicas, 1, 1), lane.step_size, dtype=dtype) for lane in lanes])
        pull_to = (anchor - reference).to(device, dtype)
        self.update = _Update(student, step_size.to(device), sgd.batch_size, pull_to)
        if found is None:
            self.error = (-reference).to(device, dtype).repeat(replicas, 1, 1)  # theta = 0
        else:
            self.error = found.error.to(device, dtype, copy=True)
        self.buffers: dict[str, Tensor] = {}

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
