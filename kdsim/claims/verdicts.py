"""What is decided how: parts of a claim as tests, Holm's correction over a whole ledger, and the verdict of a claim.

A part is one number, the effect, with what the claim says of it: it lies above a number, below one, or between two. It
has two one-sided p-values. `p_for` is that of the hypothesis that the effect lies outside of what is claimed, so that a
small one *shows* the claim; `p_against` that of the hypothesis that it lies inside, so that a small one *refutes* it.
Where neither is small the part is *open*: the interval contains both, and all that follows is that this size does not
decide. No p-value belongs to a part that was computed without chance (an identity, a zero).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.conventions import CONFIDENCE
from kdsim.measure.comparison import ALPHA, holm
from kdsim.measure.floors import interval

SHOWN, REFUTED, OPEN = "shown", "refuted", "not significant at this size"
"""What is decided of a part."""
HOLDS, CONDITIONS, FAILS, UNTESTED = "holds", "holds under conditions", "does not hold here", "not tested"
"""Verdicts."""
SEPARATOR = " | "
"""Between what is said of shown, refuted and open parts."""


@dataclass(frozen=True)
class Part:
    """One condition under which a claim is tested.

    Attributes:
        condition: in words, for example "dirichlet noise".
        quantity: what the effect is, in words.
        effect: the estimate; infinite, or NaN, where replicas diverged.
        low, high: its 95 % interval; None for a part without chance and where there is no number.
        claimed: (low, high), between which the claim says that the effect lies; infinite where it names no end.
        p_for, p_against: see above; None for a part without chance.
        replicas: independent replicas, or cases of a part without chance.
    """

    condition: str
    quantity: str
    effect: float
    low: float | None
    high: float | None
    claimed: tuple[float, float]
    p_for: float | None
    p_against: float | None
    replicas: int

    @property
    def by_chance(self) -> bool:
        """Whether there is a test, which counts among those that are corrected for."""
        return self.p_for is not None

    @property
    def p(self) -> float | None:
        """Two-sided p-value: twice the smaller of the two."""
        if self.p_for is None or self.p_against is None:
            return None
        return min(1.0, 2 * min(self.p_for, self.p_against))

    @property
    def inside(self) -> bool:
        """Whether the effect lies where the claim says; NaN does not."""
        return self.claimed[0] <= self.effect <= self.claimed[1]


@dataclass(frozen=True)
class Decided:
    """A part and what was decided of it.

    Attributes:
        adjusted: its p-value after Holm's correction over the ledger; None for a part without chance.
        decision: SHOWN, REFUTED or OPEN.
    """

    part: Part
    adjusted: float | None
    decision: str


# Parts ----------------------------------------------------------------------------------------------------


def from_estimate(
    condition: str,
    quantity: str,
    mean: float,
    se: float,
    replicas: int,
    *,
    above: float = -math.inf,
    below: float = math.inf,
) -> Part:
    """A part from a mean and its standard error over replicas: Student's t with R - 1 degrees of freedom.

    An infinite mean needs no test: it is inside of what is claimed or not. Where the mean is no number nothing can be
    decided, and replicas that agree exactly have no standard error to test with, as in `kdsim.measure.comparison`: both
    p-values are then 1.
    """
    claimed = (above, below)
    if math.isinf(mean):
        return Part(f"{condition} (diverged)", quantity, mean, None, None, claimed, None, None, replicas)
    if math.isnan(mean):
        return Part(f"{condition} (no number)", quantity, mean, None, None, claimed, 1.0, 1.0, replicas)
    half = float(special.stdtrit(replicas - 1, (1 + CONFIDENCE) / 2)) * se
    if se > 0:
        under = [float(special.stdtr(replicas - 1, (end - mean) / se)) for end in claimed]  # P(T < (end - mean) / se)
        # Inside: above the lower end and below the upper one, each of which has to be shown.
        p_for = max(under[0], 1 - under[1])
        p_against = min(1.0, (math.isfinite(above) + math.isfinite(below)) * min(1 - under[0], under[1]))
    else:
        p_for = p_against = 1.0
    return Part(condition, quantity, mean, mean - half, mean + half, claimed, p_for, p_against, replicas)


def from_values(
    condition: str, quantity: str, values: Tensor, *, above: float = -math.inf, below: float = math.inf
) -> Part:
    """A part from one value a replica, (R,), R >= 2."""
    found = interval(values.double())
    return from_estimate(condition, quantity, found.mean, found.se, len(values), above=above, below=below)


def from_interval(
    condition: str,
    quantity: str,
    mean: float,
    high: float,
    replicas: int,
    *,
    scale: float = 1.0,
    above: float = -math.inf,
    below: float = math.inf,
) -> Part:
    """A part from a stored mean and the upper end of its 95 % t-interval over replicas, both over `scale`."""
    se = standard_error(mean, high, replicas)
    return from_estimate(condition, quantity, mean / scale, se / scale, replicas, above=above, below=below)


def standard_error(mean: float, high: float, replicas: int) -> float:
    """That of a mean with this upper end of its 95 % t-interval."""
    return (high - mean) / float(special.stdtrit(replicas - 1, (1 + CONFIDENCE) / 2))


def without_chance(
    condition: str, quantity: str, effect: float, cases: int, *, above: float = -math.inf, below: float = math.inf
) -> Part:
    """A part that is computed, not estimated: it is shown where the effect lies inside, and refuted elsewhere."""
    return Part(condition, quantity, effect, None, None, (above, below), None, None, cases)


def all_of(condition: str, quantity: str, parts: Sequence[Part]) -> Part:
    """One part of many that all have to hold: the one of them that is worst for the claim, tested for all.

    That all are inside is shown at the largest p_for (intersection-union test: R. L. Berger, Technometrics 24, 1982),
    and that one is outside at the smallest p_against times their number (Bonferroni). The interval is that of the
    worst. A part without chance that is outside decides alone; one that is inside is left out.

    Raises:
        ConfigError: there is no part.
    """
    if not parts:
        raise ConfigError(f"claim part {condition!r} has nothing to test: no stored cell fulfils its conditions")
    tested = [part for part in parts if part.by_chance]
    failed = [part for part in parts if not part.by_chance and not part.inside]
    worst = failed[0] if failed else max(tested or parts, key=lambda part: (_distance_out(part), part.p_for or 0.0))
    for_all = against = None
    if tested and not failed:
        for_all = max(part.p_for for part in tested if part.p_for is not None)
        against = min(1.0, len(tested) * min(part.p_against for part in tested if part.p_against is not None))
    return Part(
        condition, f"{quantity} (worst of {len(parts)}: {worst.condition})", worst.effect, worst.low, worst.high,
        worst.claimed, for_all, against, min(part.replicas for part in parts),
    )  # fmt: skip


def _distance_out(part: Part) -> float:
    """How far the effect lies outside of what is claimed; negative inside, infinite where it is no number."""
    out = max(part.claimed[0] - part.effect, part.effect - part.claimed[1])
    return math.inf if math.isnan(out) else out


# Decisions ------------------------------------------------------------------------------------------------


def decide(parts: Sequence[Part]) -> list[Decided]:
    """Decisions of all parts of a ledger at once: family-wise error at most 5 %, by Holm's correction.

    The family is every part with a test, of every claim that is looked at together.
    """
    tested = {number: part.p for number, part in enumerate(parts) if part.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    found = []
    for number, part in enumerate(parts):
        if part.p_for is None or part.p_against is None:
            found.append(Decided(part, None, SHOWN if part.inside else REFUTED))
            continue
        clear = adjusted[number] < ALPHA
        side = SHOWN if part.p_for < part.p_against else REFUTED
        found.append(Decided(part, adjusted[number], side if clear else OPEN))
    return found


def verdict(decided: Sequence[Decided]) -> tuple[str, str]:
    """(verdict, reason) of a claim.

    All parts shown: it holds. Some: it holds under conditions, which are named, with what became of the others. None:
    it does not hold here, and the reason says whether that is because parts are refuted or nothing is significant.
    """
    names = {
        decision: [each.part.condition for each in decided if each.decision == decision]
        for decision in (SHOWN, REFUTED, OPEN)
    }
    told = {decision: f"{decision}: {'; '.join(conditions)}" for decision, conditions in names.items() if conditions}
    others = SEPARATOR.join(told[decision] for decision in (REFUTED, OPEN) if decision in told)
    if not names[REFUTED] and not names[OPEN]:
        return HOLDS, "every part is shown"
    if names[SHOWN]:
        return CONDITIONS, f"{told[SHOWN]}{SEPARATOR}{others}"
    if names[REFUTED]:
        return FAILS, others
    return FAILS, f"{OPEN}: the interval contains both what is claimed and its opposite"
