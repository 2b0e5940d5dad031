"""Step sizes at which theta does not stay near the point that SGD aims at: no floor and no bound is stated."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdsim.engines import ENGINES, SGD, Lane, Recording
from kdsim.problems import GaussianMixture, SimplexLinear
from kdsim.students import LeastSquares, SoftmaxRegression, minimiser
from kdsim.supervision import Confusion, Exact, Independent, OneHot, Temperature
from kdsim.theory import constants, predict
from kdsim.theory.directions import directional_theory
from kdsim.theory.prediction import aim_of
from kdsim.theory.transient import linearised_curve

POPULATION = GaussianMixture(samples=40, dimension=2, classes=3).population(0)
STEP_SIZES = (0.41, 10.0, 19.0, 21.0, 25.0)
SUPERVISIONS = (OneHot(), Exact(), Independent(0.1), Confusion(0.3), Temperature(0.5))
FLOORS = (
    "first_order_floor",
    "second_order_floor",
    "exact_floor",
    "frozen_floor",
    "predicted_mean_dist_sq",
    "variance",
)
BOUNDS = ("bound", "sharp_bound", "risk_bound", "sharp_risk_bound", "aim_bound")


def test_a_ridge_diverges_above_two_over_lambda():
    """Softmax regression with ridge .1: bounded at .41, 10 and 19, which is below 2/lambda; diverging at 21 and 25."""
    student = SoftmaxRegression(0.1, "centred")
    record, _ = ENGINES["torch"].run(
        student, POPULATION, [Lane(OneHot(), step_size, 0, 2) for step_size in STEP_SIZES],
        SGD(400, dtype="float64"), Recording(2), reference=minimiser(student, POPULATION),
        anchor=student.anchor(POPULATION),
    )  # fmt: skip
    assert (record.diverged_at >= 0).view(-1, 2).tolist() == [[False] * 2] * 3 + [[True] * 2] * 2


@pytest.mark.parametrize("kind", ["centred", "ordinary"])
@pytest.mark.parametrize("supervision", SUPERVISIONS, ids=lambda supervision: supervision.name)
@pytest.mark.parametrize("step_size", [21.0, 25.0])
def test_diverging_steps_have_no_floor_and_no_bound(step_size, supervision, kind):
    student = SoftmaxRegression(0.1, kind)
    rows = [predict(student, POPULATION, supervision, step_size, 1, [10])]
    rows.append(
        predict(student, POPULATION, supervision, step_size, 1, [10], fresh_with_replacement=False, data_set=30)
    )
    for row in rows:
        assert [getattr(row, name) for name in FLOORS] == [None] * len(FLOORS)
        for name in BOUNDS:
            assert not getattr(row, f"{name}_valid")
            assert getattr(row, f"{name}_floor") is None and getattr(row, f"{name}_tail") is None


@pytest.mark.parametrize("supervision", [OneHot(), Exact()], ids=lambda supervision: supervision.name)
def test_floors_end_at_the_stability_limit(supervision):
    """Of the linearised dynamics, exact for least squares; the limit itself is stated on both sides, below 2/lambda."""
    linear = SimplexLinear(samples=30, dimension=3).population(0)
    for student, population in (
        (SoftmaxRegression(0.1, "centred"), POPULATION),
        (SoftmaxRegression(), POPULATION),
        (LeastSquares(0.1, "centred"), linear),
    ):
        limit = predict(student, population, supervision, 1e-3, 1, [10]).stability_limit
        assert student.ridge == 0 or limit < 2 / student.ridge
        for fraction in (0.99, 1.01, 100.0):
            row = predict(student, population, supervision, fraction * limit, 1, [10])
            assert row.stability_limit == pytest.approx(limit, rel=1e-12)
            assert (row.first_order_floor is None) == (fraction > 1)
            assert row.second_order_floor is None or fraction < 1


@pytest.mark.parametrize("supervision", [OneHot(), Confusion(0.3)], ids=lambda supervision: supervision.name)
def test_curves_and_spectra_end_where_the_mean_runs_away(supervision):
    """First order's covariance is none there, and the curve that relaxes towards it would be negative."""
    student = SoftmaxRegression(0.1, "centred")
    reference, aim = minimiser(student, POPULATION), aim_of(student, POPULATION, supervision)
    for step_size, known in ((1e-2, True), (21.0, False)):
        curve = linearised_curve(
            student, POPULATION, supervision, step_size, 1, aim, reference, torch.zeros_like(aim), [0, 1, 30]
        )
        assert np.isfinite(curve).all() == known and np.isnan(curve).all() == (not known)
        spectrum = directional_theory(student, POPULATION, supervision, step_size, 1, aim, 3)
        assert np.isfinite(spectrum["variance_theory"]).all() == known
        assert np.isfinite(spectrum["time_theory"]).all() == known
        assert np.isfinite(spectrum["curvature"]).all()


def test_bounds_end_before_anything_diverges():
    """At every ridge the largest step size of every bound is below 1/lambda."""
    for ridge in (1e-3, 0.1, 10.0):
        student = SoftmaxRegression(ridge, "centred")
        smoothness = constants(student, POPULATION).sample_smoothness
        row = predict(student, POPULATION, Independent(0.1), 1.0 / smoothness, 1, [10])
        assert max(row.step_size_limit, row.risk_step_size_limit) <= 1 / ridge
