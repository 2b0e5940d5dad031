"""The Laplace teacher: from a trained network to its predictive distribution, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from teacher_cases import training

from kdsim.config import ConfigError, digest
from kdsim.data import Pools
from kdsim.losses import KD, Brier, LabelCrossEntropy, OutputMSE
from kdsim.population import Population
from kdsim.teachers import Laplace, checks
from kdsim.teachers.last_layer import STRUCTURES, diagonal_probit, probit
from kdsim.trainer import fit_teacher, teacher_scores
from kdsim.training import TrainedNetwork, Walk
from kdsim.training.fitted import FittedTeacher

TRAINING = training(12, replicas=1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def networks() -> tuple[TrainedNetwork, ...]:
    return TRAINING.run().networks


@pytest.fixture(scope="module")
def pools() -> Pools:
    return TRAINING.pools()


def features(network: TrainedNetwork, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features with a one and the weights with the bias, from the module itself."""
    module = network.module()
    phi = module.features(network.normalisation(images)).double()
    theta = torch.cat([module.head.weight, module.head.bias[:, None]], 1).double()
    return torch.cat([phi, torch.ones(len(phi), 1)], 1), theta


def fit(teacher: Laplace, networks: tuple[TrainedNetwork, ...], pools: Pools) -> FittedTeacher:
    return fit_teacher(teacher, networks, pools, 0)


@pytest.mark.parametrize("structure", ["kron", "full", "diag"])
def test_predictive_is_that_of_the_dense_posterior(networks, pools, structure):
    """N(theta, (H + tau I)^-1) built again from the training images, at the tau that was found."""
    fitted = fit(Laplace(TRAINING, structure=structure), networks, pools)
    tau = fitted.tensors["tau"].item()
    phi, theta = features(networks[0], pools.train.x)
    p = torch.softmax(phi @ theta.T, -1)
    labels = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    size = theta.numel()
    if structure == "kron":
        h = torch.kron(labels.sum(0), phi.T @ phi) / len(phi)
    else:
        h = torch.einsum("nkl,ni,nj->kilj", labels, phi, phi).reshape(size, size)
        h = h if structure == "full" else torch.diag(h.diagonal())
    covariance = torch.linalg.inv(h + tau * torch.eye(size, dtype=torch.float64))
    # The largest evidence has tau |theta|^2 = sum_i h_i / (h_i + tau) = P - tau tr (H + tau I)^-1.
    assert tau * theta.square().sum().item() == pytest.approx(size - tau * covariance.trace().item(), rel=1e-4)
    seen, _ = features(networks[0], pools.test.x)
    jacobian = torch.einsum("kl,ni->nkli", torch.eye(len(theta), dtype=torch.float64), seen).reshape(
        len(seen), -1, size
    )
    spread = jacobian @ covariance @ jacobian.mT
    for predictive, link in (("probit", probit), ("diagonal-probit", diagonal_probit)):
        teacher = Laplace(TRAINING, structure=structure, predictive=predictive)
        found = teacher.predictor(fitted, CPU, False)(pools.test.x)
        torch.testing.assert_close(found[0].double(), link(seen @ theta.T, spread), rtol=1e-4, atol=1e-4)


def mean_softmax(mean: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """E softmax(f) over f ~ N(mean (b, 3), covariance (b, 3, 3)) by Gauss-Hermite quadrature of 30^3 nodes. (b, 3)."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(30))
    weights = weights / weights.sum()
    z, w = torch.cartesian_prod(nodes, nodes, nodes), torch.cartesian_prod(weights, weights, weights).prod(-1)
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt()[:, None, :]
    return torch.einsum("n,bnk->bk", w, torch.softmax(mean[:, None] + z @ root.mT, -1))


@pytest.mark.parametrize("structure", ["kron", "full", "diag"])
def test_samples_have_the_exact_mean_and_the_closed_form_is_near_it(structure):
    """On given features and weights. Means of 4,000 draws: all 18 within 5 standard errors (one in 10^5 is not).

    The formula's own error is no noise: below 0.03, and a third of what leaving out the posterior would be.
    """
    numbers = torch.Generator().manual_seed(5)
    phi = torch.cat([torch.randn(40, 3, dtype=torch.float64, generator=numbers), torch.ones(40, 1)], 1)
    theta = torch.randn(3, 4, dtype=torch.float64, generator=numbers)
    labels, tau = torch.arange(40) % 3, 0.5
    curvature, _ = STRUCTURES[structure].of(theta, [(phi[:15], labels[:15]), (phi[15:], labels[15:])])
    seen = 2 * phi[:6]
    many, formula = (
        Laplace(TRAINING, structure=structure, predictive=predictive, samples=4000)._predictive(theta, curvature, 0)
        for predictive in ("monte-carlo", "probit")
    )
    exact = mean_softmax(seen @ theta.T, curvature.logit_covariance(seen, tau))
    samples = many(tau)(seen).exp()
    assert samples.shape == (4000, 6, 3)
    z = (samples.mean(0) - exact) / (samples.std(0) / 4000**0.5)
    assert z.abs().max() < 5
    plain = torch.softmax(seen @ theta.T, -1)
    error, left_out = (formula(tau)(seen)[0].exp() - exact).abs(), (plain - exact).abs()
    assert error.max() < 0.03 and error.mean() < 0.3 * left_out.mean()


def test_validation_images_are_used_only_where_asked(networks, pools):
    """The evidence is of the training images; `tune="validation"` is the tau of least validation loss."""
    validation = pools.validation
    flipped = Population(validation.x, validation.p, (validation.y + 1) % 3)
    other = Pools(pools.train, flipped, pools.test, pools.provenance)
    by_evidence, tuned = Laplace(TRAINING), Laplace(TRAINING, tune="validation")
    tau = {
        (name, kind): fit(teacher, networks, chosen).tensors["tau"].item()
        for name, teacher in (("evidence", by_evidence), ("validation", tuned))
        for kind, chosen in (("as it is", pools), ("flipped", other))
    }
    assert tau["evidence", "as it is"] == tau["evidence", "flipped"]
    assert tau["validation", "as it is"] != tau["validation", "flipped"]
    fitted = fit(tuned, networks, pools)
    best = fitted.scores["loss"]
    for factor in (0.01, 0.5, 2.0, 100.0):
        moved = dict(fitted.tensors) | {"tau": fitted.tensors["tau"] * factor}
        assert teacher_scores(tuned, replace(fitted, tensors=moved), validation)["loss"] >= best - 1e-5
    assert fit(by_evidence, networks, pools).scores["loss"] >= best - 1e-5


def test_a_network_that_knows_nothing_is_fitted(pools):
    """The estimate of a study's cost asks that: the first weights."""
    first = Walk(TRAINING.task(pools), 0).trained(digest(TRAINING), "", {"loss": 1.1})
    for tune in ("marginal-likelihood", "validation"):
        fitted = fit(Laplace(TRAINING, tune=tune), (first,), pools)
        assert math.isfinite(fitted.scores["loss"])


def test_what_does_not_fit_into_memory_is_refused(networks, pools, monkeypatch):
    """Before a feature is computed; the estimate of "full" grows with (K (F + 1))^2 = 27^2 of five matrices."""
    many = Laplace(TRAINING, predictive="monte-carlo", samples=10_000)
    fitted = fit(Laplace(TRAINING), networks, pools)
    message = r"structure = 'full' needs about \d.*GiB of memory, and 3.8e-06 GiB are free on cpu"
    monkeypatch.setattr(checks, "free_memory", lambda device: 2**12)
    monkeypatch.setattr("kdsim.teachers.laplace.forward", None)
    with pytest.raises(ConfigError, match=message):
        fit(Laplace(TRAINING, structure="full"), networks, pools)
    with pytest.raises(ConfigError, match=r"'kron' and samples = 10000 needs about 0.\d+ GiB of memory, and 3.8e-06"):
        many.predictor(fitted, CPU, False)


@pytest.mark.parametrize("loss", [Brier(), OutputMSE(), KD()])
def test_another_likelihood_is_refused(loss):
    with pytest.raises(ConfigError, match=rf"training.loss = {loss.name} is not allowed: must be cross-entropy or "):
        Laplace(training(loss=loss))
    assert Laplace(training(loss=LabelCrossEntropy())).members == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structure": "dense"}, "structure = 'dense' is not allowed: must be kron, full or diag"),
        ({"predictive": "mc"}, "predictive = 'mc' is not allowed: must be probit, diagonal-probit or "),
        ({"tune": "training"}, "tune = 'training' is not allowed: must be marginal-likelihood or validation"),
        ({"samples": 0}, "samples = 0 is not allowed"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ConfigError, match=message):
        Laplace(TRAINING, **changes)
