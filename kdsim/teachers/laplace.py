"""A network with a Gaussian posterior over its last layer, found after the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from kdsim.config import require_count
from kdsim.data.sources import Pools
from kdsim.engines.base import check_device
from kdsim.losses import CrossEntropy, LabelCrossEntropy
from kdsim.networks import DenseNetwork, Network
from kdsim.population import Population
from kdsim.scores import negative_log_likelihood
from kdsim.teachers.checks import generator, require_loss, require_memory
from kdsim.teachers.last_layer import (
    STRUCTURES,
    Curvature,
    diagonal_probit,
    evidence_precision,
    log_evidence,
    probit,
)
from kdsim.trainer import StudentTrainer, Teacher
from kdsim.training.evaluation import BATCH, forward
from kdsim.training.fitted import FittedTeacher
from kdsim.training.trained import TrainedNetwork

Structure = Literal["kron", "full", "diag"]
Predictive = Literal["probit", "diagonal-probit", "monte-carlo"]
Tune = Literal["marginal-likelihood", "validation"]

PRECISIONS = (1e-6, 1e8)
"""Prior precisions among which `tune="validation"` chooses: what minimises the loss need not exist otherwise."""
GRID = 29
"""Of them looked at first, evenly spaced in the logarithm; the best one's neighbourhood is then searched."""


@dataclass(frozen=True)
class Laplace(Teacher):
    """Laplace's method on the last layer: mean, structure and evidence as in `kdsim.teachers.last_layer`.

    The training images enter as they are, without crops and flips, BatchNorm with its running statistics. The trained
    weights stand for the maximum of the posterior, whatever weight decay they were trained with, as usual.

    Attributes:
        training: what trains the network, under a cross-entropy.
        structure: of the curvature: "kron", "full" (K (F + 1) squared numbers) or "diag".
        predictive: "probit": one distribution, MacKay's formula for each pair of classes; "diagonal-probit": the form
            of published codes, which a common shift of the logits flattens (see `last_layer.diagonal_probit`);
            "monte-carlo": outputs of `samples` last layers drawn from the posterior.
        samples: S of "monte-carlo".
        tune: prior precision by "marginal-likelihood" (the evidence, which is of the training images) or by the loss of
            the predictive distribution on the "validation" images. There is no choice by predictions on training
            images: a network that fits them is best there with no uncertainty at all.
    """

    training: StudentTrainer = field(default_factory=StudentTrainer)
    structure: Structure = "kron"
    predictive: Predictive = "probit"
    samples: int = 10
    tune: Tune = "marginal-likelihood"

    name: ClassVar[str] = "laplace"

    def __post_init__(self) -> None:
        require_loss(self.training, (CrossEntropy, LabelCrossEntropy))
        require_count("samples", self.samples)

    def fit(self, networks: Sequence[TrainedNetwork], pools: Pools, number: int) -> dict[str, Tensor]:
        """Prior precision (`tau`), log evidence with it (`log_evidence`, nats), and the curvature."""
        (network,) = networks
        device = check_device(self.training.device)
        mixed = self.training.mixed
        module = network.module(device)
        theta, kind = _theta(module), STRUCTURES[self.structure]
        self._require_memory(theta, device, fit=True)
        curvature, log_likelihood = kind.of(theta, _features(network, module, pools.train, mixed))
        eigenvalues, weight_square = curvature.eigenvalues, theta.square().sum().item()
        if self.tune == "validation":
            batches = list(_features(network, module, pools.validation, mixed))
            tau = self._best_on(theta, curvature, batches, number)
        else:
            tau = evidence_precision(eigenvalues, weight_square)
        found = {"tau": tau, "log_evidence": log_evidence(eigenvalues, weight_square, log_likelihood, tau)}
        scalars = {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}
        return scalars | {item.name: getattr(curvature, item.name).cpu() for item in fields(curvature)}

    def predictor(self, fitted: FittedTeacher, device: torch.device, mixed: bool) -> Callable[[Tensor], Tensor]:
        (network,) = fitted.networks
        module, kind = network.module(device), STRUCTURES[self.structure]
        theta, tau = _theta(module), fitted.tensors["tau"].item()
        self._require_memory(theta, device, fit=False)
        curvature = kind(**{item.name: fitted.tensors[item.name].to(device) for item in fields(kind)})
        predict = self._predictive(theta, curvature, fitted.number)(tau)
        return lambda images: predict(_phi(network, module, images, mixed)).float()

    def _require_memory(self, theta: Tensor, device: torch.device, *, fit: bool) -> None:
        classes, inputs = theta.shape
        to_fit, to_predict = STRUCTURES[self.structure].memory(inputs - 1, classes, BATCH)
        what, needed = f"Laplace with structure = {self.structure!r}", to_fit if fit else to_predict
        if self.predictive == "monte-carlo" and not fit:
            what += f" and samples = {self.samples}"
            needed += 24 * self.samples * (theta.numel() + BATCH * classes)  # noise, weights, outputs
        require_memory(what, needed, device)

    def _predictive(
        self, theta: Tensor, curvature: Curvature, number: int
    ) -> Callable[[float], Callable[[Tensor], Tensor]]:
        """For a tau, the function from phi (b, F + 1) to log-probabilities (S, b, K) float64."""
        if self.predictive == "monte-carlo":
            drawn = torch.randn(self.samples, *theta.shape, dtype=torch.float64, generator=generator(self, number))
            noise = drawn.to(theta.device)

            def sampled(tau: float) -> Callable[[Tensor], Tensor]:
                thetas = theta + curvature.deviations(noise, tau)  # (S, K, F + 1)
                return lambda phi: torch.log_softmax(phi @ thetas.mT, -1)

            return sampled
        link = probit if self.predictive == "probit" else diagonal_probit
        return lambda tau: lambda phi: link(phi @ theta.T, curvature.logit_covariance(phi, tau))[None]

    def _best_on(self, theta: Tensor, curvature: Curvature, batches: list[tuple[Tensor, Tensor]], number: int) -> float:
        """The tau in `PRECISIONS` of least loss of the predictive mean. Samples are the same for every tau."""
        at = self._predictive(theta, curvature, number)
        labels = torch.cat([y for _, y in batches])

        def loss(log_tau: float) -> float:
            predict = at(10.0**log_tau)
            log_probs = torch.cat([predict(phi) for phi, _ in batches], 1).logsumexp(0)  # less log S, which is constant
            return negative_log_likelihood(log_probs, labels).item()

        low, high = (torch.tensor(value, dtype=torch.float64).log10().item() for value in PRECISIONS)
        width = (high - low) / (GRID - 1)
        best = min((low + width * step for step in range(GRID)), key=loss)
        bounds = (max(low, best - width), min(high, best + width))
        found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3})
        return 10.0 ** (found.x if found.fun < loss(best) else best)


def _theta(module: Network | DenseNetwork) -> Tensor:
    """Weights and bias of the last layer, (K, F + 1) float64."""
    return torch.cat([module.head.weight, module.head.bias[:, None]], 1).double()


def _phi(network: TrainedNetwork, module: Any, images: Tensor, mixed: bool) -> Tensor:
    """Features and a one, uint8 (b, 3, h, w) -> (b, F + 1) float64; with `mixed`, convolutions run in bfloat16."""
    features = forward(module.features, images, network.normalisation, mixed).double()
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


@torch.no_grad()
def _features(
    network: TrainedNetwork, module: Network | DenseNetwork, pool: Population, mixed: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features (b, F + 1) and labels (b,) of a pool, on the module's device."""
    device = module.head.weight.device
    for images, labels in zip(pool.x.split(BATCH), pool.y.split(BATCH), strict=True):
        yield _phi(network, module, images.to(device), mixed), labels.to(device)
