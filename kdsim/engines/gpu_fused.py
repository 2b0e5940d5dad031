"""Replica-batched SGD of linear students as one persistent Triton kernel: a replica a program, on a GPU.

The torch engine launches a dozen kernels a step. Here one launch walks all replicas over a whole segment of steps, from
one step at which the recorder wants the whole error to the next; parameters stay in registers, random numbers and
targets are drawn inside, and squared distances at the tail samples in between are written by the kernel. Coordinates,
random numbers and formulas are those of the torch engine: float64 paths agree to rounding.

Checked in Triton's interpreter (a CPU, TRITON_INTERPRET=1) and compiled for GPUs; not yet run on one
(`python -m benchmarks.gpu` does that). On consumer GPUs, whose float64 is slow, expect Dirichlet targets to be slow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdsim import config
from kdsim.config import ConfigError
from kdsim.engines.base import DTYPES, SGD, Lane, State, check_run, reason
from kdsim.engines.recorder import Record, Recorder, Recording
from kdsim.engines.shards import count_replicas
from kdsim.population import Population, require_points
from kdsim.rng import MASK, feistel_sides
from kdsim.students import LeastSquares, LinearStudent, SoftmaxRegression
from kdsim.students.network import NetworkStudent
from kdsim.supervision import Annotators, Dirichlet, Exact, Independent, OneHot, Supervision, TwoPoint

FAMILIES: dict[type[Supervision], int] = {
    Exact: 1,
    OneHot: 2,
    Annotators: 4,
    Dirichlet: 8,
    TwoPoint: 16,
    Independent: 32,
}
"""The codes of `kdsim.engines.triton_targets`."""
STUDENTS: tuple[type[LinearStudent], ...] = (SoftmaxRegression, LeastSquares)

MOST_PARAMETERS = 8192
"""Largest K d of a replica, both rounded up to powers of two: what registers hold without spilling much."""
MOST_CLASSES = 128
"""Largest K, rounded up to a power of two: targets of a chunk of visits are held at once."""
MOST_POINTS = 1 << 31
CHUNK = 16
"""Visits whose random numbers and targets are drawn at once; half of it with Dirichlet targets, which take many
registers. Paths do not depend on it. Chosen by the compiler's counts (`python -m benchmarks.gpu_code`), not timed."""
LAUNCH_VISITS = 1 << 26
"""Visits (replicas x steps x batch) of one launch at most: `stop` is asked between launches."""

SGD_FIELDS = frozenset({"steps", "batch_size", "index", "targets", "dtype", "training_set"})
LANE_FIELDS = frozenset({"supervision", "step_size", "seed", "replicas", "first_replica"})


class GpuFused:
    """One launch for many steps of all replicas. See `kdsim.engines.base.Engine`; `refusal` says what it cannot run."""

    name: ClassVar[str] = "gpu_fused"

    def refusal(
        self,
        student: LinearStudent | NetworkStudent,
        population: Population,
        lanes: Sequence[Lane],
        sgd: SGD,
        recording: Recording,
        device: str = "cpu",
    ) -> str | None:
        """Why this engine cannot run a configuration here. See `Engine.refusal`."""
        if no_pool := reason(lambda: require_points(population)):
            return f"engine = {self.name!r} is not allowed here: {no_pool}"
        refusals = (
            _student_refusal(student, population),
            _lanes_refusal(lanes),
            _unknown_settings("sgd", sgd, SGD_FIELDS),
            _machine_refusal(device),
        )
        for refused in refusals:
            if refused is not None:
                return f"engine = {self.name!r} is not allowed here: {refused}"
        return reason(lambda: check_run(student, population, lanes, sgd, device))

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
        """Walk from zero, or from `state`, to `sgd.steps`. See `Engine.run`.

        Raises:
            ConfigError: what `refusal` says.
        """
        if refused := self.refusal(student, population, lanes, sgd, recording, device):
            raise ConfigError(refused)
        if state is not None:
            state.require_run(student, population, lanes, sgd)
        where, dtype = torch.device(device), DTYPES[sgd.dtype]
        replicas = count_replicas(lanes)
        recorder = Recorder(recording, student, population, reference, replicas, sgd.steps, dtype, where, directions)
        kernel = _Kernel(student, population, lanes, sgd, reference, anchor, where)
        if state is None:
            step, error = 0, (-reference).to(where, dtype).repeat(replicas, 1, 1)  # theta = 0
            recorder.observe(0, error)
        else:
            step, error = state.step, state.error.to(where, dtype, copy=True).contiguous()
            recorder.restore(state.recorder)
        longest = max(1, LAUNCH_VISITS // (replicas * sgd.batch_size))
        for segment in segments(step, sgd.steps, recorder.sparse_events(), recorder.tail, longest):
            dist_sq = kernel.walk(segment, recording.tail_stride, error)
            recorder.observe_distances(segment.samples, dist_sq)
            if segment.observed:
                recorder.observe(segment.end, error)
            if stop is not None and stop(segment.end) and segment.end < sgd.steps:
                return None, State(segment.end, error, recorder.state())
        return recorder.record(), State(sgd.steps, error, recorder.state())


@dataclass(frozen=True)
class Segment:
    """The steps of one launch.

    Attributes:
        start, end: it walks from step `start` to step `end`.
        samples: steps in (start, end] whose squared distance the kernel writes.
        observed: whether the recorder wants the whole error at `end`.
    """

    start: int
    end: int
    samples: list[int]
    observed: bool


def segments(start: int, steps: int, sparse: frozenset[int], tail: Sequence[int], longest: int) -> list[Segment]:
    """Cut the steps after `start` into launches that end at every step in `sparse` and are at most `longest` long.

    Args:
        tail: steps, in increasing order and evenly spaced, whose squared distance is recorded.
    """
    cuts = set(range(start - start % longest, steps, longest)) | sparse | {steps}
    ends = sorted(step for step in cuts if start < step <= steps)
    parts = []
    for first, last in zip([start, *ends], ends, strict=False):
        samples = list(tail[bisect_right(tail, first) : bisect_right(tail, last)])
        observed = last in sparse
        if observed and samples and samples[-1] == last:
            samples.pop()  # the recorder takes it from the error
        parts.append(Segment(first, last, samples, observed))
    return parts


class _Kernel:
    """The kernel with the tables of one run on its device."""

    def __init__(
        self,
        student: LinearStudent,
        population: Population,
        lanes: Sequence[Lane],
        sgd: SGD,
        reference: Tensor,
        anchor: Tensor,
        device: torch.device,
    ) -> None:
        from kdsim.engines.triton_sgd import sgd_segment

        self.function, self.device = sgd_segment, device
        dtype = DTYPES[sgd.dtype]
        softmax = isinstance(student, SoftmaxRegression)
        pull_to = (anchor - reference).to(device, dtype).contiguous()
        self.tables = _tables(population, reference, softmax, dtype, device)
        self.replicas = count_replicas(lanes)
        keys, families, levels = _lane_tables(student, lanes, sgd.batch_size, dtype)
        self.tables += (pull_to, keys.to(device), families.to(device), levels.to(device))
        self.constants = constants(student, population, lanes, sgd, bool(pull_to.any()))

    def walk(self, segment: Segment, stride: int, error: Tensor) -> Tensor:
        """Walk `error` (R, K, d) in place over the segment; the squared distances at its samples, (S, R) float64."""
        first, last = (segment.samples[0], segment.samples[-1]) if segment.samples else (-1, -1)
        # In a tensor: as arguments, numbers such as 1 or multiples of 16 would each compile another kernel.
        numbers = torch.tensor([segment.start, segment.end, first, last, stride, self.replicas], device=self.device)
        dist_sq = torch.empty(len(segment.samples), self.replicas, dtype=torch.float64, device=self.device)
        cuda = self.device.type == "cuda"
        with torch.cuda.device(self.device) if cuda else contextlib.nullcontext():
            self.function[(self.replicas,)](error, *self.tables, numbers, dist_sq, **self.constants)
        return dist_sq


def constants(
    student: LinearStudent, population: Population, lanes: Sequence[Lane], sgd: SGD, decentred: bool
) -> dict[str, Any]:
    """Compile-time arguments of `sgd_segment`, and its options. `decentred`: the ridge pulls off the reference."""
    import triton.language as tl

    classes, features = padded(population.classes), padded(population.features)
    left, right = feistel_sides(population.size)
    members_left, members_right = feistel_sides(sgd.training_set or population.size)
    outer = 16 // DTYPES[sgd.dtype].itemsize
    features = max(features, outer)
    families = {FAMILIES[type(lane.supervision)] for lane in lanes}
    numbers = classes * max(features, CHUNK) * 4 // outer
    return {
        "K": population.classes,
        "D": population.features,
        "KP": classes,
        "INNER": features // outer,
        "OUTER": outer,  # 16 bytes: what a thread loads at once
        "SIZE": population.size,
        "LEFT": left,
        "RIGHT": right,
        "MEMBERS": sgd.training_set or 0,
        "MEMBERS_LEFT": members_left,
        "MEMBERS_RIGHT": members_right,
        "BATCH": sgd.batch_size,
        "PERMUTATION": sgd.index == "permutation",
        "FROZEN": sgd.targets == "frozen",
        "SOFTMAX": isinstance(student, SoftmaxRegression),
        "RIDGE": 0 if not student.ridge else 2 if decentred else 1,
        "FAMILIES": sum(families),
        "CHUNK": CHUNK // 2 if FAMILIES[Dirichlet] in families else CHUNK,
        "DTYPE": tl.float64 if sgd.dtype == "float64" else tl.float32,
        "num_warps": min(8, max(1, numbers // 1024)),  # some 32 registers of a thread for theta
        "enable_fp_fusion": True,
    }


def padded(count: int) -> int:
    """The least power of two that holds `count`, at least 2."""
    return 1 << max(1, (count - 1).bit_length())


def _tables(
    population: Population, reference: Tensor, softmax: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """x (N, DP), outputs of the reference, p and its running sums (N, KP each), padded as `sgd_segment` wants them."""
    p = population.p.to(dtype)
    # The running sums are those of `kdsim.supervision.sampling.cumulative`: a scan over a leading axis is sequential.
    sums = p.T.contiguous().cumsum(0).T
    nowhere = float("-inf") if softmax else 0.0
    classes = padded(population.classes)
    tables = (
        _pad(population.x.to(dtype), max(padded(population.features), 16 // dtype.itemsize), 0.0),
        _pad((population.x @ reference.T).to(dtype), classes, nowhere),
        _pad(p, classes, 0.0),
        _pad(sums, classes, sums[:, -1:]),
    )
    return tuple(table.to(device) for table in tables)


def _pad(table: Tensor, width: int, value: float | Tensor) -> Tensor:
    """(N, m) -> (N, width), the new columns filled with `value`."""
    wide = table.new_empty(len(table), width)
    wide[:] = value
    wide[:, : table.shape[1]] = table
    return wide


def _lane_tables(
    student: LinearStudent, lanes: Sequence[Lane], batch_size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys (R, 3) int64, families (R, 3) int32 and levels (R, 3) of the replicas. See `sgd_segment`."""
    keys, families, levels = [], [], []
    for lane in lanes:
        number = lane.first_replica + torch.arange(lane.replicas)
        seed = torch.full_like(number, lane.seed)
        keys.append(torch.stack([seed & MASK, (seed >> 32) & MASK, number], -1))
        code = FAMILIES[type(lane.supervision)]
        level, fewest, most = _level(lane.supervision, dtype)
        families.append(torch.tensor([[code, fewest, most]], dtype=torch.int32).expand(lane.replicas, -1))
        step_size = torch.tensor(lane.step_size, dtype=dtype)
        row = torch.stack([level, -step_size / batch_size, step_size * student.ridge])
        levels.append(row.expand(lane.replicas, -1))
    return torch.cat(keys), torch.cat(families).contiguous(), torch.cat(levels).contiguous()


def _level(supervision: Supervision, dtype: torch.dtype) -> tuple[Tensor, int, int]:
    """The family's level as the kernel wants it, and the fewest and most labels of annotators."""
    level = torch.tensor(supervision.level or 0.0, dtype=torch.float64)
    if isinstance(supervision, Annotators):
        fewest, most = level.floor(), level.ceil()
        keep_fewest = fewest * ((fewest + 1) / level - 1)  # as in Annotators.sample
        return keep_fewest.to(dtype), int(fewest), int(most)
    if isinstance(supervision, Dirichlet):
        return level.to(dtype).clamp(1e-30, 1e30), 0, 0
    if isinstance(supervision, Independent):
        return level.to(dtype).sqrt(), 0, 0
    return level.to(dtype), 0, 0


def _student_refusal(student: object, population: Population) -> str | None:
    if type(student) not in STUDENTS:
        names = ", ".join(cls.name for cls in STUDENTS)
        return f"student {config.kind_of(type(student))!r} is not one of {names}; use autograd or torch"
    if population.p is None:
        return "the population has no BCP"
    classes, features = padded(population.classes), padded(population.features)
    if classes > MOST_CLASSES or classes * features > MOST_PARAMETERS:
        return (
            f"K = {population.classes} and d = {population.features} are too many parameters: rounded up to powers of "
            f"two, K must be at most {MOST_CLASSES} and K d at most {MOST_PARAMETERS}"
        )
    if population.size >= MOST_POINTS:
        return f"the pool has {population.size} points: must be below {MOST_POINTS}"
    return None


def _lanes_refusal(lanes: Sequence[Lane]) -> str | None:
    for lane in lanes:
        if type(lane.supervision) not in FAMILIES:
            names = ", ".join(cls.name for cls in FAMILIES)
            return f"supervision {config.kind_of(type(lane.supervision))!r} is not one of {names}; use torch"
    refusals = (_unknown_settings("lane", lane, LANE_FIELDS) for lane in lanes)
    return next((refused for refused in refusals if refused is not None), None)


def _unknown_settings(what: str, settings: Any, known: frozenset[str]) -> str | None:
    """Refuse fields that this engine does not know, unless they have their defaults: it would run without them."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.name not in known and value != default:
            return f"{what}.{field.name} = {value!r} is not supported: must be {default!r}"
    return None


def _machine_refusal(device: str) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install 'kdsim[gpu]', Linux only)"
    if not device.startswith("cuda") and os.environ.get("TRITON_INTERPRET") != "1":
        return f"device = {device!r} is not a GPU: must be cuda or cuda:N (or set TRITON_INTERPRET=1, very slow)"
    return None
