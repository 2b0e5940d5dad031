"""Targets of the supervisions inside Triton kernels: the formulas and the slots of `kdsim.supervision`.

A block of V visits of one replica is drawn at once, classes along the second axis, padded to KP. Padded classes have
p = 0 and, in the table of running sums, the last sum; every target is 0 there.
"""

# ruff: noqa: SIM102  the outer condition is decided when the kernel is compiled, the inner one by each replica
from __future__ import annotations

import triton
import triton.language as tl

from kdsim import rng
from kdsim.engines.triton_random import TWO_PI, to_uniform, words
from kdsim.rng import Stream

EXACT, ONE_HOT, ANNOTATORS = tl.constexpr(1), tl.constexpr(2), tl.constexpr(4)
DIRICHLET, TWO_POINT, INDEPENDENT = tl.constexpr(8), tl.constexpr(16), tl.constexpr(32)
LABEL = tl.constexpr(int(Stream.LABEL))
COUNT_SLOT = tl.constexpr(rng.COUNT_SLOT)


@triton.jit
def targets(
    family, level, fewest, most, visit, row, p_ptr, cdf_ptr, low, high, replica,
    FAMILIES: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Targets (V, KP) of the visits (V,) int64 whose draws are keyed by `visit` and whose pool rows are `row`.

    Args:
        family: one of the codes above, a scalar; FAMILIES is the sum of those that occur in the launch.
        level: the family's level in DTYPE (annotators: the probability of `fewest` labels; independent: the standard
            deviation), a scalar.
        fewest, most: numbers of labels of annotators, int32 scalars.
    """
    k = tl.arange(0, KP)[None, :]
    place = row[:, None] * KP + k
    p = tl.load(p_ptr + place)
    q = p
    if ONE_HOT & FAMILIES:
        if family == ONE_HOT:
            label = _label(tl.load(cdf_ptr + place), visit, tl.zeros((1,), tl.uint32), low, high, replica, DTYPE)
            q = tl.where(k == label[:, None], 1.0, 0.0).to(DTYPE)
    if ANNOTATORS & FAMILIES:
        if family == ANNOTATORS:
            cdf = tl.load(cdf_ptr + place)
            q = _annotators(cdf, k, level, fewest, most, visit, low, high, replica, DTYPE)
    if DIRICHLET & FAMILIES:
        if family == DIRICHLET:
            q = _dirichlet(p, k, level, visit[:, None], low, high, replica, K, DTYPE)
    if TWO_POINT & FAMILIES:
        if family == TWO_POINT:
            q = _two_point(p, k, level, visit, low, high, replica, DTYPE)
    if INDEPENDENT & FAMILIES:
        if family == INDEPENDENT:
            noise = _normals(k.to(tl.uint32), visit[:, None], low, high, replica, DTYPE) * level
            q = tl.where(k < K, p + noise, 0.0).to(DTYPE)
    return q


@triton.jit
def _uniform(visit, slot, low, high, replica, DTYPE: tl.constexpr):
    return to_uniform(words(visit, slot, LABEL, low, high, replica), DTYPE)


@triton.jit
def _label(cdf, visit, slot, low, high, replica, DTYPE: tl.constexpr):
    """Labels (V,) by the inverse distribution function: the number of running sums that are not reached."""
    total = tl.max(cdf, axis=1)  # running sums do not decrease
    scaled = _uniform(visit, slot, low, high, replica, DTYPE) * total
    return tl.sum((scaled[:, None] >= cdf).to(tl.int32), axis=1)


@triton.jit
def _annotators(cdf, k, keep_fewest, fewest, most, visit, low, high, replica, DTYPE: tl.constexpr):
    count_slot = tl.full((1,), COUNT_SLOT, tl.uint32)
    more = _uniform(visit, count_slot, low, high, replica, DTYPE) >= keep_fewest
    votes = fewest + more.to(tl.int32)  # (V,)
    counts = tl.zeros_like(cdf)
    for number in range(0, most):
        label = _label(cdf, visit, tl.zeros((1,), tl.uint32) + number, low, high, replica, DTYPE)
        drawn = (k == label[:, None]) & (number < votes)[:, None]
        counts += tl.where(drawn, 1.0, 0.0).to(DTYPE)
    return counts / votes.to(DTYPE)[:, None]


@triton.jit
def _two_point(p, k, fraction, visit, low, high, replica, DTYPE: tl.constexpr):
    first = tl.argmax(p, axis=1)[:, None]  # of equal ones the first, here and below
    others = tl.where(k == first, -1.0, p)
    second = tl.argmax(others, axis=1)[:, None]
    shift = fraction * tl.max(others, axis=1)
    up = _uniform(visit, tl.zeros((1,), tl.uint32), low, high, replica, DTYPE) < 0.5
    shift = tl.where(up, shift, -shift)[:, None]
    return tl.where(k == first, p + shift, tl.where(k == second, p - shift, p))


@triton.jit
def _normals(number, visit, low, high, replica, DTYPE: tl.constexpr):
    """Standard normals, one for each `number` (1, KP) uint32 and visit (V, 1). See `kdsim.rng.Draws.normals`."""
    slot = (number >> 1) * 2
    first = _uniform(visit, slot, low, high, replica, DTYPE)
    angle = _uniform(visit, slot + 1, low, high, replica, DTYPE) * TWO_PI
    return tl.sqrt(-2.0 * tl.log(first)) * tl.where((number & 1) == 0, tl.cos(angle), tl.sin(angle))


@triton.jit
def _dirichlet(p, k, concentration, visit, low, high, replica, K: tl.constexpr, DTYPE: tl.constexpr):
    """Marsaglia-Tsang gammas in logarithms, normalised. See `kdsim.supervision.dirichlet`. p (V, KP), visit (V, 1)."""
    number = k.to(tl.uint32)
    shape = concentration * p
    offset = shape + 2.0 / 3.0
    normal = _normals(number, visit, low, high, replica, DTYPE)
    uniform = _uniform(visit, 2 * K + number, low, high, replica, DTYPE)
    t = normal / (3.0 * tl.sqrt(offset))
    square = normal * normal
    good = (uniform < 1.0 - 0.0331 * (square * square)) | _accept(offset, normal, uniform)
    rejected = (k < K) & (good == 0)  # (V, KP)
    slot = 4 * number
    while tl.max(tl.max(rejected.to(tl.int32), axis=1), axis=0) > 0:
        slot += 4 * K
        first = _uniform(visit, slot, low, high, replica, DTYPE)
        angle = _uniform(visit, slot + 1, low, high, replica, DTYPE) * TWO_PI
        uniform = _uniform(visit, slot + 2, low, high, replica, DTYPE)
        normal = tl.sqrt(-2.0 * tl.log(first)) * tl.cos(angle)
        good = rejected & _accept(offset, normal, uniform)
        t = tl.where(good, normal / (3.0 * tl.sqrt(offset)), t)
        rejected = rejected & (good == 0)
    # -log U in float64, where U is exact: it keeps its relative precision near U = 1. The other logarithms as well,
    # of numbers near 1 at large concentrations.
    exponential = -tl.log(to_uniform(words(visit, 3 * K + number, LABEL, low, high, replica), tl.float64))
    cut = tl.maximum(concentration, 1.0)  # dividing by it keeps the logarithm small
    log_gamma = tl.log((offset / cut).to(tl.float64)) + 3.0 * _log1p(t.to(tl.float64))
    log_gamma = tl.where(shape > 0, log_gamma - exponential / shape.to(tl.float64), float("-inf"))
    weights = tl.exp(log_gamma - tl.max(log_gamma, axis=1)[:, None])
    return (weights / tl.sum(weights, axis=1)[:, None]).to(DTYPE)


@triton.jit
def _accept(offset, normal, uniform):
    """The exact test of Marsaglia and Tsang in float64. See `kdsim.supervision.dirichlet._accept`."""
    d = offset.to(tl.float64)
    t = normal.to(tl.float64) / (3.0 * tl.sqrt(d))
    right = d * (3.0 * (_log1p(t) - t + t * t * 0.5) - t * t * t)
    return (t > -1.0) & (tl.log(uniform.to(tl.float64)) < right)


@triton.jit
def _log1p(t):
    """log(1 + t) in float64 to a few units in the last place, for t > -1.

    log u * (t / (u - 1)) with u the rounded 1 + t: the error of log u is that of u, and the quotient takes it back
    (W. Kahan; D. Goldberg, "What every computer scientist should know about floating-point arithmetic", ACM Computing
    Surveys 1991, theorem 4). Triton's interpreter has no log1p.
    """
    u = 1.0 + t
    return tl.where(u == 1.0, t, tl.log(u) * (t / tl.where(u == 1.0, 1.0, u - 1.0)))
