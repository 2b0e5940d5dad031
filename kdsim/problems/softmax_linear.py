"""Softmax-linear class probabilities on Gaussian features with a set conditioning and a set entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import brentq

from kdsim import simplex
from kdsim.config import ConfigError, require, require_between, require_count
from kdsim.population import Population
from kdsim.problems.base import Problem
from kdsim.problems.sampling import Array, centred, draw_labels, generator, softmax_regression, with_bias

KEY = 2


@dataclass(frozen=True)
class SoftmaxLinear(Problem):
    """p(x) = softmax(theta_star x), with the geometry of x and the noise of the labels set apart.

    The pool has mean zero and covariance R diag(h) R' *exactly* (divisor N): a Gaussian sample is whitened, then
    given log-spaced eigenvalues h of mean one and largest to smallest ratio `conditioning` in a random rotation R.
    theta_star = c Z, Z Gaussian with columns centred over the classes; the mean entropy over the pool falls
    strictly in c (d/dc H(softmax(c z)) = -c Var_p(z)), so `entropy` sets c.

    Attributes:
        classes: number of classes K.
        dimension: number of features d before the bias column.
        conditioning: largest / smallest eigenvalue of the feature covariance, >= 1 (no effect if dimension is 1).
        entropy: mean entropy of the BCP over the pool in nats, in (0, log K).
        bias: append a column of ones; `Population.features` is then d + 1.
        samples: pool size N > dimension.
    """

    classes: int = 5
    dimension: int = 20
    conditioning: float = 10.0
    entropy: float = 0.5
    bias: bool = True
    samples: int = 4096

    name: ClassVar[str] = "softmax-linear"

    def __post_init__(self) -> None:
        require_count("classes", self.classes, least=2)
        require_count("dimension", self.dimension)
        require_between("conditioning", self.conditioning, 1, 1e12)
        most = math.log(self.classes)
        inside = f"in (0, {most:.6g}) nats; the upper end is log K for K = {self.classes}"
        require(0 < self.entropy < most, "entropy", self.entropy, inside)
        enough = f"an integer > dimension = {self.dimension} (the pool covariance is exact)"
        require(self.samples > self.dimension, "samples", self.samples, enough)

    def population(self, seed: int) -> Population:
        """Draw rotation, features, theta_star and labels.

        Raises:
            ConfigError: an entropy so near 0 or log K that rounding hides it.
        """
        rng = generator(seed, KEY)
        eigenvalues = np.geomspace(self.conditioning, 1, self.dimension)
        eigenvalues /= eigenvalues.mean()
        rotation = _orthonormal(rng.standard_normal((self.dimension, self.dimension)))
        x = rng.standard_normal((self.samples, self.dimension))
        white = math.sqrt(self.samples) * _orthonormal(x - x.mean(axis=0))
        x = (white * np.sqrt(eigenvalues)) @ rotation.T
        if self.bias:
            x = with_bias(x)

        direction = centred(rng.standard_normal((self.classes, x.shape[1])))
        inputs, p, theta = softmax_regression(x, self._scale(x, direction) * direction)
        return Population(x=inputs, p=p, y=torch.from_numpy(draw_labels(p.numpy(), rng)), optimum=theta)

    def _scale(self, x: Array, direction: Array) -> float:
        """The scalar c at which the mean entropy of softmax(c direction x) is `entropy`; found on the log scale."""
        logits = torch.from_numpy(x @ direction.T)

        def excess(log_scale: float) -> float:
            p = torch.softmax(math.exp(log_scale) * logits, -1)
            return simplex.entropy(p).mean().item() - self.entropy

        low, high = -40.0, 40.0  # uniform to rounding, and one-hot to rounding
        if not excess(low) > 0 > excess(high):
            allowed = f"further inside (0, {math.log(self.classes):.6g}): this close to an end it is lost to rounding"
            raise ConfigError(f"entropy = {self.entropy!r} is not allowed: must be {allowed}")
        return math.exp(brentq(excess, low, high, xtol=1e-12))


def _orthonormal(a: Array) -> Array:
    """Orthonormal basis of the columns of a, with the signs that make it unique (so Haar for square Gaussian a)."""
    q, r = np.linalg.qr(a)
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)
