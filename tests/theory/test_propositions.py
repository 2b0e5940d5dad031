"""Propositions 1 and 2 of Morad, Shlezinger, Eldar (ICLR 2026) on random pools and subsets."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS, populations

from kdsim import simplex
from kdsim.population import Population
from kdsim.students import LeastSquares, SoftmaxRegression, minimiser


def _one_hot_risk(student, theta, population):
    """E over x of the sum over labels of p_k(x) loss(theta x, e_k): the one-hot risk, label by label."""
    labels = torch.eye(population.classes, dtype=torch.float64)
    outputs = (population.x @ theta.T)[:, None, :].expand(-1, population.classes, -1)
    losses = student.loss(outputs, labels.expand(population.size, -1, -1))
    return (population.p * losses).sum(-1).mean()


@given(populations("softmax-regression"), SEEDS)
def test_p1_bcp_risk_equals_one_hot_risk(population, seed):
    """The two risks agree at every theta, hence in minimiser; the minimum is the mean entropy of the BCP."""
    student = SoftmaxRegression()
    anchor = torch.zeros_like(population.optimum)
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(population.optimum.shape, dtype=torch.float64, generator=generator)
    for point in (theta, population.optimum):
        bcp_risk = student.objective(point, population.x, population.p, anchor)
        torch.testing.assert_close(bcp_risk, _one_hot_risk(student, point, population))
    at_optimum = student.objective(population.optimum, population.x, population.p, anchor)
    torch.testing.assert_close(at_optimum, simplex.entropy(population.p).mean())
    assert student.objective(theta, population.x, population.p, anchor) >= at_optimum - 1e-12


@given(populations("softmax-regression"), st.integers(0, 4))
def test_p1_minimiser_of_the_one_hot_risk(population, iterations):
    """Gradient descent on the one-hot risk, by automatic differentiation, does not leave the BCP's optimum."""
    theta = population.optimum.clone().requires_grad_()
    for _ in range(iterations + 1):
        (gradient,) = torch.autograd.grad(_one_hot_risk(SoftmaxRegression(), theta, population), theta)
        assert gradient.norm() < 1e-12
        theta = (theta - 0.1 * gradient).detach().requires_grad_()


@given(populations(), st.data())
def test_p2_interpolation(population, data):
    """Under exact BCP every sample's gradient vanishes at theta*, which minimises every subset's risk."""
    quadratic = torch.allclose(population.x @ population.optimum.T, population.p)
    student = LeastSquares() if quadratic else SoftmaxRegression(0.5, "centred")
    anchor = student.anchor(population)
    for n in range(population.size):
        gradient = student.gradient(population.optimum, population.x[n : n + 1], population.p[n : n + 1], anchor)
        assert gradient.norm() < 1e-12
    subset = data.draw(st.lists(st.integers(0, population.size - 1), min_size=1, unique=True))
    part = Population(x=population.x[subset], p=population.p[subset])
    found = minimiser(SoftmaxRegression(0.5, "ordinary") if not quadratic else LeastSquares(), part)
    plain = SoftmaxRegression() if not quadratic else LeastSquares()
    zero = torch.zeros_like(found)
    best = plain.objective(population.optimum, part.x, part.p, zero)
    assert plain.objective(found, part.x, part.p, zero) >= best - 1e-12


@given(populations("softmax-regression"), st.floats(0.05, 1))
def test_p2_ridges(population, ridge):
    """A centred ridge keeps theta* as the minimiser; an ordinary ridge moves it unless theta* is zero."""
    blind = Population(x=population.x, p=population.p, optimum=population.optimum)
    assert torch.equal(minimiser(SoftmaxRegression(ridge, "centred"), blind), population.optimum)
    student = SoftmaxRegression(ridge, "ordinary")
    moved = minimiser(student, blind)
    gradient_at_optimum = ridge * population.optimum
    assert (moved - population.optimum).norm() >= 0.5 * gradient_at_optimum.norm() / (
        ridge + population.x.square().sum()
    )
