"""Students: closed forms against automatic differentiation, and minimisers against their stationarity condition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import SEEDS, bcps, populations

from kdsim.config import ConfigError
from kdsim.losses import cross_entropy, squared_error
from kdsim.population import Population
from kdsim.problems import GaussianMixture, SoftmaxLinear
from kdsim.students import STUDENTS, LeastSquares, SoftmaxRegression, minimiser
from kdsim.students.optimum import pool_hessian
from kdsim.supervision import Confusion

KINDS = st.sampled_from(STUDENTS)
LOSSES = {SoftmaxRegression: cross_entropy, LeastSquares: squared_error}


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(KINDS, SEEDS, st.integers(2, 6), st.integers(1, 4), st.booleans())
def test_gradient_matches_autograd(kind, seed, classes, features, on_simplex):
    """Also for targets that do not sum to one, where the short form phi - q of the residual is wrong."""
    theta = _random(seed, classes, features).requires_grad_()
    x, anchor = _random(seed + 1, 3, features), _random(seed + 2, classes, features)
    q = _random(seed + 3, 3, classes)
    if on_simplex:
        q = torch.softmax(q, -1)
    student = kind(0.3, "ordinary")
    objective = LOSSES[kind](x @ theta.T, q).mean() + 0.15 * (theta - anchor).square().sum()
    torch.testing.assert_close(student.objective(theta, x, q, anchor), objective)
    (expected,) = torch.autograd.grad(objective, theta)
    torch.testing.assert_close(student.gradient(theta.detach(), x, q, anchor), expected)


@given(SEEDS, st.integers(2, 6), st.integers(1, 4))
def test_softmax_gradient_stays_in_its_subspace(seed, classes, features):
    """1' gradient = 0 for any target: theta started at zero keeps centred rows."""
    theta, x, q = _random(seed, classes, features), _random(seed + 1, 5, features), _random(seed + 2, 5, classes)
    gradient = SoftmaxRegression().gradient(theta, x, q, torch.zeros_like(theta))
    assert gradient.sum(0).abs().max() < 1e-12 * (1 + gradient.abs().max())


@given(KINDS, SEEDS, st.integers(2, 5), bcps())
def test_output_derivatives_match_autograd(kind, seed, classes, p):
    student = kind()
    q = p[0]
    outputs = _random(seed, q.numel())
    hessian = torch.autograd.functional.hessian(lambda z: LOSSES[kind](z, q), outputs)
    torch.testing.assert_close(student.output_hessian(outputs), hessian)
    spread = _random(seed + 1, q.numel(), q.numel())
    covariance = spread @ spread.T
    third = torch.autograd.functional.jacobian(lambda z: (student.output_hessian(z) * covariance).sum(), outputs)
    torch.testing.assert_close(student.output_third(outputs, covariance), third, atol=1e-10, rtol=1e-8)


@given(KINDS, SEEDS, st.integers(2, 6))
def test_output_noise_is_the_covariance_of_the_residual(kind, seed, classes):
    """The residual is affine in q: its covariance is A C A' with A its Jacobian in q, for any C."""
    student, outputs = kind(), _random(seed, classes)
    spread = _random(seed + 1, classes, classes)
    covariance = spread @ spread.T
    q = torch.softmax(_random(seed + 2, classes), -1)
    jacobian = torch.autograd.functional.jacobian(lambda target: student.output_gradient(outputs, target), q)
    torch.testing.assert_close(student.output_noise(outputs, covariance), jacobian @ covariance @ jacobian.T)


@given(KINDS, SEEDS, st.integers(2, 6), st.floats(-9, 3))
def test_compare_is_excess_loss_and_gap(kind, seed, classes, power):
    """Against the plain difference where that is accurate; against the quadratic form where the error is tiny."""
    student, optimal, error = kind(), _random(seed, 4, classes), 10.0**power * _random(seed + 1, 4, classes)
    p = student.probabilities(optimal)
    divergence, gap = student.compare(error, optimal)
    assert (divergence >= 0).all()
    plain = LOSSES[kind](optimal + error, p) - LOSSES[kind](optimal, p)
    torch.testing.assert_close(divergence, plain, atol=1e-12, rtol=1e-7)
    torch.testing.assert_close(gap, student.probabilities(optimal + error) - p, atol=1e-14, rtol=1e-7)
    if power < -5:
        quadratic = torch.einsum("nk,nkj,nj->n", error, student.output_hessian(optimal), error) / 2
        torch.testing.assert_close(divergence, quadratic, rtol=1e-3, atol=0)


@given(populations("softmax-regression"), st.sampled_from([0.0, 0.3, 1.0]), st.floats(0.01, 2))
def test_minimiser_meets_its_stationarity_condition(population, rate, ridge):
    target = Confusion(rate).mean(population.p)
    for kind in ("centred", "ordinary"):
        student = SoftmaxRegression(ridge, kind)
        theta = minimiser(student, population, target)
        gradient = student.gradient(theta, population.x, target, student.anchor(population))
        assert gradient.norm() < 1e-10


@given(populations("softmax-regression"))
def test_minimiser_without_ridge_recovers_the_bcp(population):
    """Newton from zero reaches predictions equal to p, without being told the optimum."""
    assume(population.p.min() > 1e-9)  # flatter than that, the optimum is at infinity to working precision
    blind = Population(x=population.x, p=population.p)
    theta = minimiser(SoftmaxRegression(), blind)
    torch.testing.assert_close(torch.softmax(blind.x @ theta.T, -1), blind.p, atol=1e-7, rtol=1e-6)


@given(populations())
def test_pool_hessian_matches_autograd(population):
    student = SoftmaxRegression(0.2, "ordinary")
    theta = 0.5 * population.optimum
    anchor = torch.zeros_like(theta)

    def objective(flat):
        return student.objective(flat.view_as(theta), population.x, population.p, anchor)

    expected = torch.autograd.functional.hessian(objective, theta.flatten())
    torch.testing.assert_close(pool_hessian(student, population.x, theta), expected, atol=1e-10, rtol=1e-8)


def test_separable_targets_without_a_ridge_are_refused():
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    with pytest.raises(ConfigError, match="no finite minimiser"):
        minimiser(SoftmaxRegression(), Population(x=x, p=labels))


@pytest.mark.parametrize(
    ("ridge", "kind", "words"),
    [
        (-1.0, "centred", "ridge"),
        (float("nan"), "ordinary", "ridge"),
        (0.1, "none", "none"),
        (0.1, "central", "centred"),
    ],
)
def test_bad_ridges_are_refused(ridge, kind, words):
    with pytest.raises(ConfigError, match=words):
        SoftmaxRegression(ridge, kind)


@pytest.mark.parametrize("gap", [1.0, 30.0, 60.0, 100.0, 800.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compare_at_certain_predictions(gap, dtype):
    """From theta = 0 to an optimum whose p is almost a vertex: the divergence is log K, without overflow."""
    optimal = torch.tensor([[0.0, -gap, -gap]], dtype=dtype)
    divergence, difference = SoftmaxRegression().compare(-optimal, optimal)
    p = torch.softmax(optimal.double(), -1)
    expected = (torch.xlogy(p, p)).sum() + torch.log(torch.tensor(3.0, dtype=torch.float64))
    assert divergence.item() == pytest.approx(expected.item(), rel=1e-5 if dtype == torch.float32 else 1e-12)
    torch.testing.assert_close(difference.double(), 1 / 3 - p, atol=1e-6, rtol=0)


def test_an_optimum_counts_only_if_the_student_is_the_bcp_there():
    """Least squares on a softmax problem, and an optimum that is off: neither is realisable."""
    population = GaussianMixture(samples=100, dimension=4).population(0)
    assert LeastSquares().realisable_optimum(population) is None
    off = Population(x=population.x, p=population.p, optimum=1.1 * population.optimum)
    assert SoftmaxRegression().realisable_optimum(off) is None
    with pytest.raises(ConfigError, match="centred"):
        LeastSquares(0.1, "centred").anchor(population)
    shifted = Population(x=population.x, p=population.p, optimum=population.optimum + 1)
    torch.testing.assert_close(SoftmaxRegression().realisable_optimum(shifted), population.optimum)


@pytest.mark.slow
def test_where_features_do_not_span_the_optimum_is_the_one_that_sgd_reaches():
    """Fewer samples than features: gradient descent from zero ends at the reference point."""
    population = SoftmaxLinear(classes=3, dimension=4, bias=False, entropy=0.9, samples=30).population(0)
    few = Population(x=population.x[:3], p=population.p[:3], optimum=population.optimum)
    student = SoftmaxRegression()
    theta = torch.zeros_like(few.optimum)
    for _ in range(20_000):
        theta -= 0.3 * student.gradient(theta, few.x, few.p, torch.zeros_like(theta))
    reference = minimiser(student, few)
    assert (reference - few.optimum).norm() > 0.1
    torch.testing.assert_close(theta, reference, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["none", "ordinary"])
def test_minimiser_near_zero(kind):
    """Targets that are uniform have their minimiser at zero, where the gradient at zero sets no scale."""
    population = GaussianMixture(samples=100, dimension=4).population(0)
    student = SoftmaxRegression(0.1 if kind == "ordinary" else 0.0, kind)
    theta = minimiser(student, population, Confusion(0.8).mean(population.p))
    assert theta.norm() < 1e-8
