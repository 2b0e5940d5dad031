"""The linearised curve, eigendirections, and the largest step size for a tolerance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from simulating import simulate

from kdsim.config import ConfigError
from kdsim.engines import SGD, Lane, Recording
from kdsim.measure.spectrum import spectrum
from kdsim.population import Population
from kdsim.problems import GaussianMixture, SimplexLinear
from kdsim.students import LeastSquares, SoftmaxRegression, minimiser
from kdsim.supervision import Dirichlet, Exact, Independent, OneHot, Temperature
from kdsim.theory import SecondMoments, linearised_moments, predict, stationary
from kdsim.theory.directions import directional_theory, eigendirections
from kdsim.theory.prediction import aim_of
from kdsim.theory.step_sizes import largest_step_size
from kdsim.theory.transient import linearised_curve

Z_LIMIT = 4.0
SMALL = GaussianMixture(samples=300, dimension=4)


def _curve(student, population, supervision, step_size, batch_size, steps):
    reference = minimiser(student, population)
    aim = aim_of(student, population, supervision)
    zero = torch.zeros_like(reference)
    return linearised_curve(student, population, supervision, step_size, batch_size, aim, reference, zero, steps)


def test_linearised_curve_approaches_the_exact_one():
    """Least squares: the difference is of relative order alpha L_max, and halves with the step size."""
    population = SimplexLinear(samples=60, dimension=3, classes=3).population(1)
    student, gaps = LeastSquares(0.1, "centred"), []
    moments = SecondMoments(population, 0.1, 2)
    for step_size, scale in ((0.02, 1), (0.01, 2)):
        steps = [scale * step for step in (0, 10, 100, 1_000, 5_000)]
        exact = moments.curve(OneHot(), step_size, -population.optimum, steps)
        gaps.append(np.abs(_curve(student, population, OneHot(), step_size, 2, steps) / exact - 1))
    assert gaps[0][0] < 1e-12 and gaps[0].max() < 0.02
    np.testing.assert_allclose(gaps[1][1:] / gaps[0][1:], 0.5, rtol=0.1)


@pytest.mark.parametrize("supervision", [OneHot(), Temperature(1.5)], ids=lambda s: s.name)
def test_linearised_curve_goes_from_the_start_to_the_first_order_floor(supervision):
    population, student = SMALL.population(0), SoftmaxRegression(0.1, "centred")
    reference = minimiser(student, population)
    aim = aim_of(student, population, supervision)
    curve = _curve(student, population, supervision, 1e-3, 1, [0, 10**8])
    floor = stationary(student, population, supervision, 1e-3, 1, aim, reference).floor
    assert curve[0] == pytest.approx(reference.square().sum().item(), rel=1e-10)
    assert curve[1] == pytest.approx(floor, rel=1e-9)


def test_linearised_curve_without_a_ridge_keeps_what_does_not_move():
    """A redundant feature leaves a flat direction: the start's part along it stays."""
    x = torch.tensor([[1.0, 1.0], [2.0, 2.0], [-1.0, -1.0]], dtype=torch.float64)
    optimum = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    population = Population(x=x, p=torch.softmax(x @ optimum.T, -1), optimum=optimum)
    curve = linearised_curve(
        SoftmaxRegression(), population, Exact(), 0.1, 1, optimum, optimum, torch.zeros_like(optimum), [0, 10**6]
    )
    assert curve == pytest.approx([2.0, 1.0])


def test_eigendirections_are_moved_by_gradients():
    population, student = SMALL.population(0), SoftmaxRegression(0.1, "centred")
    values, directions = eigendirections(student, population, population.optimum, 6)
    flat = directions.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(6, dtype=flat.dtype), atol=1e-10, rtol=0)
    assert (values.diff() < 0).all() and values[-1] > 0.1
    assert directions.sum(1).abs().max() < 1e-8  # 1'v = 0: not along what only the ridge curves
    every, _ = eigendirections(student, population, population.optimum, 1_000)
    assert len(every) == 4 * 5 and every[0] == values[0] and every[-1] == values[-1]


@pytest.mark.slow
def test_measured_spectrum_follows_theory():
    """Variance and autocorrelation time of a least-squares run at small alpha, 4 standard errors and alpha's order."""
    population, student = SimplexLinear().population(0), LeastSquares(0.02, "centred")
    optimum = population.optimum
    step_size = 0.02 * SecondMoments(population, 0.02, 1).stability_limit
    directions = eigendirections(student, population, optimum, 4)[1]
    record, _ = simulate(
        student, population, [Lane(OneHot(), step_size, 2, 128)], SGD(12_000), Recording(2, 0.9, 8),
        reference=optimum, anchor=student.anchor(population), directions=directions,
    )  # fmt: skip
    found = spectrum(record.along, 8)
    theory = directional_theory(student, population, OneHot(), step_size, 1, optimum, 4)
    for name, order in (("variance", 0.04), ("time", 0.0)):
        se = (found[f"{name}_high"] - found[f"{name}_low"]) / 4
        assert (abs(found[name] - theory[f"{name}_theory"]) < Z_LIMIT * se + order * found[name]).all(), name
        assert (se < 0.05 * found[name]).all()


@pytest.mark.slow
@pytest.mark.parametrize("supervision", [OneHot(), Dirichlet(100.0)], ids=lambda s: s.name)
def test_largest_step_size_reaches_the_tolerance_exactly(supervision):
    """On least squares the floor at the step size found is the exact one."""
    population, student = SimplexLinear(samples=100, dimension=4).population(0), LeastSquares(0.1, "centred")
    moments = SecondMoments(population, 0.1, 2)
    for tolerance in (1e-3, 0.1, 10.0):
        found = largest_step_size(student, population, supervision, 2, tolerance, population.optimum)
        assert found.step_size < found.stability_limit == pytest.approx(moments.stability_limit, rel=1e-9)
        assert found.step_size < found.first_order
        assert moments.fixed_point(supervision, found.step_size).trace() == pytest.approx(tolerance, rel=1e-5)


def test_largest_step_size_falls_with_nu():
    """Proportional to 1 / nu where the floor is first order, and up to the stability limit without noise."""
    population, student = SMALL.population(0), SoftmaxRegression(0.1, "centred")
    optimum, ceiling = population.optimum, OneHot().nu(population.p)
    arguments = (1, 1e-4, optimum)
    levels = [Dirichlet().with_nu(f * ceiling, population.p) for f in (0.4, 0.2)]
    more, less = (largest_step_size(student, population, s, *arguments).step_size for s in levels)
    assert less / more == pytest.approx(2, rel=0.01)
    exact = largest_step_size(student, population, Exact(), *arguments)
    assert exact.step_size == exact.stability_limit and exact.first_order == math.inf
    nothing = largest_step_size(student, population, levels[1], 1, 1e9, optimum)
    assert 0.999 * nothing.stability_limit < nothing.step_size < nothing.stability_limit
    narrow = largest_step_size(student, population, Independent(0.3), *arguments)
    wide = linearised_moments(student, population, optimum, 1, 1 + 5 * 0.3).stability_limit
    assert narrow.stability_limit == pytest.approx(wide, rel=1e-12)


def test_tolerances_and_biased_supervision_are_refused():
    population, student = SMALL.population(0), SoftmaxRegression(0.1, "centred")
    with pytest.raises(ConfigError, match="tolerance"):
        largest_step_size(student, population, OneHot(), 1, -1.0, population.optimum)
    with pytest.raises(ConfigError, match="temperature is biased"):
        largest_step_size(student, population, Temperature(2.0), 1, 1.0, population.optimum)


def test_predicted_floor_at_the_step_size_is_the_tolerance():
    population, student = SMALL.population(0), SoftmaxRegression(0.1, "centred")
    found = largest_step_size(student, population, OneHot(), 4, 0.05, population.optimum)
    row = predict(student, population, OneHot(), found.step_size, 4, [10])
    assert row.second_order_floor == pytest.approx(0.05, rel=1e-6)
