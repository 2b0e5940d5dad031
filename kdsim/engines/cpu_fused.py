"""SGD of linear students in compiled kernels: 16 replicas to a vector, the loop over steps inside.

It draws the random numbers of `kdsim.rng` in the order of the torch engine, and walks the same path. The kernels are in
`kdsim.engines.fused`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from kdsim.config import ConfigError, kind_of
from kdsim.engines.base import DTYPES, SGD, Lane, State, check_run, reason, require_linear, require_plain
from kdsim.engines.fused.compilation import unavailable
from kdsim.engines.fused.draws import Permutation
from kdsim.engines.fused.metrics import Points, pool_metrics
from kdsim.engines.fused.simd import LANES
from kdsim.engines.fused.targets import FAMILIES
from kdsim.engines.fused.walk import Groups, Plan, Pool, aligned, scratch, walk
from kdsim.engines.recorder import Record, Recorder, Recording
from kdsim.engines.shards import count_replicas, split
from kdsim.engines.shards import walk as walk_shards
from kdsim.population import Population
from kdsim.rng import MASK, feistel_sides
from kdsim.students import LeastSquares, SoftmaxRegression
from kdsim.students.base import LinearStudent
from kdsim.students.network import NetworkStudent
from kdsim.supervision import SUPERVISIONS

SHARD_REPLICAS = 128
"""Replicas walked by one thread. Shards depend on the lanes alone, never on the machine, so paths do not either."""
CHUNK_VISITS = 1 << 22
"""Visits (replicas x steps x batch) of a shard between two calls of `stop`: about a tenth of a second."""
NEAR_BYTES = 1 << 19
"""A table up to this size stays in the cache next to the core, and rows need not be asked for ahead."""
STUDENTS = (SoftmaxRegression, LeastSquares)


class CpuFused:
    """The fastest engine on a CPU (benchmarks/results/sgd.json). See `kdsim.engines.base.Engine`."""

    name: ClassVar[str] = "cpu_fused"

    def refusal(
        self,
        student: LinearStudent | NetworkStudent,
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
            self._require(type(student) in STUDENTS, "student", student, "softmax-regression or least-squares")
            for lane in lanes:
                known = kind_of(type(lane.supervision)) in FAMILIES and type(lane.supervision) in SUPERVISIONS
                self._require(known, "supervision", lane.supervision, ", ".join(FAMILIES))
            if device != "cpu":
                raise ConfigError(f"engine = {self.name!r} is not allowed for device = {device!r}: must be cpu")
            check_run(student, population, lanes, sgd, device)
            if why := unavailable():  # last: then this alone is why another engine runs
                raise ConfigError(f"engine = {self.name!r} is not allowed: {why}, and its kernels cannot be compiled")

        return reason(check)

    def _require(self, holds: bool, what: str, value: object, allowed: str) -> None:
        if not holds:
            name = kind_of(type(value))
            raise ConfigError(f"engine = {self.name!r} is not allowed for the {what} {name!r}: must be {allowed}")

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
        dtype = DTYPES[sgd.dtype]
        pool, plan = _pool(population, reference, dtype), _plan(student, population, sgd)
        points = _points(student, population, reference, dtype)
        parts = split(lanes, SHARD_REPLICAS)
        chunk = max(1, CHUNK_VISITS // (count_replicas(parts[0]) * sgd.batch_size))

        def make(part: Sequence[Lane], found: State | None) -> _Shard:
            recorder = _Recorder(
                recording, student, population, reference, count_replicas(part), sgd.steps, dtype,
                torch.device("cpu"), directions,
            )  # fmt: skip
            return _Shard(pool, plan, points, part, recorder, reference, anchor, found)

        return walk_shards(parts, make, sgd.steps, chunk, state, stop)


def _pool(population: Population, reference: Tensor, dtype: torch.dtype) -> Pool:
    """The rows x, reference outputs, p of the pool, padded to whole vectors."""
    outputs = population.x @ reference.T
    rows = torch.cat([population.x.to(torch.float64), outputs, population.p], 1).to(dtype).numpy()
    width = -(-rows.shape[1] // LANES) * LANES
    table = aligned(len(rows) * width, rows.dtype)
    table.reshape(-1, width)[:, : rows.shape[1]] = rows
    return Pool(
        table=table,
        size=population.size,
        width=width,
        features=population.features,
        classes=population.classes,
        far=table.nbytes > NEAR_BYTES,
    )


def _plan(student: LinearStudent, population: Population, sgd: SGD) -> Plan:
    return Plan(
        batch_size=sgd.batch_size,
        permuted=sgd.index == "permutation",
        members=sgd.training_set or 0,
        frozen=sgd.targets == "frozen",
        quadratic=student.quadratic,
        ridge=float(student.ridge),
        epoch=_permutation(sgd.training_set or population.size),
        split=_permutation(population.size),
    )


def _permutation(size: int) -> Permutation:
    left, right = feistel_sides(size)
    return Permutation(*map(np.uint32, (size, left, right, (1 << 32) // left, (1 << 32) // right)))


def _groups(lanes: Sequence[Lane]) -> Groups:
    """Lanes cut into groups of 16; what is missing in the last group of a lane is filled with further replicas."""
    each = [(lane, first) for lane in lanes for first in range(0, lane.replicas, LANES)]
    numbers = np.array([lane.first_replica + first for lane, first in each])[:, None] + np.arange(LANES)
    levels = [lane.supervision.level for lane, _ in each]
    return Groups(
        numbers=(numbers & MASK).astype(np.uint32).ravel(),
        key0=np.array([lane.seed & MASK for lane, _ in each], np.uint32),
        key1=np.array([lane.seed >> 32 & MASK for lane, _ in each], np.uint32),
        family=np.array([FAMILIES.index(kind_of(type(lane.supervision))) for lane, _ in each]),
        level=np.array([0.0 if level is None else level for level in levels], np.float64),
        step_size=np.array([lane.step_size for lane, _ in each], np.float64),
    )


def _points(student: LinearStudent, population: Population, reference: Tensor, dtype: torch.dtype) -> Points:
    """The pool for `pool_metrics`; tables in float64 first, as the recorder has them."""
    optimum = student.realisable_optimum(population)
    best = population.x @ (reference if optimum is None else optimum).T
    outputs = population.x @ reference.T
    prediction = student.probabilities(best)
    tables = (population.x, outputs, outputs - best, population.p, prediction, prediction.log())
    arrays = [np.ascontiguousarray(table.to(dtype).numpy()) for table in tables]
    return Points(
        *arrays,  # type: ignore[arg-type, misc]  # six arrays, the first six fields
        best_risk=0.0 if optimum is not None else student.loss(best, population.p).mean().item(),
        realisable=optimum is not None,
        quadratic=student.quadratic,
    )


class _Recorder(Recorder):
    """Looks at the whole pool through `pool_metrics`."""

    def use(self, points: Points, theta: np.ndarray, columns: Tensor) -> None:
        """Parameters in groups, and the places of the replicas among them (R,)."""
        self.points, self.theta, self.columns = points, theta, columns
        self.groups = theta.size // (points.x.shape[1] * points.p.shape[1] * LANES)
        self.change = aligned(5 * points.p.shape[1] * LANES, theta.dtype)

    def _pool_metrics(self, error: Tensor) -> Tensor:
        out = np.empty((3, self.groups * LANES))
        pool_metrics(self.points, self.theta, self.groups, self.change, out.ravel())
        return torch.from_numpy(out)[:, self.columns]


class _Shard:
    """A block of replicas: its parameters in groups of 16, and its recorder."""

    def __init__(
        self,
        pool: Pool,
        plan: Plan,
        points: Points,
        lanes: Sequence[Lane],
        recorder: _Recorder,
        reference: Tensor,
        anchor: Tensor,
        found: State | None,
    ) -> None:
        self.pool, self.plan, self.recorder = pool, plan, recorder
        self.groups = _groups(lanes)
        self.buffers: dict[str, Tensor] = {}
        places = [np.arange(lane.replicas) for lane in lanes]
        firsts = np.cumsum([0] + [-(-lane.replicas // LANES) * LANES for lane in lanes])
        self.columns = torch.from_numpy(np.concatenate([f + p for f, p in zip(firsts, places, strict=False)]))  # (R,)
        dtype = pool.table.dtype
        shape = (len(self.groups.family), pool.classes, pool.features, LANES)
        self.theta = aligned(int(np.prod(shape)), dtype)
        self.grouped = torch.from_numpy(self.theta).view(shape)
        self.parameters = reference.shape
        pull_to = anchor - reference
        self.pull_to, self.centred = pull_to.flatten().numpy(), not pull_to.any().item()
        self.work = scratch(pool, dtype)
        recorder.use(points, self.theta, self.columns)
        self.wanted = recorder.sparse_events()
        self.sparse = sorted(self.wanted)
        self.samples = np.array(sorted(recorder.events - self.wanted), np.int64)
        flat = (-reference).to(self.grouped.dtype).repeat(len(self.groups.numbers), 1, 1)  # theta = 0
        if found is not None:
            flat[self.columns] = found.error.to(flat.dtype)
        self.grouped.copy_(flat.view(-1, LANES, *self.parameters).permute(0, 2, 3, 1))

    @property
    def error(self) -> Tensor:
        """theta - reference, (R, K, d)."""
        flat = self.grouped.permute(0, 3, 1, 2).reshape(-1, *self.parameters)
        return flat[self.columns]

    def advance(self, start: int, end: int) -> None:
        """Walk from step `start` to step `end`, stopping where the recorder wants to see the parameters."""
        stops = [start, *(step for step in self.sparse if start < step < end), end]
        for first, last in pairwise(stops):
            low, high = np.searchsorted(self.samples, (first, last), side="right")
            samples = self.samples[low:high]
            distances = np.empty((len(samples), len(self.groups.numbers)))
            walk(
                self.pool, self.plan, self.groups, first, last, self.theta, self.pull_to, self.centred, samples,
                distances.ravel(), self.work,
            )  # fmt: skip
            self.recorder.observe_distances(samples.tolist(), torch.from_numpy(distances)[:, self.columns])
            if last in self.wanted:  # else the end of a chunk, whose distance may be among the samples
                self.recorder.observe(last, self.error)
