"""One flat row a cell: what was run, what theory says, what was measured, and how the two compare."""

from __future__ import annotations

import math
import sys
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from kdsim import config
from kdsim.engines.base import Lane
from kdsim.engines.recorder import Record
from kdsim.measure import decompose, generalise, measure
from kdsim.measure.floors import Measurement
from kdsim.measure.validation import validate
from kdsim.population import Population
from kdsim.students import LinearStudent, NetworkStudent
from kdsim.study.base import Cell
from kdsim.theory.nonconvex import open_prediction
from kdsim.theory.prediction import Prediction, aim_of, predict


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
        expected, floor = predicted_floor(row), measurement.get("floor")
        ratio = floor / expected if floor is not None and expected else None
        row |= {**measurement, **last, "ratio": ratio}
    else:
        row |= last
    return json_ready({**row, "tail_relaxations": relaxations})


def stored_row(study: str, digest: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a stored cell, from the content of its cell.json.

    Raises:
        ConfigError: a value is of another type than kdsim writes.
    """
    hints = {"prediction": typing.get_type_hints(Prediction), "measurement": typing.get_type_hints(Measurement)}
    hints["summary"] = {"step_size": float, "tail_start": int, "replicas": int, "steps": int}
    for part, types in hints.items():
        _require_types(part, info[part], types)
    for name in hints["summary"]:
        config.require(info["summary"][name] is not None, f"summary: {name}", None, "what kdsim writes")
    return flat_row(study, digest, info["summary"], info["prediction"], info["measurement"])


_JSON_TYPES: dict[Any, tuple[type, ...]] = {float: (int, float), int: (int,), bool: (bool,), str: (str,)}


def _require_types(part: str, values: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Refuse lists and dictionaries, and values of other types than these; None stands for what is not finite."""
    for name, value in values.items():
        kinds = typing.get_args(hints.get(name)) or (hints.get(name),)
        allowed = [kind for each in kinds for kind in _JSON_TYPES.get(each, ())] or [bool, int, float, str]
        right = value is None or type(value) in allowed
        if isinstance(value, (int, float)):
            right = right and abs(value) <= sys.float_info.max  # JSON's whole numbers have no end
        config.require(right, f"{part}: {name}", value, "what kdsim writes")


def predicted_floor(row: Mapping[str, Any]) -> float | None:
    """The sharpest floor that theory gives: exact where there is one, else first order in the step size.

    With frozen targets first order in 1/N as well. None at and above the stability limit, where there is no floor.
    """
    exact, limit = row.get("exact_floor"), row.get("stability_limit")
    if limit is not None and row["step_size"] >= limit:
        return None
    first_order = row.get("first_order_floor")
    if first_order is None:
        first_order = row.get("frozen_floor")
    return exact if exact is not None else first_order
