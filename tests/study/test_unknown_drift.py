"""What is not known of a floor is not said to be stationary in tables."""

from __future__ import annotations

import pytest

from kdsim.study.report import UNKNOWN_DRIFT, _mark, _training_mark


@pytest.mark.parametrize(
    ("stationary", "mark"), [(True, ""), (False, "drift"), (None, UNKNOWN_DRIFT)], ids=["steady", "drift", "unknown"]
)
def test_marks_of_rows(stationary, mark):
    assert _mark({"diverged": 0, "stationary": stationary}) == mark
    assert _training_mark({"diverged": 0, "stationary": stationary, "floor_drift": 0.1}) == mark


def test_a_training_without_a_known_truth_has_no_mark():
    assert _training_mark({"diverged": 0, "stationary": None, "floor_drift": None}) == ""
