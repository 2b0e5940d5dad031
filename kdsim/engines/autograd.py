"""Replica-batched training by automatic differentiation, for every student that can be differentiated.

A step asks the student to add its gradients to a tensor (`NetworkStudent.gradient_adder`): by torch.func's vmap of
grad, or by hand where the student has its own. Plain SGD adds -step_size * gradient to the parameters themselves;
any other optimiser gets the gradient, its buffers and the scheduled step size (`kdsim.engines.optimisers`).

Slower than the torch engine where both can run: a linear student walks the same path on it to rounding. Parameters
of a linear student are held as theta - reference like there, but its outputs are computed from theta itself, so
in float32 a floor below rounding of theta is not reached.

An MLP with heavy-ball momentum and one visit a step is walked by a compiled loop instead (`kdsim.engines.fused.mlp`),
on the same path to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdsim.config import ConfigError, require
from kdsim.engines.base import DTYPES, SGD, Lane, State, check_run, reason
from kdsim.engines.cuda_graph import graphed
from kdsim.engines.fused import mlp
from kdsim.engines.fused.compilation import tell, unavailable
from kdsim.engines.network_recorder import NetworkRecorder, ValidationRecorder
from kdsim.engines.optimisers import WeightSampler
from kdsim.engines.recorder import Record, Recorder, Recording
from kdsim.engines.samples import Samples
from kdsim.engines.shards import count_replicas, split, walk
from kdsim.population import Population
from kdsim.students import SoftmaxRegression
from kdsim.students.base import LinearStudent
from kdsim.students.network import AddGradient, NetworkStudent

CHUNK_VISITS = {"cpu": 1 << 17, "cuda": 1 << 21}
"""Visits (replicas x steps x batch) drawn at a time, as in the torch engine."""
BLOCK_NUMBERS, BLOCK_REPLICAS = 1 << 20, (8, 640)
"""Parameters of a block of replicas on a CPU, about, and the fewest and the most replicas of a block.

A block is walked by one thread (see `kdsim.engines.shards`); it depends on the lanes and the student alone. A
larger one leaves the caches between two steps (128 replicas of 21,000 parameters: a fifth slower than 64), a smaller
one pays for the calls (16: two fifths slower than 32).
"""


class Autograd:
    """All replicas of all lanes, in blocks. See `kdsim.engines.base.Engine`."""

    name: ClassVar[str] = "autograd"

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
            check_run(student, population, lanes, sgd, device)
            if isinstance(sgd.optimiser, WeightSampler):
                what = f"optimiser = {sgd.optimiser.name!r} is not allowed for a student of the engines"
                raise ConfigError(f"{what}: it draws weights, which trainings of image networks alone do")
            if not isinstance(student, LinearStudent):
                require(isinstance(student, NetworkStudent), "student", student, "a LinearStudent or a NetworkStudent")
                student.size(population.features, population.classes)  # a module refuses what it cannot be
                _refuse_linear_records(student, recording)
            if sgd.held_out:
                _require_validation(student, population)

        return reason(check)

    def run(
        self,
        student: LinearStudent | NetworkStudent,
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
        """Walk from the start (zero; a network's initial draws), or from `state`, to `sgd.steps`. See `Engine.run`."""
        if refused := self.refusal(student, population, lanes, sgd, recording, device):
            raise ConfigError(refused)
        if state is not None:
            state.require_run(student, population, lanes, sgd)
        where = torch.device(device)
        kind, limit = _Block, block_replicas(student, population) if where.type == "cpu" else None
        visits = CHUNK_VISITS.get(where.type, 1 << 17)
        compiled = mlp.is_compiled(student, sgd, where)
        if compiled and (why := unavailable()):
            tell(f"{why}: batched tensors walk the MLP, and are slower")
        elif compiled:
            kind, limit, visits = _CompiledBlock, mlp.BLOCK_REPLICAS, visits // 4  # smaller: in a second as well
        parts = split(lanes, limit)
        chunk = max(1, visits // (count_replicas(parts[0]) * sgd.batch_size))

        def make(part: Sequence[Lane], found: State | None) -> _Block:
            return kind(student, population, part, sgd, recording, reference, anchor, directions, where, found)

        return walk(parts, make, sgd.steps, chunk, state, stop)


def block_replicas(student: LinearStudent | NetworkStudent, population: Population) -> int:
    """Largest number of replicas in a block on a CPU."""
    features, classes = population.features, population.classes
    size = features * classes if isinstance(student, LinearStudent) else student.size(features, classes)
    fewest, most = BLOCK_REPLICAS
    return min(max(BLOCK_NUMBERS // size, fewest), most)


def initial_parameters(
    student: NetworkStudent, population: Population, lanes: Sequence[Lane], device: torch.device
) -> Tensor:
    """Starts of all replicas of all lanes, (R, P) float64; replicas of one seed and number start at one point."""
    pairs = [(lane.seed, lane.first_replica + r) for lane in lanes for r in range(lane.replicas)]
    keys, rows = torch.tensor(pairs, dtype=torch.int64, device=device).unique(dim=0, return_inverse=True)  # (U, 2)
    return student.initial(population.features, population.classes, keys[:, :1], keys[:, 1:])[rows]


class _Block:
    """A block of replicas: samples, recorder, parameters (R, P); of a linear student theta - reference (R, K, d)."""

    def __init__(
        self,
        student: LinearStudent | NetworkStudent,
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
        """`found`: parameters and buffers of a run that goes on, None at the start."""
        dtype = DTYPES[sgd.dtype]
        self.sgd = sgd
        self.replicas = count_replicas(lanes)
        visited = population.points(slice(population.size - sgd.held_out)) if sgd.held_out else population
        self.samples = Samples(visited, lanes, sgd, dtype, device)
        self.origin = reference.to(device, dtype) if isinstance(student, LinearStudent) else None
        if isinstance(student, NetworkStudent):
            _refuse_linear_records(student, recording, directions)
            directions = None
        if found is not None:
            self.parameters = found.error.to(device, dtype, copy=True)
        elif isinstance(student, NetworkStudent):
            self.parameters = initial_parameters(student, population, lanes, device).to(dtype)
        else:
            self.parameters = (-reference.to(device, dtype)).repeat(self.replicas, 1, 1)  # theta = 0
        kind: Any = Recorder
        if isinstance(student, NetworkStudent):
            kind = ValidationRecorder if sgd.held_out else NetworkRecorder
        seen = population.points(slice(population.size - sgd.held_out, None)) if sgd.held_out else population
        self.recorder = kind(recording, student, seen, reference, self.replicas, sgd.steps, dtype, device, directions)
        column = (self.replicas, *[1] * (self.parameters.dim() - 1))
        step_size = torch.cat([torch.full((lane.replicas,), lane.step_size, dtype=dtype) for lane in lanes])
        self.step_size = step_size.to(device).view(column)  # (R, 1, ...)
        self.buffers = sgd.optimiser.buffers(self.parameters)
        if found is not None:
            self._restore(found.buffers)
        self._prepare(student, population, anchor)

    def _prepare(self, student: LinearStudent | NetworkStudent, population: Population, anchor: Tensor) -> None:
        """What `advance` needs beside samples, recorder, parameters and buffers."""
        # Without momentum or decay the gradient goes straight into the parameters.
        self.gradient = self.parameters if self.sgd.optimiser.plain else torch.zeros_like(self.parameters)
        self.one = torch.ones_like(self.step_size)
        self.add_gradient: Callable[..., None]
        if isinstance(student, LinearStudent):
            anchor = anchor.to(self.parameters)
            origin: Any = self.origin  # a linear student has one
            self.add_gradient = _linear_adder(student, self.parameters, self.gradient, origin, anchor)
        else:
            features, classes = population.features, population.classes
            self.add_gradient = student.gradient_adder(self.parameters, self.gradient, features, classes)
        if self.parameters.is_cuda:
            self.add_gradient = graphed(self.add_gradient, self.gradient)

    @property
    def error(self) -> Tensor:
        """What a state holds."""
        return self.parameters

    def _restore(self, buffers: dict[str, Tensor]) -> None:
        """Go on from the optimiser's buffers of a state."""
        if buffers.keys() != self.buffers.keys():
            found, own = (sorted(names) or "none" for names in (buffers, self.buffers))
            raise ConfigError(f"the stored state is that of another run: its optimiser has buffers {found}, not {own}")
        for name, buffer in self.buffers.items():
            buffer.copy_(buffers[name])

    def advance(self, start: int, end: int) -> None:
        """Walk from step `start` to step `end`."""
        index, q = self.samples.chunk(start, end)
        batch_size = self.sgd.batch_size
        for t in range(end - start):
            visits = slice(t * batch_size, (t + 1) * batch_size)
            self._step(start + t, self.samples.x[index[:, visits]], q[:, visits])
            self.recorder.observe(start + t + 1, self.parameters)

    def _step(self, step: int, x: Tensor, q: Tensor) -> None:
        """One step of all replicas, in place. x (R, b, d), q (R, b, K)."""
        factor = self.sgd.schedule.factor(step, self.sgd.steps)
        step_size = self.step_size if factor == 1 else self.step_size * factor
        if self.sgd.optimiser.plain:
            self.add_gradient(x, q, -step_size)
        else:
            self.gradient.zero_()
            self.add_gradient(x, q, self.one)
            self.sgd.optimiser.update(self.parameters, self.gradient, self.buffers, step_size, step, self.origin)


class _CompiledBlock(_Block):
    """A block that `kdsim.engines.fused.mlp` walks from one recorded step to the next."""

    def _prepare(self, student: Any, population: Population, anchor: Tensor) -> None:
        state = self.parameters, self.buffers["velocity"], self.step_size[:, 0]
        self.walk = mlp.walker(student, self.sgd, self.samples.x, population.classes, *state)

    def advance(self, start: int, end: int) -> None:
        index, q = self.samples.chunk(start, end)
        ends = sorted({end, *self.recorder.events.intersection(range(start + 1, end))})
        for first, last in pairwise((start, *ends)):
            self.walk(index, q, first - start, range(first, last))
            self.recorder.observe(last, self.parameters)


def _linear_adder(
    student: LinearStudent, error: Tensor, into: Tensor, reference: Tensor, anchor: Tensor
) -> AddGradient:
    """What `NetworkStudent.gradient_adder` gives, for a linear student at theta = reference + error (R, K, d)."""

    def objective(error: Tensor, x: Tensor, q: Tensor) -> Tensor:
        return student.objective(reference + error, x, q, anchor)

    gradient = torch.func.vmap(torch.func.grad(objective))

    def add(x: Tensor, q: Tensor, rate: Tensor) -> None:
        into.addcmul_(gradient(error, x, q), rate)

    return add


def _require_validation(student: LinearStudent | NetworkStudent, population: Population) -> None:
    """A validation set asks for a network under cross-entropy, and labels."""
    network = isinstance(student, NetworkStudent) and isinstance(student.head, SoftmaxRegression)
    if not network or population.y is None:
        raise ConfigError("held_out is only allowed for a network under cross-entropy and a pool with labels")


def _refuse_linear_records(student: NetworkStudent, recording: Recording, directions: Tensor | None = None) -> None:
    if recording.mean_error or recording.directions or directions is not None:
        raise ConfigError(
            f"recording of mean_error or directions is not allowed for the student {student.name!r}: "
            "its parameters have no unique optimum"
        )
