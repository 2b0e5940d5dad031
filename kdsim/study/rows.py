"""One flat row a cell: what was run, what theory says, what was measured, and how the two compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from kdsim import config
from kdsim.engines.base import Lane
from kdsim.engines.recorder import Record
from kdsim.measure import decompose, generalise, measure
from kdsim.measure.validation import validate
from kdsim.population import Population
from kdsim.results.json_files import json_ready
from kdsim.students import LinearStudent, NetworkStudent
from kdsim.study.base import Cell
from kdsim.theory.nonconvex import open_prediction
from kdsim.theory.prediction import aim_of, predict


def summary(cell: Cell) -> dict[str, Any]:
    """What was run, flat: the problem's parameters are problem.NAME, `level` is the supervision's own parameter."""
    return {
        "problem": config.kind_of(type(cell.problem)),
        "student": config.kind_of(type(cell.student)),
        "ridge": cell.student.ridge,
        "ridge_kind": cell.student.ridge_kind,
        "supervision": config.kind_of(type(cell.supervision)),
        "level": cell.supervision.level,
        "step_size": cell.step_size,
        "batch_size": cell.sgd.batch_size,
        "index": cell.sgd.index,
        "targets": cell.sgd.targets,
        "training_set": cell.sgd.training_set,
        "held_out": cell.sgd.held_out,
        "dtype": cell.sgd.dtype,
        "optimiser": config.kind_of(type(cell.sgd.optimiser)),
        "schedule": config.kind_of(type(cell.sgd.schedule)),
        "steps": cell.sgd.steps,
        "tail_start": cell.recording.tail_start(cell.sgd.steps),
        "replicas": cell.replicas,
        "seed": cell.seed,
        "engine": cell.engine,
        "device": cell.device,
        **{f"problem.{key}": value for key, value in vars(cell.problem).items() if not isinstance(value, tuple)},
    }


def prediction(cell: Cell, population: Population) -> dict[str, Any]:
    """What theory says of the cell. `population` is the cell's.

    Raises:
        ConfigError: the noise model's moments are none, see `require_sound`.
    """
    if isinstance(cell.student, NetworkStudent):
        batch_size = cell.sgd.batch_size
        return json_ready(open_prediction(cell.student, population, cell.supervision, batch_size, cell.seed))
    with_replacement = cell.sgd.index == "replacement"
    predicted = predict(
        cell.student,
        population,
        cell.supervision,
        cell.step_size,
        cell.sgd.batch_size,
        cell.recording.tail_steps(cell.sgd.steps),
        tail_checkpoints=cell.recording.tail_checkpoints(cell.sgd.steps),
        # A training set of its own is another pool for each replica: what is exact or a bound on this one is not there.
        fresh_with_replacement=cell.sgd.targets == "fresh" and with_replacement and cell.sgd.training_set is None,
        data_set=(cell.sgd.training_set or population.size) if cell.sgd.targets == "frozen" else None,
        with_replacement=with_replacement,
        plain=cell.sgd.plain,
    )
    return json_ready(predicted.row())


def bound_curve(
    prediction: Mapping[str, Any], step_size: float, initial_dist_sq: float, steps: np.ndarray
) -> np.ndarray:
    """T1 at the given steps, (1 - step_size mu)^t initial_dist_sq + neighbourhood; NaN where it is no finite bound."""
    if not prediction["bound_valid"] or prediction["bound_floor"] is None:
        return np.full(len(steps), np.nan)
    return (1 - step_size * prediction["mu"]) ** steps * initial_dist_sq + prediction["bound_floor"]


def needs_parameters(cell: Cell) -> bool:
    """Whether the cell's measurement looks at the parameters at the end of the run."""
    frozen = cell.sgd.targets == "frozen" and cell.sgd.training_set is not None
    return frozen and isinstance(cell.student, LinearStudent)


def measurement(
    cell: Cell, population: Population, record: Record, error: Tensor | None, *, reference: Tensor, anchor: Tensor
) -> dict[str, Any]:
    """What the cell's replicas showed.

    With `Recording(mean_error=True)` also the parts of the floor (`Decomposition`), with a training set of frozen
    targets also what they did on it (`Generalisation`), with held-out points their scores there (`validate`), which
    take the places of `accuracy`, `fluctuation` and `bcp_l2`.

    Args:
        error: theta - reference at the end of the run, (R, K, d); None if it is not needed (`needs_parameters`).
    """
    row = measure(record).row()
    if record.mean_error is not None:
        row |= decompose(record, aim_of(cell.student, population, cell.supervision) - reference).row()
    if needs_parameters(cell):
        lane = Lane(cell.supervision, cell.step_size, cell.seed, cell.replicas)
        found = generalise(
            cell.student, population, lane, cell.sgd, record, reference + error, reference=reference, anchor=anchor
        )
        row |= found.row()
    if cell.sgd.held_out:
        row |= validate(record, population.points(slice(population.size - cell.sgd.held_out, None)))
    return json_ready(row)
