"""Replica-batched SGD by automatic differentiation (torch.func), for every student that can be differentiated.

Slower than the torch engine where both can run: a linear student walks the same path on it to rounding. Parameters
of a linear student are held as theta - reference like there, but its outputs are computed from theta itself, so
in float32 a floor below rounding of theta is not reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from kdsim import config
from kdsim.config import ConfigError
from kdsim.engines.base import DTYPES, SGD, Lane, State, check_device
from kdsim.engines.network_recorder import NetworkRecorder
from kdsim.engines.recorder import Record, Recorder, Recording
from kdsim.engines.samples import Samples
from kdsim.population import Population
from kdsim.rng import MAX_VISITS
from kdsim.students.base import LinearStudent
from kdsim.students.network import NetworkStudent

CHUNK_VISITS = {"cpu": 1 << 17, "cuda": 1 << 21}
"""Visits (replicas x steps x batch) drawn at a time, as in the torch engine."""

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Objective of one replica on one batch: (parameters as held, x (b, d), q (b, K)) -> ()."""


class Autograd:
    """All replicas of all lanes as one vmap of one gradient. See `kdsim.engines.base.Engine`."""

    name: ClassVar[str] = "autograd"

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
        where, dtype = check_device(device), DTYPES[sgd.dtype]
        visits = sgd.steps * sgd.batch_size
        config.require(visits < MAX_VISITS, "steps * batch_size", visits, f"below {MAX_VISITS}")
        replicas = sum(lane.replicas for lane in lanes)
        samples = Samples(population, lanes, sgd, dtype, where)
        if isinstance(student, LinearStudent):
            kind, directions_used = Recorder, directions
            parameters = (-reference).to(where, dtype).repeat(replicas, 1, 1)  # theta = 0
            objective = _linear_objective(student, reference.to(where, dtype), anchor.to(where, dtype))
        else:
            _refuse_linear_records(student, recording, directions)
            kind, directions_used = NetworkRecorder, None
            parameters = initial_parameters(student, population, lanes, where).to(dtype)
            objective = student.objective
        recorder = kind(recording, student, population, reference, replicas, sgd.steps, dtype, where, directions_used)
        gradient = torch.func.vmap(torch.func.grad(objective))
        rates = torch.cat([torch.full((lane.replicas,), -lane.step_size, dtype=dtype) for lane in lanes]).to(where)
        rates = rates.view(-1, *[1] * (parameters.dim() - 1))
        if state is None:
            step = 0
            recorder.observe(0, parameters)
        else:
            step = state.step
            parameters.copy_(state.error)
            recorder.restore(state.recorder)
        chunk = max(1, CHUNK_VISITS.get(where.type, 1 << 17) // (replicas * sgd.batch_size))
        while step < sgd.steps:
            # Chunks end at multiples of `chunk`, so a resumed run cuts them where an undisturbed one does.
            start, step = step, min((step // chunk + 1) * chunk, sgd.steps)
            index, q = samples.chunk(start, step)
            for t in range(step - start):
                visited = slice(t * sgd.batch_size, (t + 1) * sgd.batch_size)
                parameters.addcmul_(rates, gradient(parameters, samples.x[index[:, visited]], q[:, visited]))
                recorder.observe(start + t + 1, parameters)
            if stop is not None and stop(step) and step < sgd.steps:
                return None, State(step, parameters, recorder.state())
        return recorder.record(), State(step, parameters, recorder.state())


def initial_parameters(
    student: NetworkStudent, population: Population, lanes: Sequence[Lane], device: torch.device
) -> Tensor:
    """Starts of all replicas of all lanes, (R, P) float64; replicas of one seed and number start at one point."""
    pairs = [(lane.seed, lane.first_replica + r) for lane in lanes for r in range(lane.replicas)]
    keys = torch.tensor(pairs, dtype=torch.int64, device=device)  # (R, 2)
    return student.initial(population.features, population.classes, keys[:, :1], keys[:, 1:])


def _linear_objective(student: LinearStudent, reference: Tensor, anchor: Tensor) -> Objective:
    def objective(error: Tensor, x: Tensor, q: Tensor) -> Tensor:
        return student.objective(reference + error, x, q, anchor)

    return objective


def _refuse_linear_records(student: NetworkStudent, recording: Recording, directions: Tensor | None) -> None:
    if recording.mean_error or recording.directions or directions is not None:
        raise ConfigError(
            f"recording of mean_error or directions is not allowed for the student {student.name!r}: "
            "its parameters have no unique optimum"
        )
