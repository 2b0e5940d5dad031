"""Tables of trainings on long-tailed data: scores by group of classes, bias and variance, how much bias is gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdsim.conventions import GROUPS
from kdsim.results.rows import TRAINING
from kdsim.study.report import Row, interval_text, number, plus_minus
from kdsim.study.table_text import Table

_SETTING = ("data", "imbalance", "train_size", "seed")
"""Trainings that agree in these stand in one table."""


def grouped(rows: Sequence[Row]) -> list[Row]:
    """The trainings that have scores by group of classes, or would have if they had not diverged."""
    return [row for row in rows if row.get("kind") == TRAINING and "test_accuracy_tail" in row]


def tables(rows: Sequence[Row]) -> list[Table]:
    """Two tables for each data set and imbalance; of the second, where the BCP is known."""
    found = []
    for setting in _settings(grouped(rows)):
        found.append(_group_table(setting))
        if any(row.get("test_bias") is not None for row in setting):
            found.append(_bias_table(setting))
    return found


def _settings(rows: Sequence[Row]) -> Iterator[list[Row]]:
    settings: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        settings.setdefault(tuple(row.get(key) for key in _SETTING), []).append(row)
    yield from settings.values()


def _table(rows: Sequence[Row], headers: Sequence[str], optional: tuple[str, ...]) -> Table:
    """A table with the columns that say what each training is, and what all have in common above it."""
    first, several = rows[0], len({row["student"] for row in rows}) > 1
    own = ["student"] * several + ["loss", "taught by"]
    common = {
        "data": first["data"],
        "imbalance": number(first["imbalance"]),
        "training images": f"{first['train_size']:,}",
        "replicas": ", ".join(sorted({str(row["replicas"]) for row in rows})),
        "seed": str(first["seed"]),
    }
    table = Table([*own, *headers], [], numeric=set(headers), optional=optional, common=common)
    for row in rows:
        lost = f" ({row['diverged']} diverged)" if row["diverged"] else ""
        table.rows.append([row["student"]] * several + [row["loss_name"], row["label"] + lost])
    return table


def _group_table(rows: Sequence[Row]) -> Table:
    known = any(row.get("floor_tail") is not None for row in rows)
    headers = ["acc. %", *(f"{name} %" for name in GROUPS), *(f"KL {name}" for name in GROUPS if known)]
    table = _table(rows, headers, optional=("acc. %",))
    for row, cells in zip(rows, table.rows, strict=True):
        cells += [_percent(row, "test_accuracy"), *(_percent(row, f"test_accuracy_{name}") for name in GROUPS)]
        cells += [_short(row, f"floor_{name}") for name in GROUPS if known]
    table.notes.append(
        "acc.: on balanced test images at the last epoch, of all labels and of those in each group of classes; "
        "± half the 95 % interval over replicas."
    )
    if known:
        table.notes.append(
            "KL: the floor, KL(p, q) in nats on balanced validation images in the window, p the BCP under equal "
            "priors, over images with labels in the group."
        )
    return table


def _bias_table(rows: Sequence[Row]) -> Table:
    headers = ["KL to p", "bias", "variance", *GROUPS, "removed, %"]
    table = _table(rows, headers, optional=("KL to p",))
    if (prior := rows[0].get("prior_bias")) is not None:
        by_group = ", ".join(f"{name} {number(rows[0].get(f'prior_bias_{name}'), 3)}" for name in GROUPS)
        table.common["bias of the long-tailed BCP"] = f"{number(prior, 3)} ({by_group})"
        table.common["with groups made equal"] = number(rows[0].get("group_prior_bias"), 3)
    for row, cells in zip(rows, table.rows, strict=True):
        keys = ("test_bcp_kl", "test_bias", "test_variance", *(f"test_bias_{name}" for name in GROUPS))
        cells += [_short(row, key) for key in keys]
        cells.append(_percent(row, "test_bias_removed"))
    table.notes.append(
        "On the test images: KL(p, q) = bias KL(p, qbar) + variance KL(qbar, q), qbar the normalised geometric mean "
        "over replicas; jackknife. head, medium, tail: the bias by group."
    )
    table.notes.append(
        "removed: 1 - bias / bias of what teaches: of the BCP under the long-tailed priors, or of the trained "
        "teachers, paired with their students."
    )
    return table


def _percent(row: Mapping[str, Any], key: str) -> str:
    return interval_text(row, key, _tenths, _tenths, lambda end: f"{100 * end:.3g}")


def _tenths(share: float) -> str:
    return f"{100 * share:.1f}"


def _short(row: Mapping[str, Any], key: str) -> str:
    """A divergence in few characters."""
    if row.get(f"{key}_low") is None:
        return plus_minus(row, key)
    return interval_text(row, key, lambda value: f"{value:.3f}", lambda half: f"{half:.1g}")
