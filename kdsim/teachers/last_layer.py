"""Laplace's method for the last layer of a classifier: curvature, evidence, and the posterior of logits.

The last layer is theta = [W, b] (K, F + 1) on features phi = [features, 1] (F + 1,): logits f = theta phi. The
likelihood is softmax's of N labels (summed, no temperature), the prior N(0, I / tau) on all P = K (F + 1) weights, the
bias included. The generalised Gauss-Newton matrix of a linear last layer is its Hessian,

    H = sum_n (L_n (x) phi_n phi_n'),   L_n = diag(p_n) - p_n p_n',   p_n = softmax(theta phi_n),

theta flattened row by row, and the posterior is N(theta, (H + tau I)^-1). H is kept in one of three structures:

    full    H itself: P^2 numbers;
    kron    B (x) A / N,   A = sum_n phi_n phi_n' (F + 1, F + 1),   B = sum_n L_n (K, K): both factors are sums, hence
            the one division by N. Exact where L_n and phi_n phi_n' are uncorrelated over n;
    diag    the diagonal of H.

All is float64. Sources: D. J. C. MacKay, "A practical Bayesian framework for backpropagation networks", Neural
Computation 4 (1992); H. Ritter, A. Botev, D. Barber, "A scalable Laplace approximation for neural networks", ICLR 2018
(Kronecker factors); A. Kristiadi, M. Hein, P. Hennig, ICML 2020, arXiv:2002.10118 (last layer); E. Daxberger et al.,
"Laplace redux", NeurIPS 2021, arXiv:2106.14806.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.optimize import brentq
from torch import Tensor

from kdsim.config import ConfigError

Batches = Iterable[tuple[Tensor, Tensor]]
"""Features phi (b, F + 1), the last one 1, and labels (b,), batch by batch."""


@dataclass(frozen=True, eq=False)  # holds tensors
class Curvature(ABC):
    """H in one structure, as eigenvalues and eigenvectors, so that every tau is at hand."""

    structure: ClassVar[str]

    @classmethod
    @abstractmethod
    def of(cls, theta: Tensor, batches: Batches) -> tuple[Curvature, float]:
        """H at theta (K, F + 1), and the log-likelihood of the labels there, in nats."""

    @classmethod
    @abstractmethod
    def memory(cls, features: int, classes: int, batch: int) -> tuple[int, int]:
        """Bytes, estimated: of `of` with the eigenvectors; of what is kept and the covariance of a batch of logits.

        Args:
            features: F; classes: K; batch: images at a time.
        """

    @property
    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """Those of H, (P,), >= 0."""

    @abstractmethod
    def logit_covariance(self, phi: Tensor, tau: float) -> Tensor:
        """Posterior covariance of the logits of each image. phi (b, F + 1) -> (b, K, K)."""

    @abstractmethod
    def deviations(self, noise: Tensor, tau: float) -> Tensor:
        """Standard normals to draws of theta less its mean: covariance (H + tau I)^-1. (S, K, F + 1), both."""


@dataclass(frozen=True, eq=False)
class Kron(Curvature):
    """H = B (x) A / N.

    Attributes:
        input_values (F + 1,), input_vectors (F + 1, F + 1): eigenvalues of A / N and eigenvectors, as columns.
        output_values (K,), output_vectors (K, K): those of B. B maps (1, ..., 1) to zero.
    """

    input_values: Tensor
    input_vectors: Tensor
    output_values: Tensor
    output_vectors: Tensor

    structure: ClassVar[str] = "kron"

    @classmethod
    def of(cls, theta: Tensor, batches: Batches) -> tuple[Kron, float]:
        classes, inputs = theta.shape
        a, b = theta.new_zeros(inputs, inputs), theta.new_zeros(classes, classes)
        count, total = 0, 0.0
        for phi, labels in batches:
            p, log_likelihood = _likelihood(theta, phi, labels)
            a += phi.T @ phi
            b += torch.diag(p.sum(0)) - p.T @ p
            count, total = count + len(phi), total + log_likelihood
        return cls(*_eigen(a / count), *_eigen(b)), total

    @classmethod
    def memory(cls, features: int, classes: int, batch: int) -> tuple[int, int]:
        factors = (features + 1) ** 2 + classes**2
        return 40 * factors, 8 * (factors + 5 * batch * classes**2)

    @property
    def eigenvalues(self) -> Tensor:
        return torch.outer(self.output_values, self.input_values).flatten()

    def logit_covariance(self, phi: Tensor, tau: float) -> Tensor:
        squares = (phi @ self.input_vectors).square()  # (b, F + 1)
        spread = squares @ (1 / (torch.outer(self.input_values, self.output_values) + tau))  # (b, K), in B's basis
        return torch.einsum("kj,bj,lj->bkl", self.output_vectors, spread, self.output_vectors)

    def deviations(self, noise: Tensor, tau: float) -> Tensor:
        scaled = noise / (torch.outer(self.output_values, self.input_values) + tau).sqrt()
        return self.output_vectors @ scaled @ self.input_vectors.T


@dataclass(frozen=True, eq=False)
class Full(Curvature):
    """H itself.

    Attributes:
        values (P,), vectors (P, P): eigenvalues and eigenvectors, as columns.
        classes (): K.
    """

    values: Tensor
    vectors: Tensor
    classes: Tensor

    structure: ClassVar[str] = "full"

    @classmethod
    def of(cls, theta: Tensor, batches: Batches) -> tuple[Full, float]:
        classes, inputs = theta.shape
        h = theta.new_zeros(classes, inputs, classes, inputs)
        total = 0.0
        for phi, labels in batches:
            p, log_likelihood = _likelihood(theta, phi, labels)
            for k in range(classes):
                h[k, :, k] += phi.T @ (p[:, k, None] * phi)
            own = (p[:, :, None] * phi[:, None, :]).flatten(1)  # (b, P)
            h.view(theta.numel(), -1).addmm_(own.T, own, alpha=-1)
            total += log_likelihood
        return cls(*_eigen(h.view(theta.numel(), -1)), torch.tensor(classes)), total

    @classmethod
    def memory(cls, features: int, classes: int, batch: int) -> tuple[int, int]:
        size = classes * (features + 1)  # H, a batch's part of it or its eigenvectors, LAPACK's workspace of two such
        rows = batch * classes * (3 * size + 5 * classes)
        return 8 * (5 * size**2 + 2 * batch * size), 8 * (2 * size**2 + rows)

    @property
    def eigenvalues(self) -> Tensor:
        return self.values

    def logit_covariance(self, phi: Tensor, tau: float) -> Tensor:
        vectors = self.vectors.view(int(self.classes), phi.shape[-1], -1)  # (K, F + 1, P)
        rows = torch.einsum("bi,kip->bkp", phi, vectors) / (self.values + tau).sqrt()
        return rows @ rows.mT

    def deviations(self, noise: Tensor, tau: float) -> Tensor:
        scaled = noise.flatten(1) / (self.values + tau).sqrt()
        return (scaled @ self.vectors.T).view(noise.shape)


@dataclass(frozen=True, eq=False)
class Diag(Curvature):
    """The diagonal of H.

    Attributes:
        values: sum_n p_nk (1 - p_nk) phi_ni^2, (K, F + 1).
    """

    values: Tensor

    structure: ClassVar[str] = "diag"

    @classmethod
    def of(cls, theta: Tensor, batches: Batches) -> tuple[Diag, float]:
        values, total = torch.zeros_like(theta), 0.0
        for phi, labels in batches:
            p, log_likelihood = _likelihood(theta, phi, labels)
            values += (p * (1 - p)).T @ phi.square()
            total += log_likelihood
        return cls(values), total

    @classmethod
    def memory(cls, features: int, classes: int, batch: int) -> tuple[int, int]:
        size = classes * (features + 1)
        return 32 * size, 8 * (2 * size + 5 * batch * classes**2)

    @property
    def eigenvalues(self) -> Tensor:
        return self.values.flatten()

    def logit_covariance(self, phi: Tensor, tau: float) -> Tensor:
        return torch.diag_embed(phi.square() @ (1 / (self.values + tau)).T)

    def deviations(self, noise: Tensor, tau: float) -> Tensor:
        return noise / (self.values + tau).sqrt()


STRUCTURES: Mapping[str, type[Curvature]] = {kind.structure: kind for kind in (Kron, Full, Diag)}


# Evidence -----------------------------------------------------------------------------------------


def log_evidence(eigenvalues: Tensor, weight_square: float, log_likelihood: float, tau: float) -> float:
    """Laplace's log marginal likelihood of the labels, in nats.

        log p(y | theta) - tau |theta|^2 / 2 + (P / 2) log tau - (1/2) log det(H + tau I)

    Args:
        eigenvalues: of H, (P,). weight_square: |theta|^2. log_likelihood: at theta. tau: > 0.

    Source: MacKay 1992, as above; for networks A. Immer et al., ICML 2021, arXiv:2104.04975.
    """
    ratio = torch.log1p(eigenvalues / tau).sum().item()  # log det(H + tau I) - P log tau, without cancellation
    return log_likelihood - tau * weight_square / 2 - ratio / 2


def evidence_precision(eigenvalues: Tensor, weight_square: float) -> float:
    """The tau > 0 of largest evidence, theta and H held fixed.

    Its derivative in log tau is (gamma(tau) - tau |theta|^2) / 2, where gamma = sum_i h_i / (h_i + tau) is the number
    of weights that the labels determine. gamma falls and the other term rises, so there is one root and it is the
    maximum: MacKay's tau = gamma / |theta|^2.

    Raises:
        ConfigError: all weights or all eigenvalues are zero, and there is no maximum.
    """
    positive = eigenvalues[eigenvalues > 0]
    if not (math.isfinite(weight_square) and weight_square > 0 and len(positive)):
        raise ConfigError(
            f"the evidence has no maximum: |theta|^2 = {weight_square:.3g} of the last layer, {len(positive)} positive "
            "eigenvalues of its curvature; both must be positive"
        )

    def slope(log_tau: float) -> float:
        tau = math.exp(log_tau)
        return (positive / (positive + tau)).sum().item() - tau * weight_square

    high = math.log(len(positive) / weight_square)  # gamma is below the number of positive eigenvalues
    low = high - 1
    while slope(low) <= 0:
        low -= 2 * (high - low)
    return math.exp(brentq(slope, low, high, xtol=1e-12, rtol=1e-12))


# Predictive distributions -------------------------------------------------------------------------


def probit(mean: Tensor, covariance: Tensor) -> Tensor:
    """Log of E softmax(f), f ~ N(mean, covariance), by MacKay's probit formula for each pair of classes.

        p_k proportional to 1 / sum_l exp(-(m_k - m_l) / sqrt(1 + pi v_kl / 8)),   v_kl = Var(f_k - f_l)

    For two classes it is MacKay's formula itself. As the softmax, it looks at differences of logits alone: the
    posterior along (1, ..., 1), which no label determines, does not enter.

    An approximation: with logit variances of about one and random means, probabilities are off by 0.01 at most for
    K = 2, 0.04 for K = 3 and 0.1 for K = 10 (KL from the true mean 2e-4, 0.0015, 0.011; diagonal form 0.0045, 0.0025,
    0.016; softmax of the mean 0.013, 0.010, 0.021). For 100 classes with independent logits it flattens too much (KL
    0.056; diagonal form 0.019; softmax of the mean 0.0075): draw samples there.

    Args:
        mean: (..., K). covariance: (..., K, K).

    Source: D. J. C. MacKay, "The evidence framework applied to classification networks", Neural Computation 4 (1992);
    pairs: J. Daunizeau, arXiv:1703.00091 (2017); Z. Lu, E. Ie, F. Sha, arXiv:2006.07584 (2020).
    """
    variance = covariance.diagonal(dim1=-2, dim2=-1)  # (..., K)
    apart = (variance[..., :, None] + variance[..., None, :] - 2 * covariance).clamp_min(0)
    difference = mean[..., :, None] - mean[..., None, :]
    return torch.log_softmax(-torch.logsumexp(-difference / (1 + math.pi / 8 * apart).sqrt(), -1), -1)


def diagonal_probit(mean: Tensor, covariance: Tensor) -> Tensor:
    """As `probit`, by softmax(m_k / sqrt(1 + pi v_k / 8)) with the variance v_k of each logit by itself.

    What published codes use. It is not invariant to a common shift of the logits, in mean or variance: the posterior
    keeps the prior's variance |phi|^2 / (K tau) of that shift, which changes no probability and yet flattens this form.
    """
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    return torch.log_softmax(mean / (1 + math.pi / 8 * variance).sqrt(), -1)


def _likelihood(theta: Tensor, phi: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Probabilities (b, K) and the log-likelihood of a batch."""
    log_probs = torch.log_softmax(phi @ theta.T, -1)
    return log_probs.exp(), log_probs.gather(-1, labels[:, None]).sum().item()


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a positive semi-definite matrix; rounding below zero is cut off."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.clamp_min_(0), vectors
