"""One flat row a cell, from the content of its cell.json: what was run, what theory says, what was measured."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kdsim.config import ConfigError, require
from kdsim.results import schema
from kdsim.results.json_files import json_ready
from kdsim.results.provenance import SHOWN, source_of
from kdsim.results.schema import Column, Kind

SIMULATION: Final = "simulation"
TRAINING: Final = "training"
TEACHER: Final = "teacher"
COMPUTATION: Final = "computation"
"""Kinds of cells, under `kind` in cell.json and in rows, which those of a simulation do not have."""
PARTS = ("summary", "prediction", "measurement")
"""Of cell.json, that make a row."""
COLUMNS_MARK, OWN_COLUMNS = "columns_sha256", "own_columns"
"""Keys of cell.json: `columns_mark`, and what a computation declares of its columns."""

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


def columns_mark(info: Mapping[str, Any]) -> str:
    """SHA-256 of the names of a row's columns: one that lacks a column is told from one that is older than it."""
    names = ("\0".join([part, *sorted(info.get(part) or ())]) for part in PARTS)
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()


def kind_of_row(row: Mapping[str, Any]) -> Kind:
    """The kind of cell that a row, or the content of a cell.json, is of; what is none is that of a simulation."""
    kind = row.get("kind")
    return kind if kind in (TRAINING, TEACHER, COMPUTATION) else SIMULATION


def own_columns(info: Mapping[str, Any]) -> tuple[Column, ...]:
    """What a stored computation declared of its columns; what is no declaration declares nothing."""
    found = []
    declared = info.get(OWN_COLUMNS)
    for name, said in declared.items() if isinstance(declared, Mapping) else ():
        try:
            words, interval = (said["type"], said["unit"], said["meaning"]), bool(said["interval"])
            found.append(Column(name, *words, "computation", (COMPUTATION,), interval=interval))
        except (KeyError, TypeError, ConfigError):
            continue
    return tuple(found)


def stored_row(study: str, digest: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a stored cell, from the content of its cell.json.

    What is newer than the row is None in it; what this kdsim does not know stays (`unknown_columns`).

    Raises:
        ConfigError: it lacks a column that it had when it was stored, or a value is of another type than its column's.
    """
    kind = kind_of_row(info)
    _require_whole(info, kind)
    for part in PARTS:
        _require_types(part, info[part], kind)
    if kind == SIMULATION:
        for name in ("step_size", "tail_start", "replicas", "steps"):
            require(info["summary"][name] is not None, f"summary: {name}", None, "what kdsim writes")
        row = flat_row(study, digest, info["summary"], info["prediction"], info["measurement"])
    else:
        known = {} if kind == COMPUTATION else info["prediction"]
        row = json_ready(
            {"study": study, "cell": digest, "kind": kind, **info["summary"], **known, **info["measurement"]}
        )
    newer = {name: None for name in schema.required(kind) if name not in row}
    return row | newer | {"source": source_of(info)[:SHOWN]}


_GIVEN = ("study", "cell", "kind")
"""Columns of a row that no part of cell.json gives: a cell that had one would pass for another."""
_FIRST: dict[Kind, dict[str, tuple[str, ...]]] = {
    SIMULATION: {"summary": ("step_size", *_LAST)},
    TRAINING: {"summary": ("student", "data", "supervision", "replicas"), "measurement": ("diverged",)},
    TEACHER: {"summary": ("teacher", "data", "replicas"), "measurement": ("diverged",)},
    COMPUTATION: {"summary": ("computation",)},
}
"""Without these there is no row."""


def _require_whole(info: Mapping[str, Any], kind: Kind) -> None:
    """Refuse a row without a column that it had when it was stored."""
    needed = {part: set(names) for part, names in _FIRST[kind].items()}
    mark = info.get(COLUMNS_MARK)
    altered = mark is not None and mark != columns_mark(info)
    if kind == SIMULATION and (mark is None or altered):  # of before there were marks, or to say what is missing
        parts = {"experiment": "summary", "theory": "prediction", "measurement": "measurement"}
        for name in schema.required(kind, first=True):
            column = schema.find(name, kind)
            assert column is not None, name  # the schema names it
            needed.setdefault(parts[column.source], set()).add(name)
    for part, names in needed.items():
        if missing := ", ".join(sorted(names - info[part].keys())):
            raise ConfigError(f"{part} has no {missing}")
    if altered:
        raise ConfigError("its columns are not those with which it was stored")


def _require_types(part: str, values: Mapping[str, Any], kind: Kind) -> None:
    """Refuse lists and dictionaries, and values of other types than their columns'; None stands for what is not there.

    What a computation has, and what this kdsim does not know, may be of any type.
    """
    for name, value in values.items():
        require(name not in _GIVEN, f"{part}: {name}", value, "what kdsim writes")
        for text in (name, value):
            require(not isinstance(text, str) or _is_unicode(text), f"{part}: {name!a}", text, "what kdsim writes")
        column = None if kind == COMPUTATION else schema.find(name, kind)
        right = schema.is_value(value, "any" if column is None else column.type)
        if isinstance(value, (int, float)):
            right = right and abs(value) <= sys.float_info.max  # JSON's whole numbers have no end
        require(right, f"{part}: {name}", value, "what kdsim writes")


def _is_unicode(text: str) -> bool:
    """Whether a file can hold it: JSON has halves of characters as well."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def unknown_columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Columns of rows that this kdsim does not know, as of a newer one; those of computations are their own."""
    found: dict[str, None] = {}
    seen: set[tuple[Kind, str]] = set()
    for row in rows:
        kind = kind_of_row(row)
        for name in row:
            if kind != COMPUTATION and (kind, name) not in seen:
                seen.add((kind, name))
                if schema.find(name, kind) is None:
                    found[name] = None
    return list(found)


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
