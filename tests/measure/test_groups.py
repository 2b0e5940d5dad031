"""Head, medium and tail: divergences between and within groups, scores by group, bias and variance over replicas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.conventions import GROUPS
from kdsim.measure import interval
from kdsim.measure.bias_variance import _jackknife, bias_and_variance, geometric_mean, measured, removed
from kdsim.population import Population
from kdsim.simplex import kl_divergence
from kdsim.training.evaluation import scored, scores
from kdsim.training.groups import between_and_within, equal_groups_prior, group_names, groups_of, masses, mean_by_group


def close(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)


@st.composite
def pools(draw: st.DrawFn, least_replicas: int = 1):
    """Predictions log q (R, N, K), p (N, K) with zeros at times, labels, and groups by random shares."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes, size = draw(st.integers(3, 9)), draw(st.integers(1, 12))
    replicas = draw(st.integers(least_replicas, 5))
    p = rng.dirichlet(np.full(classes, draw(st.sampled_from([0.02, 0.3, 5.0]))), size)
    p[p < draw(st.sampled_from([0.0, 1e-3]))] = 0
    p = torch.from_numpy(p / p.sum(-1, keepdims=True))
    scale = draw(st.sampled_from([0.0, 0.5, 5.0]))
    log_q = torch.log_softmax(torch.from_numpy(scale * rng.standard_normal((replicas, size, classes))), -1)
    y = torch.from_numpy(rng.integers(0, classes, size))
    return log_q, p, y, groups_of(rng.dirichlet(np.ones(classes)).tolist())


# Between and within -----------------------------------------------------------------------


@given(pools())
def test_between_and_within_make_up_the_divergence(case):
    log_q, p, _, groups = case
    between, within = between_and_within(p, log_q[0], groups)
    close(between + within, kl_divergence(p, log_q[0].exp()))
    assert (between > -1e-12).all() and (within > -1e-12).all()


@given(pools())
def test_each_part_against_its_formula(case):
    """Group by group: KL(P, Q), and P_G KL(p~_G, q~_G), where there is any p in G."""
    log_q, p, _, groups = case
    q = log_q[0].exp()
    between, within = between_and_within(p, log_q[0], groups)
    close(between, kl_divergence(masses(p, groups), masses(q, groups)))
    for i in range(len(p)):
        parts = [
            mass * kl_divergence(p[i, group] / mass, q[i, group] / q[i, group].sum())
            for group in groups
            if (mass := p[i, group].sum()) > 0
        ]
        close(within[i], sum(parts))


def test_a_class_that_is_ruled_out_costs_infinitely_much():
    p, q = torch.tensor([[0.5, 0.2, 0.3]]).double(), torch.tensor([[0.5, 0.5, 0.0]]).double()
    groups = groups_of((0.5, 0.3, 0.2))
    between, within = between_and_within(p, q.log(), groups)
    assert between.item() == math.inf and not within.isinf()
    safe, _ = between_and_within(q, q.log(), groups)  # 0 log 0
    assert safe.item() == 0


@given(pools())
def test_group_means_weighted_by_their_shares_are_the_mean(case):
    log_q, p, _, groups = case
    values = kl_divergence(p, log_q[0].exp())
    shares = masses(p, groups).mean(0)
    there = shares > 0
    close((shares * mean_by_group(values, p, groups))[there].sum(), values.mean())


def test_a_group_mean_is_the_mean_over_labels_in_the_group():
    """E[v(x) | y in G] by enumeration of x and y."""
    p, groups = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]).double(), groups_of((3, 2, 1))
    values = torch.tensor([1.0, 5.0]).double()
    joint = p / 2
    expected = torch.stack([(joint[:, g].sum(-1) * values).sum() / joint[:, g].sum() for g in groups])
    close(mean_by_group(values, p, groups), expected)


def test_priors_of_equally_frequent_groups():
    prior = torch.tensor([0.5, 0.2, 0.1, 0.15, 0.05]).double()
    groups = groups_of(prior.tolist())
    even = equal_groups_prior(prior, groups)
    close(masses(even, groups), torch.full((3,), 1 / 3, dtype=torch.float64))
    for group in groups:  # within a group nothing changes
        close(even[group] / even[group].sum(), prior[group] / prior[group].sum())
    close(even, torch.stack([prior[k] / (3 * next(prior[g].sum() for g in groups if k in g)) for k in range(5)]))


def test_groups():
    assert groups_of(None) == ()
    assert groups_of((0.9, 0.1)) == ()  # fewer classes than groups
    sizes = [len(group) for group in groups_of(tuple(np.linspace(1, 0.1, 10)))]
    assert sizes == [3, 4, 3]
    head, medium, tail = groups_of((0.1, 0.2, 0.7))
    assert (head.tolist(), medium.tolist(), tail.tolist()) == ([2], [1], [0])


# Scores -----------------------------------------------------------------------------------


@given(pools())
def test_scores_by_group(case):
    log_q, p, y, groups = case
    pool = Population(torch.zeros(len(p), 1).double(), p, y)
    found, plain = scores(log_q[0], pool, "bcp", groups), scores(log_q[0], pool, "bcp")
    assert {name: found[name] for name in plain} == plain
    assert tuple(found) == scored(p.shape[1], "bcp", groups)
    assert found["bcp_kl_between"] + found["bcp_kl_within"] == pytest.approx(found["bcp_kl"], abs=1e-10)
    counts = [sum(int(label in group) for label in y) for group in groups]
    accuracies = [found[f"accuracy_{name}"] for name in GROUPS]
    assert [math.isnan(value) for value in accuracies] == [count == 0 for count in counts]
    total = sum(count * value for count, value in zip(counts, accuracies, strict=True) if count)
    assert total / len(y) == pytest.approx(found["accuracy"], abs=1e-12)


def test_with_labels_alone_there_are_accuracies():
    pool = Population(torch.zeros(3, 1).double(), torch.eye(3).double(), torch.arange(3))
    groups = groups_of((3, 2, 1))
    log_q = torch.log_softmax(torch.tensor([[5.0, 1, 0], [5.0, 1, 0], [0, 0, 5.0]]), -1)
    found = scores(log_q, pool, "labels", groups)
    assert [found[f"accuracy_{name}"] for name in GROUPS] == [1, 0, 1]
    assert not any(name.startswith("bcp") for name in found)
    assert set(group_names("labels")) <= found.keys()
    lost = scores(log_q * math.nan, pool, "labels", groups)
    assert lost.keys() == found.keys() and all(math.isnan(value) for value in lost.values())


# Bias and variance ------------------------------------------------------------------------


@given(pools(2))
def test_bias_and_variance_make_up_the_divergence(case):
    """At every point: mean_r KL(p, q_r) = KL(p, qbar) + mean_r KL(qbar, q_r)."""
    log_q, p, _, _ = case
    bias, variance = bias_and_variance(log_q, p)
    close(bias + variance, kl_divergence(p, log_q.exp()).mean(0))
    mean = geometric_mean(log_q).exp()
    close(bias, kl_divergence(p, mean))
    close(variance, kl_divergence(mean, log_q.exp()).mean(0))
    assert (variance > -1e-12).all()


@given(pools(2))
def test_estimates_add_up_too(case):
    """After the jackknife: over all points, within each group, and the parts of the bias."""
    log_q, p, _, groups = case
    found = measured(log_q, p, groups)
    divergence = kl_divergence(p, log_q.exp())
    assert found["bias"].mean + found["variance"].mean == pytest.approx(divergence.mean().item(), abs=1e-10)
    by_group = mean_by_group(divergence.mean(0), p, groups)
    for name, value in zip(GROUPS, by_group.tolist(), strict=True):
        if not math.isnan(value):
            assert found[f"bias_{name}"].mean + found[f"variance_{name}"].mean == pytest.approx(value, abs=1e-10)
    assert found["bias_between"].mean + found["bias_within"].mean == pytest.approx(found["bias"].mean, abs=1e-10)
    assert measured(log_q, p).keys() == {"bias", "variance"}


def drawn(replicas: int, scale: float, seed: int) -> tuple[Tensor, Tensor, float, float]:
    """Predictions about log-means known exactly: bias and, to second order, variance follow."""
    rng = np.random.default_rng(seed)
    p = torch.from_numpy(rng.dirichlet(np.full(4, 2.0), 40))
    centre = p.log() + torch.from_numpy(0.2 * np.random.default_rng(99).standard_normal((40, 4)))
    noise = torch.from_numpy(scale * rng.standard_normal((replicas, 40, 4)))
    log_q = torch.log_softmax(centre + noise, -1)
    limit = torch.log_softmax(centre, -1).exp()
    return log_q, p, kl_divergence(p, limit).mean().item()


def test_intervals_hold_the_bias_of_infinitely_many_replicas():
    """qbar of R replicas tends to softmax(centre): 200 experiments of 5 replicas, 95 % intervals, and their mean.

    Of 200 intervals 95 % cover 190 +- 3; a plain KL(p, qbar) is off by the variance over R, which the mean shows.
    """
    covered, errors, plain = 0, [], []
    for seed in range(200):
        log_q, p, bias = drawn(5, 0.5, seed)
        found = measured(log_q, p)["bias"]
        covered += found.low <= bias <= found.high
        errors.append(found.mean - bias)
        plain.append(bias_and_variance(log_q, p)[0].mean().item() - bias)
    assert 175 <= covered <= 200
    error, off = np.array(errors), np.array(plain)
    assert abs(error.mean()) < 4.5 * error.std() / math.sqrt(200) + 1e-3
    assert off.mean() > 10 * off.std() / math.sqrt(200)  # what the jackknife is for


def test_one_replica_has_no_variance():
    with pytest.raises(ConfigError, match="at least 2 replicas, not 1"):
        measured(torch.zeros(1, 3, 4), torch.full((3, 4), 0.25))


def test_the_share_of_the_bias_that_is_gone():
    log_q, p, _ = drawn(6, 0.3, 1)
    bias = measured(log_q, p)["bias"].mean
    known = removed(log_q, p, 4 * bias)
    assert known.mean == pytest.approx(0.75) and known.low < 0.75 < known.high
    copied = removed(log_q, p, log_q)  # students that are their teachers: paired, so without an error
    assert copied.mean == pytest.approx(0, abs=1e-12) and copied.high - copied.low == pytest.approx(0, abs=1e-12)
    shuffled = removed(log_q, p, log_q.roll(1, 0))
    assert shuffled.high - shuffled.low > 1e-3
    right = removed(p.log().expand(3, -1, -1), p, log_q[:3])
    assert right.mean == pytest.approx(1) and right.high == pytest.approx(1)
    one = removed(log_q, p, log_q[:1])  # one teacher for all
    assert one.mean == pytest.approx(1 - bias / bias_and_variance(log_q[:1], p)[0].mean().item())


def test_two_replicas_leave_the_variance_without_an_interval():
    log_q, p, _ = drawn(2, 0.5, 0)
    found = measured(log_q, p)
    assert math.isnan(found["variance"].low) and math.isnan(found["variance"].high) and found["variance"].mean > 0
    assert found["bias"].low < found["bias"].mean < found["bias"].high
    assert math.isfinite(measured(drawn(3, 0.5, 0)[0], p)["variance"].low)


def test_equal_replicas_have_bias_alone():
    log_q, p, _ = drawn(1, 0.3, 0)
    found = measured(log_q.repeat(4, 1, 1), p)
    assert found["variance"].mean == pytest.approx(0, abs=1e-12)
    assert found["bias"].low == pytest.approx(found["bias"].high, abs=1e-12)
    assert found["bias"].mean == pytest.approx(kl_divergence(p, log_q[0].exp()).mean().item())


@pytest.mark.parametrize("replicas", [2, 3, 10])
def test_the_jackknife_of_a_mean_is_its_t_interval(replicas):
    """Its standard error is sqrt((R - 1)/R sum (left out - mean)^2): that of the mean, exactly."""
    values = torch.randn(replicas, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    found = _jackknife(values.mean(), (values.sum() - values) / (replicas - 1))
    expected = interval(values)
    for name in ("mean", "se", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-12)
