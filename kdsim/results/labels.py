"""Names that tell the rows of a study apart, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdsim.results.rows import TEACHER, TRAINING


def labelled(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a study with names for people; rows of simulations are left as they are.

    label: supervision or kind of teacher, with the settings in which the study's teachers of this kind differ.
    loss_label: the loss, with the settings in which the study's losses of this name differ.
    """
    teachers = [row for row in rows if row.get("kind") == TEACHER]
    names = {row["cell"]: ", ".join([row["supervision"], *_differing(row, teachers)]) for row in teachers}
    found = []
    for row in rows:
        if row.get("kind") in (TRAINING, TEACHER):
            label = names.get(row["teacher_cell"], row["supervision"])
            row = {**row, "label": label, "loss_label": _loss_label(row, rows)}
        found.append(row)
    return found


def _differing(row: Mapping[str, Any], teachers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings of a teacher in which those of its kind differ."""
    alike = [other for other in teachers if all(other[key] == row[key] for key in ("supervision", "data"))]
    found = []
    for key in (*(key for key in row if key.startswith("teacher.")), "optimiser"):
        if len({str(other.get(key)) for other in alike}) > 1 and row[key] is not None:
            value = f"{row[key]:g}" if isinstance(row[key], float) else row[key]
            speaks = key in ("optimiser", "teacher.supervision")  # the value says what it is of
            found.append(value if speaks else f"{key.removeprefix('teacher.')} {value}")
    same_rule = [other["optimiser_settings"] for other in alike if other["optimiser"] == row["optimiser"]]
    return found + _differing_parts(row["optimiser_settings"], same_rule)


def _loss_label(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    others = [other["loss_settings"] for other in rows if other.get("loss_name") == row["loss_name"]]
    return " ".join([row["loss_name"], *_differing_parts(row["loss_settings"], others)])


def _differing_parts(settings: str, others: Sequence[str]) -> list[str]:
    """Of what `settings_text` wrote, the parts that are not the same in all others."""
    own, rest = _parts(settings), [_parts(other) for other in others]
    return [f"{name.replace('_', ' ')} {own[name]}" for name in own if any(o.get(name) != own[name] for o in rest)]


def _parts(settings: str) -> dict[str, str]:
    inside = settings.partition("(")[2].removesuffix(")")
    return dict(item.split("=", 1) for item in inside.split(", ") if "=" in item)
