"""Trainings of students of the engines: the call of the engine, and its record as that of a training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import torch

from kdsim.engines.base import SGD, Lane
from kdsim.engines.choice import AUTO, ENGINES, choose_engine
from kdsim.engines.recorder import Record, Recording
from kdsim.population import Population
from kdsim.problems.base import Problem, drawn
from kdsim.students import LinearStudent, NetworkStudent, minimiser
from kdsim.training.recipe import Recipe
from kdsim.training.record import TrainingRecord

HELD_OUT = 1 / 6
"""Share of a problem's pool that is the validation set; sources of images have one of their own."""


def run_on_engine(
    student: NetworkStudent | LinearStudent,
    problem: Problem,
    lane: Lane,
    recipe: Recipe,
    *,
    targets: Literal["fresh", "frozen"],
    looks: int,
    window: float,
    device: str,
    progress: Callable[[int, int], None] | None,
    stop: Callable[[], bool],
) -> tuple[TrainingRecord, dict[str, Any]] | None:
    """All replicas in one engine call, which is short: nothing is stored on the way, and one told to stop is lost.

    Args:
        lane: supervision, step size, seed and number of the replicas.
        targets, looks, window, device, progress, stop: see `StudentTrainer`.

    Returns:
        The record and the provenance.
    """
    population = drawn(problem, lane.seed)
    network = isinstance(student, NetworkStudent)
    held_out = held_out_of(student, population)
    training = population.size - held_out
    sgd = SGD(
        recipe.steps(training),
        recipe.batch_size,
        index="permutation",
        targets=targets,
        held_out=held_out,
        optimiser=recipe.optimiser,
        schedule=recipe.schedule,
    )
    recording = Recording(max(looks, 2), min(window, 0.99))
    lanes = [lane]
    choice = choose_engine(AUTO, student, population, lanes, sgd, recording, device)
    reference = student.reference(population) if network else minimiser(student, population)
    anchor = torch.zeros_like(reference) if network else student.anchor(population)

    def report(step: int) -> None:
        if progress is not None:
            progress(step * lane.replicas, sgd.steps * lane.replicas)

    def ask(step: int) -> bool:
        report(step)
        return stop()

    report(0)
    started = time.monotonic()
    record, _ = ENGINES[choice.engine].run(
        student, population, lanes, sgd, recording, reference=reference, anchor=anchor, device=device,
        stop=ask,
    )  # fmt: skip
    if record is None:
        return None
    report(sgd.steps)
    seconds = time.monotonic() - started
    sizes = {"classes": population.classes, "train_size": training, "validation_size": held_out, "test_size": 0}
    provenance = {"source": problem.name, "engine": choice.engine, **sizes}
    exact = network or student.realisable_optimum(population) is not None
    pieces = recipe.schedule.pieces([step - 1 for step in record.steps[record.steps > 0].tolist()], sgd.steps)
    return _as_training(record, seconds / lane.replicas, exact, pieces), provenance


def held_out_of(student: NetworkStudent | LinearStudent, population: Population) -> int:
    """Points of the validation set: the last ones of the pool. A linear student is seen on the whole pool."""
    return round(HELD_OUT * population.size) if isinstance(student, NetworkStudent) else 0


_NAMES = {"loss": "loss", "label_accuracy": "accuracy", "ece": "ece", "excess_risk": "bcp_kl", "bcp_l2": "bcp_l2"}
"""Curves of an engine's record, and their names in a training record."""


def _as_training(record: Record, seconds: float, exact: bool, pieces: list[int]) -> TrainingRecord:
    """The record of an engine as that of a training.

    Args:
        exact: whether excess risk is that above p itself, which is KL(p, q); else it is that above the best student.
    """
    seen = record.steps > 0
    names = {old: new for old, new in _NAMES.items() if old in record.curves}
    if not exact:
        names["excess_risk"] = "excess_risk"
    if "label_accuracy" not in names:
        names["accuracy"] = "accuracy"
    replicas = record.diverged_at.numel()
    steps = record.steps[seen]
    lost = (record.diverged_at >= 0) & (steps[:, None] >= record.diverged_at)  # (C, R)
    return TrainingRecord(
        steps=steps,
        curves={new: record.curves[old][seen].double().masked_fill(lost, float("nan")) for old, new in names.items()},
        test={},
        best_test={},
        best_step=torch.full((replicas,), int(record.steps[-1])),
        diverged_at=record.diverged_at,
        seconds=torch.full((replicas,), seconds, dtype=torch.float64),
        pieces=torch.tensor(pieces),
        truth=("bcp", "bcp"),
    )
