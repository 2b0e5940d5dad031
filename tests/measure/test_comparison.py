"""Paired differences with Holm's correction, and rank correlations with bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kdsim.config import ConfigError
from kdsim.measure.comparison import ALPHA, differences, holm, rank_correlation


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_p_values_are_those_of_the_paired_t_test() -> None:
    values = {name: normal(7, seed=number) + 0.3 * number for number, name in enumerate("abc")}
    found = differences(values)
    assert [(each.first, each.second) for each in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for each in found:
        expected = stats.ttest_rel(values[each.first], values[each.second])
        assert each.p == pytest.approx(expected.pvalue, rel=1e-9)
        low, high = expected.confidence_interval()
        assert (each.interval.low, each.interval.high) == (pytest.approx(low), pytest.approx(high))
        assert each.significant == (each.adjusted < ALPHA)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_by_its_definition(p: list[float]) -> None:
    ordered = sorted(p)
    adjusted = {value: max(min(1.0, (len(p) - j) * ordered[j]) for j in range(ordered.index(value) + 1)) for value in p}
    largest_place = {value: max(i for i, item in enumerate(ordered) if item == value) for value in p}
    for value, found in zip(p, holm(p), strict=True):
        above = max(min(1.0, (len(p) - j) * ordered[j]) for j in range(largest_place[value] + 1))
        assert adjusted[value] - 1e-12 <= found <= above + 1e-12
        assert value <= found <= 1


def test_family_wise_error_is_kept() -> None:
    """400 families of 6 differences without any effect: at most 5 % have a significant one, z-limit 4."""
    wrong = 0
    for seed in range(400):
        draws = normal(4, 6, seed=seed)
        wrong += any(each.significant for each in differences(dict(enumerate(draws))))
    assert wrong <= 400 * ALPHA + 4 * math.sqrt(400 * ALPHA * (1 - ALPHA))


def test_differences_without_a_spread_are_not_tested() -> None:
    base = torch.arange(5.0)
    same, shifted = differences({"a": base, "b": base, "c": base + 1.0}, [("a", "b"), ("a", "c")])
    assert (same.p, same.significant) == (1.0, False)
    assert (shifted.p, shifted.significant) == (1.0, False)


def test_replicas_must_agree() -> None:
    with pytest.raises(ConfigError, match="replicas"):
        differences({"a": normal(3), "b": normal(4)})


@given(st.integers(0, 10_000), st.integers(3, 20))
def test_rank_correlation_is_spearmans(seed: int, points: int) -> None:
    x, y = (normal(points, seed=seed + offset).mul(3).round() for offset in (0, 1))
    if len(x.unique()) < 2 or len(y.unique()) < 2:
        return
    found = rank_correlation(x, y, samples=50)
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.points == points
    assert math.isnan(found.low) or -1 <= found.low <= found.high <= 1


def test_a_monotone_relation_has_rho_one() -> None:
    x = torch.arange(10.0)
    found = rank_correlation(x, x**3)
    assert found.rho == pytest.approx(1)
    assert found.low == pytest.approx(1)


def test_clusters_widen_the_interval() -> None:
    """Ten copies of each of four points say no more than the four points."""
    x, y = normal(4, seed=3), normal(4, seed=4)
    clusters = torch.arange(4).repeat_interleave(10)
    apart = rank_correlation(x.repeat_interleave(10), y.repeat_interleave(10))
    together = rank_correlation(x.repeat_interleave(10), y.repeat_interleave(10), clusters)
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_a_constant_column_has_no_correlation() -> None:
    found = rank_correlation(torch.ones(5), torch.arange(5.0))
    assert all(map(math.isnan, (found.rho, found.low, found.high)))


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say() -> None:
    """200 samples of 60 correlated pairs: the interval covers the true rho; 95 % less what a bootstrap lacks, z 4."""
    correlation = 0.5
    true = 6 / math.pi * math.asin(correlation / 2)  # of a bivariate normal
    covered = 0
    for seed in range(200):
        x, noise = normal(60, seed=seed), normal(60, seed=10_000 + seed)
        found = rank_correlation(x, correlation * x + math.sqrt(1 - correlation**2) * noise, samples=200, seed=seed)
        covered += found.low <= true <= found.high
    assert covered >= 200 * 0.93 - 4 * math.sqrt(200 * 0.93 * 0.07)
    assert np.isfinite(covered)


def test_the_interval_of_a_rank_correlation_has_95_percent() -> None:
    """Of the 5^5 samples of these points 3.8 % have rho = -1, the smallest: the end of a 95 %, not a 90 % interval."""
    x, y = torch.arange(5.0), torch.tensor([1.0, 3.0, 0.0, 4.0, 2.0])
    assert rank_correlation(x, y, samples=20_000).low == pytest.approx(-1)
    assert rank_correlation(x, -y, samples=20_000).high == pytest.approx(1)
