"""Laplace's method against what it approximates: quadrature of the evidence, and a long Markov chain."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kdsim.teachers.last_layer import STRUCTURES, Full, log_evidence, probit


def mode(phi: Tensor, labels: Tensor, classes: int, tau: float) -> Tensor:
    """Maximum of the posterior, (K, F + 1), by Newton's method."""
    theta = torch.zeros(classes, phi.shape[1], dtype=torch.float64)
    y = torch.nn.functional.one_hot(labels, classes).double()
    for _ in range(30):
        p = torch.softmax(phi @ theta.T, -1)
        gradient = ((p - y).T @ phi + tau * theta).flatten()
        covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        size = theta.numel()
        hessian = torch.einsum("nkl,ni,nj->kilj", covariance, phi, phi).reshape(size, size)
        hessian += tau * torch.eye(len(hessian), dtype=torch.float64)
        theta = theta - torch.linalg.solve(hessian, gradient).view_as(theta)
    assert gradient.norm() < 1e-9
    return theta


def test_evidence_against_quadrature():
    """Two classes, a bias each, 40 labels: the integral of likelihood times prior on a grid.

    Laplace's error is of order 1 / N: 0.01 nats are allowed, and a wrong factor in tau or 2 pi would cost 0.3 and more.
    """
    count, ones = 40, 26
    phi, labels = torch.ones(count, 1).double(), (torch.arange(count) < ones).long()
    for tau in (0.2, 1.0):
        theta = mode(phi, labels, 2, tau)
        curvature, log_likelihood = Full.of(theta, [(phi, labels)])
        found = log_evidence(curvature.eigenvalues, theta.square().sum().item(), log_likelihood, tau)
        axis = torch.linspace(-14, 14, 1401, dtype=torch.float64) / math.sqrt(tau) / 2
        first, second = torch.meshgrid(axis, axis, indexing="ij")
        log_probs = torch.log_softmax(torch.stack([first, second]), 0)
        log_prior = math.log(tau / (2 * math.pi)) - tau / 2 * (first.square() + second.square())
        joint = (count - ones) * log_probs[0] + ones * log_probs[1] + log_prior
        expected = joint.logsumexp((0, 1)).item() + 2 * math.log(axis[1] - axis[0])
        assert found == pytest.approx(expected, abs=0.01)


def chains(phi: Tensor, labels: Tensor, theta: Tensor, tau: float, images: Tensor, *, count: int, steps: int) -> Tensor:
    """Mean of softmax(theta phi) along `count` random-walk Metropolis chains, (count, N', K); a quarter is burnt in."""
    generator = torch.Generator().manual_seed(11)
    classes, inputs = theta.shape
    curvature, _ = Full.of(theta, [(phi, labels)])

    def normals() -> Tensor:
        return torch.randn(count, classes, inputs, dtype=torch.float64, generator=generator)

    def log_density(points: Tensor) -> Tensor:
        log_probs = torch.log_softmax(points @ phi.T, 1)  # (count, K, N)
        own = log_probs.gather(1, labels.expand(count, 1, -1))[:, 0]
        return own.sum(-1) - tau / 2 * points.square().sum((1, 2))

    point = theta + curvature.deviations(2 * normals(), tau)  # starts wider than the posterior
    density, total, accepted = log_density(point), 0.0, 0.0
    for step in range(steps):
        proposal = point + curvature.deviations(2.38 / math.sqrt(theta.numel()) * normals(), tau)
        proposed = log_density(proposal)
        uniform = torch.rand(count, dtype=torch.float64, generator=generator)
        accept = uniform.log() < proposed - density
        point, density = torch.where(accept[:, None, None], proposal, point), torch.where(accept, proposed, density)
        if step >= steps // 4:
            total = total + torch.softmax(images @ point.mT, -1)
            accepted += accept.double().mean().item()
    kept = steps - steps // 4
    assert 0.15 < accepted / kept < 0.6
    return total / kept


@pytest.mark.slow
def test_predictive_against_a_markov_chain():
    """Softmax regression on 200 points of the plane, three classes: a posterior that is near to Gaussian.

    300 chains of 6000 steps; their standard error, 0.0009, is found from the spread between chains. At points as far as
    5 standard deviations Laplace's probabilities are off by 0.009 (samples of the full posterior) and by 0.012 (the
    probit formula), the mode's alone by 0.046.
    """
    generator = torch.Generator().manual_seed(4)
    phi = torch.cat([torch.randn(200, 2, dtype=torch.float64, generator=generator), torch.ones(200, 1).double()], 1)
    truth = torch.tensor([[1.0, 0.0, 0.2], [-0.5, 0.9, 0.0], [-0.5, -0.9, -0.2]], dtype=torch.float64)
    labels = torch.multinomial(torch.softmax(phi @ truth.T, -1), 1, generator=generator)[:, 0]
    tau = 1.0
    theta = mode(phi, labels, 3, tau)
    angle = torch.arange(12) * math.pi / 6
    circle = torch.stack([angle.cos(), angle.sin()], 1).double()
    images = torch.cat([torch.cat([circle * radius for radius in (0.5, 2.0, 5.0)]), torch.ones(36, 1).double()], 1)

    means = chains(phi, labels, theta, tau, images, count=300, steps=6000)
    expected, error = means.mean(0), means.std(0).max().item() / math.sqrt(len(means))
    assert error < 1.5e-3
    curvature, _ = STRUCTURES["full"].of(theta, [(phi, labels)])
    noise = torch.randn(40_000, 3, 3, dtype=torch.float64, generator=generator)
    drawn = theta + curvature.deviations(noise, tau)
    sampled = torch.stack([torch.softmax(images @ part.mT, -1).mean(0) for part in drawn.split(4000)]).mean(0)
    formula = probit(images @ theta.T, curvature.logit_covariance(images, tau)).exp()
    alone = torch.softmax(images @ theta.T, -1)
    distances = {
        name: (each - expected).abs().max().item()
        for name, each in {"sampled": sampled, "probit": formula, "mode": alone}.items()
    }
    assert distances["sampled"] < 0.01 + 4 * error, distances
    assert distances["probit"] < 0.02 + 4 * error, distances
    assert distances["mode"] > 1.5 * max(distances["sampled"], distances["probit"]), distances
