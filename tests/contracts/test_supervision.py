"""One suite over all supervisions: the moments they claim are those they draw, on the simplex, whatever the packing."""

import dataclasses
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from scipy import stats
from scipy.special import expit
from strategies import bcps, supervisions

from kdsim import config, simplex
from kdsim.config import ConfigError
from kdsim.rng import Draws, Stream
from kdsim.supervision import (
    SUPERVISIONS,
    Annotators,
    Batch,
    Confusion,
    Dirichlet,
    Exact,
    Independent,
    LabelSmoothing,
    LogitGaussian,
    OneHot,
    Temperature,
    TwoPoint,
)
from kdsim.supervision.checks import require_moments
from kdsim.supervision.dirichlet import _exponentials, _relative_cube_root

DTYPES = [torch.float32, torch.float64]

MEMBERS = [
    Exact(),
    OneHot(),
    *(Dirichlet(c) for c in (1e-6, 1e-3, 0.3, 3.0, 1e6)),
    *(Annotators(a) for a in (1.0, 2.5, 7.0)),
    *(TwoPoint(f) for f in (0.0, 0.3, 1.0)),
    *(Independent(nu) for nu in (0.0, 0.04, 9.0)),
    *(Temperature(t) for t in (0.1, 1.0, 5.0)),
    *(LabelSmoothing(e) for e in (0.0, 0.2, 1.0)),
    *(LogitGaussian(s) for s in (0.0, 0.5, 1.0, 10.0)),
    *(
        Confusion(rate, pattern, labels)
        for rate in (0.0, 0.3, 1.0)
        for pattern, labels in (("symmetric", False), ("cyclic", True))
    ),
    Confusion(0.4, "cyclic", False),
    Confusion(0.4, "symmetric", True),
]
LEVELS = (
    {  # three members of each family that differ in level only
        cls: ([member for member in MEMBERS if type(member) is cls] * 3)[:3]
        for cls in SUPERVISIONS
        if cls is not Confusion
    }
    | {Confusion: [Confusion(rate, labels=True) for rate in (0.0, 0.3, 1.0)]}
)

POOL = torch.tensor(
    [
        [0.5, 0.3, 0.15, 0.05],
        [0.1, 0.6, 0.3, 0.0],  # a class that never comes
        [0.7, 0.2, 0.1, 1e-30],
        [0.0, 0.0, 1.0, 0.0],  # a vertex
        [0.25, 0.25, 0.25, 0.25],
        [0.2, 0.4, 0.0, 0.4],  # a tie
    ],
    dtype=torch.float64,
)


def label_draws(replicas, visits, seed=7, dtype=torch.float64, start=0, first=0):
    """Draws of the replicas first .. first + replicas - 1 at the visits start .. start + visits - 1."""
    replica = torch.arange(first, first + replicas)[:, None]
    visit = torch.arange(start, start + visits)[None, :]
    return Draws(torch.full_like(replica, seed), replica, visit, Stream.LABEL, dtype, start=start)


def random_bcp(replicas, visits, classes=5, dtype=torch.float64):
    logits = 2 * torch.randn(replicas, visits, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return logits.softmax(-1).to(dtype)


def sample(supervision, p, draws):
    """q for p (R, V, K), or for one row (K,) at every visit."""
    replicas = len(draws.replica) if draws.rows is None else len(draws.rows)
    rows = p.expand(replicas, draws.visit.shape[1], p.shape[-1])
    return supervision.sample(Batch(index=torch.zeros(rows.shape[:-1], dtype=torch.int64), p=rows), draws).q


def name(value):
    return value.name if isinstance(value, type) else str(value)


families = pytest.mark.parametrize("family", SUPERVISIONS, ids=name)
members = pytest.mark.parametrize("supervision", MEMBERS, ids=str)


# Moments ----------------------------------------------------------------------------------

SAMPLES = 200_000
Z_LIMIT = 5.0
"""Standard errors allowed: of about 8,000 comparisons at fixed seeds one passes 5 by chance in 200 suites."""

ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}


def beyond_chance(supervision, samples):
    """What the standard error of a sample does not cover."""
    if supervision == Dirichlet(1e-6):  # a target that is no vertex comes once in 10^5 visits, and may be missing
        return 12 / samples
    if not isinstance(supervision, LogitGaussian):
        return 0.0
    return {  # the accuracy that the docstring states
        0.0: 0.0,
        0.5: 3e-5,
        1.0: 2e-4,
        10.0: 3e-3,
    }[supervision.scale]


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
@members
def test_mean_and_covariance_are_those_of_the_samples(supervision, dtype):
    """In float64 over SAMPLES, in float32 over a quarter of them."""
    samples = SAMPLES if dtype == torch.float64 else SAMPLES // 4
    for row, p in enumerate(POOL):
        q = sample(supervision, p.to(dtype), label_draws(200, samples // 200, seed=row, dtype=dtype))
        assert q.dtype == dtype
        mean, covariance = supervision.mean(p), supervision.covariance(p)  # (K,), (K, K)
        deviation = q.double().flatten(0, 1) - mean  # (M, K)
        product = torch.stack([deviation * deviation[:, k : k + 1] for k in range(len(p))], 1)  # (M, K, K)
        sd = covariance.diagonal().sqrt()
        rounding = ROUNDING[dtype]
        for values, expected, slack in (
            (deviation, torch.zeros_like(mean), rounding),
            (product, covariance, rounding * (sd[:, None] + sd) + rounding**2),
        ):
            error = (values.mean(0) - expected).abs()
            allowed = Z_LIMIT * values.std(0) / samples**0.5 + slack + beyond_chance(supervision, samples)
            assert (error <= allowed).all(), f"p = {p.tolist()}: off by {error} where {allowed} is allowed"


@pytest.mark.parametrize("concentration", [1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dirichlet_keeps_its_variance_where_gammas_underflow(concentration, dtype):
    """The usual patch (p where every gamma is zero) halves the variance at 0.001; here it is right to 2 %."""
    p = torch.tensor([0.6, 0.3, 0.1], dtype=dtype)
    q = sample(Dirichlet(concentration), p, label_draws(200, 500, dtype=dtype)).double()
    variance = q.flatten(0, 1).var(0) * (concentration + 1)
    assert torch.allclose(variance, (p * (1 - p)).double(), rtol=0.02)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("a", [0.02, 0.3, 0.9, 1.0, 5.0, 400.0])
@pytest.mark.parametrize("b", [0.3, 2.0])
def test_dirichlet_marginals_are_beta(a, b, dtype):
    if a == 0.02 and dtype == torch.float32:
        pytest.skip("one value in six is below the range of float32")
    p = torch.tensor([a, b], dtype=torch.float64) / (a + b)
    q = sample(Dirichlet(a + b), p.to(dtype), label_draws(100, 1000, dtype=dtype)).double().flatten(0, 1).numpy()
    low, high = stats.beta(a, b).cdf(q[:, 0]), 1 - stats.beta(b, a).cdf(q[:, 1])  # each exact at its own end
    assert stats.kstest(np.where(q[:, 0] < 0.5, low, high), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offset", [2 / 3, 1.0, 10.0, 1e5])
def test_gammas_by_rejection(offset, dtype):
    draws = label_draws(200, 1000, dtype=dtype)
    t = _relative_cube_root(torch.full((1, 200, 1000), offset, dtype=dtype), draws)
    gamma = (offset * (1 + t.double()) ** 3).flatten().numpy()
    assert stats.kstest(gamma, stats.gamma(offset + 1 / 3).cdf).pvalue > 1e-4


def test_exponentials_keep_their_precision_in_float32():
    """Near zero too: 23 bits would move the odds of a class of probability 10^-6 by a tenth."""
    draws = label_draws(300, 1000, dtype=torch.float32)
    exact = -np.log1p(-(2**32 - 0.5 - draws.words(6).numpy()) / 2**32)  # class 0 of two
    assert exact.min() < 1e-5
    np.testing.assert_allclose(_exponentials(2, draws)[0], exact, rtol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dirichlet_from_one_end_to_the_other(dtype):
    p = torch.tensor([0.7, 0.3, 1e-30, 0.0], dtype=dtype)
    for concentration in (1e-300, 1e-30, 1e-9, 1.0, 1e9, 1e30, 1e300):
        q = sample(Dirichlet(concentration), p, label_draws(20, 50, dtype=dtype))
        assert torch.isfinite(q).all() and (q[..., 3] == 0).all() and (q[..., 2] < 1e-20).all()
        if concentration <= 1e-9:
            assert (q.amax(-1) == 1).all()
        if concentration >= 1e30:
            assert (q - p).abs().max() < 32 * torch.finfo(dtype).eps


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0, 3.0, 10.0])
def test_logit_gaussian_quadrature_agrees_with_gauss_hermite(scale):
    """With two classes q_1 is the logistic function of one normal of variance 2 s^2."""
    odds = torch.tensor([-6.0, -2.0, -0.5, 0.0, 1.0, 3.0], dtype=torch.float64)
    p = torch.stack([odds.sigmoid(), (-odds).sigmoid()], -1)
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)  # the trapezium rule is exact to rounding here
    weight = (-grid.square() / 2).exp() / math.sqrt(2 * math.pi) * (grid[1] - grid[0])
    q = (odds[:, None] + math.sqrt(2) * scale * grid).sigmoid()
    mean = q @ weight
    variance = (q.square() @ weight) - mean.square()
    limit = {0.1: 3e-6, 0.5: 3e-5, 1.0: 2e-4, 3.0: 1e-3, 10.0: 3e-3}[scale]
    supervision = LogitGaussian(scale)
    assert (supervision.mean(p)[:, 0] - mean).abs().max() < limit
    assert (supervision.covariance(p)[:, 0, 0] - variance).abs().max() < limit


@pytest.mark.slow
def test_logit_gaussian_moments_do_not_depend_on_the_chunks():
    p = random_bcp(1, 300, classes=4)[0]
    supervision = LogitGaussian(1.0)
    assert torch.allclose(supervision.mean(p)[[0, 150, 299]], supervision.mean(p[[0, 150, 299]]), atol=1e-15)
    assert supervision.covariance(p.reshape(3, 100, 4)).shape == (3, 100, 4, 4)
    assert expit(0) == supervision.mean(torch.tensor([0.5, 0.5], dtype=torch.float64))[0].round(decimals=4)


# The simplex ------------------------------------------------------------------------------


@given(supervisions(), bcps())
def test_targets_and_moments_are_where_they_should_be(supervision, p):
    q = sample(supervision, p[:, None, :], label_draws(len(p), 12))
    assert q.shape == (len(p), 12, p.shape[1]) and q.dtype == p.dtype and torch.isfinite(q).all()
    if supervision.sums_to_one:
        assert (q.sum(-1) - 1).abs().max() < 1e-12
    if supervision.on_simplex:
        assert q.min() >= 0
    if not isinstance(supervision, (Independent, LabelSmoothing, Confusion)):
        assert (q[(p == 0)[:, None, :].expand_as(q)] == 0).all()  # what never happens is never taught

    mean, covariance = supervision.mean(p), supervision.covariance(p)
    assert mean.shape == p.shape and covariance.shape == (*p.shape, p.shape[1])
    assert torch.equal(covariance, covariance.mT)
    spread = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert (torch.linalg.eigvalsh(covariance).amin(-1) >= -1e-12 * (1 + spread)).all()
    if supervision.sums_to_one:
        assert covariance.sum(-1).abs().max() < 1e-12
        assert (mean.sum(-1) - 1).abs().max() < 1e-12
    if supervision.unbiased:
        assert torch.equal(mean, p)
        if supervision.on_simplex:
            assert (spread <= simplex.gini(p) + 1e-12).all()
    if supervision.noiseless:
        assert spread.abs().max() < 1e-12
        assert torch.allclose(q, mean[:, None, :].expand_as(q), atol=1e-12)


@members
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_moments_of_every_member_are_accepted(supervision, dtype):
    """Also where a pool's rows sum to one to 1e-6 only, as `Population` allows."""
    for p in (POOL, POOL * (1 + 9e-7), POOL * (1 - 9e-7)):
        require_moments(supervision, p.to(dtype))


@families
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_targets_stay_inside(family, dtype):
    for supervision in LEVELS[family]:
        p = POOL.to(dtype)[:, None, :]
        q = sample(supervision, p, label_draws(len(p), 20_000, dtype=dtype))
        assert torch.isfinite(q).all()
        if family.on_simplex:
            assert q.min() >= 0 and q.max() <= 1 + 4 * torch.finfo(dtype).eps
        if family.sums_to_one:
            assert (q.sum(-1) - 1).abs().max() <= 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_class_of_probability_zero_is_never_drawn(dtype):
    """Not even by the largest uniform, when rounding leaves the sum of p below or above one."""

    class Largest(Draws):
        def uniform(self, slot):
            ends = torch.tensor([0, 0xFFFFFFFF])
            return super().uniform(slot) * 0 + (ends.double() + 0.5).mul(2.0**-32).to(self.dtype)[:, None].clamp(
                max=1 - torch.finfo(self.dtype).eps / 2
            )

    for total in (1 - 3e-7, 1.0, 1 + 3e-7):
        p = torch.tensor([0.0, 0.1, 0.2, 0.0, 0.7 * total, 0.0, 0.0], dtype=dtype)
        draws = label_draws(2, 3, dtype=dtype)
        draws = Largest(**{field.name: getattr(draws, field.name) for field in dataclasses.fields(draws)})
        for supervision in (OneHot(), Annotators(3.0), Confusion(0.0, labels=True)):
            q = sample(supervision, p, draws)
            assert q[0, 0].argmax() == 1 and q[1, 0].argmax() == 4
            assert torch.equal(q.sum(-1), torch.ones_like(q[..., 0]))
            assert (q[..., p == 0] == 0).all()


# The same target whatever the packing -----------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@families
def test_a_visit_draws_the_same_target_in_any_packing(family, dtype):
    for supervision in LEVELS[family]:
        p = random_bcp(6, 40, dtype=dtype)
        before = p.clone()
        draws = label_draws(6, 40, dtype=dtype)
        whole = sample(supervision, p, draws)
        assert torch.equal(p, before)
        assert torch.equal(whole, sample(supervision, p, draws))
        assert torch.equal(whole, sample(supervision, p, replace(draws, start=None)))
        rows = torch.tensor([4, 1, 1])
        assert torch.equal(whole[rows], sample(supervision, p[rows], replace(draws, rows=rows)))
        assert torch.equal(whole[:, :8], sample(supervision, p[:, :8], label_draws(6, 8, dtype=dtype)))
        assert torch.equal(whole[:, 13:], sample(supervision, p[:, 13:], label_draws(6, 27, start=13, dtype=dtype)))
        assert torch.equal(whole[2:5], sample(supervision, p[2:5], label_draws(3, 40, first=2, dtype=dtype)))
        for replica, visit in ((0, 0), (3, 17), (5, 39)):
            alone = label_draws(1, 1, start=visit, first=replica, dtype=dtype)
            one = p[replica : replica + 1, visit : visit + 1].clone()
            assert torch.equal(sample(supervision, one, alone)[0, 0], whole[replica, visit])
            assert torch.equal(one[0, 0], p[replica, visit])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@families
def test_stacked_levels_equal_separate_runs(family, dtype):
    replicas = [2, 3, 1]
    stack = family.stacked(LEVELS[family], replicas, torch.device("cpu"))
    p = random_bcp(6, 40, dtype=dtype)
    numbers = torch.tensor([0, 1, 0, 1, 2, 1])[:, None]  # replica numbers, some of them in several levels
    draws = replace(label_draws(6, 40, dtype=dtype), replica=numbers)
    shared = replace(label_draws(3, 40, dtype=dtype), rows=numbers[:, 0])
    together = sample(stack, p, draws)
    rows = torch.arange(6).split(replicas)
    separate = [
        sample(one, p[r], replace(draws, seed=draws.seed[r], replica=numbers[r]))
        for one, r in zip(LEVELS[family], rows, strict=True)
    ]
    assert torch.equal(together, torch.cat(separate))
    batch = Batch(index=torch.zeros(6, 40, dtype=torch.int64), p=p)
    assert torch.equal(stack.sample(batch, shared).q, together)


@families
def test_float32_and_float64_agree(family):
    """Continuous targets to rounding (an inverse function of 23 bits), labels but for one in 10,000."""
    for supervision in LEVELS[family]:
        p = random_bcp(20, 500)
        double = sample(supervision, p, label_draws(20, 500))
        single = sample(supervision, p.float(), label_draws(20, 500, dtype=torch.float32))
        error = (double - single.double()).abs().amax(-1).flatten()
        scale = math.sqrt(supervision.variance) if isinstance(supervision, Independent) else 1.0
        assert error.median() < 2e-6 * max(1.0, scale)
        assert error.quantile(0.999) < 1e-3 * max(1.0, scale)


@members
def test_no_random_word_is_used_twice(supervision, monkeypatch):
    used = []
    words = Draws.words

    def record(self, slot):
        places = torch.broadcast_tensors(self.replica, self.visit, torch.as_tensor(slot))
        used.extend(zip(*(place.flatten().tolist() for place in places), strict=True))
        return words(self, slot)

    monkeypatch.setattr(Draws, "words", record)
    for classes in (2, 5):
        used.clear()
        sample(supervision, random_bcp(4, 300, classes), label_draws(4, 300))
        assert len(used) == len(set(used))
        assert bool(used) == (not supervision.noiseless or supervision.level_field in ("fraction", "variance", "scale"))


# nu ---------------------------------------------------------------------------------------

WITH_NU = [cls for cls in SUPERVISIONS if cls.unbiased and cls.level_field is not None]
POOLS = [POOL, random_bcp(1, 30)[0], random_bcp(1, 1, classes=2)[0]]


def largest_of(supervision, p):
    largest = supervision.largest_nu(p)
    return 50.0 if math.isinf(largest) else largest


@pytest.mark.parametrize("p", POOLS, ids=["corners", "random", "single"])
@pytest.mark.parametrize("family", WITH_NU, ids=name)
def test_with_nu_sets_nu(family, p):
    for part in (1e-4, 0.01, 0.3, 0.999, 1.0):
        nu = part * largest_of(family(), p)
        if family is Dirichlet and part == 1.0:
            continue  # one-hot itself is approached and not reached
        member = family().with_nu(nu, p)
        assert type(member) is family
        assert member.nu(p) == pytest.approx(nu, rel=1e-9)


@families
def test_an_infeasible_nu_is_refused_with_the_largest(family):
    supervision = family()
    for nu in (-1e-3, math.nan, math.inf):
        with pytest.raises(ConfigError):
            supervision.with_nu(nu, POOL)
    for nu in ("0.1", None, True, (0.1,)) if family.unbiased else ():
        with pytest.raises(ConfigError, match=r"^nu = .* is not allowed: must be a number$"):
            supervision.with_nu(nu, POOL)
    if not family.unbiased:
        with pytest.raises(ConfigError, match=f"biased: set its {family.level_field}"):
            supervision.with_nu(0.01, POOL)
    elif family is not Independent:
        largest = supervision.largest_nu(POOL)
        with pytest.raises(ConfigError, match=f"{family.name}.* {largest:.6g}"):
            supervision.with_nu(1.001 * largest + 1e-9, POOL)


def test_two_point_reaches_less_than_one_hot():
    assert (
        TwoPoint().largest_nu(POOL) < OneHot().nu(POOL) == Dirichlet().largest_nu(POOL) == Annotators().largest_nu(POOL)
    )


@pytest.mark.parametrize("family", [Dirichlet, Annotators], ids=name)
def test_nu_zero_leads_to_exact(family):
    with pytest.raises(ConfigError, match="exact"):
        family().with_nu(0.0, POOL)
    assert Exact().with_nu(0.0, POOL) == Exact()
    assert TwoPoint().with_nu(0.0, POOL).noiseless and Independent().with_nu(0.0, POOL).noiseless


def test_one_hot_has_its_own_nu_only():
    own = OneHot().nu(POOL)
    assert OneHot().with_nu(own, POOL) == OneHot()
    with pytest.raises(ConfigError, match=f"{own:.6g}"):
        OneHot().with_nu(own / 2, POOL)


def test_nu_on_a_pool_of_vertices():
    vertices = torch.eye(3, dtype=torch.float64)
    assert OneHot().nu(vertices) == 0
    assert TwoPoint().with_nu(0.0, vertices) == TwoPoint(0.0)
    for family in (Dirichlet, Annotators, TwoPoint):
        with pytest.raises(ConfigError):
            family().with_nu(1e-6, vertices)


# Families of their own --------------------------------------------------------------------


def test_one_annotator_is_one_hot():
    p, draws = random_bcp(8, 100), label_draws(8, 100)
    assert torch.equal(sample(Annotators(1.0), p, draws), sample(OneHot(), p, draws))


def test_more_annotators_extend_the_votes_of_fewer():
    p, draws = random_bcp(8, 100), label_draws(8, 100)
    three, four = (n * sample(Annotators(n), p, draws) for n in (3.0, 4.0))
    extra = four - three
    assert ((extra - extra.round()).abs() < 1e-12).all() and (extra > -1e-12).all()


def test_annotators_mix_two_counts():
    p = torch.tensor([0.5, 0.5], dtype=torch.float64)
    q = sample(Annotators(2.5), p, label_draws(100, 1000))
    three = ((3 * q).round() - 3 * q).abs() < 1e-9
    two = ((2 * q).round() - 2 * q).abs() < 1e-9
    assert (two | three).all()
    thirds = (three & ~two).double().mean().item() / 0.75  # a mean of three halves is a third or two thirds: 3 in 4
    inverse = thirds / 3 + (1 - thirds) / 2
    assert inverse == pytest.approx(1 / 2.5, rel=0.005)


def test_annotators_work_in_proportion_to_their_number(monkeypatch):
    elements = []
    words = Draws.words

    def count(self, slot):
        result = words(self, slot)
        elements.append(result.numel())
        return result

    monkeypatch.setattr(Draws, "words", count)
    stack = Annotators.stacked([Annotators(a) for a in (1.0, 9.5, 300.0)], [5, 2, 1], torch.device("cpu"))
    sample(stack, random_bcp(8, 4), label_draws(8, 4))
    assert sum(elements) == 4 * (8 + 5 * 1 + 2 * 10 + 300)  # one more for the number itself


@pytest.mark.slow
def test_ten_thousand_annotators():
    p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float32)
    q = sample(Annotators(10_000.0), p, label_draws(2, 2, dtype=torch.float32))
    assert (q - p).abs().max() < 5 * 0.5 / 100
    assert (10_000 * q - (10_000 * q).round()).abs().max() < 0.01


def test_two_point_touches_the_boundary_and_breaks_ties_by_index():
    p = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64)
    q = sample(TwoPoint(1.0), p[:, None, :], label_draws(3, 50))
    low = torch.tensor([[0.2, 0.8, 0.0], [0.8, 0.2, 0.0], [2 / 3, 0.0, 1 / 3]], dtype=torch.float64)
    high = 2 * p - low
    up, down = ((q - side[:, None, :]).abs().amax(-1) < 1e-15 for side in (low, high))
    assert (up ^ down).all() and (up.sum(-1) > 10).all() and (down.sum(-1) > 10).all()


def test_temperature_one_and_no_confusion_are_exact():
    p = random_bcp(2, 3)
    for supervision in (Temperature(1.0), LabelSmoothing(0.0), Confusion(0.0), LogitGaussian(0.0)):
        assert torch.allclose(sample(supervision, p, label_draws(2, 3)), p, rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_temperature_at_its_ends(dtype):
    p = torch.tensor([0.5, 0.5 - 1e-3, 1e-3, 0.0], dtype=dtype)
    cold = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=dtype)
    hot = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=dtype) / 3
    for temperature, limit in ((1e-300, cold), (1e-9, cold), (1e9, hot), (1e300, hot)):
        assert torch.allclose(Temperature(temperature).mean(p), limit, atol=1e-6)


def test_confusion_matrices():
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert Confusion(0.4, "cyclic").mean(p).tolist() == pytest.approx([0.38, 0.38, 0.24])
    assert Confusion(0.4, "symmetric").mean(p).tolist() == pytest.approx([0.4, 0.32, 0.28])


# Configuration ----------------------------------------------------------------------------


@families
def test_class_attributes(family):
    default = family()
    fields = [field.name for field in dataclasses.fields(family)]
    assert family.level_field is None or family.level_field in fields
    assert default.level == (None if family.level_field is None else getattr(default, family.level_field))
    assert dataclasses.is_dataclass(family) and family.__dataclass_params__.frozen
    assert config.by_name(SUPERVISIONS)[family.name] is family
    if fields:
        assert "Attributes:" in family.__doc__ and all(f"{field}:" in family.__doc__ for field in fields)
    assert "Mean" in family.__doc__ and "ovariance" in family.__doc__ and "Source:" in family.__doc__


@given(supervisions())
def test_json_form_round_trip(supervision):
    text = json.dumps(config.encode(supervision))
    assert config.decode(json.loads(text), SUPERVISIONS) == supervision


OUTSIDE = {
    Dirichlet: [0, -1.0, math.inf],
    Annotators: [0.999, 0, 2.0**25, math.inf],
    TwoPoint: [-0.1, 1.001],
    Independent: [-1e-9, math.inf],
    Temperature: [0.0, -1.0, math.inf],
    LabelSmoothing: [-0.1, 1.1],
    LogitGaussian: [-1.0, math.inf],
    Confusion: [-0.1, 1.1],
}


@pytest.mark.parametrize("family", OUTSIDE, ids=name)
def test_bad_levels_are_refused(family):
    assert set(OUTSIDE) == {cls for cls in SUPERVISIONS if cls.level_field is not None}
    for level in [*OUTSIDE[family], math.nan, "0.5", None, True]:
        with pytest.raises(ConfigError, match=f"{family.level_field} = .* is not allowed"):
            family(level)


def test_bad_confusions_are_refused():
    with pytest.raises(ConfigError, match="pattern = 'cycle'"):
        Confusion(pattern="cycle")
    with pytest.raises(ConfigError, match="labels = 1"):
        Confusion(labels=1)
