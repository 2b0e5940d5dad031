"""Ends of the intervals that are shown: never below zero of what cannot be negative, never above one of a share.

Results store 95 % t-intervals over replicas, mean ± half, as columns NAME, NAME_low and NAME_high. With few replicas
these reach beyond the range of a floor, a standard deviation or an accuracy. Where one does, tables and figures show
the interval of the logarithm, or for a share that of the logit, to first order in half (the delta method):

    mean exp(± half / mean),        expit(logit(mean) ± half / (mean (1 - mean))).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

_PREFIX = r"(test_|best_test_|final_|empirical_|measured_|teacher_)?"
_NONNEGATIVE = re.compile(
    _PREFIX + r"(loss|train_loss|population_loss|ece|brier|bcp_(kl|l2)\w*|nu|gradient_noise|bias(_sq)?(_\w+)?"
    r"|variance(_\w+)?|(mean_)?dist_sq|excess_risk|excess_risk_floor|floor(_\w+)?|fluctuation|noise_\w+|time)"
)
_SIGNED = re.compile(r".*_(removed|drift|change)")
_SHARE = re.compile(_PREFIX + r"(label_)?accuracy(_\w+)?")


def ends(row: Any, key: str) -> tuple[Any, Any]:
    """Lower and upper end of the interval of `row[key]`, arrays where the columns of a table are given.

    Args:
        row: of results, or a table of them.
        key: of a quantity that has columns `key`_low and `key`_high; what its range is follows from its name.
    """
    value, low, high = (np.asarray(row[key + end], dtype=float)[()] for end in ("", "_low", "_high"))
    if _SHARE.fullmatch(key):
        return _share(value, low, high)
    if _NONNEGATIVE.fullmatch(key) and not _SIGNED.fullmatch(key):
        return _positive(value, low, high)
    return low, high


def _positive(value: Any, low: Any, high: Any) -> tuple[Any, Any]:
    beyond = (low < 0) & (value > 0)
    with np.errstate(over="ignore"):  # a results folder may say anything
        factor = np.exp((high - low) / 2 / np.where(beyond, value, np.inf))
        return np.where(beyond, value / factor, low)[()], np.where(beyond, value * factor, high)[()]


def _share(value: Any, low: Any, high: Any) -> tuple[Any, Any]:
    beyond = ((low < 0) | (high > 1)) & (value > 0) & (value < 1)
    inside = np.where(beyond, value, 0.5)
    with np.errstate(over="ignore"):
        half = np.minimum((high - low) / 2 / (inside * (1 - inside)), 700.0)
    odds, factor = inside / (1 - inside), np.exp(half)
    lower, upper = odds / factor / (1 + odds / factor), 1 / (1 + 1 / (odds * factor))
    return np.where(beyond, lower, low)[()], np.where(beyond, upper, high)[()]
