"""What the problems share: their generators, labels drawn from class probabilities, and the form of x and theta."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdsim.config import require_count

Array = NDArray[np.float64]


def generator(seed: int, key: int) -> np.random.Generator:
    """Generator of one problem; `key` is a number of its own, so that problems do not share random numbers."""
    require_count("seed", seed, least=0)
    return np.random.default_rng(np.random.SeedSequence([seed, key]))


def draw_labels(p: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """One label y ~ p a row, by the inverse distribution function; never a class with p_k = 0. (N, K) -> (N,)."""
    cdf = np.cumsum(p, axis=-1)
    cdf /= cdf[:, -1:]  # the last entry is exactly one, above every uniform in [0, 1)
    uniform = rng.random((len(p), 1))
    return (cdf <= uniform).sum(axis=-1)


def with_bias(x: Array) -> Array:
    """Append a column of ones. (N, d) -> (N, d + 1)."""
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def centred(theta: Array) -> Array:
    """The representative of a softmax parameter whose sum over the classes is zero. (K, d) -> (K, d)."""
    return theta - theta.mean(axis=0)


def softmax_regression(x: Array, theta: Array) -> tuple[Tensor, Tensor, Tensor]:
    """Tensors x (N, d), p = softmax(theta x) (N, K) and centred theta (K, d), float64."""
    x_tensor, theta_tensor = torch.from_numpy(x), torch.from_numpy(centred(theta))
    return x_tensor, torch.softmax(x_tensor @ theta_tensor.T, -1), theta_tensor
