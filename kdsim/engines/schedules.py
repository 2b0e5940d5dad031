"""Schedules: a factor on every replica's step size, as a function of the step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from kdsim.config import Configuration, require, require_between, require_positive


@dataclass(frozen=True)
class Schedule(Configuration, ABC):
    """A factor on the step size."""

    name: ClassVar[str]

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """Factor of step number `step` = 0 ... steps - 1 of a run of `steps` steps."""

    def pieces(self, at: Sequence[int], steps: int) -> list[int]:
        """Number of the stretch of constant factor in which each step lies; 0 where it changes all the time."""
        return [0] * len(at)


@dataclass(frozen=True)
class Constant(Schedule):
    """One step size throughout."""

    name: ClassVar[str] = "constant"

    def factor(self, step: int, steps: int) -> float:
        return 1.0


LARGEST_FACTOR = 1e30
"""Largest factor on a step size that milestones may add up to."""


@dataclass(frozen=True)
class StepDecay(Schedule):
    """The step size is multiplied by `decay` at each milestone: torch's MultiStepLR.

    Attributes:
        milestones: where, as fractions of the run in (0, 1), increasing; rounded to whole steps.
        decay: the factor of one milestone, > 0.
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1

    name: ClassVar[str] = "step-decay"

    def __post_init__(self) -> None:
        require(len(self.milestones) > 0, "milestones", self.milestones, "a tuple of fractions, at least one")
        for number, milestone in enumerate(self.milestones):
            require_between(f"milestones[{number}]", milestone, 0, 1, "()")
        increasing = all(first < second for first, second in pairwise(self.milestones))
        require(increasing, "milestones", self.milestones, "increasing")
        require_positive("decay", self.decay)
        most = LARGEST_FACTOR ** (1 / len(self.milestones))
        require(self.decay <= most, "decay", self.decay, f"at most {most:.3g} with {len(self.milestones)} milestones")

    def factor(self, step: int, steps: int) -> float:
        return self.decay ** self.pieces([step], steps)[0]

    def pieces(self, at: Sequence[int], steps: int) -> list[int]:
        return [sum(step >= round(milestone * steps) for milestone in self.milestones) for step in at]


@dataclass(frozen=True)
class Cosine(Schedule):
    """Linear warm-up, then half a cosine from 1 to `final`.

    With W = round(warmup * steps): (t + 1) / (W + 1) for t < W (torch's LinearLR), then
    final + (1 - final) (1 + cos(pi (t - W) / (steps - W))) / 2 (torch's CosineAnnealingLR), which would reach `final`
    one step after the last.

    Attributes:
        warmup: fraction of the run, in [0, 1).
        final: fraction of the base step size, in [0, 1].

    Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, equation 5.
    """

    warmup: float = 0.0
    final: float = 0.0

    name: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        require_between("warmup", self.warmup, 0, 1, "[)")
        require_between("final", self.final, 0, 1)

    def factor(self, step: int, steps: int) -> float:
        rising = round(self.warmup * steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


SCHEDULES = (Constant, StepDecay, Cosine)
"""Every schedule, in the order in which messages list them."""
