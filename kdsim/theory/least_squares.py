"""Exact second moments of SGD on least squares, at every step size.

With e = W - W*, A(x) = xx' + ridge I, G = E A and a pool sampled with replacement, M_t = E[e'e] (d, d) obeys

    M_{t+1} = M - alpha (M G + G M) + alpha^2 [ (1/b) E[A M A] + (1 - 1/b) G M G ] + (alpha^2 / b) E[tr C(x) xx'],

for fresh unbiased targets and no or a centred ridge. tr M_t is the expected curve of the squared distance, the fixed
point its floor, and spectral radius one the limit of mean-square stability. Source: shared theory, section 5.

Symmetric matrices are written in an orthonormal basis of D = d (d + 1) / 2 coordinates, in which every operator here
is a symmetric D x D matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.population import Population
from kdsim.supervision.base import Supervision

LARGEST_DIMENSION = 64
"""Number of features up to which the dense D x D operators (D = 2,080) are formed."""


class SecondMoments:
    """The recursion of M = E[e'e] for one pool, ridge and batch size."""

    def __init__(self, population: Population, ridge: float, batch_size: int) -> None:
        if population.features > LARGEST_DIMENSION:
            raise ConfigError(
                f"the exact recursion takes up to {LARGEST_DIMENSION} features, not {population.features}"
            )
        self.batch_size = batch_size
        self.x = population.x.numpy()
        self.p = population.p
        d = population.features
        gram = self.x.T @ self.x / population.size
        regular = gram + ridge * np.eye(d)
        rows, columns = np.triu_indices(d)
        self._weights = np.where(rows == columns, 1.0, np.sqrt(2.0))
        self._rows, self._columns = rows, columns
        basis = self._matrices(np.eye(len(rows)))  # (D, d, d)
        outer = self._vectors(self.x[:, :, None] * self.x[:, None, :])  # (N, D)
        fourth = outer.T @ outer / population.size  # M -> E[(x'Mx) xx']
        both = self._vectors(basis @ gram + gram @ basis)
        sample = fourth + ridge * both + ridge**2 * np.eye(len(rows))  # M -> E[A M A]
        product = self._vectors(regular @ basis @ regular)  # M -> G M G
        self.first = self._vectors(basis @ regular + regular @ basis)  # M -> M G + G M
        self.second = sample / batch_size + (1 - 1 / batch_size) * product
        self._outer, self.gram = outer, gram

    def _vectors(self, matrices: np.ndarray) -> np.ndarray:
        return matrices[:, self._rows, self._columns] * self._weights

    def _matrices(self, vectors: np.ndarray) -> np.ndarray:
        d = self.x.shape[1]
        matrices = np.zeros((len(vectors), d, d))
        matrices[:, self._rows, self._columns] = matrices[:, self._columns, self._rows] = vectors / self._weights
        return matrices

    def _trace(self, vectors: np.ndarray) -> np.ndarray:
        return vectors @ (self._rows == self._columns)

    @cached_property
    def stability_limit(self) -> float:
        """Step size below which E|e|^2 stays bounded: smallest root of first M = alpha second M."""
        return 1 / scipy.linalg.eigh(self.second, self.first, eigvals_only=True)[-1]

    def operator(self, step_size: float) -> np.ndarray:
        """Linear part of the recursion, (D, D)."""
        return np.eye(len(self._rows)) - step_size * self.first + step_size**2 * self.second

    def source(self, supervision: Supervision, step_size: float) -> np.ndarray:
        """(alpha^2 / b) E[tr C(x) xx'], (D,)."""
        total = supervision.covariance(self.p).diagonal(dim1=-2, dim2=-1).sum(-1).numpy()  # (N,)
        return step_size**2 / self.batch_size * (total @ self._outer) / len(self.x)

    def fixed_point(self, supervision: Supervision, step_size: float) -> np.ndarray:
        """Stationary M (d, d).

        Raises:
            ConfigError: the step size is at or above the stability limit, which the message states.
        """
        if step_size >= self.stability_limit:
            raise ConfigError(
                f"step size {step_size:.4g} is not below the mean-square stability limit {self.stability_limit:.4g}"
            )
        system = step_size * self.first - step_size**2 * self.second
        solution = scipy.linalg.solve(system, self.source(supervision, step_size), assume_a="pos")
        return self._matrices(solution[None])[0]

    def curve(
        self, supervision: Supervision, step_size: float, initial_error: Tensor, steps: Sequence[int]
    ) -> np.ndarray:
        """E|e_t|^2 at the given increasing steps, started from the error e_0 (K, d)."""
        size = len(self._rows)
        affine = np.zeros((size + 1, size + 1))
        affine[:size, :size] = self.operator(step_size)
        affine[:size, size] = self.source(supervision, step_size)
        affine[size, size] = 1
        error = initial_error.to(torch.float64).numpy()
        moment = np.append(self._vectors((error.T @ error)[None])[0], 1.0)
        now, curve = 0, []
        for step in steps:
            moment = np.linalg.matrix_power(affine, step - now) @ moment
            now = step
            curve.append(self._trace(moment[:-1]))
        return np.array(curve)
