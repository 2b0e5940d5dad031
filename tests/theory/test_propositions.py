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


@given(populations("softmax-regression"), SEEDS)
def test_p1_minimiser_of_the_one_hot_risk(population, seed):
    """The one-hot risk's gradient, by automatic differentiation, vanishes at the BCP's optimum and not beside it."""
    generator = torch.Generator().manual_seed(seed)
    step = torch.randn(population.optimum.shape, dtype=torch.float64, generator=generator)
    for theta, at_optimum in ((population.optimum, True), (population.optimum + step, False)):
        theta = theta.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(_one_hot_risk(SoftmaxRegression(), theta, population), theta)
        moved = (torch.softmax(population.x @ theta.detach().T, -1) - population.p).abs().max()
        assert gradient.norm() < 1e-12 if at_optimum else gradient.norm() > 1e-12 or moved < 1e-9


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
    plain = LeastSquares() if quadratic else SoftmaxRegression()
    zero = torch.zeros_like(population.optimum)
    best = plain.objective(population.optimum, part.x, part.p, zero)
    assert plain.gradient(population.optimum, part.x, part.p, zero).norm() < 1e-12
    generator = torch.Generator().manual_seed(len(subset))
    for scale in (1e-3, 1.0):
        other = population.optimum + scale * torch.randn(zero.shape, dtype=torch.float64, generator=generator)
        assert plain.objective(other, part.x, part.p, zero) >= best - 1e-12


@given(populations("softmax-regression"), st.floats(0.05, 1))
def test_p2_ridges(population, ridge):
    """A centred ridge keeps theta* as the minimiser; an ordinary ridge moves it unless theta* is zero."""
    blind = Population(x=population.x, p=population.p, optimum=population.optimum)
    centred = SoftmaxRegression(ridge, "centred")
    gradient = centred.gradient(population.optimum, population.x, population.p, centred.anchor(blind))
    assert gradient.norm() < 1e-12
    student = SoftmaxRegression(ridge, "ordinary")
    moved = minimiser(student, blind)
    gradient_at_optimum = ridge * population.optimum
    assert (moved - population.optimum).norm() >= 0.5 * gradient_at_optimum.norm() / (
        ridge + population.x.square().sum()
    )
