"""What tells the experiments of a result apart: columns of settings, and a text for each experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

CLASS, MARKS = "class", ("class", "source_sha256", "files_sha256")
"""Keys of a configuration's JSON form that are no fields, see `kdsim.config`."""
LABEL = "label"
ALIASES = {"level": "supervision."}
"""Columns of a row that repeat a field which has another name in each class of a part."""


def flat(configuration: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration's JSON form with dotted keys; a part stands for its class, a list for its text.

    Example:
        >>> flat({"class": "Cell", "supervision": {"class": "dirichlet", "concentration": 3.0}, "seed": 0})
        {'supervision': 'dirichlet', 'supervision.concentration': 3.0, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for key, value in configuration.items():
        if key in MARKS:
            continue
        if isinstance(value, Mapping):
            found[prefix + key] = value.get(CLASS)
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            found[prefix + key] = ", ".join(
                str(item.get(CLASS)) if isinstance(item, Mapping) else str(item) for item in value
            )
        else:
            found[prefix + key] = value
    return found


def varying(configurations: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The dotted keys in which configurations differ, each with the value of every one; None where it has no such key.

    A key that some have and others lack belongs to a part whose class differs, which tells them apart already; it
    counts only if those that have it differ.

    Example:
        >>> varying([{"class": "Cell", "seed": 0, "replicas": 2}, {"class": "Cell", "seed": 1, "replicas": 2}])
        {'seed': [0, 1]}
    """
    every = [flat(each) for each in configurations]
    if len({each.get(CLASS) for each in configurations}) > 1:  # trainings, teachers and computations in one study
        every = [{"kind": each.get(CLASS), **own} for each, own in zip(configurations, every, strict=True)]
    keys = dict.fromkeys(key for own in every for key in own)
    differing = [key for key in keys if len({repr(own[key]) for own in every if key in own}) > 1]
    return {key: [own.get(key) for own in every] for key in differing}


def label_columns(rows: Sequence[Mapping[str, Any]], configurations: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row an experiment: `label`, and the settings in which the experiments differ.

    A setting has the name of the column of `rows` that states it (`batch_size`), and its dotted key where no column
    does (`recording.tail_fraction`). Labels are unique: experiments that no setting tells apart are numbered.

    Args:
        rows: of the result.
        configurations: of the experiments, in JSON form.
    """
    columns: dict[str, list[Any]] = {}
    for key, values in varying(configurations).items():
        name = _column(key, values, rows)
        stated = all(name in row for row in rows)
        columns.setdefault(name, [row.get(name) for row in rows] if stated else values)
    if "supervision" in columns and any(row.get("level") is not None for row in rows):
        columns["level"] = [row.get("level") for row in rows]
    first = [name for name in ("supervision", "level") if name in columns]
    columns = {name: columns[name] for name in dict.fromkeys([*first, *columns])}
    names = _unique([_text(row, columns, number) for number, row in enumerate(rows)])
    return pd.DataFrame({LABEL: names, **columns})


def _column(key: str, values: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The name of the column that states a setting, or the setting's own key."""
    last = key.rpartition(".")[2]
    candidates = [key, last, f"{key}_kind", *(name for name, part in ALIASES.items() if key.startswith(part))]
    for name in candidates:
        told = [value == row.get(name) for value, row in zip(values, rows, strict=True) if value is not None]
        if all(name in row for row in rows) and all(told):
            return name
    return f"{key}_setting" if any(key in row for row in rows) else key  # a measured loss is no setting


def _text(row: Mapping[str, Any], columns: Mapping[str, Sequence[Any]], number: int) -> str:
    """What an experiment is, in few words: its own label where kdsim gives one, then what else varies."""
    own = row.get(LABEL)
    parts = [] if own is None else [str(own)]
    told = {"teacher_cell", "supervision", "level", "loss_kind"} if own is not None else set()
    if own is None and "supervision" in columns:
        told = {"level"}  # it stands beside its supervision
    for name, values in columns.items():
        value = values[number]
        if value is None or name in told or (own is not None and name.startswith(("supervision.", "loss."))):
            continue
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        if name == "supervision" and isinstance(level := row.get("level"), (int, float)) and "level" in columns:
            text = f"{text} {level:.4g}"
        parts.append(text if isinstance(value, str) and "." not in name else f"{_words(name)} {text}")
    if own is not None and row.get("loss_label") is not None and "loss_kind" in columns:
        parts.insert(1, str(row["loss_label"]))
    if not parts:
        parts = [str(row.get("supervision") or row.get("computation") or row.get("student") or "experiment")]
    return ", ".join(parts)


def _words(name: str) -> str:
    return name.rpartition(".")[2].replace("_", " ")


def _unique(names: Sequence[str]) -> list[str]:
    """The same with numbers where several are alike."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if names.count(name) == 1 else f"{name} ({seen[name]})")
    return found
