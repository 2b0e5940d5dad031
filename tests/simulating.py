"""Simulations whose engine does not matter to a test: that all walk the same paths is shown in tests/engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdsim.engines import AUTO, ENGINES, SGD, Lane, Record, Recording, State, choose_engine
from kdsim.population import Population
from kdsim.students import LinearStudent


def simulate(
    student: LinearStudent,
    population: Population,
    lanes: Sequence[Lane],
    sgd: SGD,
    recording: Recording,
    **options: Any,
) -> tuple[Record | None, State]:
    """`Engine.run` of the engine that studies take by themselves, which is the fastest."""
    choice = choose_engine(AUTO, student, population, lanes, sgd, recording, "cpu")
    return ENGINES[choice.engine].run(student, population, lanes, sgd, recording, **options)
