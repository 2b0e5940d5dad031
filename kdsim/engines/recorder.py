"""What is recorded while SGD runs: curves at checkpoints, and statistics of the tail accumulated in between."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kdsim.config import ConfigError, Configuration, require, require_between, require_count
from kdsim.population import Population
from kdsim.students.base import LinearStudent

METRICS = ("dist_sq", "excess_risk", "accuracy", "bcp_l2")
"""What every recorder sees at a checkpoint."""
DIVERGED = 1e12
"""A replica has diverged once its squared distance is not finite or exceeds this multiple of 1 + |reference|^2."""


@dataclass(frozen=True)
class Recording(Configuration):
    """When to record. Two settings of one run differ only in what is seen, never in the path.

    Attributes:
        checkpoints: number of points of the learning curve (about), a third of them in the tail.
        tail_fraction: last part of the run over which floors and fluctuations are averaged, in (0, 1).
        tail_stride: steps between two samples of the squared distance in the tail.
        mean_error: also record the mean of theta - reference over the tail, K d numbers a replica.
        directions: number of eigendirections of the Hessian along which the error is recorded at every sample in the
            tail (0: none). They are chosen evenly from the largest curvature to the smallest.
    """

    checkpoints: int = 36
    tail_fraction: float = 0.25
    tail_stride: int = 16
    mean_error: bool = False
    directions: int = 0

    def __post_init__(self) -> None:
        require_count("checkpoints", self.checkpoints, least=2)
        require_between("tail_fraction", self.tail_fraction, 0, 1, "()")
        require_count("tail_stride", self.tail_stride)
        require_count("directions", self.directions, least=0)

    def tail_start(self, steps: int) -> int:
        """First step of the tail."""
        return min(round(steps * (1 - self.tail_fraction)), steps - 1)

    def tail_steps(self, steps: int) -> list[int]:
        """Steps of the tail at which the squared distance is sampled, in increasing order."""
        return list(range(steps, self.tail_start(steps), -self.tail_stride))[::-1]

    def tail_checkpoints(self, steps: int) -> list[int]:
        """Checkpoints in the tail, over which excess risk and accuracy are averaged, in increasing order."""
        return [step for step in self.schedule(steps) if step > self.tail_start(steps)]

    def schedule(self, steps: int) -> list[int]:
        """Steps of the checkpoints: a third log-spaced up to the tail, a third even there, a third even in the tail."""
        start = self.tail_start(steps)
        third = max(self.checkpoints // 3, 1)
        log_spaced = torch.logspace(0, math.log10(max(start, 1)), self.checkpoints - 2 * third + 1, dtype=torch.float64)
        even = torch.linspace(0, start, third + 1, dtype=torch.float64)
        tail = torch.linspace(start, steps, third + 1, dtype=torch.float64)
        return sorted({round(step) for part in (log_spaced, even, tail) for step in part.tolist()})


class Recorder:
    """Accumulates a run's record. Its tensors are the whole of its state (see `state` and `restore`).

    Args:
        student, population: evaluated at the checkpoints over the whole pool, in the run's dtype.
        reference: the point from which squared distance is measured and the origin of `error`, (K, d).
        replicas: R.
        steps: length of the run.
        directions: unit vectors along which the error is recorded in the tail, (m, K, d), or None.
    """

    def __init__(
        self,
        recording: Recording,
        student: LinearStudent,
        population: Population,
        reference: Tensor,
        replicas: int,
        steps: int,
        dtype: torch.dtype,
        device: torch.device,
        directions: Tensor | None = None,
    ) -> None:
        self.student = student
        self.metrics = self.metric_names(population)
        self.x = population.x.to(device, dtype)
        self.p = _classes_first(population.p.to(device, dtype))
        self._tables(population, reference, dtype, device)
        self.schedule = recording.schedule(steps)
        self.tail = recording.tail_steps(steps)
        self.tail_start = recording.tail_start(steps)
        self._checkpoint_number = {step: number for number, step in enumerate(self.schedule)}
        self._tail_number = {step: number for number, step in enumerate(self.tail)}
        self.events = frozenset(self._checkpoint_number) | frozenset(self._tail_number)
        kind: dict[str, Any] = {"dtype": torch.float64, "device": device}
        shape = (len(self.metrics), len(self.schedule), replicas)
        self._state = {
            "curves": torch.full(shape, float("nan"), dtype=dtype, device=device),
            "tail_sum": torch.zeros(2, replicas, **kind),
            "mean": torch.zeros(replicas, **kind),
            "m2": torch.zeros(replicas, **kind),
            "diverged_at": torch.full((replicas,), -1, dtype=torch.int64, device=device),
        }
        self.directions = None if directions is None else directions.to(device, dtype)
        if recording.mean_error:
            self._state["error_sum"] = torch.zeros(*reference.shape, replicas, **kind)
        if self.directions is not None:
            shape = (len(self.directions), len(self.tail), replicas)
            self._state["along"] = torch.zeros(shape, dtype=dtype, device=device)

    def metric_names(self, population: Population) -> tuple[str, ...]:
        """What is recorded at a checkpoint, in the order of `_pool_metrics` after dist_sq."""
        return METRICS

    def _tables(self, population: Population, reference: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        """Outputs over the pool from which those of the replicas are told apart, and the limit of `_distance`."""
        self.limit = DIVERGED * (1 + reference.square().sum().item())
        optimum = self.student.realisable_optimum(population)
        self.realisable = optimum is not None
        best = reference if optimum is None else optimum
        self.outputs = _classes_first((population.x @ reference.T).to(device, dtype))  # (N, K)
        self.best_outputs = _classes_first((population.x @ best.T).to(device, dtype))
        self.offset = _classes_first((population.x @ (reference - best).T).to(device, dtype))

    def state(self) -> dict[str, Tensor]:
        """The accumulators, to be stored."""
        return {name: tensor.clone() for name, tensor in self._state.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from stored accumulators.

        Raises:
            ConfigError: they are those of another run (of another recording or number of replicas).
        """
        for name, tensor in self._state.items():
            found = tuple(state[name].shape) if name in state else None
            if found != tuple(tensor.shape) or state[name].is_complex():
                raise ConfigError(
                    f"the stored state is that of another run: {name} has shape {found}, not {tuple(tensor.shape)}"
                )
            tensor.copy_(state[name])

    def observe(self, step: int, error: Tensor) -> None:
        """Record the error theta - reference (R, K, d) reached after `step` steps, if the step is an event."""
        if step not in self.events:
            return
        dist_sq, size = self._distance(error)
        self._note_divergence(step, size)
        if step in self._tail_number:
            self._accumulate(self._tail_number[step], dist_sq)
            self._look_along(self._tail_number[step], error)
        if step in self._checkpoint_number:
            curves = self._state["curves"][:, self._checkpoint_number[step]]  # (metrics, R)
            curves[0] = dist_sq
            curves[1:] = self._pool_metrics(error)

    def sparse_events(self) -> frozenset[int]:
        """Steps at which the whole error is needed; at the other events squared distances are enough.

        Those are the tail samples that are no checkpoints, as long as nothing else is recorded there.
        """
        more = "error_sum" in self._state or self.directions is not None
        return self.events if more else frozenset(self._checkpoint_number)

    def observe_distances(self, steps: Sequence[int], dist_sq: Tensor) -> None:
        """What `observe` does at tail samples that are not `sparse_events`, from |theta - reference|^2 alone.

        Args:
            steps: S tail samples in increasing order.
            dist_sq: (S, R) float64.
        """
        for step, distance in zip(steps, dist_sq, strict=True):
            self._note_divergence(step, distance)
            self._accumulate(self._tail_number[step], distance)

    def _note_divergence(self, step: int, size: Tensor) -> None:
        diverged = ~(size <= self.limit)  # also NaN
        first = diverged & (self._state["diverged_at"] < 0)
        self._state["diverged_at"][first] = step

    def _distance(self, error: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distance from the reference, and the number that exceeds the limit once a replica diverged. (R,)."""
        dist_sq = error.to(torch.float64).square().sum((-2, -1))
        return dist_sq, dist_sq

    def _accumulate(self, number: int, dist_sq: Tensor) -> None:
        """Running mean and sum of squared deviations (Welford 1962), and the sums of the two halves."""
        self._state["tail_sum"][_half(number, len(self.tail))] += dist_sq
        change = dist_sq - self._state["mean"]
        self._state["mean"] += change / (number + 1)
        self._state["m2"] += change * (dist_sq - self._state["mean"])

    def _look_along(self, number: int, error: Tensor) -> None:
        """The parts of the record that are asked for: sum of the errors, and the error along the directions."""
        if "error_sum" in self._state:
            self._state["error_sum"] += error.movedim(0, -1)
        if self.directions is not None:
            self._state["along"][:, number] = torch.einsum("mkd,rkd->mr", self.directions, error)

    def _pool_metrics(self, error: Tensor) -> Tensor:
        """excess_risk, accuracy and bcp_l2 over the whole pool, (3, R), some replicas at a time."""
        block = max(1, (1 << 18) // self.p.numel())
        return torch.cat([self._block_metrics(part) for part in error.split(block)], dim=-1)

    def _block_metrics(self, error: Tensor) -> Tensor:
        # Classes come first in memory and last in shape: sums over few classes are then sums of planes.
        change = torch.einsum("rkd,nd->krn", error, self.x).movedim(0, -1)  # (R, N, K)
        outputs = self.outputs + change
        if self.realisable:
            risk, gap = self.student.compare(change + self.offset, self.best_outputs)
        else:
            risk = self.student.loss(outputs, self.p) - self.student.loss(self.best_outputs, self.p)
            gap = self.student.probabilities(outputs) - self.p
        accuracy = _at_largest(self.p, outputs)
        l2 = gap.square().sum(-1).sqrt_()
        return torch.stack([metric.mean(-1, dtype=torch.float64) for metric in (risk, accuracy, l2)])

    def record(self) -> Record:
        """The finished record, on the CPU."""
        state = {name: tensor.cpu() for name, tensor in self._state.items()}
        samples = len(self.tail)
        first = sum(_half(number, samples) == 0 for number in range(samples))
        half_samples = (first, samples - first)
        halves = torch.tensor(half_samples, dtype=torch.float64)[:, None]
        nothing = torch.full_like(state["m2"], float("nan"))
        return Record(
            steps=torch.tensor(self.schedule),
            curves=dict(zip(self.metrics, state["curves"], strict=True)),
            tail_mean=state["tail_sum"] / halves,
            tail_std=(state["m2"] / (samples - 1)).sqrt() if samples > 1 else nothing,
            half_samples=half_samples,
            tail_start=self.tail_start,
            diverged_at=state["diverged_at"],
            mean_error=state["error_sum"].movedim(-1, 0) / samples if "error_sum" in state else None,
            along=state.get("along"),
        )


def _at_largest(p: Tensor, outputs: Tensor) -> Tensor:
    """p at the class of the largest output. (N, K), (R, N, K) -> (R, N). Ten times faster than argmax and gather."""
    best, value = outputs[..., 0], p[..., 0].expand(outputs.shape[:-1])
    for k in range(1, outputs.shape[-1]):
        better = outputs[..., k] > best
        best, value = torch.where(better, outputs[..., k], best), torch.where(better, p[..., k], value)
    return value


def _classes_first(values: Tensor) -> Tensor:
    """The same (N, K) tensor, laid out in memory as (K, N)."""
    return values.T.contiguous().T


def _half(number: int, samples: int) -> int:
    """0 for the first samples // 2 samples (at least one), 1 for the rest."""
    return int(number >= max(samples // 2, 1))


@dataclass(frozen=True)
class Record:
    """What a finished run saw. R replicas, C checkpoints.

    Attributes:
        steps: checkpoint steps, (C,) int64.
        curves: metric name to (C, R) in the run's dtype. dist_sq = |theta - reference|^2. excess_risk = BCP risk
            without the ridge above the smallest there is (above the reference's, and possibly negative, where no
            student is exactly p), in the loss's unit, nats for cross-entropy. accuracy = E p[argmax prediction].
            bcp_l2 = E |prediction - p|.
        tail_mean: mean of dist_sq over the two halves of the tail, (2, R); NaN in a half without samples.
        tail_std: standard deviation of dist_sq within the tail, (R,); NaN with a single sample.
        half_samples: number of samples in each half of the tail.
        tail_start: step after which the tail begins.
        diverged_at: first sampled step at which the replica had diverged, -1 if none, (R,) int64.
        mean_error: mean of theta - reference over the tail, (R, K, d), if it was asked for.
        along: theta - reference along each direction at each sample of the tail, (m, samples, R), if asked for.
    """

    steps: Tensor
    curves: dict[str, Tensor]
    tail_mean: Tensor
    tail_std: Tensor
    half_samples: tuple[int, int]
    tail_start: int
    diverged_at: Tensor
    mean_error: Tensor | None = None
    along: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse what no run gives, for a record may come from a file.

        Raises:
            ConfigError: something of another type or shape.
        """
        found = [("steps", self.steps), ("tail_mean", self.tail_mean), ("diverged_at", self.diverged_at)]
        whole = ("steps", "diverged_at")
        require(isinstance(self.curves, dict), "curves", type(self.curves).__name__, "a dictionary")
        found += [("tail_std", self.tail_std), *self.curves.items()]
        optional = (("mean_error", self.mean_error), ("along", self.along))
        found += [(name, tensor) for name, tensor in optional if tensor is not None]
        for name, tensor in found:
            kind = f"{tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
            right = isinstance(tensor, Tensor) and (tensor.dtype == torch.int64) == (name in whole)
            require(right and not tensor.is_complex(), f"record: {name}", kind, "a tensor of numbers")
        checkpoints, replicas = tuple(self.steps.shape), tuple(self.tail_std.shape)
        shapes = {"tail_mean": (2, *replicas), "diverged_at": replicas}
        shapes |= dict.fromkeys(self.curves, checkpoints + replicas)
        for name, tensor in found:
            shape, axis = tuple(tensor.shape), _REPLICA_AXIS.get(name)
            right = shape == shapes[name] if name in shapes else axis is None or shape[axis:][:1] == replicas
            right = right and len(checkpoints) == len(replicas) == 1
            require(right, f"record: shape of {name}", shape, "that of a run")
        counts = self.half_samples if isinstance(self.half_samples, tuple) else ()
        right = len(counts) == 2 and all(type(count) is int for count in (*counts, self.tail_start))
        require(right, "record: half_samples, tail_start", (self.half_samples, self.tail_start), "whole numbers")

    @property
    def tail_samples(self) -> int:
        """Number of samples in the tail."""
        return sum(self.half_samples)

    def replicas(self, block: slice) -> Record:
        """The record of a block of replicas."""
        return replace(
            self,
            curves={name: values[:, block] for name, values in self.curves.items()},
            tail_mean=self.tail_mean[:, block],
            tail_std=self.tail_std[block],
            diverged_at=self.diverged_at[block],
            mean_error=None if self.mean_error is None else self.mean_error[block],
            along=None if self.along is None else self.along[..., block],
        )


_REPLICA_AXIS = {"tail_mean": 1, "tail_std": 0, "diverged_at": 0, "mean_error": 0, "along": -1}


def join(records: Iterable[Record], replicas: int) -> Record:
    """The records of successive blocks, of so many replicas together, as one; blocks are read one after the other.

    Raises:
        ConfigError: they do not record the same, or are of more or fewer replicas.
    """
    whole: Record | None = None
    first = 0
    for part in records:
        if whole is None:
            whole = _with_room(part, replicas)
        block = slice(first, first + part.diverged_at.numel())
        first = block.stop
        if first > replicas or part.curves.keys() != whole.curves.keys() or not torch.equal(part.steps, whole.steps):
            raise ConfigError("the stored blocks are not of one run: delete them to start over")
        target = whole.replicas(block)  # views
        for metric, values in part.curves.items():
            target.curves[metric].copy_(values)
        for name in _REPLICA_AXIS:
            if (values := getattr(part, name)) is not None:
                getattr(target, name).copy_(values)
    if whole is None or first != replicas:  # there is no number for the others
        raise ConfigError(f"the stored blocks are of {first} replicas, not of {replicas}: delete them to start over")
    return whole


def _with_room(record: Record, replicas: int) -> Record:
    """A record like this one, with empty tensors for so many replicas."""

    def room(tensor: Tensor, axis: int) -> Tensor:
        shape = list(tensor.shape)
        shape[axis] = replicas
        return tensor.new_empty(shape)

    curves = {metric: room(values, 1) for metric, values in record.curves.items()}
    others: dict[str, Any] = {
        name: room(tensor, axis)
        for name, axis in _REPLICA_AXIS.items()
        if (tensor := getattr(record, name)) is not None
    }
    return replace(record, curves=curves, **others)
