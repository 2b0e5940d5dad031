"""One flat row a cell: what was run, what theory says, what was measured, and how the two compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kdsim import config
from kdsim.engines.recorder import Record
from kdsim.measure.floors import measure
from kdsim.population import Population
from kdsim.study.base import Cell
from kdsim.theory.prediction import predict


def json_ready(value: Any) -> Any:
    """The value in strict JSON: numpy and torch numbers become Python's, what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary(cell: Cell) -> dict[str, Any]:
    """What was run, flat. `level` is the amount of noise in the supervision's own parameter."""
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
        "dtype": cell.sgd.dtype,
        "steps": cell.sgd.steps,
        "tail_start": cell.recording.tail_start(cell.sgd.steps),
        "replicas": cell.replicas,
        "seed": cell.seed,
        "engine": cell.engine,
        "device": cell.device,
    }


def prediction(cell: Cell, population: Population) -> dict[str, Any]:
    """What theory says of the cell. `population` is the cell's."""
    predicted = predict(
        cell.student,
        population,
        cell.supervision,
        cell.step_size,
        cell.sgd.batch_size,
        cell.recording.tail_steps(cell.sgd.steps),
        fresh_with_replacement=cell.sgd.targets == "fresh" and cell.sgd.index == "replacement",
    )
    return json_ready(predicted.row())


def bound_curve(
    prediction: Mapping[str, Any], step_size: float, initial_dist_sq: float, steps: np.ndarray
) -> np.ndarray:
    """T1 at the given steps, (1 - step_size mu)^t initial_dist_sq + neighbourhood; NaN where it is no bound."""
    if not prediction["bound_valid"]:
        return np.full(len(steps), np.nan)
    return (1 - step_size * prediction["mu"]) ** steps * initial_dist_sq + prediction["bound_floor"]


def measurement(record: Record) -> dict[str, Any]:
    """What the cell's replicas showed."""
    return json_ready(measure(record).row())


_LAST = ("steps", "tail_start", "replicas", "seed", "engine", "device")
"""Keys of the summary that stand at the end of a row."""


def flat_row(
    study: str,
    digest: str,
    summary: Mapping[str, Any],
    prediction: Mapping[str, Any],
    measurement: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The row of a cell. Without a measurement it ends with the settings.

    `ratio` is the measured floor over the predicted one (None where either is missing or the prediction is 0);
    `tail_relaxations` is mu * step_size * tail_start, the start of the tail in relaxation times 1/(step_size mu).
    """
    first = {key: value for key, value in summary.items() if key not in _LAST}
    last = {key: summary[key] for key in _LAST}
    mu = prediction.get("mu")
    relaxations = None if mu is None else mu * summary["step_size"] * summary["tail_start"]
    row = {"study": study, "cell": digest, **first, **prediction}
    if measurement is not None:
        expected, floor = predicted_floor(prediction), measurement.get("floor")
        ratio = floor / expected if floor is not None and expected else None
        row |= {**measurement, **last, "ratio": ratio}
    else:
        row |= last
    return json_ready({**row, "tail_relaxations": relaxations})


def stored_row(study: str, digest: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a stored cell, from the content of its cell.json."""
    return flat_row(study, digest, info["summary"], info["prediction"], info["measurement"])


def predicted_floor(row: Mapping[str, Any]) -> float | None:
    """The sharpest floor that theory gives: exact where there is one, else first order in the step size."""
    exact = row.get("exact_floor")
    return exact if exact is not None else row.get("first_order_floor")
