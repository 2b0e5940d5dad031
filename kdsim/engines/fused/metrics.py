"""Excess risk, accuracy and distance to the BCP over the whole pool, for 16 replicas at a time.

The formulas are those of `Recorder` and of the students' `compare`; replicas see the same points, whose numbers are
broadcast.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from kdsim.engines.fused.compilation import kernel
from kdsim.engines.fused.mathematics import (
    exponential,
    exponential_less_one,
    logarithm,
    logarithm_one_plus,
)
from kdsim.engines.fused.simd import (
    LANES,
    fma,
    largest,
    less,
    load,
    number,
    select,
    somewhere,
    splat,
    square_root,
    store,
    widen,
)
from kdsim.losses.cross_entropy import LARGE

_POINTS = 4
"""Points whose outputs are computed together, to share the loads of the parameters."""


class Points(NamedTuple):
    """The pool, point by point.

    Attributes:
        x: (N, d).
        outputs: of the reference, (N, K).
        offset: outputs of the reference less the best, (N, K).
        p: BCP, (N, K).
        best: the prediction at the best outputs, (N, K); its logarithm for cross-entropy.
        best_risk: mean loss at the best outputs.
        realisable: the best outputs are exactly p.
        quadratic: squared error instead of cross-entropy.
    """

    x: np.ndarray
    outputs: np.ndarray
    offset: np.ndarray
    p: np.ndarray
    best: np.ndarray
    log_best: np.ndarray
    best_risk: float
    realisable: bool
    quadratic: bool


@njit(forceinline=True)
def _changes(points, first, theta, at, out):
    """x theta_k for four points from `first` on, at out[(s * K + k) * 16 ...]; the last point repeated at the end."""
    features, classes = points.x.shape[1], points.p.shape[1]
    last = len(points.x) - 1
    n0, n1 = first, min(first + 1, last)
    n2, n3 = min(first + 2, last), min(first + 3, last)
    for k in range(classes):
        row = at + k * features * LANES
        a0 = number(0.0, load(theta, row))
        a1 = a2 = a3 = a0
        for j in range(features):
            value = load(theta, row + j * LANES)
            a0 = fma(splat(points.x[n0, j]), value, a0)
            a1 = fma(splat(points.x[n1, j]), value, a1)
            a2 = fma(splat(points.x[n2, j]), value, a2)
            a3 = fma(splat(points.x[n3, j]), value, a3)
        store(out, k * LANES, a0)
        store(out, (classes + k) * LANES, a1)
        store(out, (2 * classes + k) * LANES, a2)
        store(out, (3 * classes + k) * LANES, a3)


@njit(forceinline=True)
def _at_largest(points, n, change, place):
    """p at the class of the largest output, of equal ones the first."""
    best = load(change, place) + splat(points.outputs[n, 0])
    value = splat(points.p[n, 0])
    for k in range(1, points.p.shape[1]):
        output = load(change, place + k * LANES) + splat(points.outputs[n, k])
        higher = less(best, output)
        best, value = select(higher, output, best), select(higher, splat(points.p[n, k]), value)
    return value


@njit(forceinline=True)
def _squared(points, n, change, place):
    """Excess of half squared error, and |prediction - p|^2."""
    zero = number(0.0, load(change, place))
    gaps = risk = zero
    for k in range(points.p.shape[1]):
        if points.realisable:
            gap = load(change, place + k * LANES) + splat(points.offset[n, k])
        else:
            gap = load(change, place + k * LANES) + splat(points.outputs[n, k]) - splat(points.p[n, k])
        gaps = fma(gap, gap, gaps)
    risk = number(0.5, zero) * gaps
    return risk, gaps


@njit(forceinline=True)
def _divergence(points, n, change, place):
    """KL(p || prediction) and |prediction - p|^2 from e, the error of the logits centred under p, without cancellation.

    log E_p[exp e] and p (exp e / E_p[exp e] - 1): see `SoftmaxRegression.compare`.
    """
    classes = points.p.shape[1]
    zero = number(0.0, load(change, place))
    mean = zero
    for k in range(classes):
        error = load(change, place + k * LANES) + splat(points.offset[n, k])
        mean = fma(splat(points.best[n, k]), error, mean)
        store(change, place + k * LANES, error)
    top = load(change, place) - mean
    for k in range(classes):
        error = load(change, place + k * LANES) - mean
        top = largest(error, top)
        store(change, place + k * LANES, error)
    far = less(number(LARGE, zero), top)
    excess = zero
    spare = 4 * classes * LANES
    for k in range(classes):
        near = select(far, zero, load(change, place + k * LANES))
        growth, curve = exponential_less_one(near)
        excess = fma(splat(points.best[n, k]), curve, excess)
        store(change, spare + k * LANES, growth)
    scale = number(1.0, zero) / (number(1.0, zero) + excess)
    gaps = zero
    for k in range(classes):
        gap = splat(points.best[n, k]) * (load(change, spare + k * LANES) - excess) * scale
        gaps = fma(gap, gap, gaps)
    risk = logarithm_one_plus(excess)
    if somewhere(far):
        for k in range(classes):
            store(change, place + k * LANES, load(change, place + k * LANES) + splat(points.log_best[n, k]))
        far_risk, far_gaps = _softmax(points, n, change, place)
        risk, gaps = select(far, far_risk, risk), select(far, far_gaps, gaps)
    return risk, gaps


@njit(forceinline=True)
def _softmax(points, n, logits, place):
    """log sum exp of the logits, and |softmax - p|^2 with the best prediction for p."""
    classes = points.p.shape[1]
    top = load(logits, place)
    for k in range(1, classes):
        top = largest(top, load(logits, place + k * LANES))
    total = gaps = number(0.0, top)
    for k in range(classes):
        total = total + exponential(load(logits, place + k * LANES) - top)
    for k in range(classes):
        weight = exponential(load(logits, place + k * LANES) - top) / total
        target = points.best[n, k] if points.realisable else points.p[n, k]
        gap = weight - splat(target)
        gaps = fma(gap, gap, gaps)
    return top + logarithm(total), gaps


@njit(forceinline=True)
def _cross_entropy(points, n, change, place):
    """-sum p log softmax at the outputs, and |softmax - p|^2."""
    expected = number(0.0, load(change, place))
    for k in range(points.p.shape[1]):
        output = load(change, place + k * LANES) + splat(points.outputs[n, k])
        expected = fma(splat(points.p[n, k]), output, expected)
        store(change, place + k * LANES, output)
    level, gaps = _softmax(points, n, change, place)
    return level - expected, gaps


@kernel(nogil=True)
def pool_metrics(points, theta, groups, change, out):
    """Means over the pool.

    Args:
        theta: parameters of all groups less the reference, (G * K * d * 16,).
        groups: G.
        change: scratch, (5 * K * 16,).
        out: (3 * 16 G,) float64: excess risk, accuracy, |prediction - p|, written.
    """
    size, features = points.x.shape
    classes = points.p.shape[1]
    columns = groups * LANES
    for g in range(groups):
        at = g * classes * features * LANES
        risks = widen(number(0.0, load(theta, at)))
        hits = distances = risks
        for first in range(0, size, _POINTS):
            _changes(points, first, theta, at, change)
            for s in range(min(_POINTS, size - first)):
                n, place = first + s, s * classes * LANES
                hits = hits + widen(_at_largest(points, n, change, place))
                if points.quadratic:
                    risk, gaps = _squared(points, n, change, place)
                elif points.realisable:
                    risk, gaps = _divergence(points, n, change, place)
                else:
                    risk, gaps = _cross_entropy(points, n, change, place)
                risks = risks + widen(risk)
                distances = distances + widen(square_root(gaps))
        whole = number(float(size), risks)
        store(out, g * LANES, risks / whole - number(points.best_risk, risks))
        store(out, columns + g * LANES, hits / whole)
        store(out, 2 * columns + g * LANES, distances / whole)
