"""A network whose logits are divided by one temperature, chosen on the validation images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from scipy.optimize import brentq
from torch import Tensor

from kdsim.data.sources import Pools
from kdsim.engines.base import check_device
from kdsim.losses import OutputMSE
from kdsim.teachers.checks import refuse_loss
from kdsim.trainer import StudentTrainer, Teacher
from kdsim.training.evaluation import BATCH, forward
from kdsim.training.fitted import FittedTeacher
from kdsim.training.trained import TrainedNetwork

TEMPERATURES = (0.01, 100.0)
"""Where the temperature is sought. Images that are all classified right ask for 0, a network no better than chance for
infinity: they get the ends."""


@dataclass(frozen=True)
class TemperatureScaled(Teacher):
    """softmax(z / T), with the T of least cross-entropy on the labels of the validation images.

    Attributes:
        training: what trains the network.

    Source: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017,
    arXiv:1706.04599, section 4.2.
    """

    training: StudentTrainer = field(default_factory=StudentTrainer)

    name: ClassVar[str] = "temperature-scaled"

    def __post_init__(self) -> None:
        refuse_loss(self.training, OutputMSE, "its outputs are no logits")

    def fit(self, networks: Sequence[TrainedNetwork], pools: Pools, number: int) -> dict[str, Tensor]:
        """The temperature."""
        (network,) = networks
        device = check_device(self.training.device)
        mixed = self.training.mixed
        module, normalise, pool = network.module(device), network.normalisation, pools.validation
        logits = torch.cat([forward(module, x.to(device), normalise, mixed).cpu() for x in pool.x.split(BATCH)])
        return {"temperature": torch.tensor(best_temperature(logits, pool.y), dtype=torch.float64)}

    def predictor(self, fitted: FittedTeacher, device: torch.device, mixed: bool) -> Callable[[Tensor], Tensor]:
        (network,) = fitted.networks
        module, normalise = network.module(device), network.normalisation
        temperature = fitted.tensors["temperature"].item()
        return lambda images: torch.log_softmax(forward(module, images, normalise, mixed) / temperature, -1)[None]


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T in `TEMPERATURES` of least mean of -log softmax(z / T)_y.

    The loss is convex in the inverse temperature b, with derivative mean(sum_k softmax(b z)_k z_k - z_y): its root,
    or the end of the range that is nearer to it.

    Args:
        logits: (N, K). labels: (N,).
    """
    logits = logits.double()
    own = logits.gather(-1, labels[:, None])[:, 0]

    def slope(log_temperature: float) -> float:
        probs = torch.softmax(logits * math.exp(-log_temperature), -1)
        return ((probs * logits).sum(-1) - own).mean().item()

    low, high = (math.log(temperature) for temperature in TEMPERATURES)
    if slope(low) <= 0:  # even there the loss falls as b grows
        return TEMPERATURES[0]
    if slope(high) >= 0:
        return TEMPERATURES[1]
    return math.exp(brentq(slope, low, high, xtol=1e-10, rtol=1e-12))
