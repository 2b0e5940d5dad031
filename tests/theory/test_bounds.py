"""T1 and T1': when they are bounds, what they say, and that short simulations keep them."""

from __future__ import annotations

import dataclasses

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
