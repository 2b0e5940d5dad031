"""Contract of an engine: it walks replicas of SGD and hands what it sees to the recorder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from kdsim.config import ConfigError, choose, kind_of, require, require_between, require_count
from kdsim.engines.optimisers import GradientDescent, Optimiser
from kdsim.engines.recorder import Record, Recording
from kdsim.engines.schedules import Constant, Schedule
from kdsim.population import Population
from kdsim.rng import MAX_VISITS
from kdsim.students.base import LinearStudent
from kdsim.students.network import NetworkStudent
from kdsim.supervision.base import Supervision

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class SGD:
    """How SGD visits the pool.

    Attributes:
        steps: number of steps T.
        batch_size: samples a step, b.
        index: "replacement" (each visit uniform over the pool) or "permutation" (epochs without replacement).
        targets: "fresh" (drawn at each visit) or "frozen" (drawn once per pool point and replica).
        dtype: "float32" or "float64".
        training_set: if given, each replica sees only so many pool points, drawn for it without replacement: its
            training set. None: the whole pool, the same for all.
        held_out: last points of the pool that no replica visits. With them the recorder looks at these points alone,
            and at their labels: they are the validation set.
        optimiser: what is done with a gradient.
        schedule: factor on every lane's step size, as a function of the step.
    """

    steps: int = 20_000
    batch_size: int = 1
    index: Literal["replacement", "permutation"] = "replacement"
    targets: Literal["fresh", "frozen"] = "fresh"
    dtype: Literal["float32", "float64"] = "float32"
    training_set: int | None = None
    held_out: int = 0
    optimiser: Optimiser = field(default_factory=GradientDescent)
    schedule: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        require_count("steps", self.steps)
        require_count("batch_size", self.batch_size)
        require(self.index in ("replacement", "permutation"), "index", self.index, "replacement or permutation")
        require(self.targets in ("fresh", "frozen"), "targets", self.targets, "fresh or frozen")
        choose("dtype", self.dtype, DTYPES)
        if self.training_set is not None:
            require_count("training_set", self.training_set)
        require_count("held_out", self.held_out, least=0)
        require(isinstance(self.optimiser, Optimiser), "optimiser", self.optimiser, "an Optimiser")
        require(isinstance(self.schedule, Schedule), "schedule", self.schedule, "a Schedule")

    @property
    def plain(self) -> bool:
        """No momentum, weight decay or schedule, and no point held out: what theory and the engine torch assume."""
        return self.optimiser.plain and isinstance(self.schedule, Constant) and not self.held_out


@dataclass(frozen=True)
class Lane:
    """A block of replicas that share supervision, step size and seed: one cell's part of a packed run.

    Replicas are numbered first_replica .. first_replica + replicas - 1; a replica's path depends on
    its number and seed, not on the lane or the packing.
    """

    supervision: Supervision
    step_size: float
    seed: int
    replicas: int
    first_replica: int = 0


@dataclass
class State:
    """Everything that a run needs to go on.

    Attributes:
        step: steps done.
        error: theta - reference, (R, K, d); of a network its parameters, (R, P).
        recorder: the recorder's accumulators.
        buffers: the optimiser's, each of the shape of `error`; none for plain SGD.
    """

    step: int
    error: Tensor
    recorder: dict[str, Tensor]
    buffers: dict[str, Tensor] = field(default_factory=dict)


class Engine(Protocol):
    """Runs many replicas of SGD as one program."""

    name: ClassVar[str]

    def refusal(
        self,
        student: LinearStudent | NetworkStudent,
        population: Population,
        lanes: Sequence[Lane],
        sgd: SGD,
        recording: Recording,
        device: str = "cpu",
    ) -> str | None:
        """Why the engine cannot run this configuration, in one line; None if it can."""

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
        """Walk from zero, or from `state`, to `sgd.steps`.

        Args:
            reference: the point from which squared distance is measured, (K, d). It is the origin of the
                coordinates in which parameters are held, and does not change the path beyond rounding. A network
                starts at its own `initial` draws; distance is that of its linear map, NaN where it has none.
            anchor: the point to which the student's ridge pulls, (K, d).
            directions: unit vectors along which the error is recorded in the tail, (m, K, d); see `Recording`.
            stop: called between chunks of steps with the step reached; the run ends early when it returns True.

        Returns:
            The record, or None if the run was stopped early, and the state reached. A run that is stopped and
            continued from its state gives bit for bit what an undisturbed run gives.

        Raises:
            ConfigError: what `refusal` says.
        """


def require_linear(engine: str, student: object) -> None:
    """Refuse a student that is not linear in its parameters, in the name of an engine that walks linear ones only."""
    if not isinstance(student, LinearStudent):
        name = kind_of(type(student))
        raise ConfigError(f"engine = {engine!r} is not allowed for the student {name!r}: must be autograd")


def require_plain(engine: str, sgd: SGD) -> None:
    """Refuse momentum, weight decay and schedules, in the name of an engine that walks plain SGD only."""
    if not sgd.plain:
        setting = sgd.schedule if sgd.optimiser.plain else sgd.optimiser
        if sgd.held_out:
            raise ConfigError(f"engine = {engine!r} is not allowed for held_out = {sgd.held_out!r}: must be autograd")
        raise ConfigError(f"engine = {engine!r} is not allowed for {setting!r}: must be autograd")


def check_run(population: Population, sgd: SGD, device: str) -> None:
    """Refuse what no engine can run: too many visits, a training set above the pool, a device that is not there."""
    check_device(device)
    visits = sgd.steps * sgd.batch_size
    require(visits < MAX_VISITS, "steps * batch_size", visits, f"below {MAX_VISITS}")
    require_between("held_out", sgd.held_out, 0, population.size - 1)
    if sgd.training_set is not None:
        require_between("training_set", sgd.training_set, 1, population.size - sgd.held_out)


def reason(check: Callable[[], object]) -> str | None:
    """What a check refuses, in one line, or None if it passes."""
    try:
        check()
    except ConfigError as error:
        return str(error)
    return None


def check_device(device: str) -> torch.device:
    """The torch device of that name, or a `ConfigError` that lists those of this machine."""
    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if device not in available:
        raise ConfigError(f"device = {device!r} is not available here; allowed: {', '.join(available)}")
    return torch.device(device)
