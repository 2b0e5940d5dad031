"""What several studies settle in the same way: the student with its ridge, and the step size, as absolute numbers."""

from __future__ import annotations

from torch import Tensor

from kdsim.config import by_name, choose, require
from kdsim.population import Population
from kdsim.problems import Problem
from kdsim.students import STUDENTS, LinearStudent
from kdsim.students.base import RidgeKind
from kdsim.theory.constants import constants
from kdsim.theory.directions import eigendirections


def student_with_ridge(
    problem: Problem,
    population: Population,
    name: str,
    ridge: float | None,
    ridge_fraction: float,
    ridge_kind: RidgeKind,
) -> LinearStudent:
    """The student of that name ("auto": the one for which the problem's BCP is realisable) with its ridge.

    Args:
        ridge: lambda, absolute; None takes `ridge_fraction` of L, the smoothness of the loss on the pool.
        ridge_kind: "centred", "ordinary" or "none", which takes no ridge.
    """
    kind = choose("student", problem.student if name == "auto" else name, by_name(STUDENTS))
    if ridge_kind == "none":
        return kind()
    if ridge is None:
        ridge = ridge_fraction * constants(kind(), population).smoothness
    return kind(ridge, ridge_kind)


def step_size_within_t1(student: LinearStudent, population: Population, batch_size: int, fraction: float) -> float:
    """`fraction` of T1's step-size limit, 1 / (2 L_max) with the expected smoothness of the batch for L_max."""
    smoothness = constants(student, population).expected_smoothness(batch_size)
    require(smoothness > 0, "L_max of the problem's loss", smoothness, "above 0: no step size follows from it")
    return fraction / (2 * smoothness)


def slowest_rate(student: LinearStudent, population: Population, theta: Tensor) -> float:
    """Smallest curvature of the objective at theta (K, d) along which samples' gradients point, per unit step size."""
    return eigendirections(student, population, theta, count=2)[0][-1].item()


def stationary_length(
    step_size: float, rate: float, settle: float, window: float, least: int = 400
) -> tuple[int, float]:
    """(steps, tail fraction) of a run that settles for `settle` relaxation times 1/(alpha rate), and lasts `window`.

    Args:
        rate: the slowest curvature, see `slowest_rate`.
        least: steps of the shortest run; where it binds, the settling and the tail grow alike.
    """
    steps = max((settle + window) / (step_size * rate), least)
    return int(steps) + 1, window / (settle + window)
