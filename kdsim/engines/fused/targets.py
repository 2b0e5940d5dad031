"""Targets of 16 replicas for the four visits of a Philox block: the supervisions of `kdsim.supervision`, draw for draw.

Each follows the `sample` of its family, in the same slots and the same order of additions, so that in float64 the two
agree to rounding. See there for formulas and sources.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from kdsim.engines.fused.draws import block_words, store_block, uniforms, words_at
from kdsim.engines.fused.mathematics import (
    exponential,
    logarithm,
    logarithm_one_plus,
    sine_and_cosine_of_turns,
)
from kdsim.engines.fused.simd import (
    LANES,
    both,
    either,
    equal,
    fma,
    largest,
    less,
    load,
    narrow,
    number,
    outside,
    select,
    somewhere,
    square_root,
    store,
    widen,
)
from kdsim.rng import COUNT_SLOT, Stream

FAMILIES = ("exact", "one-hot", "annotators", "dirichlet", "two-point", "independent")
"""Names of the supervisions that are drawn here; the place is the family's number in a kernel."""
_ONE_HOT, _ANNOTATORS, _DIRICHLET, _TWO_POINT, _INDEPENDENT = range(1, 6)
_LABEL = int(Stream.LABEL)
QUAD = 4 * LANES
"""Numbers that a quantity has for the four visits of a block."""


class Visits(NamedTuple):
    """The visits of a block, and where their random numbers come from.

    Attributes:
        block: number of the Philox block.
        frozen: targets are keyed by the pool index instead of the visit.
        index: pool indices of the four visits, (64,) uint32.
        words: scratch, (slots * 64,) uint32.
    """

    block: int
    frozen: bool
    index: np.ndarray
    words: np.ndarray


class Kind(NamedTuple):
    """A family and its level, in float64."""

    family: int
    level: float


@njit
def _fill(visits, replicas, slot, place):
    """The words of one slot for the four visits, into the scratch from `place` on."""
    if visits.frozen:
        for s in range(4):
            store(visits.words, place + s * LANES, words_at(replicas, load(visits.index, s * LANES), slot, _LABEL))
    else:
        store_block(visits.words, place, block_words(replicas, visits.block, slot, _LABEL))


@njit
def _single(visits, replicas, s, slot):
    """The words of one slot for visit s of the block."""
    if visits.frozen:
        return words_at(replicas, load(visits.index, s * LANES), slot, _LABEL)
    w0, w1, w2, w3 = block_words(replicas, visits.block, slot, _LABEL)
    return (w0 if s == 0 else w1) if s < 2 else (w2 if s == 2 else w3)


@njit
def draw(kind, visits, replicas, classes, p, p_stride, p_first, q, scratch):
    """Targets of the four visits.

    Args:
        p: of visit s and class k at p[s * p_stride + p_first + 16 k ...].
        q: of visit s and class k at q[(s * classes + k) * 16 ...], written.
        scratch: (4 * classes * 16,).
    """
    if kind.family == _ONE_HOT:
        _one_hot(visits, replicas, classes, p, p_stride, p_first, q)
    elif kind.family == _ANNOTATORS:
        _annotators(kind.level, visits, replicas, classes, p, p_stride, p_first, q)
    elif kind.family == _DIRICHLET:
        _dirichlet(kind.level, visits, replicas, classes, p, p_stride, p_first, q)
    elif kind.family == _TWO_POINT:
        _two_point(kind.level, visits, replicas, classes, p, p_stride, p_first, q)
    else:
        for s in range(4):
            for k in range(classes):
                store(q, (s * classes + k) * LANES, load(p, s * p_stride + p_first + k * LANES))
        if kind.family == _INDEPENDENT:
            _add_normals(kind.level, visits, replicas, classes, q, scratch)


@njit
def _one_hot(visits, replicas, classes, p, p_stride, p_first, q):
    _fill(visits, replicas, 0, 0)
    for s in range(4):
        row = s * p_stride + p_first
        total = load(p, row)
        for k in range(1, classes):
            total = total + load(p, row + k * LANES)
        zero, one = number(0.0, total), number(1.0, total)
        point = uniforms(load(visits.words, s * LANES), total) * total
        cdf = load(p, row)
        below = select(less(point, cdf), one, zero)  # whether the label is at most k
        store(q, s * classes * LANES, below)
        for k in range(1, classes):
            cdf = cdf + load(p, row + k * LANES)
            at_most = select(less(point, cdf), one, zero)
            store(q, (s * classes + k) * LANES, at_most - below)
            below = at_most


@njit
def _annotators(level, visits, replicas, classes, p, p_stride, p_first, q):
    like = load(p, p_first)
    zero, one = number(0.0, like), number(1.0, like)
    fewest, most = np.floor(level), np.ceil(level)
    keep_fewest = number(fewest * ((fewest + 1) / level - 1), like)
    for place in range(4 * classes):
        store(q, place * LANES, zero)
    _fill(visits, replicas, COUNT_SLOT, 4 * LANES)
    for label in range(int(most)):
        _fill(visits, replicas, label, 0)
        for s in range(4):
            row = s * p_stride + p_first
            total = load(p, row)
            for k in range(1, classes):
                total = total + load(p, row + k * LANES)
            point = uniforms(load(visits.words, s * LANES), like) * total
            more = outside(less(uniforms(load(visits.words, QUAD + s * LANES), like), keep_fewest))
            votes = number(fewest, like) + select(more, one, zero)
            there = less(number(float(label), like), votes)  # only the last label may be missing
            cdf = zero
            for k in range(classes):
                cdf = cdf + load(p, row + k * LANES) if k else load(p, row)
                place = (s * classes + k) * LANES
                store(q, place, load(q, place) + select(both(there, less(point, cdf)), one, zero))
    for s in range(4):
        more = outside(less(uniforms(load(visits.words, QUAD + s * LANES), like), keep_fewest))
        votes = number(fewest, like) + select(more, one, zero)
        below = zero
        for k in range(classes):
            place = (s * classes + k) * LANES
            at_most = load(q, place)
            store(q, place, (at_most - below) / votes)
            below = at_most


@njit
def _two_point(level, visits, replicas, classes, p, p_stride, p_first, q):
    _fill(visits, replicas, 0, 0)
    for s in range(4):
        row = s * p_stride + p_first
        best = load(p, row)
        first = number(0.0, best)
        for k in range(1, classes):  # of equal ones the first
            value = load(p, row + k * LANES)
            higher = less(best, value)
            best, first = select(higher, value, best), select(higher, number(float(k), best), first)
        smaller, second = number(-1.0, best), first
        for k in range(classes):
            value = load(p, row + k * LANES)
            higher = both(less(smaller, value), outside(equal(first, number(float(k), best))))
            smaller, second = select(higher, value, smaller), select(higher, number(float(k), best), second)
        shift = number(level, best) * smaller
        up = less(uniforms(load(visits.words, s * LANES), best), number(0.5, best))
        shift = select(up, shift, number(0.0, best) - shift)
        for k in range(classes):
            value, here = load(p, row + k * LANES), number(float(k), best)
            value = select(equal(first, here), value + shift, value)
            value = select(equal(second, here), value - shift, value)
            store(q, (s * classes + k) * LANES, value)


@njit(forceinline=True)
def _box_muller(first, second):
    """Two normals from two uniforms: cosine and sine."""
    radius = square_root(number(-2.0, first) * logarithm(first))
    sine, cosine = sine_and_cosine_of_turns(second)
    return radius * cosine, radius * sine


@njit
def _normals(visits, replicas, classes, out, like):
    """`Draws.normals` of the four visits, class k of visit s at out[(s * classes + k) * 16 ...]."""
    for k in range(0, classes, 2):
        _fill(visits, replicas, k, 0)
        _fill(visits, replicas, k + 1, QUAD)
        for s in range(4):
            first = uniforms(load(visits.words, s * LANES), like)
            second = uniforms(load(visits.words, QUAD + s * LANES), like)
            even, odd = _box_muller(first, second)
            store(out, (s * classes + k) * LANES, even)
            if k + 1 < classes:
                store(out, (s * classes + k + 1) * LANES, odd)


@njit
def _add_normals(level, visits, replicas, classes, q, scratch):
    like = load(q, 0)
    deviation = square_root(number(level, like))
    _normals(visits, replicas, classes, scratch, like)
    for place in range(0, 4 * classes * LANES, LANES):
        store(q, place, fma(load(scratch, place), deviation, load(q, place)))


@njit
def _dirichlet(level, visits, replicas, classes, p, p_stride, p_first, q):
    like = load(p, p_first)
    _normals(visits, replicas, classes, q, like)
    concentration = number(min(max(level, 1e-30), 1e30), like)
    divisor = number(max(min(level, 1e30), 1.0), like)
    for k in range(classes):
        _fill(visits, replicas, 2 * classes + k, 0)
        _fill(visits, replicas, 3 * classes + k, QUAD)
        for s in range(4):
            shape = concentration * load(p, s * p_stride + p_first + k * LANES)
            offset = shape + number(2 / 3, like)
            place = (s * classes + k) * LANES
            normal, uniform = load(q, place), uniforms(load(visits.words, s * LANES), like)
            t = normal / (number(3.0, like) * square_root(offset))
            rejected = outside(_accepted(offset, normal, uniform))
            attempt = 0
            while somewhere(rejected):
                attempt += 1
                slot = 4 * (attempt * classes + k)
                first = uniforms(_single(visits, replicas, s, slot), like)
                second = uniforms(_single(visits, replicas, s, slot + 1), like)
                uniform = uniforms(_single(visits, replicas, s, slot + 2), like)
                normal, _ = _box_muller(first, second)
                good = both(rejected, _accepted(offset, normal, uniform))
                t = select(good, normal / (number(3.0, like) * square_root(offset)), t)
                rejected = both(rejected, outside(good))
            wide = widen(like)
            exact = logarithm(uniforms(load(visits.words, QUAD + s * LANES), wide))
            exponentials = number(0.0, like) - narrow(exact, like)
            log_gamma = fma(number(3.0, like), logarithm_one_plus(t), logarithm(offset / divisor))
            store(q, place, log_gamma - exponentials / shape)
    for s in range(4):
        _normalise(q, s * classes * LANES, classes)


@njit(forceinline=True)
def _normalise(q, row, classes):
    """Softmax over the classes, in place."""
    top = load(q, row)
    for k in range(1, classes):
        top = largest(top, load(q, row + k * LANES))
    total = number(0.0, top)
    for k in range(classes):
        weight = exponential(load(q, row + k * LANES) - top)
        total = total + weight
        store(q, row + k * LANES, weight)
    for k in range(classes):
        store(q, row + k * LANES, load(q, row + k * LANES) / total)


@njit(forceinline=True)
def _accepted(offset, normal, uniform):
    """The squeeze, and where it does not accept the exact test in float64. See `kdsim.supervision.dirichlet`."""
    square = normal * normal
    squeezed = less(uniform, number(1.0, normal) - number(0.0331, normal) * (square * square))
    d, x = widen(offset), widen(normal)
    one, three = number(1.0, d), number(3.0, d)
    t = x / (three * square_root(d))
    positive = less(number(0.0, d) - one, t)
    t = select(positive, t, number(0.0, d))
    curve = logarithm_one_plus(t) - t + t * t / number(2.0, d)
    exact = less(logarithm(widen(uniform)), d * (three * curve - t * t * t))
    return either(squeezed, both(positive, exact))
