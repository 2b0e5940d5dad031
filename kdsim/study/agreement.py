"""Whether two results of one cell agree: bit for bit, to rounding, or within their standard errors.

Every number of a result is one of three. *Measured* numbers have a standard error over replicas: intervals of the
measurement, means of the curves, columns of the table of replicas. *Computed* numbers have none: theory, and what a
computation gives. *Timings* are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from kdsim.conventions import CONFIDENCE, NEGLIGIBLE, QUANTILES
from kdsim.results.cells import StoredCell
from kdsim.results.rows import COMPUTATION

TIMED = ("seconds", "images_per_replica_second")
"""Columns and measurements that are times, or taken from them, with all that begins with their names."""
MACHINE = ("engine", "device")
"""Of the summary: where it ran."""
LEVEL = 0.01
"""Probability that results which differ by chance alone are said to differ, over all comparisons (Bonferroni)."""
ROUNDING = {"float32": 2.0**-11.5, "float64": 2.0**-26}
"""Relative differences that count as rounding: half of the digits of the run's number format agree."""
COMPUTED = 1e-6
"""Relative difference that rounding on another machine or library may make of a number that was computed in float64."""
SERIES = ("curves", "replicas", "spectrum")
DERIVED = ("_low", "_high", "_se", *(f"_q{percent:02d}" for percent in QUANTILES))
START = "at the start"
JUDGED = ("drift_z", "stationary", "replica", "replicas", "diverged_at", "lag")
"""What follows from measured numbers, or says how they were measured."""


@dataclass(frozen=True)
class Change:
    """A place where two results are not the same.

    Attributes:
        where: table and column, or key.
        stored, rerun: one value there.
    """

    where: str
    stored: Any
    rerun: Any

    def __str__(self) -> str:
        return f"{self.where}: stored {_text(self.stored)}, rerun {_text(self.rerun)}"


@dataclass(frozen=True)
class Figure:
    """A measured number, twice; with standard errors that are NaN where there are none.

    Attributes:
        name: what it is.
        freedom: degrees of freedom of the difference; infinite for a normal distribution.
    """

    name: str
    stored: float
    rerun: float
    stored_se: float
    rerun_se: float
    freedom: float

    @property
    def relative(self) -> float:
        """Difference over the largest of the values and the spread of the replicas."""
        if self.stored == self.rerun or (math.isnan(self.stored) and math.isnan(self.rerun)):
            return 0.0
        if not (math.isfinite(self.stored) and math.isfinite(self.rerun)):
            return math.inf
        spread = [abs(se) for se in (self.stored_se, self.rerun_se) if math.isfinite(se)]
        return abs(self.stored - self.rerun) / max(abs(self.stored), abs(self.rerun), *spread)

    @property
    def z(self) -> float:
        """Difference in combined standard errors; NaN where there are none, infinite where one is no number."""
        if self.relative in (0, math.inf):
            return self.relative
        se = math.hypot(self.stored_se, self.rerun_se)
        return abs(self.stored - self.rerun) / se if se > 0 else math.nan if math.isnan(se) else math.inf

    def limit(self, comparisons: int) -> float:
        """The |z| that chance passes with probability `LEVEL` in one of so many comparisons."""
        tail = 1 - LEVEL / (2 * comparisons)
        return float(special.ndtri(tail) if math.isinf(self.freedom) else special.stdtrit(self.freedom, tail))

    def __str__(self) -> str:
        values = [
            f"{name} {_text(value)}" + (f" +- {se:.2g}" if math.isfinite(se) else " (no standard error)")
            for name, value, se in (
                ("stored", self.stored, self.stored_se),
                ("rerun", self.rerun, self.rerun_se),
            )
        ]
        z = f", |z| = {self.z:.3g}" if math.isfinite(self.z) else ""
        return f"{self.name}: {', '.join(values)}{z}"


@dataclass(frozen=True)
class Comparison:
    """Two results of one cell beside each other.

    Attributes:
        changes: everything that is not bit for bit the same, timings apart; of each column the first place.
        broken: what agrees in no sense: rows or keys that one of the two lacks, counts, computed numbers that differ by
            more than rounding.
        figures: all measured numbers.
        rounding: relative difference that counts as rounding.
    """

    changes: list[Change]
    broken: list[Change]
    figures: list[Figure]
    rounding: float

    @property
    def relative(self) -> float:
        """Largest relative difference of a measured number."""
        return max((figure.relative for figure in self.figures), default=0.0)

    @property
    def unequal(self) -> list[Figure]:
        """Measured numbers that differ by more than rounding."""
        return [figure for figure in self.figures if figure.relative > self.rounding]

    @property
    def largest_z(self) -> Figure | None:
        """Of the measured numbers that differ by more than rounding, the one with the largest |z|."""
        known = [figure for figure in self.unequal if not math.isnan(figure.z)]
        return max(known, key=lambda figure: figure.z, default=None)


def compare(stored: StoredCell, rerun: StoredCell) -> Comparison:
    """Hold two results of one cell side by side."""
    changes: list[Change] = []
    broken: list[Change] = []
    figures: list[Figure] = []
    tables = {name: (getattr(stored, name), getattr(rerun, name)) for name in SERIES}
    first, second = stored.info, rerun.info
    for part in ("summary", "prediction", "measurement"):
        own, other = (_untimed(info[part], MACHINE if part == "summary" else ()) for info in (first, second))
        changes += _changed_keys(part, own, other)
        if part != "measurement" or first.get("kind") == COMPUTATION:
            broken += _broken_keys(part, own, other)
    figures += _measured(first, second, tables["replicas"])
    count = second["summary"].get("replicas")  # what is stored may say anything
    freedom = 2.0 * (count - 1) if isinstance(count, int) and count > 1 else math.inf
    for name, (own, other) in tables.items():
        if (own is None) != (other is None):
            broken.append(Change(f"table {name}", "there" if own is not None else "none", "the other way round"))
        elif own is not None and other is not None:
            found, wrong, numbers = _tables(name, own, other, freedom)
            changes, broken, figures = changes + found, broken + wrong, figures + numbers
    starts = [abs(figure.stored) for figure in figures if figure.name.endswith(START)]
    scale = max(filter(math.isfinite, starts), default=0.0)
    kept = [figure for figure in figures if not _is_nothing(figure, NEGLIGIBLE * scale)]
    return Comparison(
        changes + broken, broken, kept, ROUNDING.get(str(first["summary"].get("dtype")), ROUNDING["float32"])
    )


def _is_nothing(figure: Figure, below: float) -> bool:
    """Whether both are zero to rounding, as `kdsim.measure.floors` has it."""
    return abs(figure.stored) <= below and abs(figure.rerun) <= below


# cell.json --------------------------------------------------------------------------------------


def _untimed(part: Mapping[str, Any], others: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if not key.startswith(TIMED) and key not in others}


def _changed_keys(part: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Change]:
    for key in dict.fromkeys([*own, *other]):
        one, two = own.get(key), other.get(key)
        if one != two or (key in own) != (key in other):
            yield Change(f"{part} {key}", one, two)


def _broken_keys(part: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Change]:
    """Computed numbers that differ by more than rounding. Texts of theory say numbers, rounded."""
    for change in _changed_keys(part, own, other):
        one, two = change.stored, change.rerun
        key = change.where.removeprefix(f"{part} ")
        measured = key.endswith(DERIVED) or f"{key}_low" in own
        words = part == "prediction" and isinstance(one, str) and isinstance(two, str)
        numbers = _value(one), _value(two)
        near = None not in numbers and math.isclose(*numbers, rel_tol=COMPUTED, abs_tol=1e-12)
        if not measured and not words and not near:
            yield change


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _measured(
    first: Mapping[str, Any], second: Mapping[str, Any], replicas: tuple[pd.DataFrame, pd.DataFrame]
) -> Iterator[Figure]:
    """Numbers of the measurement: those with an interval, and others without."""
    own, other = first["measurement"], second["measurement"]
    count = second["summary"].get("replicas")
    freedom = count - 1 if isinstance(count, int) and count > 1 else math.inf
    for name in dict.fromkeys([*own, *other]):
        if name.endswith(DERIVED) or name in JUDGED or name.startswith(TIMED):
            continue
        one, two = _value(own.get(name)), _value(other.get(name))
        if one is None and two is None:
            continue  # a text or a judgement
        one, two = (math.nan if value is None else value for value in (one, two))
        errors = [_standard_error(part, name, freedom) for part in (own, other)]
        if name == "diverged" and isinstance(count, int):
            errors = [math.sqrt(max(value * (count - value), 0.0) / count) for value in (one, two)]
        elif all(map(math.isnan, errors)):
            if first.get("kind") == COMPUTATION:
                continue  # computed, see `_broken_keys`
            errors = [_column_error(table, name) for table in replicas]
        yield Figure(name, one, two, *errors, freedom=2 * freedom)


def _value(value: Any) -> float | None:
    """A number; NaN where there is none; None for a text or a judgement."""
    if value is None:
        return math.nan
    try:
        return float(value) if _is_number(value) else None
    except OverflowError:
        return math.inf


def _standard_error(part: Mapping[str, Any], name: str, freedom: float) -> float:
    """From the 95 % interval, which is a t-interval over replicas."""
    low, high = _value(part.get(f"{name}_low")), _value(part.get(f"{name}_high"))
    return math.nan if low is None or high is None else (high - low) / 2 / _quantile(freedom)


def _quantile(freedom: float) -> float:
    """Half the width of a 95 % interval in standard errors."""
    level = (1 + CONFIDENCE) / 2
    return float(special.ndtri(level) if math.isinf(freedom) else special.stdtrit(freedom, level))


def _column_error(table: pd.DataFrame, name: str) -> float:
    """Of a mean over replicas, from their table."""
    if name not in table or len(table) < 2:
        return math.nan
    values = table[name].to_numpy(dtype=float)
    return float(values.std(ddof=1) / math.sqrt(len(values)))


# Tables -----------------------------------------------------------------------------------------


def _tables(
    name: str, own: pd.DataFrame, other: pd.DataFrame, freedom: float
) -> tuple[list[Change], list[Change], list[Figure]]:
    """What of two tables is not the same, what agrees in no sense, and measured numbers."""
    kinds = [[(str(column), kind.kind) for column, kind in table.dtypes.items()] for table in (own, other)]
    if kinds[0] != kinds[1] or len(own) != len(other):
        shape = [f"{len(table)} rows of {len(table.columns)} columns" for table in (own, other)]
        return [], [Change(f"table {name}", *shape)], []
    changes, broken, figures = [], [], []
    for column in own.columns:
        if column.startswith(TIMED):
            continue
        pair = own[column], other[column]
        place = _first_difference(*pair)
        if place is not None:
            changes.append(Change(f"{name} {column}, row {place}", *(_plain(each.iloc[place]) for each in pair)))
        base = column.removesuffix("_mean")
        if column.endswith(DERIVED) or column in JUDGED:
            continue
        if f"{base}_se" in own and base != column:
            figures += _rows(base, own, other, column, freedom)
        elif f"{column}_low" in own and f"{column}_high" in own:
            figures += _rows(column, own, other, column, freedom)
        elif name == "replicas" and own[column].dtype.kind in "fiu":
            figures.append(_column(column, *pair))
        elif place is not None and not _columns_near(*pair):
            broken.append(changes[-1])
    return changes, broken, figures


def _first_difference(own: pd.Series, other: pd.Series) -> int | None:
    """Number of the first row in which two columns are not the same, NaN being NaN."""
    same = ((own == other) | (own.isna() & other.isna())).to_numpy()
    return None if same.all() else int(np.argmin(same))


def _columns_near(own: pd.Series, other: pd.Series) -> bool:
    if own.dtype.kind not in "fiu" or other.dtype.kind not in "fiu":
        return False
    one, two = own.to_numpy(dtype=float), other.to_numpy(dtype=float)
    finite = np.abs(one[np.isfinite(one)])
    return bool(np.allclose(one, two, rtol=COMPUTED, atol=COMPUTED * 1e-6 * finite.max(initial=0), equal_nan=True))


def _rows(name: str, own: pd.DataFrame, other: pd.DataFrame, column: str, freedom: float) -> Iterator[Figure]:
    """A column of measured numbers, row by row. Checkpoints depend on each other: Bonferroni is on the safe side."""
    errors = []
    for table in (own, other):
        if f"{name}_se" in table:
            errors.append(table[f"{name}_se"].to_numpy(dtype=float))
        else:
            width = (table[f"{name}_high"] - table[f"{name}_low"]).to_numpy(dtype=float) / 2
            errors.append(width / _quantile(freedom / 2))
    steps = own["step"] if "step" in own else range(len(own))
    values = (table[column].to_numpy(dtype=float) for table in (own, other))
    for number, (step, *each) in enumerate(zip(steps, *values, *errors, strict=True)):
        place = START if number == 0 and "step" in own else f"at step {step}" if "step" in own else f"in row {number}"
        yield Figure(f"{name} {place}", *map(float, each), freedom=freedom)


def _column(column: str, own: pd.Series, other: pd.Series) -> Figure:
    """The mean of a column over replicas."""
    values = [each.to_numpy(dtype=float) for each in (own, other)]
    count = len(own)
    with np.errstate(all="ignore"):
        means = [float(each.mean()) if count else math.nan for each in values]
        errors = [float(each.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan for each in values]
    return Figure(f"mean of {column}", *means, *errors, freedom=2 * (count - 1) if count > 1 else math.inf)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:100]
