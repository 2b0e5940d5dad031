"""Bounds on the squared distance with the conditions under which they are bounds.

Each bound reads E|theta_t - theta*|^2 <= (1 - alpha mu)^t |theta_0 - theta*|^2 + neighbourhood.

[M] Morad, Shlezinger, Eldar, "SGD-Based Knowledge Distillation with Bayesian Teachers: Theory and Guidelines",
ICLR 2026, arXiv 2601.01484. [G] Gower et al., "SGD: General Analysis and Improved Rates", ICML 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdsim.theory.constants import Constants


@dataclass(frozen=True)
class Setting:
    """What the bounds ask about a configuration.

    Attributes:
        constants: mu, L and L_max.
        batch_size: b.
        step_size: alpha.
        noise: sigma*^2 of a batch.
        unbiased: E[q|x] = p(x).
        interpolation: every sample's gradient vanishes at theta* (exact BCP, realisable, no ordinary ridge).
        realisable: the residual at the mean target vanishes at theta*, so that noise is label noise alone.
        additive: the label part of the gradient does not depend on theta.
        theory_sampling: fresh targets and batches drawn with replacement.
        smoothness_factor: factor on the loss's part of the smoothness, 1 + K nu for softmax targets whose sum varies.
        ridge: lambda, the part of the smoothness to which the factor does not apply.
    """

    constants: Constants
    batch_size: int
    step_size: float
    noise: float
    unbiased: bool
    interpolation: bool
    realisable: bool
    additive: bool
    theory_sampling: bool
    smoothness_factor: float = 1.0
    ridge: float = 0.0

    @property
    def smoothness(self) -> float:
        """Expected smoothness of a batch, with the factor for targets whose sum varies."""
        expected = self.constants.expected_smoothness(self.batch_size)
        return self.smoothness_factor * (expected - self.ridge) + self.ridge


@dataclass(frozen=True)
class Bound:
    """A bound and whether its conditions hold.

    Attributes:
        valid: all conditions hold. Otherwise `neighbourhood` is not a bound and must not be reported as one.
        condition: the first condition that fails, or the step-size condition that holds.
        step_size_limit: largest step size that the condition admits.
        contraction: 1 - alpha mu.
        neighbourhood: what is left as t grows.
    """

    valid: bool
    condition: str
    step_size_limit: float
    contraction: float
    neighbourhood: float

    def at(self, step: int, initial_dist_sq: float) -> float:
        """The bound after `step` steps."""
        return self.contraction**step * initial_dist_sq + self.neighbourhood

    def tail_average(self, steps: list[int], initial_dist_sq: float) -> float:
        """The bound averaged over the given steps, transient included."""
        return sum(self.at(step, initial_dist_sq) for step in steps) / len(steps)


def t1(setting: Setting) -> Bound:
    """T1 of [M]: neighbourhood (2 alpha / mu) sigma*^2 for alpha <= 1/(2 L_max).

    Under interpolation the neighbourhood is 0 and alpha <= 1/L_max suffices.

    For batches drawn with replacement L_max is replaced by L (b-1)/b + L_max/b ([G], theorem 3.1).
    """
    limit = (1.0 if setting.interpolation else 0.5) / setting.smoothness
    name = "1/L_max" if setting.interpolation else "1/(2 L_max)"
    neighbourhood = (
        0.0 if setting.interpolation else 2 * setting.step_size * setting.noise / (setting.constants.mu or math.nan)
    )
    return _bound(setting, limit, name, neighbourhood, "")


def t1_sharp(setting: Setting) -> Bound:
    """T1': neighbourhood (alpha / mu) sigma*^2 for alpha <= 1/L_max, for linear students and additive label noise.

    Since E[eps|x] = 0, the label part -eps x' of the gradient is uncorrelated with the rest, hence
    E|g|^2 <= 2 L_max (f - f*) + sigma*^2 (shared theory, section 4; not in [M]).
    """
    needs = "" if setting.realisable and setting.additive else "needs label noise that does not depend on theta"
    neighbourhood = setting.step_size * setting.noise / (setting.constants.mu or math.nan)
    return _bound(setting, 1 / setting.smoothness, "1/L_max", neighbourhood, needs)


def _bound(setting: Setting, limit: float, name: str, neighbourhood: float, needs: str) -> Bound:
    failures = [
        (setting.constants.mu > 0, "not strongly convex (mu = 0)"),
        (setting.unbiased, "supervision is biased: SGD does not aim at theta*"),
        (setting.theory_sampling, "needs fresh targets and sampling with replacement"),
        (not needs, needs),
        (setting.step_size <= limit * (1 + 1e-12), f"step size {setting.step_size:.4g} > {name} = {limit:.4g}"),
    ]
    failed = [text for holds, text in failures if not holds]
    return Bound(
        valid=not failed,
        condition=failed[0] if failed else f"step size {setting.step_size:.4g} <= {name} = {limit:.4g}",
        step_size_limit=limit,
        contraction=1 - setting.step_size * setting.constants.mu,
        neighbourhood=neighbourhood,
    )
