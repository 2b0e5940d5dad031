"""Stationary covariance of the linearised dynamics at every step size, and the limit of its mean-square stability.

Around the point that SGD aims at, e_{t+1} = e_t - alpha (H_B e_t + xi_B): H_B and xi_B are the means over a batch of
b samples, drawn with replacement, of the samples' Hessians H_x = s A_x (x) xx' + ridge I and noises of mean zero and
covariance Sg. A_x is the Hessian of the loss in the outputs for a target that sums to one and s the sum of the target,
with E s = 1 and E s^2 = `factor`. Since E e = 0, the stationary covariance S = E ee' solves

    H S + S H - (alpha/b) E[H_x S H_x] - alpha (1 - 1/b) H S H = (alpha/b) Sg,
    E[H_x S H_x] = factor E[(A_x S_x A_x) (x) xx'] + ridge (H_0 S + S H_0) + ridge^2 S,

S_x = (I (x) x') S (I (x) x) the covariance of the outputs (K, K), H_0 = H - ridge I. Only the part in xx' carries the
factor: the cross terms have E s. For least squares, whose dynamics are linear, the equation is exact.

Source: docs/theory.md. It keeps noise and Hessian at the optimum; what it leaves is in docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.conventions import LARGEST_CHANGE
from kdsim.population import Population
from kdsim.students.base import LinearStudent
from kdsim.theory.stationary import curvature
from kdsim.threads import one_thread

LARGEST_PARAMETERS = 1_024
"""Number of parameters K d up to which the equation is solved: it holds some twenty (K d, K d) matrices."""
LARGEST_TABLE = 10_000_000
"""Entries of the table of products x_i x_j, N d (d + 1) / 2, up to which the equation is solved."""
TOLERANCE = 1e-12
"""Relative residual at which conjugate gradients stop."""
LIMIT_TOLERANCE = 1e-8
"""Relative residual of the eigenvector that gives the stability limit; its eigenvalue is more accurate still."""
_MOST_ITERATIONS = 2_000
_DENSE = 400
"""Size of a matrix space up to which the stability limit comes from a dense eigenvalue problem."""


def solvable(population: Population) -> bool:
    """Whether the pool is within LARGEST_PARAMETERS and LARGEST_TABLE."""
    features = population.features
    table = population.size * features * (features + 1) // 2
    return population.classes * features <= LARGEST_PARAMETERS and table <= LARGEST_TABLE


@dataclass(frozen=True)
class Adjoint:
    """Solutions of the adjoint problems, which turn the noise of any supervision into its floors.

    Attributes:
        trace: Y with Op Y = I on the range of the Hessian, (D, D).
        risk: Y_0 with Op Y_0 = H_0 / 2, (D, D).
        scale: alpha / b.
    """

    trace: Tensor
    risk: Tensor
    scale: float

    def variance(self, noise: Tensor) -> float:
        """tr S = (alpha/b) <Y, Sg>; noise Sg (D, D)."""
        return self.scale * (self.trace * noise).sum().item()

    def excess_risk(self, noise: Tensor) -> float:
        """tr(H_0 S) / 2 = (alpha/b) <Y_0, Sg>; noise Sg (D, D)."""
        return self.scale * (self.risk * noise).sum().item()


class LinearisedMoments:
    """Second moments of the linearised dynamics of one student, pool, point theta (K, d), batch size and factor.

    Symmetric matrices S (D, D), D = K d, are held in the eigenbasis of H restricted to its range, (m, m).
    """

    def __init__(
        self, student: LinearStudent, population: Population, theta: Tensor, batch_size: int, factor: float = 1.0
    ) -> None:
        if not solvable(population):
            raise ConfigError(
                f"the second-order equation takes up to {LARGEST_PARAMETERS} parameters and {LARGEST_TABLE:,} products "
                f"x_i x_j of the pool, not {theta.numel()} and those of {population.size} points"
            )
        local = curvature(student, population, theta)
        keep = local.values > local.flat
        self.values, self.basis = local.values[keep], local.vectors[:, keep]  # (m,), (D, m)
        self.batch_size, self.factor, self.ridge = batch_size, factor, student.ridge
        self._pool = _pool(student, population, theta)
        self._roots = (self.values[:, None] + self.values[None, :]).sqrt()  # first^(1/2), (m, m)

    def sample(self, moments: Tensor) -> Tensor:
        """S -> E[H_x S H_x], (m, m) -> (m, m)."""
        rotated = self.basis @ moments @ self.basis.T
        fourth = self.basis.T @ self._pool.fourth(rotated) @ self.basis
        loss = self.values - self.ridge  # eigenvalues of H_0
        ridges = self.ridge * (loss[:, None] + loss[None, :]) + self.ridge**2
        return self.factor * fourth + ridges * moments

    def second(self, moments: Tensor) -> Tensor:
        """S -> E[H_B S H_B] = E[H_x S H_x] / b + (1 - 1/b) H S H, (m, m) -> (m, m)."""
        product = self.values[:, None] * self.values[None, :] * moments
        return self.sample(moments) / self.batch_size + (1 - 1 / self.batch_size) * product

    def scaled(self, moments: Tensor) -> Tensor:
        """first^(-1/2) second first^(-1/2), with first S = H S + S H. Self-adjoint on symmetric (m, m) -> (m, m)."""
        return self.second(moments / self._roots) / self._roots

    @cached_property
    def stability_limit(self) -> float:
        """Step size below which E|e|^2 of the linearised dynamics stays bounded: 1 / largest eigenvalue of `scaled`.

        E ee' obeys S -> S - alpha (first - alpha second) S, so it decays while first - alpha second is positive
        definite. Accuracy: relative residual LIMIT_TOLERANCE of the eigenvector.
        """
        m = len(self.values)
        if m == 0:  # nothing is curved, and nothing moves
            return float("inf")
        if m * m <= _DENSE:
            units = torch.eye(m * m, dtype=self.values.dtype).view(-1, m, m)
            matrix = torch.stack([self.scaled((unit + unit.T) / 2).flatten() for unit in units])
            return 1 / torch.linalg.eigvalsh(matrix)[-1].item()

        def apply(vector: np.ndarray) -> np.ndarray:
            moments = torch.from_numpy(vector.reshape(m, m))
            return self.scaled((moments + moments.T) / 2).numpy().ravel()

        operator = LinearOperator((m * m, m * m), matvec=apply, dtype=np.float64)
        # The largest eigenvector is a positive semidefinite matrix, so the identity has a part along it.
        start = np.eye(m).ravel()
        with one_thread():
            found = eigsh(operator, k=1, which="LA", v0=start, tol=LIMIT_TOLERANCE, ncv=12, return_eigenvectors=False)
        return 1 / float(found[0])

    def adjoint(self, step_size: float) -> Adjoint:
        """Solve Op Y = I and Op Y_0 = H_0 / 2, Op = first - alpha second, by conjugate gradients.

        Preconditioned by first, the eigenvalues of Op lie between 1 - alpha / stability_limit and 1.

        Raises:
            ConfigError: the step size is at or above the stability limit, which the message states.
        """
        trace = self.solve(torch.ones_like(self.values), step_size)
        risk = self.solve((self.values - self.ridge) / 2, step_size)
        return Adjoint(trace, risk, scale=step_size / self.batch_size)

    def solve(self, diagonal: Tensor, step_size: float) -> Tensor:
        """Solution of Op Y = V diag(diagonal) V' with V the eigenvectors of H; (m,) -> (D, D).

        Raises:
            ConfigError: see `adjoint`.
        """
        if step_size >= self.stability_limit:
            raise ConfigError(
                f"step size {step_size:.4g} is not below the linearised stability limit {self.stability_limit:.4g}"
            )
        with one_thread():
            solution = self._conjugate_gradients(torch.diag(diagonal) / self._roots, step_size) / self._roots
            return self.basis @ solution @ self.basis.T

    def _conjugate_gradients(self, right: Tensor, step_size: float) -> Tensor:
        """(1 - alpha scaled)^(-1) right, (m, m)."""
        solution, residual = torch.zeros_like(right), right.clone()
        direction, size = residual.clone(), residual.square().sum()
        enough = TOLERANCE**2 * size
        for _ in range(_MOST_ITERATIONS):
            if size <= enough:
                return solution
            image = direction - step_size * self.scaled(direction)
            rate = size / (direction * image).sum()
            solution += rate * direction
            residual -= rate * image
            size, previous = residual.square().sum(), size
            direction = residual + (size / previous) * direction
        raise RuntimeError(f"conjugate gradients did not converge in {_MOST_ITERATIONS} iterations")


def within_second_order(first: float, second: float) -> bool:
    """Whether a floor to first and to second order differ little enough for the second to be stated."""
    return second - first <= LARGEST_CHANGE * second


def one_factor(sum_squares: Tensor) -> bool:
    """Whether E[s^2 | x] (N,), s the sum of a target, is the same at every point to rounding."""
    return bool(sum_squares.max() - sum_squares.min() <= 1e-9 * sum_squares.max())


class _Pool:
    """Products x_i x_j of the pool and the Hessians A_x of the loss in the outputs, for sums over the pool."""

    def __init__(self, x: Tensor, hessians: Tensor) -> None:
        self.features, self.classes = x.shape[1], hessians.shape[-1]
        self.hessians = hessians  # (N, K, K)
        self.i, self.j = torch.triu_indices(self.features, self.features)
        self.k, self.l = torch.triu_indices(self.classes, self.classes)
        self.products = x[:, self.i] * x[:, self.j]  # (N, d (d + 1) / 2)
        self.weights = torch.where(self.i == self.j, 0.5, 1.0).to(x.dtype)
        self.pair = torch.empty(self.classes, self.classes, dtype=torch.int64)
        self.pair[self.k, self.l] = self.pair[self.l, self.k] = torch.arange(len(self.k))

    def outputs(self, moments: Tensor) -> Tensor:
        """S (D, D) -> S_x = (I (x) x') S (I (x) x) of every point, (N, K, K)."""
        K, d = self.classes, self.features
        blocks = moments.reshape(K, d, K, d)[self.k, :, self.l, :]  # (pairs, d, d)
        both = (blocks + blocks.mT)[:, self.i, self.j] * self.weights
        return (both @ self.products.T)[self.pair.flatten()].T.contiguous().view(-1, K, K)  # pairs first: twice as fast

    def fourth(self, moments: Tensor) -> Tensor:
        """S (D, D) -> E[(A_x S_x A_x) (x) xx'], (D, D)."""
        K, d = self.classes, self.features
        inner = self.hessians @ self.outputs(moments) @ self.hessians  # (N, K, K)
        upper = inner.view(-1, K * K).T[self.k * K + self.l]  # (pairs, N)
        sums = upper @ self.products / len(self.products)  # (pairs, d (d + 1) / 2)
        blocks = sums.new_empty(len(self.k), d, d)
        blocks[:, self.i, self.j] = blocks[:, self.j, self.i] = sums
        return blocks[self.pair].permute(0, 2, 1, 3).reshape(K * d, K * d)


@lru_cache(maxsize=2)  # keyed by identity of the population and of theta; the table of products may be large
def _pool(student: LinearStudent, population: Population, theta: Tensor) -> _Pool:
    return _Pool(population.x, student.output_hessian(population.x @ theta.T))


@lru_cache(maxsize=32)  # shared by all supervisions that aim at theta with one factor
def linearised_moments(
    student: LinearStudent, population: Population, theta: Tensor, batch_size: int, factor: float = 1.0
) -> LinearisedMoments:
    """`LinearisedMoments`, kept for the next call."""
    return LinearisedMoments(student, population, theta, batch_size, factor)


@lru_cache(maxsize=32)
def second_order(moments: LinearisedMoments, step_size: float) -> Adjoint:
    """`LinearisedMoments.adjoint`, kept for the next call."""
    return moments.adjoint(step_size)
