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


@pytest.mark.slow
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


def posterior_means(phi: Tensor, labels: Tensor, theta: Tensor, tau: float, images: Tensor, *, batches: int) -> Tensor:
    """Means of softmax(theta phi) over the posterior, (batches, N', K), each by importance sampling of its own.

    5,000 draws from a Gaussian of 1.5 times the deviation of Laplace's, which falls off more slowly than the posterior.
    """
    generator, count, wider = torch.Generator().manual_seed(11), 5_000, 1.5
    curvature, _ = Full.of(theta, [(phi, labels)])
    found = []
    for _ in range(batches):
        noise = torch.randn(count, *theta.shape, dtype=torch.float64, generator=generator)
        points = theta + curvature.deviations(wider * noise, tau)
        log_probs = torch.log_softmax(points @ phi.T, 1)  # (count, K, N)
        own = log_probs.gather(1, labels.expand(count, 1, -1))[:, 0].sum(-1)
        log_weight = own - tau / 2 * points.square().sum((1, 2)) + noise.square().sum((1, 2)) / 2
        weight = torch.softmax(log_weight, 0)
        assert 1 / weight.square().sum() > 0.1 * count  # effective draws
        found.append(torch.einsum("s,snk->nk", weight, torch.softmax(images @ points.mT, -1)))
    return torch.stack(found)


@pytest.mark.slow
def test_predictive_against_the_posterior():
    """Softmax regression on 200 points of the plane, three classes: a posterior that is near to Gaussian.

    The standard error of its means is found from the spread between 30 of them. At points as far as
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

    means = posterior_means(phi, labels, theta, tau, images, batches=30)
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
