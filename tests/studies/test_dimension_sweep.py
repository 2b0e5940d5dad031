"""dimension-sweep: one quantity at a time, long enough, and in agreement with first order."""

from __future__ import annotations

import dataclasses
import math

import pytest

from kdsim.config import ConfigError
from kdsim.problems import SoftmaxLinear
from kdsim.studies import DimensionSweep
from kdsim.study.runner import run


def test_cells_vary_one_quantity():
    study = DimensionSweep(
        problem=SoftmaxLinear(samples=64), classes=(2, 5), dimension=(3,), entropy=(0.5,), conditioning=(1.0,)
    )
    problems = list(dict.fromkeys(cell.problem for cell in study.cells()))
    base = study.problem
    fraction = base.entropy / math.log(base.classes)
    for problem in problems:
        changed = {
            field.name
            for field in dataclasses.fields(problem)
            if getattr(problem, field.name) != getattr(base, field.name)
        }
        assert len(changed - {"entropy"}) <= 1
        if "classes" in changed:
            assert problem.entropy == pytest.approx(fraction * math.log(problem.classes))
    assert {problem.classes for problem in problems} == {2, 5}
    for cell in study.cells():
        relaxations = cell.sgd.steps * cell.step_size * cell.student.ridge
        assert relaxations == pytest.approx(study.relaxations, rel=0.01)


@pytest.mark.parametrize("settings", [{"classes": ()}, {"entropy": (1.0,)}, {"relaxations": 0.0}, {"annotators": 0.5}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        DimensionSweep(**settings)


@pytest.mark.slow
def test_floors_agree_with_first_order(tmp_path):
    """Within 4 standard errors and 6 % (the order of the step size), from 2 to 12 classes and 0.02 to 0.95 log K."""
    for row in run(DimensionSweep(dimension=(2, 20), conditioning=(1.0, 100.0)), tmp_path).rows:
        assert row["stationary"], row
        first = row["first_order_floor"]
        assert abs(row["floor"] - first) < 4 * row["floor_se"] + 0.06 * first, row
