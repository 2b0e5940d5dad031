"""Samples from the Gaussian posterior that an optimiser held over the weights while they were trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import ConfigError, kind_of, require, require_count
from kdsim.engines.optimisers import WeightSampler
from kdsim.engines.variational import IVON
from kdsim.teachers.checks import generator, require_network
from kdsim.teachers.weight_samples import copies, require_copies, said_by
from kdsim.trainer import StudentTrainer, Teacher
from kdsim.training.fitted import FittedTeacher
from kdsim.training.flat_module import vector_of
from kdsim.training.recipe import Recipe


def _by_ivon() -> StudentTrainer:
    return StudentTrainer(recipe=Recipe(step_size=0.2, optimiser=IVON()))


@dataclass(frozen=True)
class Variational(Teacher):
    """S networks with weights from N(m, diag(std^2)), the posterior of `IVON` or `MeanField`.

    The samples share BatchNorm's running statistics, which the training collected over its own draws of the weights;
    they are neither those of the mean nor recomputed for each sample. Each sample is a whole network in memory, and a
    forward pass.

    Attributes:
        training: what trains it; its optimiser holds a posterior.
        samples: S.

    Source: Y. Shen et al., ICML 2024, arXiv:2402.17641, section 2 (prediction by an average over samples); as a
    teacher, I. Morad, N. Shlezinger, Y. C. Eldar, ICLR 2026, arXiv:2601.01484.
    """

    training: StudentTrainer = field(default_factory=_by_ivon)
    samples: int = 8

    name: ClassVar[str] = "variational"

    def __post_init__(self) -> None:
        require_network(self.training)
        require_count("samples", self.samples)
        optimiser = self.training.recipe.optimiser
        known = isinstance(optimiser, WeightSampler)
        require(known, "training.recipe.optimiser", kind_of(type(optimiser)), "one that holds a posterior, as ivon")

    def predictor(self, fitted: FittedTeacher, device: torch.device, mixed: bool) -> Callable[[Tensor], Tensor]:
        (network,) = fitted.networks
        if "std" not in network.posterior:
            raise ConfigError("the trained network has no posterior over its weights: train it with ivon or mean-field")
        require_copies(self.name, network, self.samples, device)
        mean, std = vector_of(network.module()), network.posterior["std"][0]  # (P,)
        numbers = generator(self, fitted.number)
        vectors = (mean + std * torch.randn(mean.shape, generator=numbers) for _ in range(self.samples))
        return said_by(copies(network, vectors, device), network.normalisation, mixed)
