"""Intervals that are shown stay in the range of their quantity, in tables and, see tests/figures, in figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsim import intervals
from kdsim.study import group_report, report, teacher_report

NONNEGATIVE = (
    "floor", "floor_tail", "fluctuation", "noise_accuracy", "noise_loss", "test_loss", "test_ece", "test_bcp_kl",
    "test_bcp_l2", "test_nu", "test_gradient_noise", "test_bias", "test_bias_tail", "test_bias_sq", "test_variance",
    "measured_variance", "mean_dist_sq", "excess_risk_floor", "empirical_excess_risk", "bcp_l2", "final_loss", "time",
)  # fmt: skip
SIGNED = (
    "measured_cross_term", "deviation_slope", "deviation_kl_change", "deviation_q1", "empirical_gap", "excess_loss",
    "generalisation_gap", "test_bias_removed", "floor_drift", "difference", "rho", "ratio",
)  # fmt: skip
SHARES = ("accuracy", "test_accuracy", "test_accuracy_tail", "best_test_accuracy", "empirical_accuracy")


def row(key: str, value: float, half: float) -> dict[str, Any]:
    return {key: value, f"{key}_low": value - half, f"{key}_high": value + half}


@given(st.floats(1e-9, 1e9), st.floats(0, 12.8))
def test_never_below_zero(value: float, share: float) -> None:
    """With R replicas of a nonnegative quantity, half is at most Student's t times the mean: 12.7 for two."""
    half = share * value
    for key in NONNEGATIVE:
        low, high = intervals.ends(row(key, value, half), key)
        assert 0 <= low <= value <= high
        if value - half >= 0:
            assert (low, high) == (value - half, value + half)
        else:
            assert (low, high) == pytest.approx((value / math.exp(share), value * math.exp(share)), rel=1e-6)
    for key in SIGNED:
        assert intervals.ends(row(key, value, half), key) == (value - half, value + half)


@given(st.floats(0, 1), st.floats(0, 7))
def test_shares_stay_between_zero_and_one(value: float, half: float) -> None:
    for key in SHARES:
        low, high = intervals.ends(row(key, value, half), key)
        if 0 < value < 1:
            assert 0 <= low <= value * (1 + 1e-12) and value * (1 - 1e-12) <= high <= 1
    assert intervals.ends(row("accuracy", 0.9, 0.2), "accuracy") == pytest.approx(
        [1 / (1 + math.exp(-(math.log(9) + sign * 0.2 / 0.09))) for sign in (-1, 1)]
    )


def test_columns_of_a_table() -> None:
    rows = pd.DataFrame([row("floor", 1.0, 0.5), row("floor", 1.0, 2.0), row("floor", -1.0, 2.0)])
    low, high = intervals.ends(rows, "floor")
    assert low == pytest.approx([0.5, math.exp(-2), -3]) and high == pytest.approx([1.5, math.exp(2), 1])
    missing = intervals.ends({"floor": None, "floor_low": None, "floor_high": None}, "floor")
    assert np.isnan(missing).all()


def test_a_note_says_what_the_ends_are_of() -> None:
    plain = report.Table(["a"], [["0.02 ± 0.01"], ["+0.1 to +0.3"]])
    assert report.explained(plain).notes == []
    for cell in ("0.02 (0.0027 to 0.15)", "90.00 (49.4 to 98.8)*"):
        (note,) = report.explained(report.Table(["a"], [[cell]])).notes
        assert note.startswith("a (b to c): the 95 % interval of the logarithm")


def test_cells_of_tables() -> None:
    assert report.plus_minus(row("noise_loss", 0.02, 0.01), "noise_loss") == "0.02 ± 0.01"
    assert report.plus_minus(row("noise_loss", 0.02, 0.04), "noise_loss") == "0.02 (0.0027 to 0.15)"
    assert report.plus_minus(row("deviation_slope", 0.02, 0.04), "deviation_slope") == "0.02 ± 0.04"
    assert report.plus_minus({"noise_loss": 0.02}, "noise_loss") == "0.02"
    assert report._measured(row("floor", 0.02, 0.01), "floor") == "0.02 ± 50 %"
    assert report._measured(row("floor", 0.02, 0.04), "floor") == "0.02 (0.0027 to 0.15)"
    assert teacher_report._percent(row("test_accuracy", 0.9, 0.05), "test_accuracy") == "90.00 ± 5.00"
    assert teacher_report._percent(row("test_accuracy", 0.9, 0.2), "test_accuracy") == "90.00 (49.4 to 98.8)"
    assert group_report._percent(row("test_accuracy_tail", 0.9, 0.2), "test_accuracy_tail") == "90.0 (49.4 to 98.8)"
    assert group_report._short(row("floor_tail", 0.02, 0.04), "floor_tail") == "0.020 (0.0027 to 0.15)"
