"""Any student as plain functions of one flat parameter vector (P,), for automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kdsim.config import require
from kdsim.population import Population
from kdsim.students.base import LinearStudent
from kdsim.students.network import NetworkStudent


@dataclass(frozen=True)
class FlatStudent:
    """A student's outputs and objective as functions of flat parameters.

    Attributes:
        head: the loss in the outputs and its derivatives.
        outputs: (parameters (P,), x (b, d)) -> (b, K).
        objective: (parameters (P,), x (b, d), q (b, K)) -> (), the mean loss plus the ridge.
        ridge: lambda.
    """

    head: LinearStudent
    outputs: Callable[[Tensor, Tensor], Tensor]
    objective: Callable[[Tensor, Tensor, Tensor], Tensor]
    ridge: float


def flat(student: LinearStudent | NetworkStudent, population: Population) -> FlatStudent:
    """The student in flat form; a linear student's theta (K, d) is flattened row by row, its ridge has its anchor."""
    if isinstance(student, NetworkStudent):
        return FlatStudent(student.head, student.outputs, student.objective, student.ridge)
    require(isinstance(student, LinearStudent), "student", student, "a LinearStudent or a NetworkStudent")
    anchor = student.anchor(population)

    def outputs(parameters: Tensor, x: Tensor) -> Tensor:
        return x @ parameters.view(anchor.shape).T

    def objective(parameters: Tensor, x: Tensor, q: Tensor) -> Tensor:
        return student.objective(parameters.view(anchor.shape), x, q, anchor)

    return FlatStudent(student, outputs, objective, student.ridge)
