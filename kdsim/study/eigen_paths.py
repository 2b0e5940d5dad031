"""A computation: exact paths of linear students of linear teachers over a spectrum, and what they exaggerate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from kdsim.config import ConfigError, require_between, require_count, require_positive
from kdsim.results.columns.computed import EIGEN_PATHS
from kdsim.results.schema import Column
from kdsim.study.base import Computation, Computed
from kdsim.theory.deviations import exaggeration, rate, student_components, teacher_components

ROUNDING = 1e-12
"""Relative excess of the student's component that counts as none."""
EARLIEST, LATEST = 0.01, 1000.0
"""Times of the student, in units of 1/h_1."""


@dataclass(frozen=True)
class EigenPaths(Computation):
    """Students at many times of teachers that were stopped at some, over eigenvalues from 1 down to 1/condition.

    The truth is 1 along each direction; see `kdsim.theory.deviations` for the statement that is looked at, here for all
    pairs of directions.

    Attributes:
        directions: number of eigenvalues, evenly spaced in their logarithm.
        condition: the largest over the smallest eigenvalue, > 1.
        step_size: of gradient descent, below 1/h_1 = 1, from where on the statement does not hold; none: gradient flow.
        teacher_times: at which teachers are stopped, in units of 1/h_1; for descent, rounded up to whole steps.
        times: number of the student's times, evenly spaced in their logarithm; for descent likewise rounded.
    """

    directions: int = 8
    condition: float = 100.0
    step_size: float | None = None
    teacher_times: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0)
    times: int = 40

    name: ClassVar[str] = "eigen-paths"
    words: ClassVar[str] = (
        "comparisons: pairs of directions, times of the teacher and of the student; ratio: the student's component "
        "along the smaller eigenvalue over that of a model of the truth, stopped at the same component along the "
        "larger one; violations: ratios above one; over_lower_bound: the ratio over its lower bound, that of the rates."
    )

    columns: ClassVar[tuple[Column, ...]] = EIGEN_PATHS

    def __post_init__(self) -> None:
        require_count("directions", self.directions, least=2, most=64)
        require_positive("condition", self.condition)
        require_between("condition", self.condition, 1, math.inf, "()")
        if self.step_size is not None:
            require_between("step_size", self.step_size, 0, 1, "()")
        require_count("times", self.times, least=2)
        if not self.teacher_times:
            raise ConfigError("teacher_times must not be empty")
        for time in self.teacher_times:
            require_positive("teacher_times", time)

    def eigenvalues(self) -> Tensor:
        """h_1 = 1 > ... > h_d = 1/condition, (d,) float64."""
        return torch.logspace(0, -math.log10(self.condition), self.directions, dtype=torch.float64)

    def compute(self) -> Computed:
        rows: list[dict[str, Any]] = []
        compared = [
            pair for T in self._times(self.teacher_times) for t in self._moments() for pair in self._pairs(t, T)
        ]
        for teacher_time in self._times(self.teacher_times):
            for time in self._moments():
                rows += self._paths(time, teacher_time)
        ratios = [both.ratio for both, _ in compared]
        return Computed(
            measurement={
                "comparisons": len(compared),
                "violations": sum(ratio > 1 + ROUNDING for ratio in ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                # The lower bound of the proposition: it is approached, and never passed.
                "over_lower_bound_min": min(both.ratio / bound for both, bound in compared),
            },
            curves=pd.DataFrame(rows),
        )

    def _times(self, times: tuple[float, ...] | list[float]) -> list[float]:
        """In units of 1/h_1, or as numbers of steps."""
        if self.step_size is None:
            return list(times)
        return sorted({float(math.ceil(time / self.step_size - 1e-9)) for time in times})

    def _moments(self) -> list[float]:
        return self._times(torch.logspace(math.log10(EARLIEST), math.log10(LATEST), self.times).double().tolist())

    def _pairs(self, time: float, teacher_time: float) -> list[tuple[Any, float]]:
        """Of each pair of directions both sides of the statement, and the lower bound of their ratio."""
        found = []
        for first, second in combinations(self.eigenvalues().tolist(), 2):
            both = exaggeration(first, second, time, teacher_time, self.step_size)
            found.append((both, rate(second, self.step_size) / rate(first, self.step_size)))
        return found

    def _paths(self, time: float, teacher_time: float) -> list[dict[str, Any]]:
        """One row a direction; the early-stopped model has the student's component along the first."""
        h = self.eigenvalues()
        truth = torch.ones_like(h)
        tau = exaggeration(h[0].item(), h[1].item(), time, teacher_time, self.step_size).time
        student = student_components(h, truth, teacher_time, time, self.step_size)
        taught = teacher_components(h, truth, teacher_time, self.step_size)
        stopped = teacher_components(h, truth, tau, self.step_size)
        unit = 1.0 if self.step_size is None else self.step_size  # steps to times
        return [
            {
                "teacher_time": teacher_time * unit,
                "time": time * unit,
                "matched_time": tau * unit,
                "direction": number + 1,
                "eigenvalue": h[number].item(),
                "teacher": taught[number].item(),
                "student": student[number].item(),
                "early_stopped": stopped[number].item(),
            }
            for number in range(self.directions)
        ]
