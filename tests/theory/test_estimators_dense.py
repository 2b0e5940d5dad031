"""Estimators of mu, L, L_max and sigma*^2 by Hessian-vector products and Lanczos, against the dense answer."""

from __future__ import annotations

import pytest
import torch

from kdsim.problems import GaussianMixture
from kdsim.students import SoftmaxRegression
from kdsim.students.mlp import MLP
from kdsim.supervision import Dirichlet, Exact, Independent, OneHot
from kdsim.theory import constants, gradient_noise
from kdsim.theory.estimators import curvature_range, minimise, network_gradient_noise, sample_smoothness, smallest_above

POOL = GaussianMixture(classes=3, dimension=3, samples=60).population(0)
STUDENT = MLP((4,), ridge=0.02)


@pytest.fixture(scope="module")
def optimum() -> torch.Tensor:
    """A local minimiser of the MLP's objective at the BCP."""
    seed = torch.zeros(1, 1, dtype=torch.int64)
    start = STUDENT.initial(POOL.features, POOL.classes, seed, seed)[0]
    return minimise(STUDENT, POOL, start)


def _hessian(parameters: torch.Tensor, x: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return torch.autograd.functional.hessian(lambda theta: STUDENT.objective(theta, x, q), parameters)


@pytest.mark.slow
def test_minimise_finds_a_stationary_point(optimum):
    leaf = optimum.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(STUDENT.objective(leaf, POOL.x, POOL.p), leaf)
    assert gradient.norm() <= 1e-8


@pytest.mark.slow
def test_curvature_range_against_the_dense_hessian(optimum):
    values = torch.linalg.eigvalsh(_hessian(optimum, POOL.x, POOL.p))
    for found, exact in zip(curvature_range(STUDENT, POOL, optimum), (values[0], values[-1]), strict=True):
        assert abs(found.value - exact) <= found.error + 1e-10
        assert found.error < 1e-4 * values[-1]


@pytest.mark.slow
def test_smallest_above_against_the_dense_hessian(optimum):
    values = torch.linalg.eigvalsh(_hessian(optimum, POOL.x, POOL.p))
    threshold = values[3].item() + 1e-6
    found = smallest_above(STUDENT, POOL, optimum, threshold)
    assert found.value == pytest.approx(values[values > threshold][0].item(), rel=1e-8)


@pytest.mark.slow
def test_sample_smoothness_against_dense_hessians(optimum):
    largest = max(
        torch.linalg.eigvalsh(_hessian(optimum, POOL.x[n : n + 1], POOL.p[n : n + 1]))[-1].item() for n in range(60)
    )
    found = sample_smoothness(STUDENT, POOL, optimum)
    assert found.value == pytest.approx(largest, rel=1e-8, abs=found.error)


@pytest.mark.slow
@pytest.mark.parametrize("supervision", [Exact(), OneHot(), Dirichlet(2.0), Independent(0.1)], ids=lambda s: s.name)
def test_noise_against_enumerated_gradients(optimum, supervision):
    """The gradient is affine in q: its variance is that of its Jacobian in q, by automatic differentiation."""
    covariance = supervision.covariance(POOL.p)
    label, gradients = 0.0, []
    for n in range(POOL.size):
        x = POOL.x[n : n + 1]

        def gradient(q, x=x):
            return torch.func.grad(STUDENT.objective)(optimum, x, q[None])

        jacobian = torch.autograd.functional.jacobian(gradient, POOL.p[n])  # (P, K)
        label += torch.einsum("pk,kl,pl->", jacobian, covariance[n], jacobian).item() / POOL.size
        gradients.append(gradient(POOL.p[n]))
    inputs = torch.stack(gradients).var(0, correction=0).sum().item()
    found = network_gradient_noise(STUDENT, POOL, supervision, optimum, batch_size=4)
    assert found.total == pytest.approx((label + inputs) / 4, rel=1e-8)


def test_linear_students_have_their_closed_forms():
    """Softmax regression in flat form: noise equal to the closed form, curvature inside the constants."""
    student = SoftmaxRegression(0.1, "centred")
    theta = POOL.optimum.flatten()
    noise = network_gradient_noise(student, POOL, OneHot(), theta)
    assert noise.total == pytest.approx(gradient_noise(student, POOL, OneHot(), POOL.optimum), rel=1e-10)
    low, high = curvature_range(student, POOL, theta)
    pool = constants(student, POOL)
    assert pool.mu - 1e-9 <= low.value
    assert high.value <= pool.smoothness
    assert sample_smoothness(student, POOL, theta).value <= pool.sample_smoothness
