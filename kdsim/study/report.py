"""Tables for people: cells with theory, and what was measured beside it. Text only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdsim.conventions import FEWEST_REPLICAS, LARGEST_CHANGE
from kdsim.intervals import ends
from kdsim.results.rows import SIMULATION, TRAINING, predicted_floor
from kdsim.results.schema import heading
from kdsim.study.table_text import Table

Row = Mapping[str, Any]
UNKNOWN_DRIFT = "drift?"
"""Mark of a row of which it is not known whether its floor is stationary."""
BEYOND = "beyond"
"""In place of a second-order floor at step sizes at which it is not stated."""
Text = Callable[[float], str]

_IDENTITY = (
    "problem",
    "student",
    "ridge_kind",
    "ridge",
    "step_size",
    "batch_size",
    "index",
    "targets",
    "training_set",
    "dtype",
    "seed",
)
"""Keys that get a column where they differ between rows, and are stated once where they do not."""


# Results --------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 4) -> str:
    """A number in few characters, "-" where there is none."""
    return "-" if value is None else f"{value:.{digits}g}"


def cells_table(rows: Sequence[Row]) -> Table:
    """What would be run, and theory's numbers for it."""
    table = _table(rows, optional=("sigma*^2", "T1'", "2nd order"))
    _add(table, heading("sigma_star_sq"), [number(row["sigma_star_sq"]) for row in rows])
    _add(table, "floor", [number(predicted_floor(row)) for row in rows])
    _add_second_order(table, rows)
    _add_bound(table, "T1", rows, "bound")
    _add_bound(table, "T1'", rows, "sharp_bound")
    _note_theory(table, rows, "floor")
    return table


def results_table(rows: Sequence[Row]) -> Table:
    """What was measured, beside what theory says; on validation sets, and of trainings, their scores."""
    if rows[0].get("kind") == TRAINING:
        return training_table(rows)
    if all(row.get("final_loss") is not None for row in rows):
        return _validation_table(rows)
    table = _table(rows, optional=("problem", "fluct.", "2nd order", "T1"))
    _add(table, "floor", [_measured(row, "floor") for row in rows])
    if any(row["floor"] is None and row["excess_risk_floor"] is not None for row in rows):  # no distance, but a risk
        _add(table, heading("excess_risk_floor"), [_measured(row, "excess_risk_floor") for row in rows])
    if any(predicted_floor(row) is not None for row in rows):
        _add(table, "theory", [number(predicted_floor(row)) for row in rows])
        _add_second_order(table, rows)
        _add(table, "ratio", ["-" if row["ratio"] is None else f"{row['ratio']:.3f}" for row in rows])
    _add_bound(table, "T1", rows, "bound")
    _add(table, heading("fluctuation"), [number(row["fluctuation"], 3) for row in rows])
    marks = [_mark(row) for row in rows]
    if any(marks):
        _add(table, "", marks, numeric=False)
        table.notes.append("drift: the floor still changed within the tail; diverged: replicas that did.")
    if UNKNOWN_DRIFT in marks:
        table.notes.append(f"{UNKNOWN_DRIFT}: not known, with fewer than {FEWEST_REPLICAS} replicas or one sample.")
    table.notes.append(
        "floor: tail mean of |theta - theta*|^2, ± half its 95 % interval; fluct.: standard deviation within the tail."
    )
    if "theory" in table.headers:
        _note_theory(table, rows, "theory")
    return table


def _validation_table(rows: Sequence[Row]) -> Table:
    table = _table(rows, optional=("problem", "ece", "accuracy"))
    if "level" not in table.headers:
        _add(table, "level", [number(row["level"]) for row in rows])
    table.common["loss of the BCP"] = number(rows[0]["bayes_loss"])
    for key in ("final_loss", "excess_loss", "fluctuation", "bcp_l2", "accuracy", "ece"):
        _add(table, heading(key, SIMULATION), [_measured(row, key) for row in rows])
    table.notes.append(
        "At the last step, on labels of held-out points, ± half the 95 % interval over replicas; fluct.: standard "
        "deviation of a replica's loss in the tail."
    )
    return table


_TRAINING_IDENTITY = (
    "data", "imbalance", "student", "teacher", "supervision", "level", "loss_name", "recipe", "epochs", "step_size",
    "batch_size", "targets", "precision", "train_size", "seed", "replicas",
)  # fmt: skip
_TRAINING_SCORES = (
    "test_accuracy", "test_loss", "test_ece", "accuracy", "loss", "floor", "noise_accuracy", "noise_loss",
)  # fmt: skip


def planned_table(rows: Sequence[Row]) -> Table:
    """What would be trained, and what the truth says of it."""
    table = _training_identity(rows)
    _add(table, "steps", [f"{row['steps']:,}" for row in rows])
    _add(table, "cell", [row["cell"] for row in rows], numeric=False)
    if any(row["nu"] is not None for row in rows):
        _add(table, "nu", [number(row["nu"]) for row in rows])
    if rows[0]["bayes_loss"] is not None:
        table.common["validation loss of the truth"] = number(rows[0]["bayes_loss"])
    return table


def computation_tables(rows: Sequence[Row]) -> list[Table]:
    """Of each kind of computation a table: settings, where they differ, and what was computed."""
    found = []
    for name in dict.fromkeys(row["computation"] for row in rows):
        alike = [row for row in rows if row["computation"] == name]
        table = Table([], [[] for _ in alike], common={"computation": name})
        for key in dict.fromkeys(key for row in alike for key in row):
            if key in ("study", "cell", "kind", "computation", "words") or key.endswith(("_low", "_high")):
                continue
            values = [row.get(key) for row in alike]
            numeric = all(value is None or type(value) in (int, float) for value in values)
            texts = [plus_minus(row, key) if numeric else _text(row.get(key)) for row in alike]
            if len(set(texts)) == 1 and len(alike) > 1:
                table.common[key] = texts[0]
            else:
                _add(table, key, texts, numeric=numeric)
        table.notes.extend(dict.fromkeys(row["words"] for row in alike if row.get("words")))
        found.append(table)
    return found


def _training_identity(rows: Sequence[Row]) -> Table:
    """A table with the columns that say what each training is."""
    table = Table([], [[] for _ in rows], optional=("loss", "test ece", "noise loss", "test loss", "cell"))
    for key in _TRAINING_IDENTITY:
        texts = [_text(row.get(key)) for row in rows]
        if len(set(texts)) > 1:
            _add(table, key, texts, numeric=isinstance(rows[0].get(key), (int, float)))
        elif texts[0] != "-":
            table.common[key] = texts[0]
    return table


def training_table(rows: Sequence[Row]) -> Table:
    """What trainings gave, on test images and in the window."""
    table = _training_identity(rows)
    for key in _TRAINING_SCORES:
        if key in ("accuracy", "loss") and any(row.get("test_accuracy") is not None for row in rows):
            continue
        if any(row.get(key) is not None for row in rows):
            _add(table, heading(key, TRAINING), [plus_minus(row, key) for row in rows])
    marks = [_training_mark(row) for row in rows]
    if any(marks):
        _add(table, "", marks, numeric=False)
    if "drift" in marks:
        table.notes.append("drift: KL to p still changed within the window.")
    if UNKNOWN_DRIFT in marks:
        table.notes.append(
            f"{UNKNOWN_DRIFT}: with fewer than {FEWEST_REPLICAS} replicas it is not known whether KL to p changed."
        )
    bayes = rows[0].get("bayes_test_loss")
    if bayes is not None and all(row["bayes_test_loss"] == bayes for row in rows):
        table.common["test loss of the truth"] = number(bayes)
    several = any(row["replicas"] > 1 for row in rows)
    table.notes.append(
        "test: on the test images at the last epoch"
        + (", ± half the 95 % interval over replicas." if several else "; one replica, hence no intervals.")
    )
    if "KL to p" in table.headers:
        table.notes.append("KL to p: on validation images, mean over the window; p is the BCP or people's frequencies.")
    if any(header.startswith("noise") for header in table.headers):
        table.notes.append("noise: standard deviation of a validation curve about its own line in the window.")
    return table


def _training_mark(row: Row) -> str:
    if row["diverged"]:
        return f"{row['diverged']} diverged"
    if row.get("stationary") is None:
        return "" if row.get("floor_drift") is None else UNKNOWN_DRIFT
    return "" if row["stationary"] else "drift"


def plus_minus(row: Row, key: str) -> str:
    """A mean with half its 95 % interval, where there is one."""
    return interval_text(row, key, number, lambda half: number(half, 2))


def interval_text(row: Row, key: str, value_text: Text, half_text: Text, end_text: Text | None = None) -> str:
    """A mean and its 95 % interval: value ± half, or value (low to high) where half would leave the quantity's range.

    Args:
        value_text, half_text: of the mean, and of half the interval.
        end_text: of the ends of the interval where they are shown; None for three digits.
    """
    value, low = row.get(key), row.get(f"{key}_low")
    if value is None:
        return "-"
    if low is None:
        return value_text(value)
    lower, upper = (low, None) if row.get(f"{key}_high") is None else ends(row, key)
    if lower == low:
        return f"{value_text(value)} ± {half_text(value - low)}"
    return f"{value_text(value)} ({' to '.join(map(end_text or _end_text, (lower, upper)))})"


def explained(table: Table) -> Table:
    """The table with a note on what `interval_text` writes, where a cell has an interval by its ends."""
    cells = (cell for row in table.rows for cell in row)
    if any(re.search(r" \(\S+ to \S+\)\*?$", cell) for cell in cells):
        table.notes.append(
            "a (b to c): the 95 % interval of the logarithm, of an accuracy of the logit; ± would leave the range."
        )
    return table


def _end_text(end: float) -> str:
    return number(end, 2)


def _table(rows: Sequence[Row], optional: tuple[str, ...]) -> Table:
    """A table with the columns that say what each row is."""
    distinct = {key: list(dict.fromkeys(_text(row[key]) for row in rows)) for key in (*_IDENTITY, "steps", "replicas")}
    table = Table(
        [],
        [[] for _ in rows],
        common={key: texts[0] for key, texts in distinct.items() if len(texts) == 1 and texts[0] != "-"},
        optional=optional,
    )
    _add(table, "supervision", [row["supervision"] for row in rows], numeric=False)
    levels = [number(row["level"]) for row in rows]
    kinds = [(row["supervision"], number(row["nu"], 3)) for row in rows]
    if len(set(zip(kinds, levels, strict=True))) > len(set(kinds)):  # nu does not tell the levels apart
        _add(table, "level", levels)
    _add(table, "nu", [number(row["nu"], 3) for row in rows])
    for key in _IDENTITY:
        if len(distinct[key]) > 1:
            numeric = isinstance(rows[0][key], (int, float))
            _add(table, key, [_text(row[key]) for row in rows], numeric=numeric)
    return table


def _add(table: Table, header: str, column: Sequence[str], *, numeric: bool = True) -> None:
    table.headers.append(header)
    if numeric:
        table.numeric.add(header)
    for cells, text in zip(table.rows, column, strict=True):
        cells.append(text)


def _add_bound(table: Table, header: str, rows: Sequence[Row], key: str) -> None:
    """A bound's neighbourhood, or the number of the note that says why the bound does not apply."""
    texts = []
    for row in rows:
        if row[f"{key}_valid"]:
            texts.append(number(row[f"{key}_floor"], 3))
        else:
            reason = f"no bound: {row[f'{key}_condition']}"
            mark = next((note.split()[0] for note in table.notes if note.endswith(reason)), None)
            if mark is None:
                mark = f"({sum(note.startswith('(') for note in table.notes) + 1})"
                table.notes.append(f"{mark} {reason}")
            texts.append(mark)
    _add(table, header, texts)


def _add_second_order(table: Table, rows: Sequence[Row]) -> None:
    """The floor to second order, where there is one that is not exact already, or that the step size is beyond it."""
    values = [None if row["exact_floor"] is not None else row.get("second_order_floor") for row in rows]
    beyond = [_beyond_second_order(row) for row in rows]
    if any(values) or any(beyond):
        texts = [BEYOND if past else number(value) for past, value in zip(beyond, values, strict=True)]
        _add(table, heading("second_order_floor"), texts)
        table.notes.append("2nd order: the floor of the dynamics linearised at the optimum, at this step size.")
    if any(beyond):
        table.notes.append(
            f"{BEYOND}: beyond second order, which is not stated where it would exceed first order by more than "
            f"{LARGEST_CHANGE:.0%} of itself."
        )


def _beyond_second_order(row: Row) -> bool:
    """Whether theory knows the linearised dynamics, these are stable, and yet it states no second order."""
    missing = row.get("second_order_floor") is None and row.get("exact_floor") is None
    limit = row.get("stability_limit")
    known = row.get("first_order_floor") is not None and limit is not None
    return missing and known and row.get("stability_kind") == "linearised" and row["step_size"] < limit


def _note_theory(table: Table, rows: Sequence[Row], header: str) -> None:
    exact = {row["exact_floor"] is not None for row in rows}
    kind = {(True,): "exact", (False,): "first order in the step size"}.get(tuple(exact), "exact or first order")
    table.notes.append(f"{header}: predicted |theta - theta*|^2, {kind}. T1: its neighbourhood, where it is a bound.")


def _text(value: Any) -> str:
    return number(value) if isinstance(value, float) or value is None else str(value)


def _measured(row: Row, key: str) -> str:
    value = row[key]
    if not value:
        return number(value)

    def percent(half: float) -> str:
        share = 100 * half / abs(value)
        return f"{share:.{2 if share < 99.5 else 3}g} %"

    return interval_text(row, key, number, percent)


def _mark(row: Row) -> str:
    if row["diverged"]:
        return f"{row['diverged']} diverged"
    if row["stationary"] is None:
        return UNKNOWN_DRIFT
    return "" if row["stationary"] else "drift"
