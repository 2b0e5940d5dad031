"""Contract of a supervision: a target q for each visit of x, with known conditional mean and covariance."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from kdsim import simplex
from kdsim.config import ConfigError, Configuration, python_numbers, require
from kdsim.population import Known
from kdsim.rng import Draws
from kdsim.supervision.declarations import require_class


@dataclass(frozen=True)
class Batch:
    """The visited pool points. Leading axes are (R, V): replicas and visits.

    Attributes:
        index: pool index, (R, V) int64.
        p: Bayes class probabilities, (R, V, K), or None.
        y: labels, (R, V) int64, or None.
        x: inputs, (R, V, ...), or None where the supervision does not look at them.
    """

    index: Tensor
    p: Known = None
    y: Known = None
    x: Known = None


@dataclass(frozen=True)
class Target:
    """What the student is taught: q (R, V, K), log-probabilities of S posterior samples where there are any, labels y.

    See `kdsim.supervision.checks.require_target` for what is refused.
    """

    q: Known = None
    log_probs: Known = None  # (S, R, V, K)
    y: Known = None


class Supervision(Configuration, ABC):
    """A noise model on the Bayes class probabilities. Implementations are frozen dataclasses.

    The level (the one field named by `level_field`, if any) may be replaced by a tensor of shape
    (R, 1): `sample` must broadcast it against p of shape (R, V, K). See `stacked`.
    """

    name: ClassVar[str]
    level_field: ClassVar[str | None] = None
    """The field that sets the amount of noise, or None."""
    unbiased: ClassVar[bool]
    """Whether E[q | x] = p(x)."""
    sums_to_one: ClassVar[bool] = True
    """Whether every target sums to one."""
    on_simplex: ClassVar[bool] = True
    """Whether every target lies in the simplex."""
    uses_x: ClassVar[bool] = False
    """Whether `sample` looks at the inputs; only then does an engine gather them."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Refuse a class whose level or flags are not what they must be, when it is read: see `require_class`."""
        super().__init_subclass__(**arguments)
        require_class(cls)

    @abstractmethod
    def sample(self, batch: Batch, draws: Draws) -> Target:
        """Draw a target for each visit; q is (R, V, K) in the dtype of batch.p."""

    @abstractmethod
    def mean(self, p: Tensor) -> Tensor:
        """E[q | p]. (..., K) -> (..., K)."""

    @abstractmethod
    def covariance(self, p: Tensor) -> Tensor:
        """Cov[q | p]. (..., K) -> (..., K, K)."""

    @property
    def level(self) -> float | None:
        """The amount of noise in the family's own parameter, or None where it has none."""
        return None if self.level_field is None else getattr(self, self.level_field)

    @property
    def noiseless(self) -> bool:
        """Whether q is a deterministic function of p."""
        return False

    @property
    def logit_scale(self) -> float | None:
        """c such that E[q | x] is the softmax of c log p(x): 1 for unbiased targets, None where there is no such c."""
        return 1.0 if self.unbiased else None

    def nu(self, p: Tensor) -> float:
        """Mean per-class variance E_x[tr C(x)] / K over the pool p (N, K)."""
        return simplex.mean_class_variance(self.covariance(p)).item()

    def largest_nu(self, p: Tensor) -> float:
        """Largest nu that the family reaches on the pool p (N, K)."""
        return self.nu(p)

    def with_nu(self, nu: float, p: Tensor) -> Self:
        """The member of the family whose mean per-class variance on the pool p (N, K) is `nu`.

        Raises:
            ConfigError: nu is negative, not finite or above `largest_nu`, which the message states,
                or the family has no level or is biased.
        """
        if not self.unbiased:
            raise ConfigError(f"{self.name} is biased: set its {self.level_field}, not nu")
        raise ConfigError(f"{self.name} has no level: its nu on this problem is {self.nu(p):.6g} and cannot be set")

    @classmethod
    def stacked(cls, supervisions: Sequence[Supervision], replicas: Sequence[int], device: torch.device) -> Supervision:
        """One supervision that serves several levels: its level is a (R, 1) tensor, R = sum of `replicas`.

        All `supervisions` are of one class and agree in every field but the level.
        """
        first = supervisions[0]
        if first.level_field is None:
            return first
        levels = torch.tensor([s.level for s in supervisions], dtype=torch.float64, device=device)
        stack = copy.copy(first)
        column = levels.repeat_interleave(torch.tensor(replicas, device=device))[:, None]  # (R, 1)
        object.__setattr__(stack, first.level_field, column)
        return stack


def require_nu_number(nu: object) -> None:
    """Refuse what is no number, of Python, numpy or torch."""
    number = python_numbers(nu)
    require(isinstance(number, (int, float)) and not isinstance(number, bool), "nu", nu, "a number")


def require_feasible(name: str, nu: float, largest: float, *, open_end: bool = False) -> None:
    """Refuse a nu outside [0, largest] (or [0, largest) with `open_end`), naming the largest feasible value."""
    require_nu_number(nu)
    inside = nu < largest if open_end else nu <= largest * (1 + 1e-12)
    if not (nu >= 0 and inside):  # also refuses NaN
        if largest == 0 and open_end:
            why = "every class probability of this problem is 0 or 1, and its labels have no noise"
            raise ConfigError(f"nu = {nu!r} is not feasible for {name}, nor any other: {why}; use exact")
        word = "below" if open_end else "at most"
        raise ConfigError(
            f"nu = {nu!r} is not feasible for {name}: must be >= 0 and {word} {largest:.6g} on this problem"
        )
