"""`compare`: whether two results differ by more than chance, and in which settings."""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from kdsim.api.labels import flat
from kdsim.api.results import Result
from kdsim.config import ConfigError, require
from kdsim.measure.comparison import ALPHA, holm
from kdsim.measure.floors import CONFIDENCE

UNCOMPARED = ("replica", "diverged_at", "seconds", "images_per_replica_second")
"""Columns of the table of replicas that are no measurements."""
SHOWN_ROWS = 12
_MISSING = "(no such setting)"
COLUMNS = (
    "label", "quantity", "a", "b", "difference", "low", "high", "p", "adjusted", "significant", "method", "replicas",
)  # fmt: skip


@dataclass(frozen=True, eq=False)  # holds tables
class Comparison:
    """How two results differ.

    Attributes:
        frame: one row a measured quantity of a pair of experiments: `label` of the pair, `quantity`, the means `a` and
            `b` over replicas, `difference` (b - a) with its 95 % interval `low`, `high`, the p-value `p`, `adjusted` by
            Holm's method over all rows, `significant` (adjusted below 0.05), `method` ("paired" or "Welch") and the
            number of `replicas`.
        differs: one row a setting in which the results differ, with its values in `a` and in `b`.
        unmatched: labels of experiments that have no partner, with the result ("a" or "b") in which they are.
    """

    frame: pd.DataFrame
    differs: pd.DataFrame
    unmatched: tuple[tuple[str, str], ...] = ()

    def _lines(self) -> list[str]:
        pairs, significant = self.frame["label"].nunique(), self.frame["significant"].sum()
        counts = f"{len(self.frame)} differences, {significant} significant"
        lines = [f"{pairs} pair{'s' * (pairs != 1)} of experiments, {counts}"]
        if len(self.differs):
            rows = self.differs.head(SHOWN_ROWS).itertuples(index=False)
            lines.append("what differs: " + ", ".join(f"{key} {_text(a)} -> {_text(b)}" for key, a, b in rows))
        else:
            lines.append("no setting differs")
        if self.unmatched:
            lines.append(f"without a partner: {', '.join(f'{label} (in {side})' for side, label in self.unmatched)}")
        return lines

    def __repr__(self) -> str:
        table = self.frame.head(SHOWN_ROWS).to_string(float_format="{:.4g}".format, na_rep="", max_colwidth=40)
        more = [f"... {len(self.frame) - SHOWN_ROWS} more, see .frame"] if len(self.frame) > SHOWN_ROWS else []
        first, *rest = self._lines()
        return "\n".join([f"Comparison of {first}", *rest, table, *more])

    def _repr_html_(self) -> str:
        table = self.frame.head(SHOWN_ROWS).to_html(escape=True, float_format="{:.4g}".format, na_rep="", border=0)
        return "".join(f"<p>{html.escape(line)}</p>" for line in self._lines()) + table


def compare(a: Result, b: Result) -> Comparison:
    """Compare what was measured in two results, experiment by experiment.

    Experiments are partners if they have the same settings but for those in which the results as wholes differ, as the
    batch size of two runs of one study. Where the results are of one experiment each, these two are partners. Where
    settings of a study follow from others (a step size from the problem), and nothing else fits, experiments of equal
    place are.

    Replicas of one number and seed share their data and random numbers: their differences are taken replica by replica
    (a paired t-interval, over the replicas that both have). Otherwise Welch's interval is taken.

    Args:
        a, b: results, or parts of one, as `result[0]` and `result[1]`.

    Raises:
        ConfigError: no experiment has a partner, or nothing was measured by replica.

    Source: B. L. Welch, "The generalization of Student's problem", Biometrika 34 (1947); S. Holm, Scand. J. Statist. 6
    (1979).

    Example:
        >>> import kdsim as kd
        >>> problem = kd.problems.SoftmaxLinear(dimension=3, samples=100)
        >>> noises = [kd.supervision.Exact(), kd.supervision.OneHot()]
        >>> result = kd.run(
        ...     [kd.Experiment(problem, supervision=q, steps=50, replicas=4, engine="torch") for q in noises]
        ... )
        >>> found = kd.compare(result[0], result[1])
        >>> found.differs.values.tolist()
        [['supervision', 'exact', 'one-hot']]
        >>> set(found.frame["method"])
        {'paired'}
    """
    for what, value in (("a", a), ("b", b)):
        require(isinstance(value, Result), what, value, "a Result, as kdsim.run and kdsim.load give it")
        require(len(value) > 0, f"experiments of {what}", len(value), "at least one")
    settings = [[flat(each) for each in result.configurations] for result in (a, b)]
    differing = _differing(*settings)
    told = {key: values for key, values in differing.items() if _MISSING not in values}  # else a part's class differs
    pairs = _partners(a, b, settings, set(differing))
    rows = [row for one, other in pairs for row in _differences(a, b, one, other)]
    if not rows:
        raise ConfigError("nothing was measured by replica in these results: compare their frames")
    frame = pd.DataFrame(rows)
    known = frame["p"].notna()
    frame.loc[known, "adjusted"] = holm(frame.loc[known, "p"].tolist())
    frame["significant"] = frame["adjusted"] < ALPHA
    changes = [(key, *values) for key, values in told.items()]
    differs = pd.DataFrame(changes, columns=["setting", "a", "b"], dtype=object)
    left = [(side, str(result["label"].iloc[number])) for side, result, own in (("a", a, 0), ("b", b, 1))
            for number in range(len(result)) if number not in {pair[own] for pair in pairs}]  # fmt: skip
    return Comparison(frame[list(COLUMNS)], differs, tuple(left))


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _differing(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Settings that are the same within each result and not in both, with their values; `_MISSING` stands for none."""
    found = {}
    for key in dict.fromkeys(key for each in (*a, *b) for key in each):
        values = [[each.get(key, _MISSING) for each in side] for side in (a, b)]
        same = all(value == side[0] for side in values for value in side)
        if same and values[0][0] != values[1][0]:
            found[key] = values[0][0], values[1][0]
    return found


def _partners(
    a: Result, b: Result, settings: Sequence[Sequence[Mapping[str, Any]]], apart: set[str]
) -> list[tuple[int, int]]:
    """Numbers of experiments in `a` and `b` that belong together."""
    if len(a) == len(b) == 1:
        return [(0, 0)]
    keys = [[repr(sorted((k, v) for k, v in own.items() if k not in apart)) for own in side] for side in settings]
    places = {key: number for number, key in enumerate(keys[1]) if keys[1].count(key) == 1}
    found = [(number, places[key]) for number, key in enumerate(keys[0])
             if key in places and keys[0].count(key) == 1]  # fmt: skip
    if not found and a.name == b.name and len(a) == len(b):
        found = [(number, number) for number in range(len(a))]
    if not found:
        raise ConfigError(
            f"no experiment of one result has a partner in the other ({len(a)} and {len(b)} experiments): "
            "choose those that belong together, as a[0] and b[0]"
        )
    return found


def _differences(a: Result, b: Result, one: int, other: int) -> Iterator[dict[str, Any]]:
    """One row a quantity that both have measured in each replica."""
    parts = a[one], b[other]
    tables = [part.replicas.set_index("replica") if "replica" in part.replicas else part.replicas for part in parts]
    label = _shared_label(*(str(part["label"].iloc[0]) for part in parts))
    settings = {*parts[0]._labels, *parts[1]._labels}
    for name in tables[0]:
        numeric = all(name in table and table[name].dtype.kind in "fiu" for table in tables)
        if numeric and name not in settings and not str(name).startswith(UNCOMPARED):
            first, second = (table[name].astype(float) for table in tables)
            if not (first.isna().all() and second.isna().all()):
                yield {"label": label, "quantity": name, **_difference(first, second, paired=_paired(*parts))}


def _shared_label(one: str, other: str) -> str:
    """What two labels say alike, or both where they have nothing in common."""
    shared = [part for part in one.split(", ") if part in other.split(", ")]
    return ", ".join(shared) or f"{one} -> {other}"


def _paired(a: Result, b: Result) -> bool:
    """Whether replicas of one number are pairs: they draw the same random numbers."""
    return a.configurations[0].get("seed") == b.configurations[0].get("seed")


def _difference(a: pd.Series, b: pd.Series, *, paired: bool) -> dict[str, Any]:
    """Means, and the mean of b - a with its interval and p-value; not a number where a replica has none."""
    if paired:
        both = a.index.intersection(b.index)
        a, b = a.loc[both], b.loc[both]
    found: dict[str, Any] = {"a": a.mean(skipna=False), "b": b.mean(skipna=False)}
    found |= {"difference": found["b"] - found["a"], "low": np.nan, "high": np.nan, "p": np.nan, "adjusted": np.nan}
    found |= {"method": "paired" if paired else "Welch", "replicas": min(len(a), len(b))}
    if min(len(a), len(b)) < 2 or not np.isfinite(found["difference"]):
        return found
    spread = np.ptp((b - a).to_numpy()) if paired else max(np.ptp(a.to_numpy()), np.ptp(b.to_numpy()))
    if spread == 0:  # there is no standard error to test with, see kdsim.measure.comparison
        return found | {"low": found["difference"], "high": found["difference"], "p": 1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of values that are nearly identical
        test = stats.ttest_rel(b, a) if paired else stats.ttest_ind(b, a, equal_var=False)
        ends = test.confidence_interval(CONFIDENCE)
    return found | {"low": float(ends.low), "high": float(ends.high), "p": float(test.pvalue)}
