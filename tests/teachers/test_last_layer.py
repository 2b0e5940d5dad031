"""Laplace's method on the last layer against naive dense computations in float64, and against laplace-torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.teachers.last_layer import (
    STRUCTURES,
    Curvature,
    diagonal_probit,
    evidence_precision,
    log_evidence,
    probit,
)

N, F, K = 60, 4, 3


def data(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features with a one (N, F + 1), labels (N,), weights (K, F + 1)."""
    generator = torch.Generator().manual_seed(seed)
    phi = torch.randn(N, F + 1, dtype=torch.float64, generator=generator)
    phi[:, -1] = 1
    theta = torch.randn(K, F + 1, dtype=torch.float64, generator=generator)
    labels = torch.multinomial(torch.softmax(phi @ theta.T, -1), 1, generator=generator)[:, 0]
    return phi, labels, theta


def curvature_of(structure: str, batch: int = 7) -> tuple[Curvature, float]:
    phi, labels, theta = data()
    return STRUCTURES[structure].of(theta, list(zip(phi.split(batch), labels.split(batch), strict=True)))


def dense(structure: str) -> Tensor:
    """H (P, P), theta flattened row by row, from its definition; "full" by automatic differentiation."""
    phi, labels, theta = data()
    if structure == "kron":
        p = torch.softmax(phi @ theta.T, -1)
        a = sum(torch.outer(row, row) for row in phi)
        b = sum(torch.diag(row) - torch.outer(row, row) for row in p)
        return torch.kron(b, a) / N

    def loss(flat: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(phi @ flat.view(K, F + 1).T, labels, reduction="sum")

    full = torch.autograd.functional.hessian(loss, theta.flatten())
    return full if structure == "full" else torch.diag(full.diagonal())


def jacobian(phi: Tensor) -> Tensor:
    """Of the logits of one image in the flattened theta, (K, P)."""
    return torch.kron(torch.eye(K, dtype=torch.float64), phi[None])


@pytest.mark.parametrize("structure", STRUCTURES)
def test_curvature_against_the_dense_matrix(structure):
    """Eigenvalues, log-likelihood, covariance of logits and of draws, all from (H + tau I) itself."""
    phi, labels, theta = data()
    found, log_likelihood = curvature_of(structure)
    h, tau = dense(structure), 0.7
    torch.testing.assert_close(found.eigenvalues.sort().values, torch.linalg.eigvalsh(h), rtol=1e-9, atol=1e-9)
    nll = torch.nn.functional.cross_entropy(phi @ theta.T, labels, reduction="sum").item()
    assert log_likelihood == pytest.approx(-nll, rel=1e-12)
    covariance = torch.linalg.inv(h + tau * torch.eye(len(h), dtype=torch.float64))
    for number in range(3):
        j = jacobian(phi[number])
        expected = j @ covariance @ j.T
        torch.testing.assert_close(found.logit_covariance(phi[number : number + 1], tau)[0], expected)
    unit = torch.eye(K * (F + 1), dtype=torch.float64).view(-1, K, F + 1)  # every normal by itself: columns of a root
    root = found.deviations(unit, tau).flatten(1)
    torch.testing.assert_close(root.T @ root, covariance)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_does_not_depend_on_batches(structure):
    phi = data()[0]
    one, many = (curvature_of(structure, batch)[0].logit_covariance(phi, 0.3) for batch in (N, 1))
    torch.testing.assert_close(one, many)


def test_kron_is_full_where_all_features_are_alike():
    """H = B (x) A / N exactly when phi phi' is the same for all n."""
    phi, labels, theta = data()
    phi = phi[:1].expand(N, F + 1) * torch.where(labels > 0, 1.0, -1.0)[:, None]
    kron, full = (STRUCTURES[name].of(theta, [(phi, labels)])[0] for name in ("kron", "full"))
    # Both signs of phi have probabilities of their own; only their sum over n enters B.
    torch.testing.assert_close(kron.logit_covariance(phi[:5], 0.2), full.logit_covariance(phi[:5], 0.2))


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES)
def test_evidence_against_determinants(structure):
    """And its maximum against a search on a fine grid, from which a wrong factor would move it."""
    _, _, theta = data()
    found, log_likelihood = curvature_of(structure)
    h, square = dense(structure), theta.square().sum().item()
    size = len(h)

    def evidence(tau: float) -> float:
        matrix = h + tau * torch.eye(size, dtype=torch.float64)
        return log_likelihood - tau * square / 2 + size / 2 * math.log(tau) - torch.logdet(matrix).item() / 2

    for tau in (1e-3, 0.5, 40.0):
        assert log_evidence(found.eigenvalues, square, log_likelihood, tau) == pytest.approx(evidence(tau), abs=1e-9)
    best = evidence_precision(found.eigenvalues, square)
    grid = torch.logspace(-4, 4, 4001).tolist()
    assert best == pytest.approx(max(grid, key=evidence), rel=4e-3)
    assert all(evidence(best) > evidence(best * factor) for factor in (0.99, 1.01))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("square", [1e-6, 1.0, 1e6])
def test_evidence_has_its_root_at_any_scale(scale, square):
    values = scale * torch.linspace(0, 1, 20, dtype=torch.float64)
    tau = evidence_precision(values, square)
    assert (values / (values + tau)).sum().item() == pytest.approx(tau * square, rel=1e-6)


def test_evidence_of_a_linear_gaussian_model_is_its_marginal_likelihood():
    """Where Laplace is exact, y = theta' phi + noise of variance one, the evidence is the density of y itself.

    The density is N(y; 0, I + phi phi' / tau). With the precision of the posterior mode it is checked at two tau.
    """
    phi, _, _ = data()
    y = phi @ torch.linspace(-1, 1, F + 1, dtype=torch.float64) + 0.1 * phi[:, 0].square()
    for tau in (0.3, 5.0):
        h = phi.T @ phi
        mode = torch.linalg.solve(h + tau * torch.eye(F + 1, dtype=torch.float64), phi.T @ y)
        fit = torch.distributions.Normal(phi @ mode, 1.0).log_prob(y).sum().item()
        found = log_evidence(torch.linalg.eigvalsh(h), mode.square().sum().item(), fit, tau)
        covariance = torch.eye(N, dtype=torch.float64) + phi @ phi.T / tau
        marginal = torch.distributions.MultivariateNormal(torch.zeros(N, dtype=torch.float64), covariance)
        assert found == pytest.approx(marginal.log_prob(y).item(), rel=1e-9)


@pytest.mark.parametrize(("values", "square"), [([0.0, 0.0], 1.0), ([1.0, 2.0], 0.0), ([1.0], math.nan)])
def test_evidence_without_a_maximum_is_refused(values, square):
    with pytest.raises(ConfigError, match=r"the evidence has no maximum: \|theta\|\^2 = "):
        evidence_precision(torch.tensor(values, dtype=torch.float64), square)


# Predictive distributions ---------------------------------------------------------------------------


def gaussian(seed: int, classes: int, scale: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(classes, classes, dtype=torch.float64, generator=generator)
    mean = 2 * torch.randn(classes, dtype=torch.float64, generator=generator)
    return mean, scale * root @ root.T / classes


def test_probit_of_two_classes_is_mackays_formula():
    mean, covariance = gaussian(1, 2, 4.0)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    expected = torch.sigmoid((mean[0] - mean[1]) / (1 + math.pi * variance / 8).sqrt())
    torch.testing.assert_close(probit(mean, covariance).exp(), torch.stack([expected, 1 - expected]))


def test_probit_without_variance_is_the_softmax():
    mean, covariance = gaussian(2, 5, 0.0)
    for link in (probit, diagonal_probit):
        torch.testing.assert_close(link(mean, covariance), torch.log_softmax(mean, -1))


def test_a_common_shift_of_logits_changes_the_diagonal_form_alone():
    """Its mean and its variance: no probability depends on either."""
    mean, covariance = gaussian(3, 4, 1.0)
    expected = probit(mean, covariance)
    torch.testing.assert_close(probit(mean + 3, covariance + 50), expected)
    assert (diagonal_probit(mean, covariance + 50) - diagonal_probit(mean, covariance)).abs().max() > 0.3


def softmax_mean(mean: Tensor, covariance: Tensor, seed: int) -> Tensor:
    """E softmax(f) from 20,000 draws and their mirror images: standard error below 0.003."""
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(len(mean)).double())
    noise = torch.randn(20_000, len(mean), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (torch.softmax(mean + noise @ root.T, -1) + torch.softmax(mean - noise @ root.T, -1)).mean(0) / 2


@pytest.mark.parametrize("scale", [0.1, 1.0, 9.0])
def test_probit_of_two_classes_is_within_two_hundredths(scale):
    """MacKay's formula errs by 0.014 at most here; the softmax of the mean and the diagonal form do worse."""
    worst = {"probit": 0.0, "diagonal": 0.0, "softmax": 0.0}
    for seed in range(20):
        mean, covariance = gaussian(seed, 2, scale)
        expected = softmax_mean(mean, covariance, seed)
        forms = {"probit": probit(mean, covariance), "diagonal": diagonal_probit(mean, covariance)}
        for name, found in (forms | {"softmax": torch.log_softmax(mean, -1)}).items():
            worst[name] = max(worst[name], (found.exp() - expected).abs().max().item())
    assert worst["probit"] < 0.02 and worst["probit"] < min(worst["diagonal"], worst["softmax"])


@pytest.mark.slow
@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_probit_of_several_classes_is_nearer_than_the_diagonal_form(classes, shift):
    """Mean KL from the true predictive over 20 Gaussians with variances of about one, also with a common shift."""
    total = torch.zeros(3, dtype=torch.float64)
    for seed in range(20):
        mean, covariance = gaussian(seed, classes, 1.0)
        expected = softmax_mean(mean, covariance, seed)
        forms = (probit(mean, covariance), diagonal_probit(mean, covariance + shift), torch.log_softmax(mean, -1))
        total += torch.stack([(expected * (expected.log() - form)).sum() for form in forms])
    assert total[0] < 0.9 * total[1] and total[0] < 0.9 * total[2]


# laplace-torch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES)
def test_against_laplace_torch(structure):
    """Log evidence, mean and covariance of logits, and the diagonal probit predictive, at three prior precisions.

    Its Kronecker structure keeps weights and bias apart, so that the one is a feature of a layer without bias.
    """
    laplace = pytest.importorskip("laplace")
    phi, labels, theta = data()
    torch.manual_seed(0)
    body, head = torch.nn.Identity(), torch.nn.Linear(F + 1, K, bias=False)
    model = torch.nn.Sequential(body, head).double()
    with torch.no_grad():
        head.weight.copy_(theta)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(phi, labels), batch_size=N)
    theirs = laplace.Laplace(
        model, "classification", subset_of_weights="last_layer", hessian_structure=structure, last_layer_name="1"
    )
    theirs.fit(loader)
    ours, log_likelihood = curvature_of(structure)
    mean, square = phi @ theta.T, theta.square().sum().item()
    for tau in (0.1, 1.0, 30.0):
        theirs.prior_precision = torch.tensor([tau], dtype=torch.float64)
        expected = theirs.log_marginal_likelihood().item()
        assert log_evidence(ours.eigenvalues, square, log_likelihood, tau) == pytest.approx(expected, rel=1e-6)
        their_mean, their_covariance = theirs._glm_predictive_distribution(phi)
        covariance = ours.logit_covariance(phi, tau)
        torch.testing.assert_close(their_mean.double(), mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(their_covariance.double(), covariance, rtol=1e-5, atol=1e-7)
        probs = theirs(phi, pred_type="glm", link_approx="probit").double()
        torch.testing.assert_close(diagonal_probit(mean, covariance).exp(), probs, rtol=1e-5, atol=1e-7)
