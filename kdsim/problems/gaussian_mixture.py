"""The synthetic problem of the paper: a mixture of Gaussians with one isotropic covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from kdsim.config import require, require_between, require_count
from kdsim.population import Population
from kdsim.problems.base import Problem
from kdsim.problems.sampling import Array, draw_labels, generator, softmax_regression, with_bias

KEY = 1


@dataclass(frozen=True)
class GaussianMixture(Problem):
    """x | y = k ~ N(mu_k, s^2 I), y ~ pi; its BCP is exactly softmax-linear.

    On the raw features p_k(x) is proportional to exp(<mu_k, x> / s^2 - |mu_k|^2 / (2 s^2)) pi_k. The student sees
    z = (x - m) / r with the moments of the mixture, m = sum_k pi_k mu_k and r_j^2 = s^2 + Var_pi(mu_kj) (not of the
    sample), and a column of ones. There, up to a constant over the classes,

        theta_k = [ r (mu_k - m) / s^2,  log pi_k - |mu_k - m|^2 / (2 s^2) ].

    The label in the pool is the component that generated x, whose law given x is p(x).

    Attributes:
        classes: number of components K.
        dimension: number of features d before the bias column; `Population.features` is d + 1.
        mean_values: each coordinate of each mean is drawn uniformly from these; means are distinct.
        variance: s^2, in squared units of the raw features.
        priors: pi, (K,), positive and summing to one; None: equal.
        samples: pool size N.

    Source: Morad, Shlezinger, Eldar, "SGD-Based Knowledge Distillation with Bayesian Teachers: Theory and
    Guidelines", ICLR 2026, arXiv 2601.01484; the closed form is Bayes' rule.
    """

    classes: int = 5
    dimension: int = 30
    mean_values: tuple[float, ...] = (4.0, 5.0, 6.0)
    variance: float = 2.5
    priors: tuple[float, ...] | None = None
    samples: int = 4096

    name: ClassVar[str] = "gaussian-mixture"

    def __post_init__(self) -> None:
        require_count("classes", self.classes, least=2)
        require_count("dimension", self.dimension)
        require_count("samples", self.samples)
        require_between("variance", self.variance, 1e-12, 1e12)
        values, priors = self.mean_values, self.priors
        distinct = "a tuple of distinct numbers, at least one"
        require(len(values) > 0, "mean_values", values, distinct)
        for index, value in enumerate(values):
            require_between(f"mean_values[{index}]", value, -1e6, 1e6)
        require(len(set(values)) == len(values), "mean_values", values, distinct)
        choices = len(values) ** min(self.dimension, 64)  # 2^64 is more classes than fit anywhere
        require(choices >= self.classes, "classes", self.classes, f"<= {choices}, the number of distinct means")
        if priors is not None:
            require(len(priors) == self.classes, "priors", priors, f"a tuple of {self.classes} numbers, one a class")
            for index, prior in enumerate(priors):
                require_between(f"priors[{index}]", prior, 0, 1, "()")
            require(abs(sum(priors) - 1) < 1e-9, "priors", priors, f"numbers that sum to 1 (sum: {sum(priors):.10g})")

    @property
    def prior(self) -> Array:
        """pi, (K,)."""
        return np.full(self.classes, 1 / self.classes) if self.priors is None else np.array(self.priors)

    def means(self, seed: int) -> Array:
        """Class means mu on the raw features, uniform over tuples of distinct means. (K, dimension)."""
        return self._draw_means(generator(seed, KEY))

    def population(self, seed: int) -> Population:
        """Draw means, then labels and features. Log-domain throughout: tiny variances give vertices, never NaN."""
        rng = generator(seed, KEY)
        mu, pi = self._draw_means(rng), self.prior
        offsets = mu - pi @ mu  # mu_k - m; differences, so that |mu|^2 / s^2 never cancels
        scale = np.sqrt(self.variance + pi @ offsets**2)  # r, (dimension,)

        y = draw_labels(np.broadcast_to(pi, (self.samples, self.classes)), rng)
        noise = np.sqrt(self.variance) * rng.standard_normal((self.samples, self.dimension))
        x = with_bias((offsets[y] + noise) / scale)

        weights = scale * offsets / self.variance
        bias = np.log(pi) - (offsets**2).sum(axis=1) / (2 * self.variance)
        inputs, p, theta = softmax_regression(x, np.column_stack([weights, bias]))
        return Population(x=inputs, p=p, y=torch.from_numpy(y), optimum=theta)

    def _draw_means(self, rng: np.random.Generator) -> Array:
        values = np.array(self.mean_values, dtype=np.float64)
        mu = rng.choice(values, (self.classes, self.dimension))
        while len(repeated := _repeated_rows(mu)):
            mu[repeated] = rng.choice(values, (len(repeated), self.dimension))
        return mu


def _repeated_rows(rows: Array) -> np.ndarray:
    """Indices of the rows that repeat an earlier one."""
    _, first = np.unique(rows, axis=0, return_index=True)
    return np.setdiff1d(np.arange(len(rows)), first)
