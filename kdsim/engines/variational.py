"""Optimisers that hold a Gaussian posterior over the weights, each weight independent: N(m, diag(std^2)).

Both minimise E[loss(theta)] + KL(N(m, diag(std^2)), prior) / ess over m and std, from gradients at draws
theta = m + noise (`WeightSampler`). With loss the mean negative log-likelihood of N images and ess = N this is the
negative evidence lower bound over N. A posterior is over all parameters, biases and those of BatchNorm included.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import softplus

from kdsim.config import ConfigError, require, require_between, require_count, require_positive
from kdsim.engines.optimisers import Adam, Optimiser, WeightSampler, require_held, theta_of

LARGEST_STD = 80.0
"""Largest first standard deviation of a weight: float32 ends at exp(88), and rho is log(exp(std) - 1)."""


@dataclass(frozen=True)
class IVON(WeightSampler):
    """Improved variational online Newton: natural-gradient steps on mean and precision at the cost of Adam.

    With gradient g at theta = m + noise, std^2 = 1 / (ess (h + delta)), delta = `weight_decay`, after t steps

        momentum <- beta1 momentum + (1 - beta1) g
        h <- beta2 h + (1 - beta2) f + (1 - beta2)^2 (h - f)^2 / (2 (h + delta)),  f = g noise / std^2
        m <- m - step_size (hess_init + delta) (momentum / (1 - beta1^t) + delta m) / (h + delta).

    f has the mean of the Hessian's diagonal (Price's theorem) and may be negative; the last term keeps h + delta
    positive. The prior is N(0, 1 / (ess delta)). The factor hess_init + delta makes the first step one of SGD of that
    step size (algorithm 1, optional scaling).

    Attributes:
        weight_decay: delta > 0; 2e-4 if not given.
        hess_init: first h, > 0: the first std is 1 / sqrt(ess (hess_init + delta)).
        hess_init_ess: number of images with which `hess_init` was chosen, > 0. A training on another number starts
            from h = hess_init hess_init_ess / ess, so that the first std is (but for delta) the one that was chosen: h
            changes over some 1 / (1 - beta2) steps, and without this a small data set is trained under a noise that
            drowns it. None: `hess_init` as it is.
        beta1, beta2: decay of momentum and of h, in [0, 1).
        clip_radius: largest ratio (momentum + delta m) / (h + delta), in absolute value; None: no limit.

    Source: Y. Shen et al., "Variational learning is effective for large deep networks", ICML 2024, arXiv:2402.17641,
    algorithm 1. One draw a step.
    """

    weight_decay: float = field(default=2e-4, kw_only=True)
    hess_init: float = 0.5
    hess_init_ess: float | None = None
    beta1: float = 0.9
    beta2: float = 0.99999
    clip_radius: float | None = None

    name: ClassVar[str] = "ivon"
    buffer_names: ClassVar[tuple[str, ...]] = ("noise", "momentum", "hessian")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("weight_decay", self.weight_decay)
        require_held("hess_init", self.hess_init)
        if self.hess_init_ess is not None:
            require_positive("hess_init_ess", self.hess_init_ess)
        require_between("beta1", self.beta1, 0, 1, "[)")
        require_between("beta2", self.beta2, 0, 1, "[)")
        if self.clip_radius is not None:
            require_held("clip_radius", self.clip_radius)

    def for_training(self, images: int, steps: int) -> Self:
        filled = super().for_training(images, steps)
        if self.hess_init_ess is None:
            return filled
        return replace(filled, hess_init=self.hess_init * self.hess_init_ess / filled.sample_size, hess_init_ess=None)

    def buffers(self, parameters: Tensor) -> dict[str, Tensor]:
        return super().buffers(parameters) | {"hessian": torch.full_like(parameters, self.hess_init)}

    def std(self, parameters: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        return (buffers["hessian"] + self.weight_decay).mul_(self.sample_size).rsqrt_()

    def update(
        self,
        parameters: Tensor,
        gradient: Tensor,
        buffers: dict[str, Tensor],
        step_size: Tensor,
        step: int,
        origin: Tensor | None = None,
    ) -> None:
        delta, hessian = self.weight_decay, buffers["hessian"]
        momentum = buffers["momentum"].lerp_(gradient, 1 - self.beta1)
        curvature = hessian + delta  # h + delta, which is 1 / (ess std^2)
        seen = gradient.mul_(buffers["noise"]).mul_(curvature).mul_(self.sample_size)  # f
        # h + delta gets a factor 1 + u + u^2 / 2 >= 1 / 2, u = (1 - beta2) (f - h) / (h + delta).
        change = seen.sub_(hessian).mul_(1 - self.beta2).div_(curvature)
        hessian.addcmul_(curvature, change.addcmul_(change, change, value=0.5))
        direction = momentum / (1 - self.beta1 ** (step + 1))
        direction.add_(theta_of(parameters, origin), alpha=delta).div_(hessian + delta)
        if self.clip_radius is not None:
            direction.clamp_(-self.clip_radius, self.clip_radius)
        parameters.addcmul_(direction, step_size, value=-(self.hess_init + delta))


@dataclass(frozen=True)
class MeanField(WeightSampler):
    """Bayes by backprop: mean and rho are moved by an ordinary rule along reparametrised gradients.

    std = log(1 + e^rho), prior N(0, prior_std^2). With gradient g at theta = m + noise and w = a kl_weight / ess,

        gradient in m:    g + w m / prior_std^2
        gradient in std:  g noise / std + w (std / prior_std^2 - 1 / std), times d std / d rho = 1 / (1 + e^-rho).

    The annealing factor a is 0 up to `annealing_start`, rises linearly, and is 1 from `annealing_end` on. With
    kl_weight = 1 the posterior is Bayes' (the best of its family); of a network with many more weights than images it
    then tends to be the prior, and published codes take far smaller weights. The defaults of the annealing are the
    Bayesian teachers': of 200 epochs 100 on the likelihood alone, then 50 of annealing.

    Attributes:
        prior_std: standard deviation of the prior, > 0.
        std_init: of the posterior at the start, > 0.
        kl_weight: on the divergence, > 0.
        annealing_start, annealing_end: fractions of the run, 0 <= start <= end <= 1.
        rule: what moves m and rho, with the recipe's step size. It has no weight decay: that is the prior's part.
        steps: of the whole run, for the annealing; None: what the training says.

    Source: C. Blundell et al., "Weight uncertainty in neural networks", ICML 2015, arXiv:1505.05424, section 3.2, with
    the closed KL of two Gaussians; annealing as in I. Morad, N. Shlezinger, Y. C. Eldar, arXiv:2601.01484.
    """

    prior_std: float = 1.0
    std_init: float = 0.01
    kl_weight: float = 1.0
    annealing_start: float = 0.5
    annealing_end: float = 0.75
    rule: Optimiser = field(default_factory=Adam)
    steps: int | None = None

    name: ClassVar[str] = "mean-field"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.weight_decay == 0, "weight_decay", self.weight_decay, "0: prior_std has this part")
        for what in ("prior_std", "std_init", "kl_weight"):
            require_held(what, getattr(self, what))
        require(self.std_init <= LARGEST_STD, "std_init", self.std_init, f"at most {LARGEST_STD:g}")
        require_between("annealing_end", self.annealing_end, 0, 1)
        require_between("annealing_start", self.annealing_start, 0, self.annealing_end)
        plain = not isinstance(self.rule, WeightSampler)
        require(plain, "rule", self.rule, "an Optimiser that draws no weights")
        require(self.rule.weight_decay == 0, "rule.weight_decay", self.rule.weight_decay, "0: prior_std has this part")
        if self.steps is not None:
            require_count("steps", self.steps)

    @property
    def buffer_names(self) -> tuple[str, ...]:  # type: ignore[override]  # here it depends on the configuration
        return ("noise", "rho", *(f"{part} {name}" for part in ("mean", "rho") for name in self.rule.buffer_names))

    def buffers(self, parameters: Tensor) -> dict[str, Tensor]:
        rho = torch.full_like(parameters, self.std_init).expm1_().log_()  # the inverse of softplus
        own = {f"{part} {name}": t for part in ("mean", "rho") for name, t in self.rule.buffers(parameters).items()}
        return {"noise": torch.zeros_like(parameters), "rho": rho} | own

    def for_training(self, images: int, steps: int) -> Self:
        filled = super().for_training(images, steps)
        return replace(filled, steps=steps) if self.steps is None else filled

    def std(self, parameters: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        return softplus(buffers["rho"])

    def annealing(self, step: int) -> float:
        """a of step `step`, 0 the first."""
        if self.annealing_end == 0:
            return 1.0
        if self.steps is None:
            raise ConfigError("steps = None is not allowed: must be a number outside a training, for the annealing")
        done = step / self.steps
        if done >= self.annealing_end:
            return 1.0
        if done <= self.annealing_start:
            return 0.0
        return (done - self.annealing_start) / (self.annealing_end - self.annealing_start)

    def update(
        self,
        parameters: Tensor,
        gradient: Tensor,
        buffers: dict[str, Tensor],
        step_size: Tensor,
        step: int,
        origin: Tensor | None = None,
    ) -> None:
        weight = self.annealing(step) * self.kl_weight / self.sample_size
        rho, std = buffers["rho"], self.std(parameters, buffers)
        of_rho = gradient * buffers["noise"] / std
        of_rho.add_(std / self.prior_std**2 - 1 / std, alpha=weight).mul_(torch.sigmoid(rho))
        gradient.add_(theta_of(parameters, origin), alpha=weight / self.prior_std**2)
        for part, moved, along, start in (("mean", parameters, gradient, origin), ("rho", rho, of_rho, None)):
            memory = {name: buffers[f"{part} {name}"] for name in self.rule.buffer_names}
            self.rule.update(moved, along, memory, step_size, step, start)
