"""sigma*^2 and the covariance of a sample's gradient, against Monte Carlo and the closed forms of docs/theory.md."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import populations, supervisions

from kdsim import simplex
from kdsim.config import ConfigError
from kdsim.population import Population
from kdsim.problems import Digits, GaussianMixture, SimplexLinear, SoftmaxLinear
from kdsim.rng import Draws, Stream, uniform_index
from kdsim.students import LeastSquares, SoftmaxRegression, minimiser
from kdsim.studies.common import student_with_ridge
from kdsim.supervision import SUPERVISIONS, Annotators, Dirichlet, Exact, Independent, OneHot, TwoPoint
from kdsim.supervision.base import Batch
from kdsim.theory import constants, gradient_covariance, gradient_noise, predict, stationary
from kdsim.theory.gradient_noise import target_sum_squares
from kdsim.theory.step_sizes import largest_step_size

Z_LIMIT = 5.0


def _pool(student: str, seed: int = 3, size: int = 12, classes: int = 4, features: int = 3) -> Population:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, features, dtype=torch.float64, generator=generator)
    theta = torch.randn(classes, features, dtype=torch.float64, generator=generator)
    if student == "softmax-regression":
        theta = theta - theta.mean(0)
        return Population(x=x, p=torch.softmax(x @ theta.T, -1), optimum=theta)
    x, theta = torch.softmax(x, -1), torch.softmax(theta, 0)
    return Population(x=x, p=x @ theta.T, optimum=theta)


def _sample_gradients(student, population, supervision, theta, count: int) -> torch.Tensor:
    """Gradients of `count` fresh samples, x uniform over the pool: (count, K d)."""
    visit = torch.arange(count)[None]
    zero = torch.zeros(1, 1, dtype=torch.int64)
    words = Draws(zero, zero, visit, Stream.INDEX, torch.float64, start=0).words(0)
    index = uniform_index(words, population.size)
    draws = Draws(zero, zero, visit, Stream.LABEL, torch.float64, start=0)
    q = supervision.sample(Batch(index=index, p=population.p[index]), draws).q
    x = population.x[index[0]]
    residual = student.output_gradient(x @ theta.T, q[0])
    return torch.einsum("nk,nd->nkd", residual, x).flatten(1)


@pytest.mark.slow
@pytest.mark.parametrize("supervision", [cls() for cls in SUPERVISIONS], ids=lambda s: s.name)
@pytest.mark.parametrize(
    "student", [SoftmaxRegression(0.2, "ordinary"), LeastSquares(0.2, "ordinary")], ids=lambda s: s.name
)
def test_covariance_matches_monte_carlo(student, supervision):
    """Off the BCP's optimum too: label part and input part, each entry within 5 standard errors."""
    population = _pool(student.name)
    theta = minimiser(student, population, supervision.mean(population.p)) + 0.1
    gradients = _sample_gradients(student, population, supervision, theta, 200_000)
    centred = gradients - gradients.mean(0)
    products = centred[:, :, None] * centred[:, None, :]
    expected = gradient_covariance(student, population, supervision, theta)
    se = products.std(0) / len(gradients) ** 0.5
    # logit-gaussian's moments are a quasi-Monte Carlo rule: its stated accuracy, relative to the scale, comes on top
    assert ((products.mean(0) - expected).abs() <= Z_LIMIT * se + 2e-4 * expected.diagonal().max()).all()
    total = centred.square().sum(1)
    noise = gradient_noise(student, population, supervision, theta)
    assert abs(total.mean() - noise) <= Z_LIMIT * total.std() / len(total) ** 0.5 + 2e-4 * noise


@given(populations(), supervisions(), st.integers(1, 64))
def test_noise_is_the_trace_over_the_batch_size(population, supervision, batch_size):
    quadratic = torch.allclose(population.x @ population.optimum.T, population.p)
    student = LeastSquares() if quadratic else SoftmaxRegression()
    covariance = gradient_covariance(student, population, supervision, population.optimum)
    noise = gradient_noise(student, population, supervision, population.optimum, batch_size)
    assert noise == pytest.approx(covariance.trace().item() / batch_size, rel=1e-9, abs=1e-12)
    assert torch.linalg.eigvalsh(covariance)[0] >= -1e-10 * (1 + covariance.trace())


@given(populations("softmax-regression"))
def test_closed_forms_at_the_optimum(population):
    """docs/theory.md, gradient noise: tr Fisher for one-hot, fractions of it, and nu E|x|^2 (K - 2 + K |p|^2)."""
    student, theta, p = SoftmaxRegression(), population.optimum, population.p
    norms = population.x.square().sum(-1)
    scores = torch.eye(population.classes, dtype=p.dtype) - p[:, None, :]  # (N, K, K): row k is e_k - p
    fisher_trace = (norms * (p[..., None] * scores.square()).sum((-1, -2))).mean().item()
    one_hot = gradient_noise(student, population, OneHot(), theta)
    assert one_hot == pytest.approx(fisher_trace, rel=1e-10, abs=1e-14)
    assert one_hot == pytest.approx((norms * simplex.gini(p)).mean().item(), rel=1e-10, abs=1e-14)
    assert gradient_noise(student, population, Dirichlet(3.0), theta) == pytest.approx(
        one_hot / 4, rel=1e-10, abs=1e-14
    )
    assert gradient_noise(student, population, Annotators(7.0), theta) == pytest.approx(
        one_hot / 7, rel=1e-10, abs=1e-14
    )
    assert gradient_noise(student, population, Exact(), theta) == pytest.approx(0, abs=1e-25)
    classes = population.classes
    independent = 0.3 * (norms * (classes - 2 + classes * p.square().sum(-1))).mean().item()
    assert gradient_noise(student, population, Independent(0.3), theta) == pytest.approx(independent, rel=1e-10)
    two_point = TwoPoint(0.5)
    total = two_point.covariance(p).diagonal(dim1=-2, dim2=-1).sum(-1)
    assert gradient_noise(student, population, two_point, theta) == pytest.approx(
        (norms * total).mean().item(), abs=1e-12
    )


class _Lopsided(Independent):
    """q = p + z p_1 e_1: the sum of a target varies, and by another amount at every point."""

    def covariance(self, p: torch.Tensor) -> torch.Tensor:
        covariance = torch.zeros(*p.shape, p.shape[-1], dtype=p.dtype)
        covariance[..., 0, 0] = self.variance * p[..., 0].square()
        return covariance


class _Shifted(Independent):
    """q = p + z p: all entries of a target rise and fall together."""

    def covariance(self, p: torch.Tensor) -> torch.Tensor:
        return self.variance * p[..., :, None] * p[..., None, :]


def test_sums_of_targets():
    """E[s^2 | x] is 1 where targets sum to one, 1 + K nu for independent noise, and else told point by point."""
    pool, student = _pool("softmax-regression"), SoftmaxRegression(0.1, "centred")
    assert target_sum_squares(student, pool, Dirichlet(3.0)).unique().tolist() == [1.0]
    torch.testing.assert_close(target_sum_squares(student, pool, Independent(0.2)), torch.full((12,), 1.8).double())
    found = target_sum_squares(student, pool, _Lopsided(0.5))
    torch.testing.assert_close(found, 1 + 0.5 * pool.p[:, 0].square())
    together = target_sum_squares(student, pool, _Shifted(0.5))  # E[(1 + z)^2]
    torch.testing.assert_close(together, torch.full((12,), 1.5).double())
    assert target_sum_squares(LeastSquares(0.1, "centred"), pool, _Lopsided(0.5)).unique().tolist() == [1.0]


def test_lopsided_targets_have_a_bound_by_their_largest_sum_and_no_second_order():
    pool, student = _pool("softmax-regression"), SoftmaxRegression(0.1, "centred")
    known = constants(student, pool)
    largest = 1 + 0.5 * pool.p[:, 0].square().max().item()
    limit = 0.5 / (largest * (known.sample_smoothness - 0.1) + 0.1)
    within, beyond = (predict(student, pool, _Lopsided(0.5), a * limit, 1, [10]) for a in (0.999, 1.001))
    assert within.bound_valid and not beyond.bound_valid
    assert within.second_order_floor is None and within.first_order_floor > 0
    with pytest.raises(ConfigError, match="vary from point to point"):
        largest_step_size(student, pool, _Lopsided(0.5), 1, 1.0, pool.optimum)


@pytest.mark.parametrize(
    ("problem", "two_point", "independent", "share"),
    [
        (GaussianMixture(), 0.994, 1.791, 0.590),
        pytest.param(Digits(), 0.977, 1.775, 0.595, marks=pytest.mark.slow),
        (SoftmaxLinear(entropy=1.2, conditioning=100), 0.988, 1.090, 0.947),
        (SimplexLinear(), 1.025, 1.009, 0.995),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_a_nu_is_worth_is_a_property_of_the_pool(problem, two_point, independent, share):
    """First-order floor over nu, divided by Dirichlet's; and nu* at which independent noise is as much as one-hot's."""
    population = problem.population(0)
    student = student_with_ridge(problem, population, "auto", None, 0.1, "centred")
    x, p, classes = population.x.square().sum(-1), population.p.square().sum(-1), population.classes
    per_nu = (classes + 0 * p) if student.quadratic else classes - 2 + classes * p
    same = ((x * (1 - p)).mean() / (x * per_nu).mean()).item()

    def floor_over_nu(supervision):
        optimum = population.optimum
        floor = stationary(student, population, supervision, 1e-4, 1, optimum, optimum).floor
        return floor / supervision.nu(population.p)

    base = floor_over_nu(Dirichlet(3.0))
    assert floor_over_nu(OneHot()) / base == pytest.approx(1, rel=1e-9)
    assert floor_over_nu(Annotators(4.0)) / base == pytest.approx(1, rel=1e-9)
    assert floor_over_nu(TwoPoint(0.5)) / base == pytest.approx(two_point, abs=6e-4)
    assert floor_over_nu(Independent(0.05)) / base == pytest.approx(independent, abs=6e-4)
    assert same / OneHot().nu(population.p) == pytest.approx(share, abs=6e-4)
    noise = gradient_noise(student, population, OneHot(), population.optimum)
    assert gradient_noise(student, population, Independent(same), population.optimum) == pytest.approx(noise, rel=1e-9)
    between = (same + OneHot().nu(population.p)) / 2  # less nu than one-hot labels, more gradient noise
    assert gradient_noise(student, population, Independent(between), population.optimum) > noise
