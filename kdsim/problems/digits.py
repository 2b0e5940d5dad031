"""Real images with exactly known class probabilities: handwritten digits under a fitted softmax regression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch

from kdsim.config import require, require_between
from kdsim.population import Population
from kdsim.problems.base import Problem
from kdsim.problems.sampling import Array, draw_labels, generator, softmax_regression, with_bias

KEY = 4
IMAGES = 1797


@dataclass(frozen=True)
class Digits(Problem):
    """The 8x8 digits of scikit-learn, with p(x) *defined* as softmax(W x + b) fitted to the real labels.

    (W, b) is the minimiser of an L2-penalised cross-entropy over all 1797 images:

        argmin (1/N) sum_n CE(softmax(W x_n + b), y_n) + (penalty / 2) |W|^2.

    So the inputs are real and the BCP is exactly known; y is drawn from p and is not the real label. x is centred
    and divided by one common scale that makes the variance 1 on average over the 64 pixels: standardising pixel by
    pixel blows up pixels that are almost constant (max|x|^2 / 2 near 1,200 instead of 62). A column of ones is last.

    Attributes:
        penalty: L2 penalty of the fit. The default, 0.01, gives a mean entropy of 0.33 nats and 98 % agreement with
            the real labels; 0.003 gives 0.19 nats and 0.02 gives 0.46, and as it falls to 0 the fit saturates
            (the digits are separable).
        samples: size of a random subset of the images, which then is the pool (scaling and fit stay those of all
            images); None: all 1797, and then the seed affects y only.

    Source: data of Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI, 1998 (its test set), as
    shipped with scikit-learn.
    """

    penalty: float = 0.01
    samples: int | None = None

    name: ClassVar[str] = "digits"

    def __post_init__(self) -> None:
        require_between("penalty", self.penalty, 1e-6, 100)
        fits = self.samples is None or 1 <= self.samples <= IMAGES
        require(fits, "samples", self.samples, f"None or an integer from 1 to {IMAGES}")

    def population(self, seed: int) -> Population:
        """Choose the subset, if any, and draw the labels."""
        rng = generator(seed, KEY)
        images, fitted = _fit(self.penalty)
        chosen = np.arange(IMAGES) if self.samples is None else rng.permutation(IMAGES)[: self.samples]
        x, p, theta = softmax_regression(images[chosen], fitted)  # both are copies: the cached arrays stay untouched
        return Population(x=x, p=p, y=torch.from_numpy(draw_labels(p.numpy(), rng)), optimum=theta)


@lru_cache(maxsize=8)
def _fit(penalty: float) -> tuple[Array, Array]:
    """Scaled images with a bias column (1797, 65), and the fitted weights (10, 65)."""
    from sklearn.datasets import load_digits  # slow to import, and only this problem needs it
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    images, labels = load_digits(return_X_y=True)
    images = images - images.mean(axis=0)
    images /= np.sqrt(images.var(axis=0).mean())
    # Newton, not lbfgs: it stops at gradients of 1e-11, so that the BCP does not depend on where the solver stopped.
    fit = LogisticRegression(C=1 / (penalty * len(images)), solver="newton-cholesky", tol=1e-10, max_iter=1000)
    # One thread: hundreds of small products, where waiting for a busy core costs 50 times the work itself.
    with threadpool_limits(1):
        fit.fit(images, labels)
    return with_bias(images), np.column_stack([fit.coef_, fit.intercept_])
