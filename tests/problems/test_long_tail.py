"""Long tails: Bayes' rule for priors, thinned pools, and exact optima under both priors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kdsim import problems
from kdsim.config import ConfigError
from kdsim.population import Population
from kdsim.problems import Digits, GaussianMixture, Images, LongTail, SoftmaxLinear, exponential_prior, images
from kdsim.problems.long_tail import (
    balanced_prior,
    density_ratio,
    kept_points,
    shifted,
    shifted_optimum,
    under_prior,
)

MIXTURE = GaussianMixture(classes=6, dimension=5, samples=600)
LINEAR = SoftmaxLinear(classes=5, dimension=4, entropy=0.8, samples=600)
CASES = (LongTail(MIXTURE, 20.0), LongTail(replace(MIXTURE, priors=(0.3, 0.3, 0.1, 0.1, 0.1, 0.1)), 50.0),
         LongTail(LINEAR, 100.0))  # fmt: skip


@st.composite
def shifts(draw: st.DrawFn):
    """p (N, K), and two priors down to some 1e-6, float64."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes, rows = draw(st.integers(2, 7)), draw(st.integers(1, 5))
    spread = draw(st.sampled_from([0.1, 1.0, 30.0]))
    logits = draw(st.sampled_from([0.3, 2.0, 6.0])) * rng.standard_normal((rows, classes))
    priors = [torch.from_numpy(rng.dirichlet(np.full(classes, spread)).clip(1e-6)) for _ in range(2)]
    return torch.softmax(torch.from_numpy(logits), -1), *(prior / prior.sum() for prior in priors)


def close(value: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)


# The prior shift --------------------------------------------------------------------------


def float64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(shifts())
def test_there_and_back_is_the_identity(case):
    p, old, new = case
    close(under_prior(under_prior(p, old, new), new, old), p)
    close(under_prior(p, old, old), p)
    theta = torch.cat([p, p.new_ones(1, p.shape[1])]).T  # any parameters
    close(shifted_optimum(shifted_optimum(theta, old, new), new, old), theta - theta.mean(0))


@given(shifts(), st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_bayes_rule_against_enumeration(case, points, seed):
    """A world of finitely many x: joint probabilities by loops, under both priors."""
    _, old, new = case
    classes = len(old)
    given_class = np.random.default_rng(seed).dirichlet(np.ones(points), classes)  # p(x | y), (K, X)
    joint = [[[prior[k].item() * given_class[k, x] for k in range(classes)] for x in range(points)]
             for prior in (old, new)]  # fmt: skip
    before, after = (torch.tensor(table, dtype=torch.float64) for table in joint)  # (X, K)
    p, expected = before / before.sum(-1, keepdim=True), after / after.sum(-1, keepdim=True)
    close(under_prior(p, old, new), expected)
    close(density_ratio(p, old, new) * before.sum(-1), after.sum(-1))  # f w = f'


@given(shifts(), st.integers(0, 2**32 - 1))
def test_the_shifted_optimum_gives_the_shifted_bcp(case, seed):
    _, old, new = case
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(np.column_stack([rng.standard_normal((7, 3)), np.ones(7)]))
    theta = torch.from_numpy(rng.standard_normal((len(old), 4)))
    moved = shifted_optimum(theta, old, new)
    close(torch.softmax(x @ moved.T, -1), under_prior(torch.softmax(x @ theta.T, -1), old, new))
    close(moved.sum(0), torch.zeros(4, dtype=torch.float64))


@given(st.integers(2, 100), st.floats(1, 1e6))
def test_the_exponential_prior(classes, imbalance):
    prior = exponential_prior(classes, imbalance)
    assert prior.sum().item() == pytest.approx(1, abs=1e-12)
    assert (prior[0] / prior[-1]).item() == pytest.approx(imbalance, rel=1e-9)
    ratios = prior[1:] / prior[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(classes - 1), rtol=1e-10, atol=0)


def test_images_use_the_same_formulas():
    assert images.under_prior is problems.under_prior is under_prior
    assert torch.equal(Images(classes=7, imbalance=30.0).prior, exponential_prior(7, 30.0))
    assert torch.equal(Images(classes=7).balanced_prior, balanced_prior(7))


# Thinned pools ----------------------------------------------------------------------------


def test_thinning_keeps_points_as_often_as_they_should_be():
    """Three x, 60,000 times each: the shares kept against w(x) / max ratio, within 4.5 standard errors."""
    old, new = float64(0.5, 0.3, 0.2), float64(0.1, 0.3, 0.6)
    p = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.0, 0.1, 0.9]], dtype=torch.float64)
    times = 60_000
    kept = kept_points(p.repeat_interleave(times, 0), old, new, np.random.default_rng(0))
    assert len(kept.unique()) == len(kept)
    share = torch.bincount(kept // times, minlength=3) / times
    expected = torch.tensor([sum(p[x, k] * new[k] / old[k] for k in range(3)) / (0.6 / 0.2) for x in range(3)])
    assert ((share - expected).abs() < 4.5 * (expected * (1 - expected) / times).sqrt()).all()


def test_labels_are_drawn_anew_from_the_shifted_bcp():
    old, new = float64(0.9, 0.1), float64(0.1, 0.9)
    x, theta = torch.ones(40_000, 1).double(), torch.zeros(2, 1).double()
    pool = Population(x, old.expand(40_000, 2), torch.zeros(40_000, dtype=torch.int64), theta)
    moved = shifted(pool, torch.arange(40_000), old, new, np.random.default_rng(0))
    close(moved.p[0], new)
    assert abs(moved.y.double().mean().item() - 0.9) < 4.5 * math.sqrt(0.09 / 40_000)


# The problem ------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", CASES, ids=lambda problem: f"{problem.problem.name}-{problem.imbalance:g}")
class TestSplit:
    def test_pools(self, problem):
        parts = problem.split(3, 150, 200)
        assert [part.size for part in parts] == [600, 150, 200]
        for part in parts:  # each realised by its own optimum, as the contract asks of `population`
            close(torch.softmax(part.x @ part.optimum.T, -1), part.p)
        rows = torch.cat([part.x for part in parts])
        assert len(rows.unique(dim=0)) == len(rows)

    def test_both_pools_are_one_problem(self, problem):
        """At any x the balanced BCP is the long-tailed one under equal priors: same classes, same coordinates."""
        train, validation, test = problem.split(3, 150, 200)
        close(under_prior(torch.softmax(test.x @ train.optimum.T, -1), problem.prior,
                          balanced_prior(problem.classes)), test.p)  # fmt: skip
        close(validation.optimum, test.optimum)

    @pytest.mark.slow
    def test_priors(self, problem):
        """E[p] is the prior in each pool, and so are the labels' frequencies; within 4.5 standard errors."""
        large = replace(problem, problem=replace(problem.problem, samples=20_000))
        train, _, test = large.split(1, 10, 20_000)
        for pool, prior in ((train, problem.prior), (test, balanced_prior(problem.classes))):
            z = (pool.p.mean(0) - prior) / (pool.p.std(0) / math.sqrt(pool.size))
            assert z.abs().max() < 4.5
            found = torch.bincount(pool.y, minlength=problem.classes) / pool.size
            assert ((found - prior).abs() < 4.5 * (prior * (1 - prior) / pool.size).sqrt()).all()


def test_points_of_the_tail_are_those_of_the_classes():
    """Features given the component: Kolmogorov-Smirnov between a thinned pool and one drawn under these priors.

    The mixture of one dimension has coordinates of its own prior, which raw features do not.
    """
    mixture = GaussianMixture(classes=3, dimension=1, mean_values=(0.0, 2.0, 5.0), samples=20_000)
    problem = LongTail(mixture, 9.0)
    tail = problem.population(0)
    direct = replace(mixture, priors=tuple(problem.prior.tolist())).population(0)
    raw = []
    for pool, prior in ((tail, np.full(3, 1 / 3)), (direct, problem.prior.numpy())):
        mu = mixture.means(0)[:, 0]
        mean = prior @ mu
        scale = math.sqrt(mixture.variance + prior @ (mu - mean) ** 2)
        raw.append(mean + scale * pool.x[:, 0].numpy())
    assert stats.ks_2samp(*raw).pvalue > 1e-4
    assert stats.ks_2samp(raw[0], mixture.population(0).x[:, 0].numpy()).pvalue < 1e-12  # and it can fail


def test_imbalance_one_of_a_balanced_mixture_keeps_every_point():
    problem, times = LongTail(MIXTURE, 1.0), 4
    drawn = replace(MIXTURE, samples=times * 600).population(5)
    pool = problem.population(5)
    assert torch.equal(pool.x, drawn.x[:600])
    close(pool.p, drawn.p[:600])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"problem": Digits()}, r"problem = Digits.* must be gaussian-mixture or softmax-linear"),
        ({"problem": LongTail()}, r"problem = LongTail.* must be gaussian-mixture"),
        ({"problem": replace(LINEAR, bias=False)}, r"problem.bias = False .* a prior shift moves the bias"),
        ({"imbalance": 0.5}, r"imbalance = 0.5 .* in \[1, 1e\+06\]"),
        ({"imbalance": math.nan}, r"imbalance = nan"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        LongTail(**fields)
    assert "\n" not in str(caught.value)


def test_bad_sizes():
    for sizes in ((0, 5), (5, 0), (5, 2.0)):
        with pytest.raises(ConfigError, match="_samples = "):
            CASES[0].split(0, *sizes)


def test_a_class_that_hardly_occurs_is_one_line():
    rare = (0.99999, 0.000002, 0.000002, 0.000002, 0.000002, 0.000002)
    with pytest.raises(ConfigError, match=r"gaussian-mixture is so rare .prior 2e-06. that 1024 points"):
        LongTail(replace(MIXTURE, priors=rare, samples=4), 1.0).split(0, 4, 4)
