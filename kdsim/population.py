"""A finite pool of inputs with known Bayes class probabilities: the population of a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdsim import simplex
from kdsim.config import ConfigError

LARGEST = 1e50
"""Largest size of an input, a parameter, a ridge or a variance, and 1 / LARGEST the smallest of a pool's largest input:
theory multiplies fourth powers of inputs with a variance, and float64 ends at 1e308."""
STEP_SIZES = 1e-150, 1e150
"""Step sizes whose squares float64 holds; theory has them."""
ROUNDING = 1e-12
"""A class probability down to -ROUNDING is zero up to rounding (1 minus the sum of the others, say), and becomes 0."""

Known = Tensor | Any
"""A tensor, or None where nobody knows it. Type checkers take it for a tensor (typeshed's "Any trick"): nearly all code
runs where it is known, after a check at one place, such as `require_points`."""


@dataclass(frozen=True, eq=False)  # compared and cached by identity: it holds tensors
class Population:
    """A finite pool, which IS the population: risk, optimum and constants are exact sums over it.

    Attributes:
        x: inputs as the student sees them (standardised, bias column included), (N, d) float64.
        p: exact Bayes class probabilities, (N, K) float64, or None where nobody knows them. Rows sum to one to 1e-6.
        y: labels in 0 .. K-1, (N,) int64, or None.
        optimum: parameters of a student that is exactly p (theta_star, rows centred for softmax), (K, d), or None.

    Raises:
        ConfigError: a tensor of another form, an entry that is no number or too large to compute with, or p off the
            simplex. `require_points` looks at types and labels.
    """

    x: Tensor
    p: Known = None
    y: Known = None
    optimum: Known = None

    def __post_init__(self) -> None:
        _require_tensors(self)
        _require_inputs(self.x)
        if self.p is not None:
            if self.p.ndim != 2 or self.p.shape[1] == 0 or not self.p.is_floating_point():
                raise ConfigError(f"population: p is {_form(self.p)}: must be (N, K) of floating point, K >= 1")
            if self.p.shape[0] != self.x.shape[0]:
                raise ConfigError(f"population: x has {self.x.shape[0]} rows but p has {self.p.shape[0]}")
            object.__setattr__(self, "p", _without_rounding(self.p))
            try:
                simplex.require_simplex(self.p)
            except ValueError as error:
                raise ConfigError(f"population: {error}") from None
        if self.optimum is not None:
            _require_optimum(self.optimum, self.x, self.p)

    def points(self, block: slice) -> Population:
        """Some of the points as a population of their own."""
        p, y = (None if table is None else table[block] for table in (self.p, self.y))
        return Population(self.x[block], p, y, self.optimum)

    def to(self, device: torch.device | str) -> Population:
        """The same on a device."""
        p, y, optimum = (None if table is None else table.to(device) for table in (self.p, self.y, self.optimum))
        return Population(self.x.to(device), p, y, optimum)

    @property
    def size(self) -> int:
        """Number of pool points N."""
        return self.x.shape[0]

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return self.p.shape[1]

    @property
    def features(self) -> int:
        """Number of features d, the bias column included."""
        return self.x.shape[1]

    @property
    def mean_entropy(self) -> float:
        """E_x[H(p(x))] in nats: the smallest risk that any student can reach."""
        return simplex.entropy(self.p).mean().item()


def require_points(population: object) -> None:
    """Refuse what is no pool of points (N, d) float64 with class probabilities (N, K) float64 and labels below K."""
    if not isinstance(population, Population):
        raise ConfigError(f"the problem's pool is {population!r}: must be a Population")
    if population.p is None:
        raise ConfigError("the problem's pool has no p: a student of the engines needs class probabilities")
    if population.x.ndim != 2:
        raise ConfigError(f"the problem's pool has x of shape {tuple(population.x.shape)}: must be (N, d)")
    for name in ("x", "p", "optimum"):
        tensor = getattr(population, name)
        if tensor is not None and tensor.dtype != torch.float64:
            found = f"{name} in {_dtype(tensor)}"
            raise ConfigError(f"the problem's pool has {found}: must be float64, whatever sgd.dtype is")
    y, size, classes = population.y, population.size, population.classes
    if y is None:
        return
    if y.dtype != torch.int64 or tuple(y.shape) != (size,):
        raise ConfigError(f"the problem's pool has y of form {_form(y)}: must be ({size},) int64, a class a point")
    low, high = (end.item() for end in y.aminmax())
    if low < 0 or high >= classes:
        worst = low if low < 0 else high
        raise ConfigError(f"the problem's pool has the label {worst}: must be from 0 to {classes - 1}")


def _require_tensors(population: Population) -> None:
    for name, value in vars(population).items():
        if not isinstance(value, Tensor) and not (value is None and name != "x"):
            raise ConfigError(f"population: {name} is a {type(value).__name__}: must be a torch.Tensor")


def _require_inputs(x: Tensor) -> None:
    """Refuse inputs without points or features, and those whose fourth powers leave float64."""
    if x.ndim < 2 or x.numel() == 0:
        raise ConfigError(f"population: x is {_form(x)}: must be (N, d), or (N, channels, height, width), none 0")
    if x.dtype == torch.uint8:  # images
        return
    if not torch.isfinite(x).all():
        raise ConfigError(f"population: x has entries that are not finite, in {_dtype(x)}")
    low, high = x.aminmax()
    largest = max(-low.item(), high.item())
    if not (largest == 0 or 1 / LARGEST <= largest <= LARGEST):
        allowed = f"at most {LARGEST:g} and, unless all are 0, at least {1 / LARGEST:g}"
        raise ConfigError(f"population: the largest entry of x is {largest:.3g} in size: must be {allowed}")


def _without_rounding(p: Tensor) -> Tensor:
    """p with entries that are negative by rounding set to zero."""
    low = p.min() if p.numel() else 0
    return p.clamp(min=0) if -ROUNDING <= low < 0 else p


def _require_optimum(optimum: Tensor, x: Tensor, p: Tensor | None) -> None:
    expected = (optimum.shape[0] if p is None else p.shape[1], x.shape[1])
    if tuple(optimum.shape) != expected or not optimum.is_floating_point():
        raise ConfigError(f"population: optimum is {_form(optimum)}: must be {expected}, classes by features")
    if not (optimum.abs() <= LARGEST).all():  # also NaN
        raise ConfigError(f"population: optimum has entries that are not finite numbers of size <= {LARGEST:g}")


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {_dtype(tensor)}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
