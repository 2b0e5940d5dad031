"""The row of a cell: what theory may say of it."""

from __future__ import annotations

import pytest

from kdsim.engines import SGD, Adam, Cosine, GradientDescent, StepDecay
from kdsim.problems import SoftmaxLinear
from kdsim.students import SoftmaxRegression
from kdsim.study import rows
from kdsim.study.base import Cell
from kdsim.supervision import OneHot

PROBLEM = SoftmaxLinear(dimension=3, samples=40, classes=3)
BOUNDS = ("bound_valid", "sharp_bound_valid", "aim_bound_valid", "risk_bound_valid", "sharp_risk_bound_valid")


@pytest.mark.parametrize(
    ("settings", "valid"),
    [
        ({}, True),
        ({"optimiser": GradientDescent(momentum=0.9)}, False),
        ({"optimiser": GradientDescent(weight_decay=0.1)}, False),
        ({"optimiser": Adam()}, False),
        ({"schedule": Cosine()}, False),
        ({"schedule": StepDecay()}, False),
        ({"held_out": 5}, False),
        ({"targets": "frozen"}, False),
        ({"index": "permutation"}, False),
        ({"training_set": 20}, False),
    ],
    ids=str,
)
def test_bounds_are_those_of_plain_sgd_on_fresh_targets(settings, valid):
    cell = Cell(PROBLEM, SoftmaxRegression(0.1, "centred"), OneHot(), 1e-4, SGD(100, **settings))
    row = rows.prediction(cell, PROBLEM.population(0))
    assert {name: row[name] for name in BOUNDS} == dict.fromkeys(BOUNDS, valid)
