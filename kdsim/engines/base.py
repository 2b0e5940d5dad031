"""Contract of an engine: it walks replicas of SGD and hands what it sees to the recorder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from kdsim.config import ConfigError, Configuration, kind_of, require, require_between, require_count, shown
from kdsim.engines.optimisers import GradientDescent, Optimiser
from kdsim.engines.recorder import Record, Recording
from kdsim.engines.schedules import Constant, Schedule
from kdsim.population import STEP_SIZES, Population, require_points
from kdsim.rng import MAX_VISITS
from kdsim.students.base import LinearStudent
from kdsim.students.network import NetworkStudent
from kdsim.supervision import Independent
from kdsim.supervision.base import Supervision

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class SGD(Configuration):
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
        if self.training_set is not None:
            require_count("training_set", self.training_set)
        require_count("held_out", self.held_out, least=0)

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

    def require_run(
        self, student: LinearStudent | NetworkStudent, population: Population, lanes: Sequence[Lane], sgd: SGD
    ) -> None:
        """Refuse a state that is not one of this run: engines write where its tensors say, without looking.

        Raises:
            ConfigError: a step beyond the run, or what is no tensor, or of another shape or type.
        """
        classes, features = population.classes, population.features
        one = (classes, features) if isinstance(student, LinearStudent) else (student.size(features, classes),)
        shape = (sum(lane.replicas for lane in lanes), *one)
        other = "the stored state is that of another run"
        if type(self.step) is not int or not 0 <= self.step <= sgd.steps:
            raise ConfigError(f"{other}: step = {shown(self.step)}, not 0 to {sgd.steps}")
        parts = {"error": self.error, **_tensors("buffers", self.buffers)}
        for name, tensor in parts.items():
            if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape or not tensor.is_floating_point():
                found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
                raise ConfigError(f"{other}: {name} is {found}, not {shape} numbers")
        _tensors("recorder", self.recorder)


def _tensors(what: str, found: object) -> dict[str, Tensor]:
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ConfigError(f"the stored state is that of another run: {what} are not tensors by name")
    return found


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


def check_run(
    student: LinearStudent | NetworkStudent, population: Population, lanes: Sequence[Lane], sgd: SGD, device: str
) -> None:
    """Refuse what no engine can run.

    A pool that is none of points with known class probabilities, too many visits, a training set above the pool, a
    device that is not there, numbers that the dtype does not hold.
    """
    check_device(device)
    require_points(population)
    visits = sgd.steps * sgd.batch_size
    require(visits < MAX_VISITS, "steps * batch_size", visits, f"below {MAX_VISITS}")
    require_between("held_out", sgd.held_out, 0, population.size - 1)
    if sgd.training_set is not None:
        require_between("training_set", sgd.training_set, 1, population.size - sgd.held_out)
    check_range(student, population, lanes, sgd.dtype)


def check_range(
    student: LinearStudent | NetworkStudent, population: Population, lanes: Sequence[Lane], dtype: str
) -> None:
    """Refuse inputs and settings that `dtype` cannot hold: they would be infinite, or zero, without a word.

    Smaller entries of an input whose largest is held may become zero: to rounding they are.
    """
    held = torch.finfo(DTYPES[dtype])
    other = "; float64 holds more" if dtype == "float32" else ""
    largest = max(abs(end.item()) for end in population.x.aminmax())
    if not (largest == 0 or held.tiny <= largest <= held.max):
        allowed = f"from {held.tiny:.3g} to {held.max:.3g}{other}"
        raise ConfigError(f"the largest entry of x is {largest:.3g} in size, not allowed in {dtype}: must be {allowed}")
    ridge = getattr(student, "ridge", 0.0)  # of what is no student an engine says so itself
    if ridge > held.max:
        raise ConfigError(f"ridge = {ridge!r} is not allowed in {dtype}: must be at most {held.max:.3g}{other}")
    low, high = max(held.tiny, STEP_SIZES[0]), min(held.max, STEP_SIZES[1])
    for lane in lanes:
        noise = lane.supervision
        if isinstance(noise, Independent) and noise.variance > held.max:
            what = f"variance = {noise.variance!r} of independent noise is not allowed in {dtype}"
            raise ConfigError(f"{what}: must be at most {held.max:.3g}{other}")
        if not low <= lane.step_size <= high:
            allowed = f"from {low:.3g} to {high:.3g}{other}"
            raise ConfigError(f"step_size = {lane.step_size!r} is not allowed in {dtype}: must be {allowed}")


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
