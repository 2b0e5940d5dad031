"""Parts, Holm's correction over a ledger, and verdicts: every direction, and what cannot be decided."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kdsim.claims.verdicts import (
    CONDITIONS,
    FAILS,
    HOLDS,
    OPEN,
    REFUTED,
    SHOWN,
    Part,
    all_of,
    decide,
    from_estimate,
    from_interval,
    from_values,
    verdict,
    without_chance,
)
from kdsim.config import ConfigError
from kdsim.measure.comparison import holm


def part(mean: float, se: float = 0.1, replicas: int = 20, **claimed: float) -> Part:
    return from_estimate("c", "q", mean, se, replicas, **claimed)


def decision(one: Part) -> str:
    return decide([one])[0].decision


@pytest.mark.parametrize(
    ("mean", "claimed", "expected"),
    [
        (1.0, {"above": 0.0}, SHOWN),
        (-1.0, {"above": 0.0}, REFUTED),
        (0.1, {"above": 0.0}, OPEN),
        (-0.1, {"above": 0.0}, OPEN),
        (0.5, {"below": 1.0}, SHOWN),
        (1.5, {"below": 1.0}, REFUTED),
        (0.95, {"below": 1.0}, OPEN),
        (1.0, {"above": 0.5, "below": 1.5}, SHOWN),
        (2.0, {"above": 0.5, "below": 1.5}, REFUTED),
        (0.0, {"above": 0.5, "below": 1.5}, REFUTED),
        (1.45, {"above": 0.5, "below": 1.5}, OPEN),
        (1.0, {"above": 0.95, "below": 1.05}, OPEN),  # the interval is wider than what is claimed
    ],
)
def test_every_direction(mean: float, claimed: dict[str, float], expected: str) -> None:
    assert decision(part(mean, **claimed)) == expected


@pytest.mark.slow
@given(st.lists(st.floats(-3, 3), min_size=3, max_size=30).filter(lambda v: max(v) - min(v) > 1e-6), st.floats(-1, 1))
def test_two_sided_p_is_that_of_the_t_test(values: list[float], boundary: float) -> None:
    """With one end p is Student's two-sided p-value, and the decision follows the interval."""
    found = from_values("c", "q", torch.tensor(values), above=boundary)
    expected = stats.ttest_1samp(values, boundary).pvalue
    assert found.p == pytest.approx(expected, rel=1e-6, abs=1e-12)
    decided = decision(found)
    assert (decided == SHOWN) == (found.low > boundary) or math.isclose(found.low, boundary, abs_tol=1e-9)
    assert (decided == REFUTED) == (found.high < boundary) or math.isclose(found.high, boundary, abs_tol=1e-9)


def test_each_end_that_is_claimed_counts_against() -> None:
    """An effect may lie beyond either of two ends: Bonferroni over both; it has to be shown to be within each."""
    beyond = stats.t.sf((2.0 - 1.5) / 0.2, 9)
    assert part(2.0, 0.2, 10, below=1.5).p_against == pytest.approx(beyond)
    assert part(2.0, 0.2, 10, above=0.5, below=1.5).p_against == pytest.approx(2 * beyond)
    assert part(0.0, 0.2, 10, above=0.5, below=1.5).p_against == pytest.approx(2 * beyond)
    assert part(1.2, 0.2, 10, above=0.5, below=1.5).p_for == pytest.approx(stats.t.sf((1.5 - 1.2) / 0.2, 9))


@given(st.floats(-5, 5), st.floats(0.01, 2), st.integers(2, 40), st.floats(-2, 2), st.floats(0.01, 3))
def test_nothing_is_shown_and_refuted(mean: float, se: float, replicas: int, low: float, width: float) -> None:
    """Of a part one p-value at most is below a half, and what it favours agrees with where the effect lies."""
    for claimed in ({"above": low}, {"below": low}, {"above": low, "below": low + width}):
        found = part(mean, se, replicas, **claimed)
        assert max(found.p_for, found.p_against) >= 0.5 - 1e-12
        assert not (decision(found) == SHOWN and not found.inside)
        assert not (decision(found) == REFUTED and found.inside)


def test_from_interval_is_from_its_standard_error() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 3.0])
    direct = from_values("c", "q", values / 2, above=0.7)
    again = from_interval("c", "q", values.mean().item(), 2 * direct.high, 4, scale=2.0, above=0.7)
    assert again.p == pytest.approx(direct.p)
    assert (again.low, again.high) == pytest.approx((direct.low, direct.high))


def test_what_has_no_chance_is_not_tested() -> None:
    parts = [without_chance("a", "q", 1e-12, 5, below=1e-9), without_chance("b", "q", 1.0, 5, below=1e-9), part(1.0)]
    found = decide(parts)
    assert [each.decision for each in found[:2]] == [SHOWN, REFUTED]
    assert [each.adjusted is None for each in found] == [True, True, False]
    assert decide([without_chance("n", "q", math.nan, 1, below=1.0)])[0].decision == REFUTED


def test_divergence_and_missing_numbers() -> None:
    assert decision(part(math.inf, math.nan, below=1.0)) == REFUTED
    assert decision(part(math.inf, math.nan, above=1.0)) == SHOWN
    assert decision(part(math.nan, math.nan, below=1.0)) == OPEN
    assert decision(part(2.0, 0.0, above=1.0)) == OPEN  # replicas that agree exactly have no standard error


def test_holm_goes_over_the_whole_ledger() -> None:
    """A part that is clear alone may not be among many; the correction is the one of `kdsim.measure.comparison`."""
    clear = part(0.25, above=0.0)
    assert decision(clear) == SHOWN
    others = [part(0.02 * number, above=0.0) for number in range(8)]
    found = decide([clear, *others])
    assert found[0].decision == OPEN
    assert [each.adjusted for each in found] == pytest.approx(holm([each.p for each in (clear, *others)]))


@pytest.mark.slow
def test_family_wise_error() -> None:
    """Ten effects at the boundary: a decision in any of them in at most 5 % of ledgers (binomial, z = 4)."""
    generator = torch.Generator().manual_seed(1)
    ledgers = 1_500
    wrong = 0
    for _ in range(ledgers):
        values = torch.randn(10, 8, dtype=torch.float64, generator=generator)
        found = decide([from_values("c", "q", row, above=0.0) for row in values])
        wrong += any(each.decision != OPEN for each in found)
    assert wrong <= 0.05 * ledgers + 4 * (ledgers * 0.05 * 0.95) ** 0.5
    assert wrong >= 0.02 * ledgers  # the correction is not far too strict


def test_all_of_needs_all() -> None:
    good, bad, unclear = part(0.5, below=1.0), part(1.5, below=1.0), part(0.99, below=1.0)
    assert decision(all_of("c", "q", [good, good])) == SHOWN
    assert decision(all_of("c", "q", [good, bad, good])) == REFUTED
    assert decision(all_of("c", "q", [good, unclear])) == OPEN
    worst = all_of("c", "q", [good, bad, unclear])
    assert worst.effect == 1.5
    assert worst.p_against == pytest.approx(3 * bad.p_against)
    assert decision(all_of("c", "q", [good, part(math.inf, below=1.0)])) == REFUTED
    assert decision(all_of("c", "q", [good, part(math.nan, below=1.0)])) == OPEN
    with pytest.raises(ConfigError, match="nothing to test"):
        all_of("c", "q", [])


def test_many_checkpoints_do_not_refute_by_chance() -> None:
    """One of 200 checkpoints a little above the bound: Bonferroni keeps it open."""
    parts = [part(0.5, below=1.0)] * 199 + [part(1.25, below=1.0)]
    assert decision(parts[-1]) == REFUTED
    assert decision(all_of("c", "q", parts)) == OPEN


@pytest.mark.parametrize(
    ("means", "expected", "words"),
    [
        ((1.0, 1.0), HOLDS, ()),
        ((1.0, -1.0), CONDITIONS, ("shown: c0", "refuted: c1")),
        ((1.0, 0.05), CONDITIONS, ("shown: c0", f"{OPEN}: c1")),
        ((-1.0, 0.05), FAILS, ("refuted: c0", f"{OPEN}: c1")),
        ((0.05, 0.0), FAILS, (OPEN, "contains both")),
    ],
)
def test_verdicts(means: tuple[float, ...], expected: str, words: tuple[str, ...]) -> None:
    parts = [from_estimate(f"c{number}", "q", mean, 0.1, 20, above=0.0) for number, mean in enumerate(means)]
    found, reason = verdict(decide(parts))
    assert found == expected
    assert all(word in reason for word in words), reason
