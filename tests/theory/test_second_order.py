"""Second order against the exact recursion, against brute force in the whole matrix space, and against simulation."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulating import simulate
from strategies import SEEDS

from kdsim.config import ConfigError
from kdsim.engines import SGD, Lane, Recording
from kdsim.measure import interval, tail_floor
from kdsim.population import Population
from kdsim.problems import Digits, GaussianMixture, SimplexLinear
from kdsim.results.rows import flat_row
from kdsim.rng import Draws, Stream
from kdsim.students import LeastSquares, SoftmaxRegression, minimiser
from kdsim.study.base import Cell
from kdsim.study.report import cells_table
from kdsim.study.rows import prediction, summary
from kdsim.supervision import Dirichlet, Exact, Independent, OneHot, Temperature
from kdsim.supervision.base import Batch
from kdsim.theory import (
    LinearisedMoments,
    SecondMoments,
    gradient_covariance,
    linearised_moments,
    predict,
    second_order,
    stationary,
)

Z_LIMIT = 4.0


@pytest.mark.slow
@settings(max_examples=25)
@given(SEEDS, st.floats(0.05, 0.95), st.integers(1, 8), st.sampled_from([0.0, 0.3]))
def test_exact_for_least_squares(seed, fraction, batch_size, ridge):
    """Floor, excess risk and stability limit equal those of the exact recursion."""
    population = SimplexLinear(samples=30, dimension=3, classes=3).population(seed)
    student = LeastSquares(ridge, "centred")
    exact = SecondMoments(population, ridge, batch_size)
    moments = LinearisedMoments(student, population, population.optimum, batch_size)
    assert moments.stability_limit == pytest.approx(exact.stability_limit, rel=1e-10)
    step_size = fraction * exact.stability_limit
    gram = (population.x.T @ population.x / population.size).numpy()
    adjoint = moments.adjoint(step_size)
    for supervision in (OneHot(), Independent(0.2)):
        noise = gradient_covariance(student, population, supervision, population.optimum)
        fixed = exact.fixed_point(supervision, step_size)
        assert adjoint.variance(noise) == pytest.approx(fixed.trace(), rel=1e-10)
        assert adjoint.excess_risk(noise) == pytest.approx((fixed * gram).sum() / 2, rel=1e-10)


def test_exact_for_least_squares_where_the_limit_is_iterated():
    """A matrix space too large for the dense eigenvalue problem: Lanczos and conjugate gradients."""
    population = SimplexLinear().population(0)
    exact = SecondMoments(population, 0.05, 2)
    moments = LinearisedMoments(LeastSquares(0.05, "centred"), population, population.optimum, 2)
    assert moments.stability_limit == pytest.approx(exact.stability_limit, rel=1e-10)
    noise = gradient_covariance(LeastSquares(), population, OneHot(), population.optimum)
    for fraction in (0.1, 0.9):
        step_size = fraction * exact.stability_limit
        expected = exact.fixed_point(OneHot(), step_size).trace()
        assert moments.adjoint(step_size).variance(noise) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("supervision", [OneHot(), Temperature(2.0)], ids=lambda s: s.name)
def test_first_order_error_halves_with_the_step_size(supervision):
    """Least squares, where second order is exact: also about a biased optimum and under an ordinary ridge."""
    population = SimplexLinear(samples=60, dimension=3, classes=3).population(4)
    student = LeastSquares(0.05, "ordinary")
    limit = SecondMoments(population, 0.05, 2).stability_limit
    errors = []
    for step_size in (0.02 * limit, 0.01 * limit, 0.005 * limit):
        row = predict(student, population, supervision, step_size, 2, [10])
        variance = row.second_order_floor - row.bias_sq - row.cross_term
        errors.append(row.variance / variance - 1)
        assert errors[-1] < 0
    for larger, smaller in itertools.pairwise(errors):
        assert 0.45 <= smaller / larger <= 0.55


def _pool(seed: int = 1, size: int = 40, classes: int = 3, features: int = 3) -> Population:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, features, dtype=torch.float64, generator=generator)
    theta = torch.randn(classes, features, dtype=torch.float64, generator=generator)
    theta = theta - theta.mean(0)
    return Population(x=x, p=torch.softmax(x @ theta.T, -1), optimum=theta)


def _sample_hessians(population: Population, ridge: float) -> torch.Tensor:
    """A_x (x) xx' of each point and ridge I: (N, D, D)."""
    p, x = population.p, population.x
    loss = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    size = p.shape[1] * x.shape[1]
    products = torch.einsum("nkl,ni,nj->nkilj", loss, x, x).reshape(len(x), size, size)
    return products, ridge * torch.eye(size, dtype=x.dtype)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("factor", [1.0, 1.6])
def test_operator_and_solution_by_brute_force(ridge, factor):
    """The whole D^2 x D^2 system, formed from the samples' Hessians, and its largest eigenvalue."""
    population, batch_size = _pool(), 3
    student = SoftmaxRegression(ridge, "centred") if ridge else SoftmaxRegression()
    moments = LinearisedMoments(student, population, population.optimum, batch_size, factor)
    products, ridges = _sample_hessians(population, ridge)
    hessian = products.mean(0) + ridges
    identity = torch.eye(len(hessian), dtype=hessian.dtype)
    first = torch.kron(hessian, identity) + torch.kron(identity, hessian)
    sample = factor * torch.stack([torch.kron(h, h) for h in products]).mean(0)
    loss = products.mean(0)
    sample += torch.kron(loss, ridges) + torch.kron(ridges, loss) + torch.kron(ridges, ridges)
    second = sample / batch_size + (1 - 1 / batch_size) * torch.kron(hessian, hessian)
    values, vectors = torch.linalg.eigh(first)
    keep = values > 1e-10
    root = vectors[:, keep] / values[keep].sqrt()
    limit = 1 / torch.linalg.eigvalsh(root.T @ second @ root)[-1].item()
    assert moments.stability_limit == pytest.approx(limit, rel=1e-9)
    step_size = 0.6 * limit
    noise = gradient_covariance(student, population, OneHot(), population.optimum)
    operator = torch.linalg.pinv(first - step_size * second, hermitian=True, rtol=1e-11)
    covariance = step_size / batch_size * (operator @ noise.flatten()).view_as(noise)
    adjoint = moments.adjoint(step_size)
    assert adjoint.variance(noise) == pytest.approx(covariance.trace().item(), rel=1e-9)
    assert adjoint.excess_risk(noise) == pytest.approx((loss * covariance).sum().item() / 2, rel=1e-9)


def test_factor_of_independent_noise_by_monte_carlo():
    """E[H S H] over drawn targets: factor 1 + K nu on the xx'-part, none on the cross terms with the ridge."""
    population, ridge, supervision = _pool(), 0.3, Independent(0.2)
    student = SoftmaxRegression(ridge, "centred")
    count = 100_000
    visit, zero = torch.arange(count)[None], torch.zeros(1, 1, dtype=torch.int64)
    index = visit % population.size
    draws = Draws(zero, zero, visit, Stream.LABEL, torch.float64, start=0)
    sums = supervision.sample(Batch(index=index, p=population.p[index]), draws).q[0].sum(-1)  # (count,)
    products, ridges = _sample_hessians(population, ridge)
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(len(ridges), len(ridges), dtype=torch.float64, generator=generator)
    moments = LinearisedMoments(student, population, population.optimum, 1, 1 + 3 * 0.2)
    inside = moments.basis.T @ (root @ root.T) @ moments.basis
    covariance = moments.basis @ inside @ moments.basis.T
    expected = (moments.sample(inside)).trace().item()
    fourth = torch.einsum("nij,jk,nki->n", products, covariance, products)[index[0]]
    cross = 2 * ridge * torch.einsum("nij,ji->n", products, covariance)[index[0]]
    drawn = sums.square() * fourth + sums * cross + ridge**2 * covariance.trace()
    se = drawn.view(-1, population.size).mean(1).std().item() / (count / population.size) ** 0.5
    assert abs(drawn.mean().item() - expected) < Z_LIMIT * se
    wrong = expected + 0.6 * cross.mean().item()  # the factor on the cross terms too
    assert abs(drawn.mean().item() - wrong) > 10 * se


def test_first_order_is_the_limit_of_second_order():
    population = GaussianMixture(samples=300, dimension=5).population(0)
    student = SoftmaxRegression(0.1, "centred")
    optimum = minimiser(student, population)
    moments = linearised_moments(student, population, optimum, 1)
    noise = gradient_covariance(student, population, OneHot(), optimum)
    errors = []
    for step_size in (1e-4, 5e-5):
        first = stationary(student, population, OneHot(), step_size, 1, optimum, optimum)
        found = second_order(moments, step_size)
        errors.append(found.variance(noise) / first.variance - 1)
        assert found.excess_risk(noise) == pytest.approx(first.excess_risk, rel=1e-3)
    assert errors[1] / errors[0] == pytest.approx(0.5, rel=0.01)


def test_prediction_says_where_second_order_applies():
    population = GaussianMixture(samples=200, dimension=4).population(0)
    student = SoftmaxRegression(0.1, "centred")
    noisy = predict(student, population, OneHot(), 1e-2, 1, [10])
    assert noisy.second_order_floor > noisy.first_order_floor
    assert noisy.stability_kind == "linearised" and noisy.stability_limit > noisy.step_size_limit
    exact = predict(student, population, Exact(), 1e-2, 1, [10])
    assert exact.second_order_floor == 0 and exact.stability_limit == noisy.stability_limit
    assert predict(student, population, Independent(0.3), 1e-2, 1, [10]).stability_limit < noisy.stability_limit
    beyond = predict(student, population, OneHot(), 1.01 * noisy.stability_limit, 1, [10])
    assert beyond.second_order_floor is None and beyond.stability_limit == noisy.stability_limit
    for row in (
        predict(student, population, Temperature(2.0), 1e-2, 1, [10]),
        predict(student, population, OneHot(), 1e-2, 1, [10], fresh_with_replacement=False),
    ):
        assert row.second_order_floor is None and row.stability_limit is None and row.stability_kind is None


def test_step_sizes_beyond_the_limit_and_large_pools_are_refused():
    population = _pool()
    moments = LinearisedMoments(SoftmaxRegression(), population, population.optimum, 1)
    with pytest.raises(ConfigError, match="stability limit"):
        moments.adjoint(1.01 * moments.stability_limit)
    large = Population(x=torch.randn(4, 500, dtype=torch.float64), p=torch.full((4, 4), 0.25, dtype=torch.float64))
    with pytest.raises(ConfigError, match="1024 parameters"):
        LinearisedMoments(SoftmaxRegression(), large, torch.zeros(4, 500, dtype=torch.float64), 1)


@pytest.mark.slow
def test_digits_without_large_matrices():
    """D = 650: the equation holds for the covariance that the adjoint implies, checked on a random noise."""
    population = Digits(samples=400).population(0)
    student = SoftmaxRegression(0.05, "centred")
    moments = linearised_moments(student, population, population.optimum, 1)
    step_size = 0.3 * moments.stability_limit
    trace = moments.basis.T @ second_order(moments, step_size).trace @ moments.basis
    left = (moments.values[:, None] + moments.values) * trace - step_size * moments.second(trace)
    torch.testing.assert_close(left, torch.eye(len(left), dtype=left.dtype), atol=1e-9, rtol=0)


@pytest.mark.slow
def test_what_second_order_leaves_on_softmax_regression():
    """A residual of order alpha, a quarter of first order's for one-hot labels and less for less noise.

    Paired seeds, 2,500 replicas; 4 standard errors. The numbers in docs/theory.md are of this problem.
    """
    population, replicas = _pool(), 2_500
    student, optimum = SoftmaxRegression(0.05, "centred"), population.optimum
    moments = linearised_moments(student, population, optimum, 1)
    pairs = [(s, f * moments.stability_limit) for s in (OneHot(), Dirichlet(4.0)) for f in (0.2, 0.1)]
    lanes = [Lane(supervision, step_size, seed=5, replicas=replicas) for supervision, step_size in pairs]
    record, _ = simulate(
        student, population, lanes, SGD(2_000), Recording(2, 0.8, 8), reference=optimum,
        anchor=student.anchor(population),
    )  # fmt: skip
    residuals, first = [], []
    for number, (supervision, step_size) in enumerate(pairs):
        floors = tail_floor(record.replicas(slice(number * replicas, (number + 1) * replicas)))
        noise = gradient_covariance(student, population, supervision, optimum)
        residuals.append(interval(floors / second_order(moments, step_size).variance(noise) - 1))
        variance = stationary(student, population, supervision, step_size, 1, optimum, optimum).variance
        first.append(interval(floors / variance - 1))
    one_hot, half, dirichlet, _ = residuals
    assert one_hot.mean > 10 * one_hot.se and half.mean > Z_LIMIT * half.se
    assert abs(one_hot.mean - 2 * half.mean) < Z_LIMIT * (one_hot.se**2 + 4 * half.se**2) ** 0.5
    assert one_hot.mean + Z_LIMIT * one_hot.se < 0.4 * first[0].mean
    assert abs(dirichlet.mean) < one_hot.mean / 3
    assert abs(dirichlet.mean) + Z_LIMIT * dirichlet.se < 0.2 * first[2].mean


@pytest.mark.slow
def test_second_order_is_stated_where_it_changes_first_order_by_at_most_a_third():
    """Near the limit it runs to infinity and the floor does not: beyond second order. Least squares is exact."""
    population, student = _pool(), SoftmaxRegression(0.05, "centred")
    moments = linearised_moments(student, population, population.optimum, 1)
    noise = gradient_covariance(student, population, OneHot(), population.optimum)
    stated = {}
    for fraction in (0.05, 0.2, 0.3, 0.5, 0.7, 0.91, 0.999):
        step_size = fraction * moments.stability_limit
        row = predict(student, population, OneHot(), step_size, 1, [10])
        second = moments.adjoint(step_size).variance(noise)
        stated[fraction] = row.second_order_floor is not None
        assert (
            stated[fraction] == (row.second_order_excess_risk is not None) == (row.first_order_floor > second * 2 / 3)
        )
        assert row.second_order_floor is None or row.second_order_floor == pytest.approx(second, rel=1e-9)
        assert row.stability_limit == moments.stability_limit  # so that a reader sees why
    assert stated[0.2] and not stated[0.91] and not stated[0.999]
    linear = SimplexLinear(samples=60, dimension=3, classes=3).population(4)
    limit = SecondMoments(linear, 0.05, 2).stability_limit
    row = predict(LeastSquares(0.05, "centred"), linear, OneHot(), 0.91 * limit, 2, [10])
    assert row.second_order_floor == pytest.approx(row.exact_floor, rel=1e-9)
    assert row.second_order_floor > 3 * row.first_order_floor


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5, 0.9])
def test_one_mode_is_first_order_over_one_minus_the_share_of_the_limit(fraction):
    x = 2 * torch.ones(1, 1, dtype=torch.float64)
    population = Population(x=x, p=torch.tensor([[0.6, 0.4]]).double(), optimum=torch.tensor([[0.3], [0.2]]).double())
    limit = SecondMoments(population, 0.0, 1).stability_limit
    row = predict(LeastSquares(), population, OneHot(), fraction * limit, 1, [10])
    assert row.exact_floor == pytest.approx(row.first_order_floor / (1 - fraction), rel=1e-9)


def test_tables_say_beyond_second_order():
    problem, student = GaussianMixture(samples=60, dimension=3, classes=3), SoftmaxRegression(0.05, "centred")
    population = problem.population(0)
    limit = predict(student, population, OneHot(), 1e-3, 1, [10]).stability_limit
    rows = []
    for fraction in (0.05, 0.91, 1.1):
        cell = Cell(problem, student, OneHot(), fraction * limit, sgd=SGD(40), replicas=2, seed=0)
        rows.append(flat_row("study", "cell", summary(cell), prediction(cell, population)))
    table = cells_table(rows)
    column = table.headers.index("2nd order")
    assert [row[column] for row in table.rows] == [f"{rows[0]['second_order_floor']:.4g}", "beyond", "-"]
    assert any(note.startswith("beyond: beyond second order") for note in table.notes)
    exact = [{**row, "exact_floor": 1.0, "stability_kind": "exact"} for row in rows]
    assert "2nd order" not in cells_table(exact).headers
