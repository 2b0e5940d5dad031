"""Contract of a student that is not linear in its parameters, held as one flat vector (P,) a replica.

The objective of a student with outputs z = outputs(parameters, x), target q and loss l in the outputs is
E l(z, q) + (ridge / 2) |parameters|^2. It has no closed forms: `kdsim.theory.estimators` estimates its constants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from kdsim.config import Configuration, require, require_between
from kdsim.population import LARGEST, Population
from kdsim.rng import Draws, Stream
from kdsim.students.base import LinearStudent, RidgeKind
from kdsim.students.softmax_regression import SoftmaxRegression

POOL_NUMBERS = 1 << 20
"""Numbers of a layer's outputs that `NetworkStudent.pool_outputs` holds at once, about."""
AddGradient = Callable[[Tensor, Tensor, Tensor], None]
"""Adds rate * gradient of every replica's objective on its batch: x (R, b, d), q (R, b, K), rate (R, 1)."""


@dataclass(frozen=True)
class NetworkStudent(Configuration, ABC):
    """A student with a flat parameter vector and an ordinary ridge.

    Attributes:
        ridge: lambda >= 0 of the ordinary ridge (lambda/2)|parameters|^2, biases included.
    """

    ridge: float = field(default=0.0, kw_only=True)

    name: ClassVar[str]
    head: ClassVar[LinearStudent]
    """The loss in the outputs and its derivatives (`loss`, `output_gradient`, `output_hessian`, `output_noise`,
    `probabilities`, `compare`): softmax regression's for cross-entropy, least squares' for squared error."""

    def __init_subclass__(cls, **arguments: object) -> None:
        """What was written by hand is not inherited by a class with outputs, or an objective, of its own."""
        super().__init_subclass__(**arguments)
        if "gradient_adder" not in vars(cls) and not {"outputs", "objective"}.isdisjoint(vars(cls)):
            cls.gradient_adder = NetworkStudent.gradient_adder  # type: ignore[method-assign]  # what is not inherited
        if "pool_outputs" not in vars(cls) and "outputs" in vars(cls):
            cls.pool_outputs = NetworkStudent.pool_outputs  # type: ignore[method-assign]  # what is not inherited

    def __post_init__(self) -> None:
        require_between("ridge", self.ridge, 0, float("inf"), "[)")
        require(self.ridge <= LARGEST, "ridge", self.ridge, f"at most {LARGEST:g}")

    @property
    def ridge_kind(self) -> RidgeKind:
        """As of a linear student."""
        return "ordinary" if self.ridge else "none"

    @abstractmethod
    def shapes(self, features: int, classes: int) -> list[tuple[tuple[int, ...], float]]:
        """Shape of each block of parameters in the order of the flat vector, and its standard deviation at the start.

        A block with deviation 0 starts at zero.
        """

    @abstractmethod
    def outputs(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Outputs of one replica. (P,), (b, d) -> (b, K)."""

    def pool_outputs(self, parameters: Tensor, x: Tensor, classes: int) -> Tensor:
        """Outputs of every replica at every point of a pool, some replicas at a time. (R, P), (N, d) -> (R, N, K).

        A student whose outputs are a few products of matrices may write them by hand.
        """
        widest = max(shape[0] for shape, _ in self.shapes(x.shape[-1], classes))
        outputs = torch.func.vmap(self.outputs, (0, None))
        parts = parameters.split(max(1, POOL_NUMBERS // (len(x) * widest)))
        return torch.cat([outputs(part, x) for part in parts])

    def linear_map(self, parameters: Tensor, features: int) -> Tensor | None:
        """W (..., K, d) with outputs W x of a student that is linear in x, from (..., P); None for others."""
        return None

    def reference(self, population: Population) -> Tensor:
        """W* (K, d), from which the squared distance |W - W*|^2 of the linear map is measured.

        NaN for a student that is not linear in x: it has no unique optimum, and no distance.
        """
        return population.x.new_full((population.classes, population.features), float("nan"))

    def size(self, features: int, classes: int) -> int:
        """Number of parameters P."""
        return sum(torch.Size(shape).numel() for shape, _ in self.shapes(features, classes))

    def initial(self, features: int, classes: int, seed: Tensor, replica: Tensor) -> Tensor:
        """Independent normal starts, (R, P) float64, a function of (seed, replica) alone.

        Args:
            seed, replica: int64, (R, 1).
        """
        blocks = self.shapes(features, classes)
        scale = torch.cat([torch.full(shape, deviation, dtype=torch.float64).flatten() for shape, deviation in blocks])
        visit = torch.arange(len(scale), device=seed.device)[None]
        draws = Draws(seed, replica, visit, Stream.INIT, torch.float64, start=0)
        return draws.normal(0) * scale.to(seed.device)

    def best_outputs(self, p: Tensor) -> Tensor:
        """Outputs whose prediction is p (N, K): log p for cross-entropy (p below 1e-300 cut off), p otherwise."""
        return p.clamp(min=1e-300).log() if isinstance(self.head, SoftmaxRegression) else p

    def objective(self, parameters: Tensor, x: Tensor, q: Tensor) -> Tensor:
        """Mean loss over a batch plus the ridge. (P,), (b, d), (b, K) -> ()."""
        value = self.head.loss(self.outputs(parameters, x), q).mean()
        return value + self.ridge / 2 * parameters.square().sum() if self.ridge else value

    def gradient_adder(self, parameters: Tensor, into: Tensor, features: int, classes: int) -> AddGradient:
        """A function that adds rate * gradient at `parameters` to `into`, both (R, P), in place.

        `into` may be `parameters` themselves: with rate = -step_size that is a step of SGD. By default the gradients
        are those of `objective` by torch.func; a student whose gradients are a few products of matrices may write
        them by hand, which saves the graph and, where `into` is `parameters`, ever having the gradient in memory.
        """
        gradient = torch.func.vmap(torch.func.grad(self.objective))

        def add(x: Tensor, q: Tensor, rate: Tensor) -> None:
            into.addcmul_(gradient(parameters, x, q), rate)

        return add


def unflatten(parameters: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Cut (..., P) into blocks (..., *shape), views where the last axis is contiguous."""
    sizes = [torch.Size(shape).numel() for shape in shapes]
    parts = parameters.split(sizes, -1)
    return [part.reshape(*parameters.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]


def add_outer(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total (R, m, n) += sum over the batch of left (R, b, m) times right (R, b, n), in place."""
    if left.shape[1] == 1:
        total.addcmul_(left.transpose(1, 2), right)  # one pass; a product of matrices takes half as long again
    else:
        total.baddbmm_(left.transpose(1, 2), right)
