"""The SGD loop of 16 replicas: everything between two checkpoints in registers and L1.

Layout. A group is 16 replicas of one lane, one in each place of a vector: parameters are (K, d, 16) of a group. A visit
reads one row of a table for each replica (inputs, outputs of the reference, BCP), transposed on the way in, so that all
arithmetic is that of one replica on vectors and no sum runs across a vector. The four visits of a Philox block are
fetched together; their successors' rows are asked for at the same time, since indices do not depend on the parameters.

Source of the update: `kdsim.engines.torch_batched`, in the same coordinates e = theta - reference.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from kdsim.engines.fused.compilation import kernel
from kdsim.engines.fused.draws import (
    Permutation,
    Replicas,
    block_words,
    epoch_keys,
    permuted,
    store_block,
)
from kdsim.engines.fused.mathematics import exponential
from kdsim.engines.fused.simd import (
    LANES,
    fma,
    high_product,
    largest,
    load,
    number,
    prefetch,
    splat,
    store,
    transpose,
    widen,
)
from kdsim.engines.fused.targets import QUAD, Kind, Visits, draw
from kdsim.rng import FEISTEL_ROUNDS, Stream

_INDEX, _SPLIT = int(Stream.INDEX), int(Stream.SPLIT)
_MASK = 0xFFFFFFFF
_KEYS = FEISTEL_ROUNDS * LANES
LINE = 64
"""Bytes of a cache line."""


class Pool(NamedTuple):
    """The pool as the kernel reads it.

    Attributes:
        table: rows of `width` numbers, (size * width,): x (d), outputs of the reference (K), p (K), padding.
        size, width, features, classes: N, multiple of 16, d, K.
        far: whether the table is too large for the caches near the core, so that rows are asked for ahead.
    """

    table: np.ndarray
    size: int
    width: int
    features: int
    classes: int
    far: bool


class Plan(NamedTuple):
    """How the pool is visited.

    Attributes:
        batch_size: b.
        permuted: epochs without replacement.
        members: size of each replica's training set, 0 for the whole pool.
        frozen: frozen targets.
        quadratic: squared error instead of cross-entropy.
        ridge: lambda.
        epoch: Feistel sides of an epoch over the pool or the training set.
        split: Feistel sides of the draw of a training set from the pool.
    """

    batch_size: int
    permuted: bool
    members: int
    frozen: bool
    quadratic: bool
    ridge: float
    epoch: Permutation
    split: Permutation


class Groups(NamedTuple):
    """Groups of 16 replicas, (G,) each.

    Attributes:
        numbers: of the replicas, (16 G,) uint32.
        key0, key1: words of the seed, uint32.
        family, level: what teaches them, see `Kind`.
        step_size: alpha, float64.
    """

    numbers: np.ndarray
    key0: np.ndarray
    key1: np.ndarray
    family: np.ndarray
    level: np.ndarray
    step_size: np.ndarray


class _Group(NamedTuple):
    """One group: its replicas, what teaches them, alpha, and the place of their parameters."""

    replicas: Replicas
    kind: Kind
    step_size: float
    first: int


class Scratch(NamedTuple):
    """Working memory of one thread: see `scratch`."""

    rows: np.ndarray
    q: np.ndarray
    spare: np.ndarray
    residuals: np.ndarray
    gradient: np.ndarray
    words: np.ndarray
    index: np.ndarray
    starts: np.ndarray
    keys: np.ndarray


def scratch(pool: Pool, dtype: np.dtype) -> Scratch:
    """Working memory for a pool, some 30 KiB at K = 5, d = 31."""
    classes, features = pool.classes, pool.features
    return Scratch(
        rows=aligned(4 * pool.width * LANES, dtype),
        q=aligned(4 * classes * LANES, dtype),
        spare=aligned(4 * classes * LANES, dtype),
        residuals=aligned(4 * classes * LANES, dtype),
        gradient=aligned(classes * features * LANES, dtype),
        words=aligned(2 * QUAD, np.uint32),
        index=aligned(2 * QUAD, np.uint32),
        starts=aligned(2 * QUAD, np.int64),
        keys=aligned(2 * _KEYS, np.uint32),
    )


def aligned(size: int, dtype: np.dtype | type) -> np.ndarray:
    """Zeros that begin at a cache line, (size,)."""
    memory = np.zeros(size * np.dtype(dtype).itemsize + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    return memory[first : first + size * np.dtype(dtype).itemsize].view(dtype)


# Visits -----------------------------------------------------------------------------------------


@njit
def _find(block, half, pool, plan, group, work, epoch_known):
    """Pool indices of the visits of a block, and the places of their rows, into half 0 or 1 of the work arrays.

    Returns the epoch whose round keys are in `work.keys` (-1: none).
    """
    at = half * QUAD
    count = plan.members if plan.members else pool.size
    if plan.permuted:
        for s in range(4):
            visit = 4 * block + s
            epoch = visit // count
            if epoch != epoch_known:
                epoch_keys(group.replicas, epoch, _INDEX, work.keys)
                epoch_known = epoch
            position = splat(np.uint32(visit - epoch * count))
            store(work.index, at + s * LANES, permuted(position, work.keys, plan.epoch))
    else:
        w0, w1, w2, w3 = block_words(group.replicas, block, 0, _INDEX)
        four = np.uint32(count)
        indices = high_product(w0, four), high_product(w1, four), high_product(w2, four), high_product(w3, four)
        store_block(work.index, at, indices)
    if plan.members:
        for place in range(at, at + QUAD, LANES):
            member = load(work.index, place)
            store(work.index, place, permuted(member, work.keys[_KEYS:], plan.split))
    for place in range(at, at + QUAD):
        work.starts[place] = np.int64(work.index[place]) * pool.width
    if pool.far:
        step = LINE // work.rows.itemsize
        for place in range(at, at + QUAD):
            for column in range(0, pool.features + 2 * pool.classes, step):
                prefetch(pool.table, work.starts[place] + column)
    return epoch_known


@njit
def _fetch(block, half, pool, plan, group, work):
    """Rows and targets of the visits of a block, from the indices in half 0 or 1."""
    at = half * QUAD
    for s in range(4):
        for column in range(0, pool.width, LANES):
            place = (s * pool.width + column) * LANES
            transpose(pool.table, work.starts, at + s * LANES, column, work.rows, place)
    visits = Visits(block, plan.frozen, work.index[at : at + QUAD], work.words)
    first = (pool.features + pool.classes) * LANES
    draw(group.kind, visits, group.replicas, pool.classes, work.rows, pool.width * LANES, first, work.q, work.spare)


# One visit --------------------------------------------------------------------------------------


@njit(forceinline=True)
def _outputs(theta, first, rows, row, features, classes, out, place):
    """out_k = reference output + sum_j x_j e_kj: four classes at a time share the loads of x."""
    base = row + features * LANES
    k = 0
    while k + 4 <= classes:
        t0 = first + k * features * LANES
        t1, t2, t3 = t0 + features * LANES, t0 + 2 * features * LANES, t0 + 3 * features * LANES
        a0, a1 = load(rows, base + k * LANES), load(rows, base + (k + 1) * LANES)
        a2, a3 = load(rows, base + (k + 2) * LANES), load(rows, base + (k + 3) * LANES)
        for j in range(0, features * LANES, LANES):
            x = load(rows, row + j)
            a0 = fma(x, load(theta, t0 + j), a0)
            a1 = fma(x, load(theta, t1 + j), a1)
            a2 = fma(x, load(theta, t2 + j), a2)
            a3 = fma(x, load(theta, t3 + j), a3)
        store(out, place + k * LANES, a0)
        store(out, place + (k + 1) * LANES, a1)
        store(out, place + (k + 2) * LANES, a2)
        store(out, place + (k + 3) * LANES, a3)
        k += 4
    while k < classes:
        t0 = first + k * features * LANES
        a0 = load(rows, base + k * LANES)
        for j in range(0, features * LANES, LANES):
            a0 = fma(load(rows, row + j), load(theta, t0 + j), a0)
        store(out, place + k * LANES, a0)
        k += 1


@njit(forceinline=True)
def _residuals(quadratic, rate, classes, q, target, out, place):
    """rate * gradient of the loss in the outputs, in place: z - q, or (sum q) softmax(z) - q."""
    factor = number(rate, load(q, target))
    if quadratic:
        for k in range(0, classes * LANES, LANES):
            store(out, place + k, factor * (load(out, place + k) - load(q, target + k)))
        return
    top, whole = load(out, place), load(q, target)
    for k in range(LANES, classes * LANES, LANES):
        top = largest(top, load(out, place + k))
        whole = whole + load(q, target + k)
    total = number(0.0, top)
    for k in range(0, classes * LANES, LANES):
        weight = exponential(load(out, place + k) - top)
        total = total + weight
        store(out, place + k, weight)
    scale = whole / total
    for k in range(0, classes * LANES, LANES):
        store(out, place + k, factor * (scale * load(out, place + k) - load(q, target + k)))


@njit(forceinline=True)
def _step(theta, first, pull, rows, row, residuals, place, features, classes):
    """theta <- theta - pull theta + residual x', for a batch of one and a ridge that pulls to the reference."""
    for k in range(classes):
        residual = load(residuals, place + k * LANES)
        at = first + k * features * LANES
        if pull == 0.0:
            for j in range(0, features * LANES, LANES):
                store(theta, at + j, fma(residual, load(rows, row + j), load(theta, at + j)))
        else:
            shrink = number(-pull, residual)
            for j in range(0, features * LANES, LANES):
                value = load(theta, at + j)
                store(theta, at + j, fma(residual, load(rows, row + j), fma(shrink, value, value)))


@njit(forceinline=True)
def _accumulate(gradient, fresh, rows, row, stride, residuals, place, count, features, classes):
    """Add residual x' of `count` visits of one batch to the gradient; `fresh` starts it."""
    for k in range(classes):
        at = k * features * LANES
        for j in range(0, features * LANES, LANES):
            value = load(gradient, at + j)
            if fresh:
                value = number(0.0, value)
            for s in range(count):
                residual = load(residuals, place + (s * classes + k) * LANES)
                value = fma(residual, load(rows, row + s * stride + j), value)
            store(gradient, at + j, value)


@njit(forceinline=True)
def _apply(theta, first, pull, pull_to, gradient, size):
    """theta <- theta + pull (pull_to - theta) + gradient."""
    for place in range(size):
        at = first + place * LANES
        value = load(theta, at)
        if pull != 0.0:
            value = fma(number(pull, value), number(pull_to[place], value) - value, value)
        store(theta, at, value + load(gradient, place * LANES))


@njit(forceinline=True)
def _squared_distance(theta, first, size, out, place):
    """Sum of squares over the parameters of each replica, in float64."""
    value = widen(load(theta, first))
    total = value * value
    for k in range(1, size):
        value = widen(load(theta, first + k * LANES))
        total = fma(value, value, total)
    store(out, place, total)


@njit
def _walk(pool, plan, group, start, end, theta, pull_to, centred, samples, distances, column, columns, work):
    """`walk` for one group."""
    features, classes = pool.features, pool.classes
    size, stride = features * classes, pool.width * LANES
    rate, pull = -group.step_size / plan.batch_size, group.step_size * plan.ridge
    if plan.members:
        epoch_keys(group.replicas, 0, _SPLIT, work.keys[_KEYS:])
    visit = start * plan.batch_size
    block, s, half = visit // 4, visit % 4, 0
    epoch = _find(block, half, pool, plan, group, work, -1)
    _fetch(block, half, pool, plan, group, work)
    epoch = _find(block + 1, 1 - half, pool, plan, group, work, epoch)
    sample = 0
    for step in range(start + 1, end + 1):
        done = 0
        while done < plan.batch_size:
            if s == 4:
                block, s, half = block + 1, 0, 1 - half
                _fetch(block, half, pool, plan, group, work)
                epoch = _find(block + 1, 1 - half, pool, plan, group, work, epoch)
            count = min(4 - s, plan.batch_size - done)
            for i in range(s, s + count):
                place = i * classes * LANES
                _outputs(theta, group.first, work.rows, i * stride, features, classes, work.residuals, place)
                _residuals(plan.quadratic, rate, classes, work.q, place, work.residuals, place)
            row, place = s * stride, s * classes * LANES
            if plan.batch_size == 1 and centred:
                _step(theta, group.first, pull, work.rows, row, work.residuals, place, features, classes)
            else:
                _accumulate(
                    work.gradient, done == 0, work.rows, row, stride, work.residuals, place, count, features, classes
                )
            s += count
            done += count
        if plan.batch_size > 1 or not centred:
            _apply(theta, group.first, pull, pull_to, work.gradient, size)
        if sample < len(samples) and samples[sample] == step:
            _squared_distance(theta, group.first, size, distances, sample * columns + column)
            sample += 1


@kernel(nogil=True)
def walk(pool, plan, groups, start, end, theta, pull_to, centred, samples, distances, work):
    """Walk groups of replicas from step `start` to step `end`, one after the other.

    Args:
        pool, plan, groups, work: see the classes.
        theta: parameters less the reference, (G * K * d * 16,), updated.
        pull_to: anchor - reference, (K d,) float64; `centred`: it is zero.
        samples: steps at which the squared distance is wanted, increasing, within (start, end].
        distances: (len(samples) * 16 G,) float64, written.
    """
    size = pool.features * pool.classes * LANES
    columns = len(groups.numbers)
    for g in range(len(groups.family)):
        replicas = Replicas(groups.numbers, g * LANES, groups.key0[g], groups.key1[g])
        group = _Group(replicas, Kind(groups.family[g], groups.level[g]), groups.step_size[g], g * size)
        column = g * LANES
        _walk(pool, plan, group, start, end, theta, pull_to, centred, samples, distances, column, columns, work)
