"""T1 and T1': when they are bounds, what they say, and that short simulations keep them."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from simulating import simulate
from strategies import SEEDS, populations

from kdsim.engines import SGD, Lane, Recording
from kdsim.measure import measure
from kdsim.problems import GaussianMixture, SimplexLinear
from kdsim.students import LeastSquares, SoftmaxRegression, minimiser
from kdsim.supervision import (
    SUPERVISIONS,
    Confusion,
    Dirichlet,
    Exact,
    Independent,
    LabelSmoothing,
    OneHot,
    Temperature,
)
from kdsim.theory import Constants, Setting, constants, predict, t1, t1_sharp
from kdsim.theory.bounds import t2, t2_sharp

SETTING = Setting(
    constants=Constants(mu=0.1, smoothness=2.0, sample_smoothness=10.0),
    batch_size=1,
    step_size=0.04,
    noise=3.0,
    unbiased=True,
    interpolation=False,
    realisable=True,
    additive=True,
    theory_sampling=True,
)


def test_t1_by_hand():
    bound = t1(SETTING)
    assert bound.valid
    assert bound.step_size_limit == pytest.approx(0.05)
    assert bound.neighbourhood == pytest.approx(2 * 0.04 / 0.1 * 3.0)
    assert bound.at(2, 7.0) == pytest.approx((1 - 0.004) ** 2 * 7 + 2.4)
    assert bound.tail_average([1, 3], 7.0) == pytest.approx((bound.at(1, 7.0) + bound.at(3, 7.0)) / 2)
    sharp = t1_sharp(SETTING)
    assert sharp.step_size_limit == pytest.approx(0.1)
    assert sharp.neighbourhood == pytest.approx(1.2)


def test_interpolation_doubles_the_step_size_and_removes_the_neighbourhood():
    setting = dataclasses.replace(SETTING, interpolation=True, noise=0.0, step_size=0.09)
    bound = t1(setting)
    assert bound.valid
    assert bound.neighbourhood == 0
    assert not t1(dataclasses.replace(SETTING, step_size=0.09)).valid


def test_batches_use_expected_smoothness():
    """L (b-1)/b + L_max / b, by hand at b = 4."""
    assert t1(dataclasses.replace(SETTING, batch_size=4)).step_size_limit == pytest.approx(0.5 / (2 * 3 / 4 + 10 / 4))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"constants": Constants(0.0, 2.0, 10.0)}, "strongly convex"),
        ({"unbiased": False}, "biased"),
        ({"theory_sampling": False}, "fresh"),
        ({"step_size": 0.051}, "0.05"),
        ({"smoothness_factor": 2.0}, "0.025"),
    ],
)
def test_failed_conditions_are_named(change, words):
    bound = t1(dataclasses.replace(SETTING, **change))
    assert not bound.valid
    assert words in bound.condition


def every_bound(setting):
    """T1, T1', T2, T2'."""
    return [bound(setting) for bound in (t1, t1_sharp, t2, t2_sharp)]


FLAT = dataclasses.replace(SETTING, constants=Constants(0.1, 2.0, 10.0, 0.1, "exact"), step_size=1e-3)
"""A setting in which all four are valid."""


def test_bounds_need_plain_sgd():
    """No bound here knows momentum, weight decay, a schedule or held-out points."""
    assert all(bound.valid for bound in every_bound(FLAT))
    for bound in every_bound(dataclasses.replace(FLAT, plain=False)):
        assert (bound.valid, bound.condition) == (False, "needs plain SGD with a constant step size")


@pytest.mark.parametrize("interpolation", [False, True])
@pytest.mark.parametrize("noise", [math.nan, math.inf, -1e-3, -math.inf])
def test_bounds_need_noise_that_is_a_number(noise, interpolation):
    """Also where the neighbourhood is zero whatever the noise."""
    for bound in every_bound(dataclasses.replace(FLAT, noise=noise, interpolation=interpolation)):
        assert not bound.valid
        assert bound.condition.startswith(f"no finite number >= 0: sigma*^2 = {noise:.4g}")


@pytest.mark.parametrize(
    "change",
    [
        {"constants": Constants(math.nan, 2.0, 10.0, math.nan, "exact")},
        {"constants": Constants(-0.1, 2.0, 10.0, -0.1, "exact")},
        {"constants": Constants(math.inf, 2.0, 10.0, math.inf, "exact")},
        {"constants": Constants(0.1, math.nan, math.nan, 0.1, "exact")},
        {"constants": Constants(1e-300, 2.0, 10.0, 1e-300, "exact"), "noise": 1e12},
        {"smoothness_factor": math.nan},
        {"smoothness_factor": -1.0},
        {"step_size": math.nan},
    ],
)
def test_no_bound_is_valid_beside_what_is_no_number(change):
    for bound in every_bound(dataclasses.replace(FLAT, **change)):
        assert not bound.valid or 0 <= bound.neighbourhood < math.inf
        assert not bound.valid or 0 <= bound.contraction <= 1
    assert not t1(dataclasses.replace(FLAT, **change)).valid


def test_a_step_of_one_over_mu_contracts_to_nothing():
    """L = mu = 3 and alpha = 1/3, rounded up by as much as is let pass: no bound below zero after an odd step."""
    one = Constants(3.0, 3.0, 3.0, 3.0, "exact")
    setting = dataclasses.replace(FLAT, constants=one, noise=0.0, interpolation=True, step_size=(1 + 9e-13) / 3)
    for bound in every_bound(setting):
        assert bound.valid
        assert bound.at(1, 7.0) == 0


@pytest.mark.parametrize("start", [math.nan, math.inf, -1.0])
def test_bounds_need_a_start(start):
    assert t1(FLAT).started(7.0) == t1(FLAT)
    bound = t1(FLAT).started(start)
    assert (bound.valid, bound.condition) == (False, f"the start, {start:.4g}, is no finite number >= 0")


def test_t1_sharp_needs_additive_label_noise():
    for change in ({"additive": False}, {"realisable": False}):
        assert not t1_sharp(dataclasses.replace(SETTING, **change)).valid


@given(populations("softmax-regression"), st.floats(0.01, 2), SEEDS)
def test_constants_bound_the_hessians(population, ridge, seed):
    """L and L_max bound the curvature of pool and samples, mu bounds it from below, at random parameters."""
    student = SoftmaxRegression(ridge, "centred")
    pool = constants(student, population)
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(population.optimum.shape, dtype=torch.float64, generator=generator)
    outputs = population.x @ theta.T
    hessians = torch.einsum("nkl,ni,nj->nkilj", student.output_hessian(outputs), population.x, population.x)
    hessians = hessians.reshape(population.size, theta.numel(), theta.numel()) + ridge * torch.eye(
        theta.numel(), dtype=torch.float64
    )
    values = torch.linalg.eigvalsh(hessians.mean(0))
    assert values[0] >= pool.mu - 1e-9
    assert values[-1] <= pool.smoothness + 1e-9
    assert torch.linalg.eigvalsh(hessians).amax() <= pool.sample_smoothness + 1e-9


@pytest.mark.slow
def test_invalid_bounds_are_not_reported():
    population = GaussianMixture(samples=200, dimension=4).population(0)
    tail = [10, 20]
    beyond = predict(SoftmaxRegression(0.1, "centred"), population, OneHot(), 1.0, 1, tail)
    no_ridge = predict(SoftmaxRegression(), population, OneHot(), 1e-3, 1, tail)
    biased = predict(SoftmaxRegression(0.1, "centred"), population, Temperature(2.0), 1e-3, 1, tail)
    for prediction in (beyond, no_ridge, biased):
        assert not prediction.bound_valid
        assert prediction.bound_floor is None
        assert prediction.bound_tail is None
    frozen = predict(
        SoftmaxRegression(0.1, "centred"), population, OneHot(), 1e-3, 1, tail, fresh_with_replacement=False
    )
    assert not frozen.bound_valid
    assert frozen.first_order_floor is None


BOUNDS = ("bound", "sharp_bound", "aim_bound", "risk_bound", "sharp_risk_bound")

SETTINGS = {
    "plain": (SoftmaxRegression(0.1, "centred"), OneHot(), {}, {*BOUNDS}),
    "not-plain": (SoftmaxRegression(0.1, "centred"), OneHot(), {"plain": False}, set()),
    "frozen": (SoftmaxRegression(0.1, "centred"), OneHot(), {"fresh_with_replacement": False}, set()),
    "biased": (SoftmaxRegression(0.1, "centred"), Temperature(2.0), {}, {"aim_bound"}),
    "ordinary-ridge": (SoftmaxRegression(0.1, "ordinary"), OneHot(), {}, {"bound", "aim_bound"}),
    "no-ridge": (SoftmaxRegression(), OneHot(), {}, set()),
    "not-additive": (
        SoftmaxRegression(0.1, "centred"), Independent(0.1), {}, {"bound", "aim_bound", "risk_bound"}
    ),
}  # fmt: skip
"""Student, supervision and settings of `predict`, and the bounds that are then valid."""


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_bound_is_printed_where_it_is_valid_and_nowhere_else(kind):
    student, supervision, settings, valid = SETTINGS[kind]
    population = GaussianMixture(samples=50, dimension=3, classes=3).population(0)
    row = predict(student, population, supervision, 1e-4, 1, [10, 20], **settings).row()
    for name in BOUNDS:
        assert row[f"{name}_valid"] is (name in valid), name
        for column in ("floor", "tail"):
            assert (row[f"{name}_{column}"] is not None) is (name in valid), (name, column)


def test_independent_noise_narrows_the_step_size():
    """Its targets do not sum to one: smoothness (1 + K nu) L_max, and T1' does not apply to softmax."""
    population = GaussianMixture(samples=200, dimension=4).population(0)
    student = SoftmaxRegression(0.1, "centred")
    pool = constants(student, population)
    prediction = predict(student, population, Independent(0.4), 1e-3, 1, [10])
    assert prediction.step_size_limit == pytest.approx(0.5 / ((1 + 5 * 0.4) * (pool.sample_smoothness - 0.1) + 0.1))
    assert prediction.bound_valid
    assert not prediction.sharp_bound_valid


@pytest.mark.slow
def test_first_order_floor_of_the_paper_problem():
    """Section 5: (rho alpha / b) sum_i h_i / (2 (h_i + lambda)) and its excess risk."""
    population = GaussianMixture().population(0)
    plain = SoftmaxRegression()
    outputs = population.x @ population.optimum.T
    hessian = torch.einsum("nkl,ni,nj->kilj", plain.output_hessian(outputs), population.x, population.x)
    h = torch.linalg.eigvalsh(hessian.reshape(155, 155) / population.size).clamp(min=0)
    ridge, step_size, batch_size = 0.05, 0.01, 4
    one_hot = step_size / batch_size * (h / (2 * (h + ridge))).sum().item()
    student = SoftmaxRegression(ridge, "centred")
    for supervision, rho in [(OneHot(), 1.0), (Dirichlet(3.0), 0.25), (Exact(), 0.0)]:
        prediction = predict(student, population, supervision, step_size, batch_size, [10])
        assert prediction.first_order_floor == pytest.approx(rho * one_hot, rel=1e-9)
    no_ridge = predict(plain, population, OneHot(), step_size, batch_size, [10])
    assert no_ridge.first_order_floor == pytest.approx(step_size / (2 * batch_size) * 124, rel=1e-6)  # d_eff = 4 * 31
    assert no_ridge.first_order_excess_risk == pytest.approx(step_size / (4 * batch_size) * h.sum().item(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("student", ["softmax-regression", "least-squares"])
def test_no_valid_bound_is_violated(student):
    """T1 and T1' with their transient at every checkpoint, at their step-size limits, all unbiased families."""
    if student == "least-squares":
        population, learner = SimplexLinear(dimension=4, samples=300).population(2), LeastSquares(0.05, "centred")
    else:
        population = GaussianMixture(dimension=6, samples=300).population(2)
        learner = SoftmaxRegression(0.3, "centred")
    reference = minimiser(learner, population)
    initial = reference.square().sum().item()
    supervisions = [cls() for cls in SUPERVISIONS if cls.unbiased]
    for batch_size in (1, 8):
        smoothness = constants(learner, population).expected_smoothness(batch_size)
        lanes = [Lane(s, f / smoothness, 3, 64) for s in supervisions for f in (0.25, 0.5, 1.0)]
        record, _ = simulate(
            learner, population, lanes, SGD(1_500, batch_size, dtype="float64"), Recording(),
            reference=reference, anchor=learner.anchor(population),
        )  # fmt: skip
        steps, checked = record.steps.tolist(), 0
        for number, lane in enumerate(lanes):
            curve = record.replicas(slice(64 * number, 64 * number + 64)).curves["dist_sq"]
            low = curve.mean(1) - 4 * curve.std(1) / 8
            row = predict(learner, population, lane.supervision, lane.step_size, batch_size, [1])
            for valid, floor in (
                (row.bound_valid, row.bound_floor),
                (row.sharp_bound_valid, row.sharp_bound_floor),
            ):
                if valid:
                    time = torch.tensor(steps, dtype=torch.float64)
                    bound = (1 - lane.step_size * row.mu) ** time * initial + floor
                    assert (low <= bound + 1e-12).all(), (
                        lane.supervision,
                        lane.step_size,
                    )
                    checked += 1
        assert checked >= 20


def test_an_ordinary_ridge_breaks_interpolation():
    """Under exact BCP the input part of the noise remains: no doubled step size, no zero floor, no T1'."""
    population = GaussianMixture(samples=200, dimension=4).population(0)
    prediction = predict(SoftmaxRegression(0.1, "ordinary"), population, Exact(), 1e-3, 1, [10])
    assert prediction.bound_valid
    assert prediction.bound_floor > 0
    assert prediction.first_order_floor > 0
    assert not prediction.sharp_bound_valid


def test_no_exact_floor_without_fresh_targets():
    population = SimplexLinear(samples=50).population(0)
    for fresh in (True, False):
        prediction = predict(LeastSquares(), population, OneHot(), 0.1, 1, [10], fresh_with_replacement=fresh)
        assert (prediction.exact_floor is not None) == fresh
        assert (prediction.stability_limit is not None) == fresh


def test_a_student_that_cannot_be_the_bcp_gets_no_free_bound():
    """Least squares on a softmax problem: exact BCP is noisy there, and the floor is that of the input noise."""
    population = GaussianMixture(samples=200, dimension=4).population(0)
    prediction = predict(LeastSquares(0.5, "ordinary"), population, Exact(), 1e-3, 1, [10])
    assert prediction.bound_floor > 0
    assert prediction.exact_floor is None


@pytest.mark.slow
@pytest.mark.parametrize("supervision", [Temperature(2.0), LabelSmoothing(0.3), Confusion(0.2), OneHot(), Exact()])
def test_predictions_never_fail_without_a_ridge(supervision):
    """Flat directions, noiseless biased targets and nearly certain BCPs: a floor or None, but no exception."""
    for population in (
        GaussianMixture(samples=200, dimension=4).population(0),
        GaussianMixture(samples=200, dimension=4, variance=0.6).population(0),
    ):
        prediction = predict(SoftmaxRegression(), population, supervision, 1e-3, 1, [10])
        assert prediction.first_order_floor is None or prediction.first_order_floor >= 0


@pytest.mark.slow
def test_biased_floor_against_simulation():
    """Bias, cross term and variance together, at a converged small step size: within 4 standard errors and 2 %."""
    population = GaussianMixture(samples=200, dimension=3, classes=3).population(1)
    student = SoftmaxRegression(0.2, "centred")
    lanes = [Lane(s, 0.01, 3, 200) for s in (Confusion(0.3, labels=True), LabelSmoothing(0.4), Temperature(2.0))]
    reference = minimiser(student, population)
    record, _ = simulate(
        student, population, lanes, SGD(8_000, dtype="float64"), Recording(checkpoints=3, tail_fraction=0.6),
        reference=reference, anchor=student.anchor(population),
    )  # fmt: skip
    for number, lane in enumerate(lanes):
        measured = measure(record.replicas(slice(200 * number, 200 * number + 200)))
        predicted = predict(student, population, lane.supervision, 0.01, 1, [1])
        parts = abs(predicted.cross_term) + predicted.variance
        assert abs(measured.floor - predicted.first_order_floor) < 4 * measured.floor_se + 0.02 * parts
