"""Tables of how students deviate from their teachers, see `kdsim.measure.deviations`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from kdsim.conventions import DEVIATION_GROUPS
from kdsim.results.rows import TEACHER
from kdsim.study.report import Row, plus_minus
from kdsim.study.table_text import Table

SMALLEST = 1e-4
"""Half-widths of intervals below this are written with exponents."""
_SLOPES = (
    ("slope", "deviation_slope"),
    ("axis", "deviation_slope_axis"),
    ("upper", "deviation_slope_upper"),
)
_PLACES = (
    ("hardest", "deviation_q1"),
    ("below", "deviation_below_q1"),
    ("surest", f"deviation_q{DEVIATION_GROUPS}"),
    ("towards p", "deviation_towards"),
    ("change of KL", "deviation_kl_change"),
)
_NOTES = (
    "Deviations of students from their teachers on the test points, in logits log(q / (1 - q)) of the probability of "
    "the teacher's top class; ± half the 95 % interval over replicas. A teacher with samples counts as their mean.",
    "slope: of least squares of the student's logit on the teacher's, biased below one by whatever the student does "
    "not take over; upper: of the inverse regression, biased the other way; axis, between the two: ratio of standard "
    "deviations.",
    "exaggerates: the slope is above one, its bias notwithstanding; moderates: even upper is below one. Both by the "
    "95 % intervals, not corrected for the number of rows.",
)
_PLACE_NOTE = (
    "hardest, surest: mean of student's minus teacher's logit in the tenth of the points with the lowest and highest "
    "logit of the teacher; below: share of the hardest tenth where the student's logit is the lower one."
)
_TRUTH_NOTE = (
    "towards p: <q_s - q_t, p - q_t> / |p - q_t|^2 summed over points; 1 is the whole way to the truth, 0 orthogonal "
    "to it, negative away. change of KL: KL(p, q_s) - KL(p, q_t) in nats; negative: the student is closer to the truth."
)
_HEARD = {"label-cross-entropy": "labels", "cross-entropy": "teacher"}
"""What a student learns from, by the name of its loss."""


def deviating(rows: Sequence[Row]) -> list[Row]:
    """Students of which it is known how they deviate."""
    return [row for row in rows if row.get("deviation_slope") is not None]


def deviation_tables(all_rows: Sequence[Row]) -> list[Table]:
    """One row a student with a teacher: slopes, and then where it deviates and whether towards the truth.

    Args:
        all_rows: of the study; those that are no such students say how many teachers there are.
    """
    rows = deviating(all_rows)
    if not rows:
        return []
    slopes, places = _table(rows, _SLOPES), _table(rows, _PLACES)
    slopes.headers.append("")
    for texts, row in zip(slopes.rows, rows, strict=True):
        texts.append(reading(row))
    slopes.notes.extend(_NOTES)
    teachers = {row["cell"]: row["replicas"] for row in all_rows if row["kind"] == TEACHER}
    if fewer := sum(teachers.get(row["teacher_cell"], row["replicas"]) < row["replicas"] for row in rows):
        slopes.notes.append(
            f"Of {fewer} rows teachers are fewer than replicas: intervals leave out how teachers differ."
        )
    if most := max(row.get("deviation_left_out") or 0 for row in rows):
        slopes.notes.append(f"Points with an infinite logit are left out: up to {100 * most:.2g} % of a row's.")
    places.notes.append(_PLACE_NOTE)
    if "towards p" in places.headers:
        places.notes.append(_TRUTH_NOTE)
    return [slopes, places]


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, str]]) -> Table:
    """What a student is, and columns where there are any numbers; what all rows share stands above."""
    known = [item for item in columns if any(row.get(item[1]) is not None for row in rows)]
    kinds = {row["supervision"] for row in rows}
    identity = {
        "student of": [f"{row['teacher']} to {row['student']}" for row in rows],
        "teacher": [row["label"].removeprefix(f"{row['supervision']}, ") if len(kinds) == 1 else row["label"]
                    for row in rows],
        "learns from": [_heard(row["loss_label"]) for row in rows],
    }  # fmt: skip
    table = Table([], [[] for _ in rows], numeric={header for header, _ in known}, optional=("axis", "surest", "below"))
    if len(kinds) == 1:
        table.common["taught by"] = next(iter(kinds))
    for header, texts in identity.items():
        if len(set(texts)) == 1 and len(rows) > 1:
            table.common[header] = texts[0]
            continue
        table.headers.append(header)
        for cells, text in zip(table.rows, texts, strict=True):
            cells.append(text)
    table.headers.extend(header for header, _ in known)
    for cells, row in zip(table.rows, rows, strict=True):
        cells.extend(_brief(row, key) for _, key in known)
    return table


def _heard(loss: str) -> str:
    """The label of a loss with its common names in words."""
    words = re.sub(r"(?<!\S)(label-cross-entropy|cross-entropy)(?!\S)", lambda found: _HEARD[found[0]], loss)
    return re.sub(r"\.0(?!\d)", "", words)


def _brief(row: Row, key: str) -> str:
    """A mean with half its 95 % interval, both to two digits of the latter."""
    value, low = row.get(key), row.get(f"{key}_low")
    if value is None or low is None or not value - low > 0:
        return plus_minus(row, key)
    half = value - low
    if half < SMALLEST and abs(value) < 100 * SMALLEST:
        return f"{value:.1e} ± {half:.0e}"
    digits = max(0, 1 - math.floor(math.log10(half)))
    return f"{value:.{digits}f} ± {half:.{digits}f}"


def reading(row: Row) -> str:
    """What the slopes say: "exaggerates", "moderates", or nothing where the intervals do not tell."""
    if row.get("deviation_slope_low") is not None and row["deviation_slope_low"] > 1:
        return "exaggerates"
    if row.get("deviation_slope_upper_high") is not None and row["deviation_slope_upper_high"] < 1:
        return "moderates"
    return ""
