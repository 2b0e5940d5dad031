"""A Gaussian over weights from the path of SGD at a constant step size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import ConfigError, require, require_count, require_positive
from kdsim.data.sources import Pools
from kdsim.engines.optimisers import GradientDescent, Optimiser
from kdsim.teachers.checks import generator, require_memory
from kdsim.teachers.continued import continued, require_continuable, require_converged
from kdsim.teachers.weight_samples import copies, recompute_statistics, require_copies, said_by, size_of
from kdsim.trainer import StudentTrainer, Teacher
from kdsim.training.fitted import FittedTeacher
from kdsim.training.flat_module import vector_of
from kdsim.training.trained import TrainedNetwork


class Moments:
    """Mean, mean of squares and last deviations of points (P,) on a path: algorithm 1 of Maddox et al.

    The first point is where the path starts. Deviation i is that of point i from the mean of points 0 .. i.

    Attributes:
        mean, square: running, (P,) float64.
        deviations: the last ones, at most `rank`, each (P,) float32.
    """

    def __init__(self, start: Tensor, rank: int) -> None:
        self.rank, self.count = rank, 1
        self.mean = start.double().clone()
        self.square = self.mean.square()
        self.deviations: list[Tensor] = []

    def add(self, point: Tensor) -> None:
        """Another point, (P,)."""
        point = point.double()
        self.count += 1
        self.mean.lerp_(point, 1 / self.count)
        self.square.lerp_(point.square(), 1 / self.count)
        self.deviations = [*self.deviations, (point - self.mean).float()][-self.rank :]

    def sample(self, numbers: torch.Generator) -> Tensor:
        """mean + diag^(1/2) z1 / sqrt(2) + D z2 / sqrt(2 (columns of D - 1)), equation 1. (P,) float64."""
        columns = len(self.deviations)
        spread = (self.square - self.mean.square()).clamp_(min=0).sqrt_()  # below zero by rounding alone
        first = torch.randn(spread.shape, generator=numbers, dtype=torch.float64)
        second = torch.randn(columns, generator=numbers, dtype=torch.float64) / math.sqrt(2 * (columns - 1))
        drawn = self.mean + spread.mul_(first).mul_(math.sqrt(0.5))
        for weight, deviation in zip(second.tolist(), self.deviations, strict=True):
            drawn.add_(deviation, alpha=weight)
        return drawn


@dataclass(frozen=True)
class SWAG(Teacher):
    """SWA-Gaussian: the training goes on at a constant step size, and S networks are drawn from the path's Gaussian.

    BatchNorm's statistics are recomputed for each sample on training images without crops and flips, as far as
    `statistics_images` go; samples and their statistics are what the fit stores.

    Cost: the fit trains `epochs` more epochs, and asks each sample for `statistics_images` images. It has no
    checkpoints: one that is interrupted starts over. It is a function of the training's seed and the number of the
    teacher.

    Attributes:
        training: what trains the network, without a teacher of its own. Its batches, loss and augmentation go on.
        samples: S.
        epochs: of the path, > 0.
        step_size: constant, > 0; large enough to explore: the published value is a tenth to a fifth of the first one.
        optimiser: of the path; it starts without momentum.
        collect_every: epochs between two points of the path, > 0; `epochs` holds two of them at least.
        rank: most deviations that are kept, >= 2.
        statistics_images: training images, the first ones, over which statistics are recomputed.

    Source: W. J. Maddox et al., "A simple baseline for Bayesian uncertainty in deep learning", NeurIPS 2019,
    arXiv:1902.02476, algorithm 1 and equation 1; rank 20 and one point an epoch are the paper's.
    """

    training: StudentTrainer = field(default_factory=StudentTrainer)
    samples: int = 8
    epochs: float = 20.0
    step_size: float = 0.01
    optimiser: Optimiser = field(default_factory=lambda: GradientDescent(momentum=0.9, weight_decay=5e-4))
    collect_every: float = 1.0
    rank: int = 20
    statistics_images: int = 5000

    name: ClassVar[str] = "swag"

    def __post_init__(self) -> None:
        require_continuable(self.training, self.optimiser)
        require_count("samples", self.samples)
        for what in ("epochs", "step_size", "collect_every"):
            require_positive(what, getattr(self, what))
        require(2 * self.collect_every <= self.epochs, "collect_every", self.collect_every, "half of epochs at most")
        require_count("rank", self.rank, least=2)
        require_count("statistics_images", self.statistics_images, least=2)

    def fit(self, networks: Sequence[TrainedNetwork], pools: Pools, number: int) -> dict[str, Tensor]:
        """`samples` (S, P), and of each sample the statistics of BatchNorm, by name (S, ...)."""
        (network,) = networks
        start = vector_of(network.module())
        # Deviations and samples, five vectors in float64 for the moments, and the walk with gradients and activations.
        held = start.numel() * (4 * (self.rank + self.samples) + 8 * 5) + 8 * size_of(network)
        require_memory(f"{self.name} with rank {self.rank} of a {network.network}", held, torch.device("cpu"))
        moments = self._path(network, start, pools)
        numbers = generator(self, number)
        samples = torch.stack([moments.sample(numbers).float() for _ in range(self.samples)])
        device, mixed = torch.device(self.training.device), self.training.mixed
        images = pools.train.x[: self.statistics_images].to(device)
        statistics = []
        for sample in samples:
            (module,) = copies(network, [sample], device)
            recompute_statistics(module, images, network.normalisation, mixed)
            statistics.append({name: buffer.cpu().clone() for name, buffer in module.named_buffers()})
        return {"samples": samples} | {name: torch.stack([each[name] for each in statistics]) for name in statistics[0]}

    def _path(self, network: TrainedNetwork, start: Tensor, pools: Pools) -> Moments:
        """The moments of the path that goes on from the training."""
        moments = Moments(start, self.rank)
        walk = continued(self.training, network, pools, self.epochs, self.step_size, self.optimiser)
        first = walk.step
        every = max(1, round(self.collect_every * pools.train.size / self.training.recipe.batch_size))
        while not walk.finished:
            walk.advance()
            if (walk.step - first) % every == 0:
                moments.add(walk.flat.parameters[0].cpu())
        require_converged(walk, self.name)
        if len(moments.deviations) < 2:
            raise ConfigError(
                f"{self.name}: epochs = {self.epochs:g} gave fewer than two points of the path: ask for more"
            )
        return moments

    def predictor(self, fitted: FittedTeacher, device: torch.device, mixed: bool) -> Callable[[Tensor], Tensor]:
        (network,) = fitted.networks
        require_copies(self.name, network, self.samples, device)
        modules = copies(network, fitted.tensors["samples"], device)
        for number, module in enumerate(modules):
            for name, buffer in module.named_buffers():
                buffer.copy_(fitted.tensors[name][number])
        return said_by(modules, network.normalisation, mixed)
