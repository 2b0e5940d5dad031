"""What an engine does with a gradient: the update rules, as mathematics on stacked parameters.

Parameters, gradients and buffers are (R, ...), one replica a row, and each replica has a step size of its own. An
optimiser carries constants only; what it remembers between steps are buffers that the caller holds. Each rule is,
step by step, that of the class of torch.optim that it names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from kdsim.config import ConfigError, Configuration, require, require_between, require_positive

HELD = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
"""Positive numbers that float32 holds without loss."""


def require_held(what: str, value: float) -> None:
    """Refuse anything but a number > 0 that float32 holds."""
    require_positive(what, value)
    require_between(what, value, *HELD)


@dataclass(frozen=True)
class Optimiser(Configuration, ABC):
    """An update rule.

    Attributes:
        weight_decay: lambda >= 0; by default added to the gradient as lambda theta, like an ordinary ridge.
    """

    weight_decay: float = field(default=0.0, kw_only=True)

    name: ClassVar[str]
    buffer_names: ClassVar[tuple[str, ...]]
    """The buffers that `update` may ask for, each of the parameters' shape and zero at the start."""

    def __post_init__(self) -> None:
        require_between("weight_decay", self.weight_decay, 0, float("inf"), "[)")
        require_between("weight_decay", self.weight_decay, 0, HELD[1])

    @property
    def plain(self) -> bool:
        """Whether an update is parameters - step_size * gradient and nothing else."""
        return False

    def buffers(self, parameters: Tensor) -> dict[str, Tensor]:
        """The buffers before the first step."""
        return {name: torch.zeros_like(parameters) for name in self.buffer_names}

    def for_training(self, images: int, steps: int) -> Optimiser:
        """The rule of one training: what it has left open to it, its training images and steps say, is filled in."""
        return self

    def posterior(self, parameters: Tensor, buffers: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """What it says of the weights beside their values, for an optimiser that holds a posterior over them."""
        return {}

    @abstractmethod
    def update(
        self,
        parameters: Tensor,
        gradient: Tensor,
        buffers: dict[str, Tensor],
        step_size: Tensor,
        step: int,
        origin: Tensor | None = None,
    ) -> None:
        """One step, in place; the gradient is used up.

        Args:
            parameters: theta - origin, (R, ...).
            gradient: of the objective at theta, (R, ...).
            buffers: what `buffers` gave, updated in place.
            step_size: (R, 1, ...), which broadcasts against the parameters; the schedule's factor included.
            step: number of the step, 0 the first.
            origin: point that the parameters are measured from, zero if None: weight decay pulls theta itself.
        """


@dataclass(frozen=True)
class WeightSampler(Optimiser):
    """An optimiser that holds a posterior over the weights, and takes each gradient at a draw from it.

    Before a forward pass the buffer "noise" is drawn from N(0, std^2) and added to the parameters; after the backward
    pass they are the mean again, and `update` finds in "noise" what was added.

    Attributes:
        ess: effective sample size, the number of images that the mean loss stands for, > 0: the more, the narrower the
            posterior. None: the training images.
    """

    ess: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ess is not None:
            require_positive("ess", self.ess)

    @property
    def sample_size(self) -> float:
        """The effective sample size, which a training or the caller has said."""
        if self.ess is None:
            raise ConfigError("ess = None is not allowed: must be a number outside a training")
        return self.ess

    def for_training(self, images: int, steps: int) -> Self:
        return self if self.ess is not None else replace(self, ess=float(images))

    @abstractmethod
    def std(self, parameters: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        """Standard deviation of each weight under the present posterior. (R, ...)."""

    def posterior(self, parameters: Tensor, buffers: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        return {"std": self.std(parameters, buffers).cpu().clone()}


def theta_of(parameters: Tensor, origin: Tensor | None) -> Tensor:
    """The sum, before anything scales it: what is zero stays exactly zero, where Adam would scale rounding up."""
    return parameters if origin is None else parameters + origin


@dataclass(frozen=True)
class GradientDescent(Optimiser):
    """Gradient descent, with heavy-ball or Nesterov's momentum: torch.optim.SGD.

    g <- g + lambda theta, v <- momentum v + g, theta <- theta - step_size (g + momentum v with `nesterov`, v without).

    Attributes:
        momentum: in [0, 1).
        nesterov: step along g + momentum v.

    Source: I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013, in
    torch's form, where v does not contain the step size.
    """

    momentum: float = 0.0
    nesterov: bool = False

    name: ClassVar[str] = "gradient-descent"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between("momentum", self.momentum, 0, 1, "[)")
        require(self.momentum > 0 or not self.nesterov, "nesterov", self.nesterov, "False without momentum")

    @property
    def plain(self) -> bool:
        return self.momentum == 0 and self.weight_decay == 0

    @property
    def buffer_names(self) -> tuple[str, ...]:  # type: ignore[override]  # here it depends on the configuration
        return ("velocity",) if self.momentum else ()

    def update(
        self,
        parameters: Tensor,
        gradient: Tensor,
        buffers: dict[str, Tensor],
        step_size: Tensor,
        step: int,
        origin: Tensor | None = None,
    ) -> None:
        if self.weight_decay:
            gradient.add_(theta_of(parameters, origin), alpha=self.weight_decay)
        if self.momentum:
            velocity = buffers["velocity"].mul_(self.momentum).add_(gradient)
            gradient = gradient.add_(velocity, alpha=self.momentum) if self.nesterov else velocity
        parameters.addcmul_(gradient, step_size, value=-1)


@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam, and with `decoupled` AdamW: torch.optim.Adam and torch.optim.AdamW.

    m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2, and after t steps
    theta <- theta - step_size (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon).
    Weight decay: g <- g + lambda theta, or with `decoupled` theta <- (1 - step_size lambda) theta before the step.

    Attributes:
        beta1, beta2: decay of the two means, in [0, 1).
        epsilon: added to the denominator, > 0.
        decoupled: weight decay acts on theta rather than through the gradient.

    Source: D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1; I. Loshchilov,
    F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decoupled: bool = False

    name: ClassVar[str] = "adam"
    buffer_names: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between("beta1", self.beta1, 0, 1, "[)")
        require_between("beta2", self.beta2, 0, 1, "[)")
        require_held("epsilon", self.epsilon)  # as 0 in float32 it would divide a zero gradient by zero

    def update(
        self,
        parameters: Tensor,
        gradient: Tensor,
        buffers: dict[str, Tensor],
        step_size: Tensor,
        step: int,
        origin: Tensor | None = None,
    ) -> None:
        if self.weight_decay and self.decoupled:
            parameters.addcmul_(theta_of(parameters, origin), step_size, value=-self.weight_decay)
        elif self.weight_decay:
            gradient.add_(theta_of(parameters, origin), alpha=self.weight_decay)
        first = buffers["first_moment"].lerp_(gradient, 1 - self.beta1)
        second = buffers["second_moment"].mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        # The correction of the second moment is applied to its root, and that of the first to the step size.
        root = torch.sqrt(second, out=gradient).div_((1 - self.beta2 ** (step + 1)) ** 0.5).add_(self.epsilon)
        ratio = torch.div(first, root, out=gradient)
        parameters.addcmul_(ratio, step_size, value=-1 / (1 - self.beta1 ** (step + 1)))
