"""Exact second moments of SGD on least squares, at every step size.

With e = W - W*, A(x) = xx' + ridge I, G = E A and a pool sampled with replacement, M_t = E[e'e] (d, d) obeys

    M_{t+1} = M - alpha (M G + G M) + alpha^2 [ (1/b) E[A M A] + (1 - 1/b) G M G ] + (alpha^2 / b) E[tr C(x) xx'],

for fresh unbiased targets and no or a centred ridge. tr M_t is the expected curve of the squared distance, the fixed
point its floor, and spectral radius one the limit of mean-square stability. The expected excess risk, without the
ridge, is tr(E[xx'] M_t) / 2. Source: docs/theory.md.

Where E xx' is singular (features in a subspace, fewer samples than features), e splits into a part in the span of the
pool, on which the recursion acts, and a part orthogonal to it, which is (1 - alpha ridge)^t times its start: no sample
moves it. M is therefore held in coordinates of the span, r of them, in which E xx' is diagonal and positive definite.

Symmetric matrices are written in an orthonormal basis of D = r (r + 1) / 2 coordinates, in which every operator here
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
from kdsim.theory.constants import input_range

LARGEST_DIMENSION = 64
"""Rank of E xx' up to which the dense D x D operators (D = 2,080) are formed."""


class SecondMoments:
    """The recursion of M = E[e'e] for one pool, ridge and batch size.

    Raises:
        ConfigError: the rank of E xx' is above LARGEST_DIMENSION.
    """

    def __init__(self, population: Population, ridge: float, batch_size: int) -> None:
        values, span = input_range(population.x)
        rank = len(values)
        if rank > LARGEST_DIMENSION:
            raise ConfigError(f"the exact recursion takes inputs of rank up to {LARGEST_DIMENSION}, not {rank}")
        self.batch_size, self.ridge = batch_size, ridge
        self.span = span.numpy()  # (d, r), orthonormal columns
        self.x = (population.x @ span).numpy()  # (N, r)
        self.p = population.p
        gram = np.diag(values.numpy())
        regular = gram + ridge * np.eye(rank)
        rows, columns = np.triu_indices(rank)
        self._weights = np.where(rows == columns, 1.0, np.sqrt(2.0))
        self._rows, self._columns = rows, columns
        basis = self._matrices(np.eye(len(rows)))  # (D, r, r)
        outer = self._vectors(self.x[:, :, None] * self.x[:, None, :])  # (N, D)
        fourth = outer.T @ outer / population.size  # M -> E[(x'Mx) xx']
        both = self._vectors(basis @ gram + gram @ basis)
        sample = fourth + ridge * both + ridge**2 * np.eye(len(rows))  # M -> E[A M A]
        product = self._vectors(regular @ basis @ regular)  # M -> G M G
        self.first = self._vectors(basis @ regular + regular @ basis)  # M -> M G + G M
        self.second = sample / batch_size + (1 - 1 / batch_size) * product
        self._outer, self._gram = outer, self._vectors(gram[None])[0]
        self._last: tuple[float, tuple[np.ndarray, np.ndarray]] | None = None

    def _vectors(self, matrices: np.ndarray) -> np.ndarray:
        return matrices[:, self._rows, self._columns] * self._weights

    def _matrices(self, vectors: np.ndarray) -> np.ndarray:
        d = self.x.shape[1]
        matrices = np.zeros((len(vectors), d, d))
        matrices[:, self._rows, self._columns] = matrices[:, self._columns, self._rows] = vectors / self._weights
        return matrices

    @property
    def _identity(self) -> np.ndarray:
        """I in coordinates, (D,): the inner product with it is the trace."""
        return (self._rows == self._columns).astype(float)

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
        """Stationary M (d, d) of the part of e in the span of the pool; its trace is the floor of SGD started there.

        Raises:
            ConfigError: the step size is at or above the stability limit, which the message states.
        """
        return self.span @ self._matrices(self._stationary(supervision, step_size)[None])[0] @ self.span.T

    def excess_risk(self, supervision: Supervision, step_size: float) -> float:
        """Stationary excess risk without the ridge, tr(E[xx'] M) / 2; raises as `fixed_point` does."""
        return float(self._gram @ self._stationary(supervision, step_size)) / 2

    def _stationary(self, supervision: Supervision, step_size: float) -> np.ndarray:
        if step_size >= self.stability_limit:
            raise ConfigError(
                f"step size {step_size:.4g} is not below the mean-square stability limit {self.stability_limit:.4g}"
            )
        system = step_size * self.first - step_size**2 * self.second
        return scipy.linalg.solve(system, self.source(supervision, step_size), assume_a="pos")  # (D,)

    def curve(
        self, supervision: Supervision, step_size: float, initial_error: Tensor, steps: Sequence[int]
    ) -> np.ndarray:
        """E|e_t|^2 at the given steps, started from the error e_0 (K, d). (T,)."""
        error = initial_error.to(torch.float64).numpy()
        outside = np.square(error - error @ self.span @ self.span.T).sum()  # no sample moves this part
        kept = (1 - step_size * self.ridge) ** (2 * np.asarray(steps, dtype=float))
        return self._moments(supervision, step_size, error, steps) @ self._identity + outside * kept

    def risk_curve(
        self, supervision: Supervision, step_size: float, initial_error: Tensor, steps: Sequence[int]
    ) -> np.ndarray:
        """E of the excess risk without the ridge, tr(E[xx'] M_t) / 2, at the given steps. (T,)."""
        error = initial_error.to(torch.float64).numpy()
        return self._moments(supervision, step_size, error, steps) @ self._gram / 2

    def _moments(
        self, supervision: Supervision, step_size: float, error: np.ndarray, steps: Sequence[int]
    ) -> np.ndarray:
        """M_t in coordinates, (T, D): along each eigenvector of the operator, of eigenvalue 1 - r,

        (1 - r)^t m_0 + (1 - (1 - r)^t) / r times the source. For small r the powers come from log1p and expm1.
        """
        rates, vectors = self._rates(step_size)  # (D,), (D, D)
        inside = error @ self.span  # (K, r)
        start = self._vectors((inside.T @ inside)[None])[0] @ vectors
        source = self.source(supervision, step_size) @ vectors
        time = np.asarray(steps, dtype=float)[:, None]
        slow = rates < 0.5
        logs = np.log1p(-np.where(slow, rates, 0.0))
        with np.errstate(over="ignore", invalid="ignore"):  # above the stability limit moments run to infinity
            power = np.where(slow, np.exp(time * logs), np.where(slow, 0.0, 1 - rates) ** time)
            gone = np.where(slow, -np.expm1(time * logs), 1 - power)
            ratio = np.where(rates == 0, time, gone / np.where(rates == 0, 1.0, rates))
            return (power * start + ratio * source) @ vectors.T

    def _rates(self, step_size: float) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues and eigenvectors of the operator's distance from one, kept for the next call."""
        if self._last is None or self._last[0] != step_size:
            self._last = step_size, np.linalg.eigh(step_size * self.first - step_size**2 * self.second)
        return self._last[1]
