"""PL constants against dense eigenvalues; T2 and T2' against the exact expected excess risk, without simulation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, populations

from kdsim.config import ConfigError
from kdsim.population import Population
from kdsim.problems import GaussianMixture, SimplexLinear, SoftmaxLinear
from kdsim.students import LeastSquares, SoftmaxRegression, minimiser
from kdsim.supervision import Dirichlet, Exact, Independent, OneHot, Temperature, TwoPoint
from kdsim.theory import Constants, SecondMoments, Setting, constants, predict, t2, t2_sharp, with_pl_estimate
from kdsim.theory.constants import input_range
from kdsim.theory.polyak_lojasiewicz import excess_objective

SETTING = Setting(
    constants=Constants(mu=0.0, smoothness=2.0, sample_smoothness=10.0, mu_pl=0.1, mu_pl_kind="exact"),
    batch_size=1,
    step_size=0.002,
    noise=3.0,
    unbiased=True,
    interpolation=False,
    realisable=True,
    additive=True,
    theory_sampling=True,
)
LEAST_SQUARES = st.builds(
    SimplexLinear,
    classes=st.integers(2, 4),
    dimension=st.integers(3, 7),
    concentration=st.sampled_from([0.2, 1.0]),
    samples=st.sampled_from([2, 4, 40]),
    rank=st.sampled_from([None, 1, 2, 3]),
)
"""Full rank, rank-deficient and over-parametrised pools."""


# Constants --------------------------------------------------------------------------------


@given(LEAST_SQUARES, SEEDS)
def test_pl_constant_of_least_squares_is_the_smallest_non_zero_eigenvalue(problem, seed):
    population = problem.population(seed)
    known = constants(LeastSquares(), population)
    gram = (population.x.T @ population.x / population.size).numpy()
    rank = np.linalg.matrix_rank(population.x.numpy())
    dense = np.linalg.eigvalsh(gram)[-rank:]
    assert known.mu_pl_kind == "exact"
    assert known.mu_pl == pytest.approx(dense[0], rel=1e-6, abs=1e-14)
    assert known.smoothness == pytest.approx(dense[-1])
    assert known.mu == (known.mu_pl if rank == problem.dimension else 0)
    values, span = (part.numpy() for part in input_range(population.x))
    np.testing.assert_allclose(span * values @ span.T, gram, atol=1e-14)
    ridge = constants(LeastSquares(0.3, "centred"), population)
    assert ridge.mu_pl == ridge.mu == pytest.approx(0.3 + (dense[0] if rank == problem.dimension else 0))


@given(LEAST_SQUARES, SEEDS)
def test_pl_inequality_of_least_squares(problem, seed):
    """|grad f|^2 >= 2 mu_pl (f - f*) at random parameters, in and out of the span of the pool."""
    population, student = problem.population(seed), LeastSquares()
    known = constants(student, population)
    generator = torch.Generator().manual_seed(seed)
    anchor = student.anchor(population)
    for _ in range(5):
        theta = torch.randn(population.optimum.shape, dtype=torch.float64, generator=generator)
        gradient = student.gradient(theta, population.x, population.p, anchor)
        excess = excess_objective(student, population, theta, minimiser(student, population))
        assert gradient.square().sum() >= 2 * known.mu_pl * excess * (1 - 1e-9)


def test_ridge_is_exact_and_without_it_softmax_has_an_estimate():
    population = SoftmaxLinear(dimension=3, samples=200).population(0)
    ridge = constants(SoftmaxRegression(0.2, "centred"), population)
    assert (ridge.mu_pl, ridge.mu_pl_kind) == (0.2, "exact")
    student = SoftmaxRegression()
    plain = constants(student, population)
    assert (plain.mu_pl, plain.mu_pl_kind) == (0.0, "unknown")
    found = with_pl_estimate(student, population, plain)
    assert found.mu_pl_kind == "estimate"
    outputs = population.x @ population.optimum.T
    hessians = torch.einsum("nkl,ni,nj->kilj", student.output_hessian(outputs), population.x, population.x)
    size = population.optimum.numel()
    values = np.linalg.eigvalsh(hessians.reshape(size, size).numpy() / population.size)
    flat = population.features  # 1'theta = 0: one direction a feature
    assert values[flat - 1] < 1e-12 < values[flat]
    assert 0 < found.mu_pl <= values[flat] * (1 + 1e-9)
    # The start of the path is on it.
    zero = torch.zeros_like(population.optimum)
    gradient = student.gradient(zero, population.x, population.p, zero)
    excess = excess_objective(student, population, zero, minimiser(student, population))
    assert found.mu_pl <= (gradient.square().sum() / (2 * excess)).item() * (1 + 1e-9)


def test_estimate_of_one_logit():
    """One feature, two classes: the Hessian p (1 - p) [[1, -1], [-1, 1]] at theta* is the smallest on the path."""
    x, p = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[0.99, 0.01]], dtype=torch.float64)
    population, student = Population(x=x, p=p), SoftmaxRegression()
    estimate = with_pl_estimate(student, population, constants(student, population)).mu_pl
    assert estimate == pytest.approx(2 * 0.99 * 0.01, rel=1e-3)


@given(populations(), st.sampled_from([("none", 0.0), ("centred", 0.3)]), SEEDS)
def test_excess_objective_is_the_difference(population, ridge, seed):
    kind = LeastSquares if torch.allclose(population.x @ population.optimum.T, population.p) else SoftmaxRegression
    student = kind(ridge[1], ridge[0])
    best, anchor = minimiser(student, population), student.anchor(population)
    theta = torch.randn(best.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    difference = student.objective(theta, population.x, population.p, anchor) - student.objective(
        best, population.x, population.p, anchor
    )
    assert excess_objective(student, population, theta, best) == pytest.approx(difference.item(), rel=1e-8, abs=1e-11)


# Bounds -----------------------------------------------------------------------------------


def test_t2_by_hand():
    bound, sharp = t2(SETTING), t2_sharp(SETTING)
    assert bound.valid and sharp.valid
    assert bound.step_size_limit == pytest.approx(0.1 / (2 * 2 * 10))
    assert sharp.step_size_limit == pytest.approx(0.1 / (2 * 10))
    assert bound.neighbourhood == pytest.approx(2 * 0.002 / 0.1 * 3)
    assert sharp.neighbourhood == pytest.approx(bound.neighbourhood / 2)
    assert bound.at(3, 5.0) == pytest.approx((1 - 0.0002) ** 3 * 5 + 0.12)
    doubled = dataclasses.replace(SETTING, step_size=0.005)
    assert not t2(doubled).valid and t2_sharp(doubled).valid
    exact = t2(dataclasses.replace(doubled, interpolation=True, noise=0.0))
    assert exact.valid and exact.neighbourhood == 0
    batch = dataclasses.replace(SETTING, batch_size=4)
    assert t2(batch).step_size_limit == pytest.approx(0.1 / (2 * 2 * (2 * 3 / 4 + 10 / 4)))


ESTIMATE = dataclasses.replace(SETTING.constants, mu_pl_kind="estimate")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"constants": ESTIMATE}, "mu is an estimate"),
        ({"constants": Constants(0.0, 2.0, 10.0)}, "no PL constant"),
        ({"unbiased": False}, "biased"),
        ({"theory_sampling": False}, "fresh"),
        ({"risk_recorded": False}, "ordinary ridge"),
        ({"step_size": 0.0051}, "L_max"),
    ],
)
def test_failed_conditions_of_t2_are_named(change, words):
    for bound in (t2, t2_sharp):
        found = bound(dataclasses.replace(SETTING, **change))
        assert not found.valid and words in found.condition


def test_t2_sharp_needs_additive_label_noise():
    for change in ({"additive": False}, {"realisable": False}):
        assert not t2_sharp(dataclasses.replace(SETTING, **change)).valid


@pytest.mark.slow
def test_predictions_report_t2_only_where_it_holds():
    population = SimplexLinear(dimension=6, rank=3, samples=100).population(0)
    known = constants(LeastSquares(), population)
    limit = known.mu_pl / (2 * known.smoothness * known.sample_smoothness)
    good = predict(LeastSquares(), population, OneHot(), limit, 1, [10, 20])
    assert good.risk_bound_valid and good.risk_step_size_limit == pytest.approx(limit)
    transient = sum((1 - limit * known.mu_pl) ** t for t in (10, 20)) / 2 * good.initial_excess
    assert good.risk_bound_tail == pytest.approx(good.risk_bound_floor + transient)
    assert not good.bound_valid  # not strongly convex
    cases = [
        predict(LeastSquares(), population, OneHot(), 1.01 * limit, 1, [10]),
        predict(LeastSquares(), population, Temperature(2.0), limit, 1, [10]),
        predict(LeastSquares(0.1, "ordinary"), population, OneHot(), 1e-6, 1, [10]),
        predict(LeastSquares(), population, OneHot(), limit, 1, [10], fresh_with_replacement=False),
        predict(SoftmaxRegression(), GaussianMixture(samples=100, dimension=3).population(0), OneHot(), 1e-9, 1, [10]),
    ]
    for prediction in cases:
        assert not prediction.risk_bound_valid
        assert prediction.risk_bound_floor is None and prediction.risk_bound_tail is None
    assert cases[-1].mu_pl_kind == "estimate" and "estimate" in cases[-1].risk_bound_condition
    assert cases[-1].exact_excess_risk is None


@pytest.mark.slow
def test_exact_recursion_refuses_a_large_rank():
    population = SimplexLinear(dimension=80, samples=200).population(0)
    with pytest.raises(ConfigError, match="rank up to 64, not 80"):
        SecondMoments(population, 0.0, 1)
    assert predict(LeastSquares(), population, OneHot(), 1e-3, 1, [1]).exact_floor is None
    wide = SimplexLinear(dimension=80, samples=10).population(0)
    assert predict(LeastSquares(), wide, OneHot(), 1e-3, 1, [1]).exact_floor > 0


@pytest.mark.slow
@settings(max_examples=60)
@given(
    LEAST_SQUARES,
    SEEDS,
    st.sampled_from([Exact(), OneHot(), Dirichlet(0.7), TwoPoint(1.0), Independent(0.3)]),
    st.sampled_from([0.0, 0.02, 0.5]),
    st.sampled_from([1, 2, 8]),
    st.floats(0.02, 1.0),
)
def test_t2_is_never_violated_by_the_exact_recursion(problem, seed, supervision, ridge, batch_size, fraction):
    """Objective's and recorded excess risk, exact in expectation, below T2 and T2' at all steps to stationarity."""
    population, student = problem.population(seed), LeastSquares(ridge, "centred" if ridge else "none")
    moments = SecondMoments(population, ridge, batch_size)
    reference = minimiser(student, population)
    sharp_limit = predict(student, population, supervision, 1e-9, batch_size, [1]).risk_step_size_limit
    for share, checked in ((0.5, "risk_bound"), (1.0, "sharp_risk_bound")):
        full = sharp_limit if supervision == Exact() else 2 * sharp_limit
        step_size = share * full * fraction
        row = predict(student, population, supervision, step_size, batch_size, [1])
        assert getattr(row, f"{checked}_valid"), row
        last = int(min(20 / (step_size * row.mu_pl), 1e9))
        steps = np.unique(np.concatenate([np.arange(40), np.geomspace(1, max(last, 2), 200).astype(int)]))
        risk = moments.risk_curve(supervision, step_size, -reference, steps)
        dist_sq = moments.curve(supervision, step_size, -reference, steps)
        bound = (1 - step_size * row.mu_pl) ** steps.astype(float) * row.initial_excess
        bound += getattr(row, f"{checked}_floor")
        slack = 1e-12 * row.initial_excess + 1e-25
        assert (risk + ridge / 2 * dist_sq <= bound * (1 + 1e-9) + slack).all()
        assert (risk <= bound * (1 + 1e-9) + slack).all()
