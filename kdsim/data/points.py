"""Points of a problem with exactly known class probabilities, for networks of points."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch

from kdsim.config import ConfigError, kind_of, require, require_count
from kdsim.data.sources import PointSource, Pools, Truth
from kdsim.population import Population, require_points
from kdsim.problems import GaussianMixture, LongTail
from kdsim.problems.base import Problem, drawn
from kdsim.problems.sampling import generator

KEY = 71
"""Of the random numbers that shuffle the points; problems have numbers of their own."""


@dataclass(frozen=True)
class KnownPoints(PointSource):
    """The pool of a problem, shuffled and cut into training, validation and test points; p is the exact BCP.

    A long tail (`LongTail`) draws balanced validation and test points itself, beside its whole pool for training.

    Where a problem ends x with a column of ones, that column is taken off: networks have biases of their own. The pools
    are shuffled since some problems list their points in an order that means something (the digits).

    Attributes:
        problem: draws the points; what is not held out is trained on.
        validation_samples, test_samples: numbers of points held out.
    """

    problem: Problem = field(default_factory=GaussianMixture)
    validation_samples: int = 1000
    test_samples: int = 2000

    name: ClassVar[str] = "known-points"
    train_truth: ClassVar[Truth] = "bcp"
    test_truth: ClassVar[Truth] = "bcp"

    def __post_init__(self) -> None:
        require_count("validation_samples", self.validation_samples)
        require_count("test_samples", self.test_samples)

    @property
    def classes(self) -> int:
        own = getattr(self.problem, "classes", None)
        return own if isinstance(own, int) else _drawn(self.problem, 0).classes

    @property
    def class_shares(self) -> tuple[float, ...] | None:
        """The priors of a `LongTail`."""
        if not isinstance(self.problem, LongTail) or self.problem.imbalance <= 1:
            return None
        return tuple(self.problem.prior.tolist())

    @property
    def class_prior(self) -> tuple[float, ...] | None:
        """The priors of a `LongTail`, equal ones at an imbalance of 1; of another problem nothing is assumed."""
        return tuple(self.problem.prior.tolist()) if isinstance(self.problem, LongTail) else None

    def pools(self, seed: int, data_dir: str | Path | None = None) -> Pools:
        """Draw the pools; see `Source.pools`. `data_dir` is ignored.

        Raises:
            ConfigError: a bad seed, a problem of images, or too few points to leave some for training.
        """
        parts = self._parts(seed)
        ones = all((part.x[:, -1] == 1).all() for part in parts)
        width = parts[0].features - ones
        require(width > 0, "problem", self.problem, "one with features beside the column of ones")
        pools = [Population(part.x[:, :width].clone(), part.p.clone(), part.y.clone()) for part in parts]
        source = f"points of the problem {kind_of(type(self.problem))}, with known class probabilities"
        return self._described(_Points(source, _digest(pools)), *pools)

    def _parts(self, seed: int) -> Sequence[Population]:
        """Training, validation and test points as the problem has them."""
        if isinstance(self.problem, LongTail):
            return self.problem.split(seed, self.validation_samples, self.test_samples)
        shuffled = generator(seed, KEY)
        drawn = _drawn(self.problem, seed)
        require_points(drawn)
        if drawn.y is None:
            raise ConfigError(f"problem = {kind_of(type(self.problem))} is not allowed: must be one with labels")
        held_out = self.validation_samples + self.test_samples
        fewer = f"below {drawn.size}, the points of the problem"
        require(held_out < drawn.size, "validation_samples + test_samples", held_out, fewer)
        order = torch.from_numpy(shuffled.permutation(drawn.size))
        sizes = [drawn.size - held_out, self.validation_samples, self.test_samples]
        return [Population(drawn.x[part], drawn.p[part], drawn.y[part]) for part in order.split(sizes)]


@dataclass(frozen=True)
class _Points:
    """What the provenance says of the points, see `Pools`."""

    source: str
    digest: str
    source_sha256: str = ""


def _digest(pools: Iterable[Population]) -> str:
    """SHA-256 of all points, class probabilities and labels."""
    digest = hashlib.sha256()
    for pool in pools:
        for tensor, little_endian in ((pool.x.double(), "<f8"), (pool.p, "<f8"), (pool.y, "<i8")):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().astype(little_endian, copy=False).data)
    return digest.hexdigest()


def forget_points() -> None:
    """From now on pools are drawn anew."""
    _drawn.cache_clear()


@lru_cache(maxsize=2)
def _drawn(problem: Problem, seed: int) -> Population:
    """The pool of the problem: kept, since the trainer asks for the classes and for the pools."""
    return drawn(problem, seed)
