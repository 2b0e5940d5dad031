"""Long tails: a known BCP under other class priors, and problems whose training pool has few points of most classes.

A prior shift changes how often each class occurs and leaves p(x | y) as it is, so that a known BCP stays known:

    p'_k(x) proportional to p_k(x) new_k / old_k          `under_prior`, Bayes' rule
    f'(x) = f(x) w(x),  w(x) = sum_k p_k(x) new_k / old_k   the points; E_f[w] = 1
    theta'_k = theta_k + log(new_k / old_k)                 on the bias column of a softmax-linear BCP

Source: M. Saerens, P. Latinne, C. Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities",
Neural Computation 14 (2002), for the first; the others follow from p(x, y) = prior_y p(x | y).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from kdsim.config import ConfigError, require, require_between, require_count
from kdsim.population import Population
from kdsim.problems.base import Problem, Split
from kdsim.problems.gaussian_mixture import GaussianMixture
from kdsim.problems.sampling import draw_labels, generator
from kdsim.problems.softmax_linear import SoftmaxLinear

KEY = 12
CANDIDATES, MOST_CANDIDATES = 4, 1024
"""Points of the problem drawn for each point of a shifted pool: as many at first, and doubled where too few are kept
up to so many."""


def exponential_prior(classes: int, imbalance: float) -> Tensor:
    """Class priors that fall exponentially: prior_k proportional to imbalance^(-k / (K - 1)). (K,) float64.

    Args:
        classes: K >= 2; class 0 is the most frequent.
        imbalance: prior of the first over that of the last class.

    Source: Y. Cui et al., "Class-balanced loss based on effective number of samples", CVPR 2019, section 5.1, with
    expected in place of exact counts.
    """
    rank = torch.arange(classes, dtype=torch.float64) / (classes - 1)
    return torch.softmax(-math.log(imbalance) * rank, 0)


def balanced_prior(classes: int) -> Tensor:
    """Equal priors 1/K. (K,) float64."""
    return torch.full((classes,), 1 / classes, dtype=torch.float64)


def under_prior(p: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """The BCP under the prior `new` (K,) from p (..., K) under the prior `old` (K,), by Bayes' rule.

    p(y = k | x) is proportional to p(x | k) prior_k, and p(x | k) stays as it is.
    """
    return torch.softmax(p.log() + (new.log() - old.log()), -1)


def density_ratio(p: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """w(x) = sum_k p_k(x) new_k / old_k: how much more often x occurs under the prior `new`. (..., K) -> (...)."""
    return p @ (new / old)


def shifted_optimum(theta: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """theta (K, d) of a softmax-linear BCP under the prior `new`: log(new / old) more on the bias, the last column.

    Rows are centred over the classes, as all softmax parameters here are.
    """
    shifted = theta.clone()
    shifted[:, -1] += new.log() - old.log()
    return shifted - shifted.mean(0)


def kept_points(p: Tensor, old: Tensor, new: Tensor, rng: np.random.Generator) -> Tensor:
    """Numbers of the points that stay when a pool drawn from f is thinned to one drawn from f'. (N, K) -> (n,) int64.

    Each stays with the probability w(x) / max_k(new_k / old_k), so 1 / max_k(new_k / old_k) of them on the average.
    They are independent draws from f', as the pool's are from f, and none is there twice.
    """
    most = (new / old).max()  # w(x) is a mean of these ratios, hence no larger
    return (torch.from_numpy(rng.random(len(p))) * most < density_ratio(p, old, new)).nonzero()[:, 0]


def shifted(pool: Population, points: Tensor, old: Tensor, new: Tensor, rng: np.random.Generator) -> Population:
    """These points (n,) of a pool under the prior `new`: their BCP, labels drawn from it, and the optimum.

    Args:
        pool: p (N, K) under the prior `old`, with an optimum whose last column is the bias.
        points: see `kept_points`.
        rng: of the labels.
    """
    p = under_prior(pool.p[points], old, new)
    y = torch.from_numpy(draw_labels(p.numpy(), rng))
    return Population(x=pool.x[points], p=p, y=y, optimum=shifted_optimum(pool.optimum, old, new))


@dataclass(frozen=True)
class LongTail(Problem):
    """A problem under exponentially falling class priors; its balanced twin is there for validation and test.

    Points are drawn from `problem` and thinned (`kept_points`), for the long tail and for equal priors alike: both have
    the classes and the coordinates of `problem`, and exact BCPs. The prior of `problem` is its own for a mixture of
    Gaussians, and E[p] over all points drawn for softmax-linear BCPs.

    `population` has as many points as `problem`, whose `samples` is the size of the long-tailed pool.

    Attributes:
        problem: a mixture of Gaussians, or softmax-linear BCPs with a bias column.
        imbalance: prior of the first over that of the last class, >= 1; see `exponential_prior`.
    """

    problem: Problem = field(default_factory=lambda: SoftmaxLinear(classes=9, entropy=1.0))
    imbalance: float = 100.0

    name: ClassVar[str] = "long-tail"

    def __post_init__(self) -> None:
        kinds = (GaussianMixture, SoftmaxLinear)
        require(isinstance(self.problem, kinds), "problem", self.problem, " or ".join(kind.name for kind in kinds))
        biased = getattr(self.problem, "bias", True)
        require(biased, "problem.bias", biased, "True: a prior shift moves the bias")
        require_between("imbalance", self.imbalance, 1, 1e6)

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return self.problem.classes  # type: ignore[attr-defined]  # other kinds are refused

    @property
    def samples(self) -> int:
        """Size of the long-tailed pool."""
        return self.problem.samples  # type: ignore[attr-defined]  # other kinds are refused

    @property
    def prior(self) -> Tensor:
        """Prior of the classes in the long-tailed pool, (K,) float64."""
        return exponential_prior(self.classes, self.imbalance)

    def population(self, seed: int) -> Population:
        """The long-tailed pool."""
        return self._pools(seed, [(self.prior, self.samples)])[0]

    def split(self, seed: int, validation_samples: int, test_samples: int) -> Split:
        """The long-tailed pool for training, balanced ones for validation and test; no point in two of them.

        Softmax-linear BCPs depend on how many points are drawn in all (`SoftmaxLinear` sets moments and entropy of its
        whole pool), so the training pool is not that of `population`.
        """
        require_count("validation_samples", validation_samples)
        require_count("test_samples", test_samples)
        even = balanced_prior(self.classes)
        return Split(*self._pools(seed, [(self.prior, self.samples), (even, validation_samples), (even, test_samples)]))

    def _pools(self, seed: int, wanted: Sequence[tuple[Tensor, int]]) -> list[Population]:
        """One pool for each prior and number of points, all from one drawing of the problem."""
        sizes = [size for _, size in wanted]
        times = CANDIDATES
        while times <= MOST_CANDIDATES:
            drawn = replace(self.problem, samples=times * sum(sizes)).population(seed)
            old = torch.from_numpy(self.problem.prior) if isinstance(self.problem, GaussianMixture) else drawn.p.mean(0)
            rng, pools, first = generator(seed, KEY), [], 0
            for new, size in wanted:
                part = drawn.points(slice(first, first + times * size))
                first += part.size
                kept = kept_points(part.p, old, new, rng)[:size]
                if len(kept) == size:
                    pools.append(shifted(part, kept, old, new, rng))
            if len(pools) == len(wanted):
                return pools
            times *= 2
        raise ConfigError(
            f"a class of {self.problem.name} is so rare (prior {old.min().item():.2g}) that {MOST_CANDIDATES} points "
            "for each one wanted are too few: choose a problem with more even classes"
        )
