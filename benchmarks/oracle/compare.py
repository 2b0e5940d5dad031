"""Whether two tables of rows say the same: rows are matched by what was run, then compared column by column.

- *Simulations, theory and computations* agree to a relative `RELATIVE`, or to `OF_START` of the start's distance where
  a number is zero to rounding (the floor of an exact BCP). A row has no squared distance of the start, but the excess
  risk f_0 - f* there (`initial_excess`), and the smoothness L of f gives f_0 - f* <= L/2 |theta_0 - theta*|^2: so
  2 initial_excess / L is at most the squared distance, and the tolerance at most what is allowed.
- *Trainings of networks* are compared in the same way, and where they differ, statistically: each column with an
  interval by Welch's t-test from the standard errors over replicas, with Bonferroni's correction for the number of
  comparisons of the table. Numbers of a training that have no interval (nu, the truth's loss) are no matter of chance.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scipy import stats

RELATIVE = 1e-6
OF_START = 1e-9
LEVEL = 0.01
"""Probability that a table of trainings is said to differ where nothing but chance does."""
CONFIDENCE = 0.95
"""Of the intervals NAME_low to NAME_high."""

RENAMED: dict[str, str | None] = {}
"""Columns of BEFORE to their names in AFTER, where a rebuilding has renamed them; None where it has removed one."""

SIMULATED = ("problem", "student", "ridge", "ridge_kind", "supervision", "level", "step_size", "batch_size", "index",
             "targets", "training_set", "held_out", "dtype", "optimiser", "schedule", "steps", "tail_start", "replicas",
             "seed", "engine", "device")  # fmt: skip
TRAINED = ("kind", "computation", "data", "truth", "test_truth", "teacher", "teacher_cell", "members", "loss_kind",
           "loss_name", "loss_settings", "optimiser_settings", "recipe", "epochs", "augmentation", "precision",
           "evaluations", "window", "imbalance", "train_size")  # fmt: skip
LABELS = frozenset(SIMULATED + TRAINED)
"""Columns that say what was run, beside those of PREFIXES."""
PREFIXES = ("problem.", "data.", "teacher.")
NOT_COMPARED = frozenset({"study", "cell", "against", "source", "images_per_replica_second"})
"""Digests, provenance and times."""
PROSE = ("words", "_condition", "label")
"""Ends of columns in words for people: a change of the wording is counted and does not differ."""
OF_ROUNDING = ("drift_z", "ratio", "stationary", "fluctuation")
"""Starts of columns that say nothing where the floor is zero to rounding in both trees."""
NO_INTERVAL = ("best_step", "stationary", "diverged", "drift_z", "floor_se", "ratio")
"""Columns of a training that vary by chance and have no interval: not judged where the training is not the same."""

Row = Mapping[str, Any]
Test = tuple[Row, str, Any, float]
"""Row and column of BEFORE, the value of AFTER, p."""


@dataclass(frozen=True)
class Difference:
    """One value that differs: the row by its labels, the column, and both values (None: there is none)."""

    row: str
    column: str
    before: Any
    after: Any
    why: str = ""

    def __str__(self) -> str:
        why = f"  ({self.why})" if self.why else ""
        return f"{self.column}: {_text(self.before)} before, {_text(self.after)} after{why}  in {self.row}"


@dataclass
class Comparison:
    """What a table came to.

    Attributes:
        rows: matched rows.
        columns: number of columns compared.
        largest: largest relative difference of any number that is judged by tolerance alone.
        identical: whether all values are the same to the last bit.
        tests: number of statistical comparisons, none where all trainings agree to the tolerance.
        z: the largest |z| of these, and z_limit what is allowed.
        differences: what differs.
        only_before, only_after: columns that one tree lacks. One that AFTER lacks is a difference, unless RENAMED
            has it; a new one is none.
        notes: what was not judged, and why.
    """

    rows: int = 0
    columns: int = 0
    largest: float = 0.0
    identical: bool = True
    tests: int = 0
    z: float = 0.0
    z_limit: float | None = None
    differences: list[Difference] = field(default_factory=list)
    only_before: list[str] = field(default_factory=list)
    only_after: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """In one word or two."""
        if self.differences:
            return f"DIFFERS in {len(self.differences)}"
        if self.identical:
            return "identical"
        return f"agrees, |z| <= {self.z:.1f} of {self.tests}" if self.tests else "agrees"


def compare(before: Sequence[Row], after: Sequence[Row], renamed: Mapping[str, str | None] | None = None) -> Comparison:
    """Compare two tables.

    Args:
        before, after: rows as the command line prints them in JSON; None stands for what is not finite.
        renamed: columns of `before` to their names in `after`; by default RENAMED.
    """
    renamed = RENAMED if renamed is None else renamed
    before = [
        {name: value for key, value in row.items() if (name := renamed.get(key, key)) is not None} for row in before
    ]
    found = Comparison()
    ours, theirs = _columns(before), _columns(after)
    found.only_before = sorted(ours - theirs)
    found.only_after = sorted(theirs - ours)
    common = ours & theirs
    found.columns = len(common)
    labels = sorted(filter(is_label, common))
    pairs, lost, new, moved = match(_taught(before, labels), _taught(after, labels), labels)
    found.differences += [Difference(describe(row), "row", "present", None, "row lost") for row in lost]
    found.differences += [Difference(describe(row), "row", None, "present", "row new") for row in new]
    found.differences += moved
    found.differences += [Difference("all rows", key, "present", None, "column lost") for key in found.only_before]
    found.rows = len(pairs)
    judged: list[Test] = []
    told: Counter[str] = Counter()
    for first, second in pairs:
        _compare_row(first, second, common - set(labels), found, judged, told)
    found.notes += [f"{note} in {count} rows" for note, count in sorted(told.items())]
    _judge(judged, found)
    found.identical &= not found.differences
    return found


def is_label(column: str) -> bool:
    """Whether a column says what was run."""
    return column in LABELS or column.startswith(PREFIXES)


def _columns(rows: Sequence[Row]) -> set[str]:
    return {key for row in rows for key in row} - NOT_COMPARED


# Which rows belong together -----------------------------------------------------------------------


def match(
    before: Sequence[Row], after: Sequence[Row], labels: Sequence[str]
) -> tuple[list[tuple[Row, Row]], list[Row], list[Row], list[Difference]]:
    """Pairs of rows with the same labels, rows without a partner in each tree, and labels that moved.

    Labels that are computed (a step size) are the same to RELATIVE. Rows with the same labels are paired in their
    order. What is left over is paired with the row from which the fewest labels differ, if these are at most
    `MOVED`, so that a moved step size is shown as one number and not as two rows. Such rows are compared further only
    where the labels that moved are texts: with another number in its settings, another thing was run.
    """
    left = list(after)
    pairs, unmatched = [], []
    for row in before:
        partner = next((other for other in left if not _moved(row, other, labels)), None)
        if partner is None:
            unmatched.append(row)
        else:
            left.remove(partner)
            pairs.append((row, partner))
    lost, differences = [], []
    for row in unmatched:
        partner = min(left, key=lambda other, row=row: len(_moved(row, other, labels)), default=None)
        if partner is None or len(_moved(row, partner, labels)) > MOVED:
            lost.append(row)
            continue
        left.remove(partner)
        moved = _moved(row, partner, labels)
        if not any(_is_number(each.get(key)) for each in (row, partner) for key in moved):
            pairs.append((row, partner))
        differences += [Difference(describe(row), key, row.get(key), partner.get(key), "was run") for key in moved]
    return pairs, lost, left, differences


MOVED = 4
"""Labels in which two rows may differ and still be taken for one: step size, ridge, steps, start of the tail."""


def _moved(first: Row, second: Row, labels: Sequence[str]) -> list[str]:
    return [key for key in labels if not _same_label(first.get(key), second.get(key))]


def _same_label(first: Any, second: Any) -> bool:
    if _is_number(first) and _is_number(second):
        return math.isclose(first, second, rel_tol=RELATIVE)
    if isinstance(first, str) and isinstance(second, str):
        return _WHOLE.sub(r"\1", first) == _WHOLE.sub(r"\1", second)
    return first == second


_WHOLE = re.compile(r"(?<![\w.])(\d+)\.0(?![\w.])")
"""A float that is a whole number, within a text of settings: it is the same setting as the int."""


def _taught(rows: Sequence[Row], labels: Sequence[str]) -> list[Row]:
    """The rows with a teacher's digest replaced by the labels of the teacher's row, as digests differ between trees."""
    if "teacher_cell" not in labels:
        return list(rows)
    own = [key for key in labels if key != "teacher_cell"]
    names = {row["cell"]: ", ".join(f"{key} {_text(row.get(key))}" for key in own) for row in rows if row.get("cell")}
    return [dict(row) | {"teacher_cell": names.get(row.get("teacher_cell"))} for row in rows]


def describe(row: Row) -> str:
    """The labels of a row that tell it from others of its study, in one line."""
    first = ("kind", "problem", "student", "teacher", "label", "supervision", "level", "loss_name", "step_size")
    rest = ("batch_size", "epochs", "train_size", "targets", "training_set", "recipe", "computation")
    rest += ("problem.classes", "problem.dimension")
    told = [f"{key} {_text(row[key])}" for key in (*first, *rest) if row.get(key) is not None]
    return ", ".join(told) or ", ".join(f"{key} {value}" for key, value in row.items() if isinstance(value, str))


# Values -------------------------------------------------------------------------------------------


def _compare_row(
    first: Row, second: Row, columns: set[str], found: Comparison, judged: list[Test], told: Counter[str]
) -> None:
    """Compare the values of a pair; what is left to chance is put into `judged`, what is not judged into `told`."""
    start = _Start.of(first, second)
    differing, largest = [], 0.0
    for column in sorted(columns):
        a, b = first.get(column), second.get(column)
        if _same(a, b):
            continue
        found.identical = False
        if column.endswith(PROSE) and isinstance(a, str) and isinstance(b, str):
            told[f"{column}: worded otherwise"] += 1
        elif start.rounded and column.startswith(OF_ROUNDING):
            told[f"{column}: not judged, the floor is rounding,"] += 1
        elif not (_is_number(a) and _is_number(b)):
            differing.append(column)
        elif abs(a - b) > start.tolerance(column):
            relative = abs(a - b) / max(abs(a), abs(b))
            largest = max(largest, relative)
            if relative > RELATIVE:
                differing.append(column)
    chance = by_chance(first) and by_chance(second) and any(_tested(first, column) for column in differing)
    if not chance:
        found.largest = max(found.largest, largest)
        found.differences += [
            Difference(describe(first), column, first.get(column), second.get(column)) for column in differing
        ]
        return
    for column in differing:
        p = _welch(first, second, column)
        if p is not None:
            judged.append((first, column, second.get(column), p))
        elif column in NO_INTERVAL or (f"{column}_low" in first and first[f"{column}_low"] is None):
            told[f"{column}: not judged, there is no interval,"] += 1
        elif not column.endswith(("_low", "_high")):
            found.differences.append(Difference(describe(first), column, first.get(column), second.get(column)))
    # Every column of the training with an interval is a comparison, those that are the same too.
    same = [column for column in columns - set(differing) if _tested(first, column) and _tested(second, column)]
    judged += [(first, column, second.get(column), 1.0) for column in same]


def by_chance(row: Row) -> bool:
    """Whether a row is a training of networks, which rounding alone sends elsewhere.

    In an engine that is a float32 run of a student that theory says nothing of.
    """
    if row.get("kind") in ("training", "teacher"):
        return True
    return row.get("kind") is None and row.get("dtype") == "float32" and row.get("initial_excess") is None


def _tested(row: Row, column: str) -> bool:
    """Whether a column is a mean over replicas with an interval."""
    return all(_is_number(row.get(key)) for key in (column, f"{column}_low", f"{column}_high"))


def _welch(first: Row, second: Row, column: str) -> float | None:
    """Two-sided p-value of Welch's t-test, from the means and their intervals; None without these or any spread."""
    if not (_tested(first, column) and _tested(second, column)):
        return None
    a, b = _squared_error(first, column), _squared_error(second, column)
    if a[0] + b[0] == 0:
        return None
    freedom = (a[0] + b[0]) ** 2 / (a[0] ** 2 / a[1] + b[0] ** 2 / b[1])
    t = (first[column] - second[column]) / math.sqrt(a[0] + b[0])
    return float(2 * stats.t.sf(abs(t), freedom))


def _squared_error(row: Row, column: str) -> tuple[float, int]:
    """Squared standard error of the mean, and its degrees of freedom."""
    freedom = max(int(row["replicas"]) - 1, 1)
    half = (row[f"{column}_high"] - row[f"{column}_low"]) / 2
    return (half / float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))) ** 2, freedom


def _judge(judged: list[Test], found: Comparison) -> None:
    """Bonferroni's correction over the table."""
    found.tests = len(judged)
    if not judged:
        return
    limit = LEVEL / len(judged)
    found.z_limit = float(stats.norm.isf(limit / 2))
    for row, column, other, p in judged:
        z = float(stats.norm.isf(p / 2))
        found.z = max(found.z, z)
        if p < limit:
            why = f"|z| = {z:.1f} > {found.z_limit:.1f}, the limit of {len(judged)} comparisons"
            found.differences.append(Difference(describe(row), column, row[column], other, why))


@dataclass(frozen=True)
class _Start:
    """How far a row's runs start from the optimum; 0 where that is not known.

    Attributes:
        excess: f_0 - f*.
        dist_sq: a lower bound on |theta_0 - theta*|^2, 2 excess / L.
        rounded: whether both floors are zero to rounding.
    """

    excess: float
    dist_sq: float
    rounded: bool

    @staticmethod
    def of(first: Row, second: Row) -> _Start:
        excess, smoothness = (_least(first, second, key) for key in ("initial_excess", "L"))
        dist_sq = 2 * excess / max(first["L"], second["L"]) if smoothness else 0.0
        floors = [row.get("floor") for row in (first, second)]
        rounded = all(_is_number(floor) and abs(floor) <= OF_START * dist_sq for floor in floors)
        return _Start(excess, dist_sq, rounded and dist_sq > 0)

    def tolerance(self, column: str) -> float:
        """Absolute, in the unit of the column."""
        if column.startswith(EXCESS) or "excess" in column:
            return OF_START * self.excess
        return OF_START * self.dist_sq if any(part in column for part in SQUARED_DISTANCES) else 0.0


EXCESS = ("frozen_gap", "generalisation", "risk_bound_floor", "risk_bound_tail", "sharp_risk_bound")
SQUARED_DISTANCES = ("floor", "dist_sq", "bias_sq", "cross", "variance", "fluctuation", "bound_tail")
"""Parts of the names of columns in the unit of |theta - theta*|^2, beside those of the excess risk."""


def _least(first: Row, second: Row, key: str) -> float:
    values = [row.get(key) for row in (first, second)]
    return min(values) if all(_is_number(value) and value > 0 for value in values) else 0.0


def _same(first: Any, second: Any) -> bool:
    both_nan = first != first and second != second
    return both_nan or (first == second and isinstance(first, bool) == isinstance(second, bool))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def lines(found: Comparison, most: int = 12) -> Iterator[str]:
    """What a reader needs to find a difference, one line each."""
    for difference in found.differences[:most]:
        yield str(difference)
    if len(found.differences) > most:
        yield f"and {len(found.differences) - most} more, in the JSON"
    for name, columns in (("BEFORE", found.only_before), ("AFTER", found.only_after)):
        if columns:
            yield f"columns only in {name}: {', '.join(columns)}"
    yield from found.notes
