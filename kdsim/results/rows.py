"""One flat row a cell, from the content of its cell.json: what was run, what theory says, what was measured."""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping
from typing import Any

from kdsim import config
from kdsim.config import ConfigError, require
from kdsim.results.json_files import json_ready

TRAINING, TEACHER, COMPUTATION = "training", "teacher", "computation"
"""Under `kind` in cell.json and in rows; a simulation has none."""

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
    from kdsim.measure.floors import Measurement
    from kdsim.theory.prediction import Prediction

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


def training_row(study: str, cell: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a stored training or teacher, from the content of its cell.json.

    Raises:
        ConfigError: the content lacks something that a row has.
    """
    wanted = {TRAINING: ("student", "data", "supervision", "replicas"), TEACHER: ("teacher", "data", "replicas")}
    for part, keys in (("summary", wanted[content["kind"]]), ("measurement", ("diverged",))):
        if missing := [key for key in keys if key not in content[part]]:
            raise ConfigError(f"{part} has no {', '.join(missing)}")
    for name, value in content["measurement"].items():
        number = isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
        require(number or value is None, f"measurement: {name}", value, "a number")
    return json_ready(
        {
            "study": study,
            "cell": cell,
            "kind": content["kind"],
            **content["summary"],
            **content["prediction"],
            **content["measurement"],
        }
    )


def computation_row(study: str, cell: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a stored computation, from the content of its cell.json.

    Raises:
        ConfigError: the content lacks the kind of computation.
    """
    if "computation" not in content["summary"]:
        raise ConfigError("summary has no computation")
    return json_ready(
        {"study": study, "cell": cell, "kind": COMPUTATION, **content["summary"], **content["measurement"]}
    )


