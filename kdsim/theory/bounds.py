"""Bounds on the squared distance and on the excess risk, with the conditions under which they are bounds.

T1 and T1' read E|theta_t - theta*|^2 <= (1 - alpha mu)^t |theta_0 - theta*|^2 + neighbourhood,
T2 and T2' read E[f(theta_t) - f*] <= (1 - alpha mu_pl)^t (f_0 - f*) + neighbourhood, f the objective with its ridge.

[M] Morad, Shlezinger, Eldar, "SGD-Based Knowledge Distillation with Bayesian Teachers: Theory and Guidelines",
ICLR 2026, arXiv 2601.01484. [G] Gower et al., "SGD: General Analysis and Improved Rates", ICML 2019. [GSL] Gower,
Sebbouh, Loizou, "SGD for Structured Nonconvex Functions", AISTATS 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kdsim.theory.constants import Constants

_ROUNDING = 1e-12
"""By how much of itself a step size may exceed its limit."""


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
        smoothness_factor: factor on the loss's part of a sample's smoothness: the largest E[s^2 | x], s the sum of a
            softmax target; 1 + K nu for independent noise. The part L (b-1)/b of a batch keeps its place: s is one
            in the mean.
        ridge: lambda, the part of the smoothness to which the factor does not apply.
        risk_recorded: f - f* bounds the recorded excess risk, which is without the ridge: no or a centred ridge.
        plain: SGD without momentum and weight decay, at a constant step size.
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
    risk_recorded: bool = True
    plain: bool = True

    @property
    def smoothness(self) -> float:
        """Expected smoothness of a batch, with the factor for targets whose sum varies."""
        sample = self.smoothness_factor * (self.constants.sample_smoothness - self.ridge) + self.ridge
        return Constants(self.constants.mu, self.constants.smoothness, sample).expected_smoothness(self.batch_size)

    @property
    def smoothness_name(self) -> str:
        """What `smoothness` is, in the text of a condition."""
        return "L_max" if self.batch_size == 1 and self.smoothness_factor == 1 else "expected smoothness"


@dataclass(frozen=True)
class Bound:
    """A bound and whether its conditions hold.

    Attributes:
        valid: all conditions hold, and the neighbourhood is a finite number >= 0. Otherwise `neighbourhood` is not a
            bound and must not be reported as one.
        condition: the first condition that fails, or the step-size condition that holds.
        step_size_limit: largest step size that the condition admits.
        contraction: 1 - alpha mu, for T2 and T2' 1 - alpha mu_pl.
        neighbourhood: what is left as t grows.
    """

    valid: bool
    condition: str
    step_size_limit: float
    contraction: float
    neighbourhood: float

    def started(self, initial: float) -> Bound:
        """The bound on a path with this start, see `at`: not valid unless that is a finite number >= 0."""
        if not self.valid or 0 <= initial < math.inf:
            return self
        return replace(self, valid=False, condition=f"the start, {initial:.4g}, is no finite number >= 0")

    def at(self, step: int, initial: float) -> float:
        """The bound after `step` steps; `initial` is |theta_0 - theta*|^2, for T2 and T2' f_0 - f*."""
        return self.contraction**step * initial + self.neighbourhood

    def tail_average(self, steps: list[int], initial: float) -> float:
        """The bound averaged over the given steps, transient included."""
        return sum(self.at(step, initial) for step in steps) / len(steps)


def t1(setting: Setting) -> Bound:
    """T1 of [M]: neighbourhood (2 alpha / mu) sigma*^2 for alpha <= 1/(2 L_max).

    Under interpolation the neighbourhood is 0 and alpha <= 1/L_max suffices.

    For batches drawn with replacement L_max is replaced by L (b-1)/b + L_max/b ([G], theorem 3.1).
    """
    limit = (1.0 if setting.interpolation else 0.5) * _inverse(setting.smoothness)
    name = f"1/{setting.smoothness_name}" if setting.interpolation else f"1/(2 {setting.smoothness_name})"
    neighbourhood = (
        0.0 if setting.interpolation else 2 * setting.step_size * setting.noise / (setting.constants.mu or math.nan)
    )
    return _bound(setting, limit, name, neighbourhood, "")


def t1_sharp(setting: Setting) -> Bound:
    """T1': neighbourhood (alpha / mu) sigma*^2 for alpha <= 1/L_max, for linear students and additive label noise.

    Since E[eps|x] = 0, the label part -eps x' of the gradient is uncorrelated with the rest, hence
    E|g|^2 <= 2 L_max (f - f*) + sigma*^2 (docs/theory.md; not in [M]).
    """
    needs = _additive_needs(setting)
    neighbourhood = setting.step_size * setting.noise / (setting.constants.mu or math.nan)
    return _bound(setting, _inverse(setting.smoothness), f"1/{setting.smoothness_name}", neighbourhood, needs)


def t2(setting: Setting) -> Bound:
    """T2 of [M]: neighbourhood (L alpha / mu_pl) sigma*^2 on the excess risk for alpha <= mu_pl / (2 L L_max).

    Under interpolation the neighbourhood is 0 and alpha <= mu_pl / (L L_max) suffices. f is mu_pl-PL and L-smooth with
    convex samples ([GSL] for the PL case); L_max is replaced for batches as in `t1`.

    The objective includes its ridge. With a centred ridge theta* minimises the risk as well, so that the recorded
    excess risk, without the ridge, is at most f - f*: the bound holds for it, with the larger f_0 - f* as its start.
    """
    half = 1.0 if setting.interpolation else 0.5
    name = f"mu/({'' if setting.interpolation else '2 '}L {setting.smoothness_name})"
    neighbourhood = 0.0 if setting.interpolation else 2 * _risk_neighbourhood(setting)
    return _risk_bound(setting, half, name, neighbourhood, "")


def t2_sharp(setting: Setting) -> Bound:
    """T2': neighbourhood L alpha sigma*^2 / (2 mu_pl) for alpha <= mu_pl / (L L_max); asks for what T1' asks for."""
    return _risk_bound(
        setting, 1.0, f"mu/(L {setting.smoothness_name})", _risk_neighbourhood(setting), _additive_needs(setting)
    )


def _inverse(smoothness: float) -> float:
    """1 / L; infinite without curvature, where every step size is small enough."""
    return 1 / smoothness if smoothness else math.inf


def _risk_neighbourhood(setting: Setting) -> float:
    known = setting.constants
    return known.smoothness * setting.step_size * setting.noise / (2 * (known.mu_pl or math.nan))


def _additive_needs(setting: Setting) -> str:
    return "" if setting.realisable and setting.additive else "needs label noise that does not depend on theta"


def _risk_bound(setting: Setting, share: float, name: str, neighbourhood: float, needs: str) -> Bound:
    known = setting.constants
    curved = [
        (known.mu_pl > 0, "no PL constant is known"),
        (known.mu_pl_kind == "exact", f"mu is an estimate ({known.mu_pl:.3g})"),
        (setting.risk_recorded, "an ordinary ridge: the objective's minimum is not that of the recorded risk"),
    ]
    product = known.smoothness * setting.smoothness
    limit = share * known.mu_pl / product if product else 0.0  # without curvature there is no PL constant either
    return _checked(setting, curved, known.mu_pl, limit, name, neighbourhood, needs)


def _bound(setting: Setting, limit: float, name: str, neighbourhood: float, needs: str) -> Bound:
    convex = [(setting.constants.mu > 0, "not strongly convex (mu = 0)")]
    return _checked(setting, convex, setting.constants.mu, limit, name, neighbourhood, needs)


def _checked(
    setting: Setting,
    curved: list[tuple[bool, str]],
    mu: float,
    limit: float,
    name: str,
    neighbourhood: float,
    needs: str,
) -> Bound:
    """The bound with the first condition that fails; `curved` are those on the curvature mu."""
    contraction = 1 - setting.step_size * mu
    if -_ROUNDING <= contraction < 0:  # a step size of 1 / mu
        contraction = 0.0
    numbers = (0 <= neighbourhood < math.inf, 0 <= setting.noise < math.inf, 0 <= contraction <= 1)
    failures = [
        (setting.plain, "needs plain SGD with a constant step size"),
        *curved,
        (setting.unbiased, "supervision is biased: SGD does not aim at theta*"),
        (setting.theory_sampling, "needs fresh targets and sampling with replacement"),
        (not needs, needs),
        (setting.step_size <= limit * (1 + _ROUNDING), f"step size {setting.step_size:.4g} > {name} = {limit:.4g}"),
        (all(numbers), f"no finite number >= 0: sigma*^2 = {setting.noise:.4g}, neighbourhood {neighbourhood:.4g}"),
    ]
    failed = [text for holds, text in failures if not holds]
    return Bound(
        valid=not failed,
        condition=failed[0] if failed else f"step size {setting.step_size:.4g} <= {name} = {limit:.4g}",
        step_size_limit=limit,
        contraction=contraction,
        neighbourhood=neighbourhood,
    )
