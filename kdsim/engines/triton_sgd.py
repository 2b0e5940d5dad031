"""The kernel of the engine `gpu_fused`: a segment of SGD steps of one replica, its parameters kept in registers.

Random numbers and targets do not depend on theta, so they are drawn for CHUNK visits at once, across the threads; the
loop over visits is left with one row of x, a product, the residual and an outer product.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kdsim.engines.triton_random import permuted_index, uniform_index, words
from kdsim.engines.triton_targets import targets
from kdsim.rng import Stream

INDEX, SPLIT = tl.constexpr(int(Stream.INDEX)), tl.constexpr(int(Stream.SPLIT))


@triton.jit
def sgd_segment(
    error_ptr,  # (R, K, D): theta - reference, read and written
    x_ptr,  # (N, INNER OUTER) inputs, padded with zeros
    outputs_ptr,  # (N, KP) outputs of the reference, padded with -inf (softmax) or zeros
    p_ptr,  # (N, KP) BCP, padded with zeros
    cdf_ptr,  # (N, KP) running sums of p, padded with the last
    pull_to_ptr,  # (K, D) anchor - reference
    key_ptr,  # (R, 3) int64: low and high half of the seed, replica number
    family_ptr,  # (R, 3) int32: family code, fewest and most labels
    level_ptr,  # (R, 3): level, -step_size / batch_size, step_size * ridge
    segment_ptr,  # (6,) int64: first and last step, first and last sample of the distance, steps between samples, R
    dist_sq_ptr,  # (S, R) float64: squared distance at the samples
    K: tl.constexpr, D: tl.constexpr, KP: tl.constexpr, INNER: tl.constexpr, OUTER: tl.constexpr,
    SIZE: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,  # the pool and its Feistel network
    MEMBERS: tl.constexpr, MEMBERS_LEFT: tl.constexpr, MEMBERS_RIGHT: tl.constexpr,  # the training set; 0: the pool
    BATCH: tl.constexpr, PERMUTATION: tl.constexpr, FROZEN: tl.constexpr, SOFTMAX: tl.constexpr,
    RIDGE: tl.constexpr,  # 0: none, 1: its anchor is the reference, 2: another anchor
    FAMILIES: tl.constexpr, CHUNK: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Walk one replica from the first step of the segment to the last."""
    number = tl.program_id(0).to(tl.int64)
    low = tl.load(key_ptr + 3 * number).to(tl.uint32)
    high = tl.load(key_ptr + 3 * number + 1).to(tl.uint32)
    replica = tl.load(key_ptr + 3 * number + 2).to(tl.uint32)
    family = tl.load(family_ptr + 3 * number)
    fewest, most = tl.load(family_ptr + 3 * number + 1), tl.load(family_ptr + 3 * number + 2)
    level = tl.load(level_ptr + 3 * number)
    rate, pull = tl.load(level_ptr + 3 * number + 1), tl.load(level_ptr + 3 * number + 2)
    step, last_step = tl.load(segment_ptr), tl.load(segment_ptr + 1)
    next_sample, last_sample = tl.load(segment_ptr + 2), tl.load(segment_ptr + 3)
    stride, replicas = tl.load(segment_ptr + 4), tl.load(segment_ptr + 5)
    first_visit, end_visit = step * BATCH, last_step * BATCH

    # theta is (INNER, KP, OUTER), features INNER x OUTER: a thread loads and sums OUTER neighbours alone. The compiler
    # lays the loop out by the load of x, so that is spread over the classes: KP threads read one address together.
    k, position = tl.arange(0, KP), tl.arange(0, CHUNK)
    feature = tl.arange(0, INNER)[:, None, None] * OUTER + tl.arange(0, OUTER)[None, None, :]  # (INNER, 1, OUTER)
    inside = (k < K)[None, :, None] & (feature < D)
    place = k[None, :, None] * D + feature
    spread = tl.broadcast_to(feature, (INNER, KP, OUTER))
    error = tl.load(error_ptr + number * (K * D) + place, mask=inside, other=0.0)
    if RIDGE == 2:
        pull_to = tl.load(pull_to_ptr + place, mask=inside, other=0.0)
    gradient = tl.zeros((INNER, KP, OUTER), DTYPE)  # times -step_size, of the visits of this step so far
    to_come = tl.full((), BATCH, tl.int32)  # visits of this step
    sample_ptr = dist_sq_ptr + number

    for chunk in range(first_visit // CHUNK, (end_visit + CHUNK - 1) // CHUNK):
        visit = position.to(tl.int64) + chunk * CHUNK  # (CHUNK,); those outside the segment are drawn in vain
        row = _rows(visit, SIZE, LEFT, RIGHT, MEMBERS, MEMBERS_LEFT, MEMBERS_RIGHT, PERMUTATION, low, high, replica)
        q_chunk = targets(
            family, level, fewest, most, row if FROZEN else visit, row, p_ptr, cdf_ptr, low, high, replica,
            FAMILIES, K, KP, DTYPE,
        )  # fmt: skip
        short_row = row.to(tl.int32)
        start = tl.maximum(first_visit - chunk * CHUNK, 0).to(tl.int32)
        end = tl.minimum(end_visit - chunk * CHUNK, CHUNK).to(tl.int32)
        for v in range(start, end):
            # A row of a block in registers is taken by a masked sum: the other terms are exact zeros.
            visited = tl.sum(tl.where(position == v, short_row, 0), axis=0).to(tl.int64)
            q = tl.sum(tl.where((position == v)[:, None], q_chunk, 0.0), axis=0)  # (KP,)
            x = tl.load(x_ptr + visited * (INNER * OUTER) + spread)  # (INNER, KP, OUTER), alike along KP
            outputs = tl.load(outputs_ptr + visited * KP + k) + tl.sum(tl.sum(error * x, axis=2), axis=0)  # (KP,)
            if SOFTMAX:
                weights = tl.exp(outputs - tl.max(outputs, axis=0))
                residual = tl.sum(q, axis=0) * (weights / tl.sum(weights, axis=0)) - q
            else:
                residual = outputs - q
            gradient += (residual * rate)[None, :, None] * x
            to_come -= 1
            if to_come == 0:
                if RIDGE == 1:
                    error -= error * pull  # 1 - pull would round a small pull away
                elif RIDGE == 2:
                    error += (pull_to - error) * pull
                error += gradient
                gradient = tl.zeros((INNER, KP, OUTER), DTYPE)
                to_come += BATCH
                step += 1
                if (step == next_sample) & (step <= last_sample):
                    wide = error.to(tl.float64)
                    tl.store(sample_ptr, tl.sum(tl.sum(tl.sum(wide * wide, axis=2), axis=0), axis=0))
                    sample_ptr += replicas
                    next_sample += stride
    tl.store(error_ptr + number * (K * D) + place, error, mask=inside)


@triton.jit
def _rows(
    visit, SIZE: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, MEMBERS: tl.constexpr,
    MEMBERS_LEFT: tl.constexpr, MEMBERS_RIGHT: tl.constexpr, PERMUTATION: tl.constexpr, low, high, replica,
):  # fmt: skip
    """Pool index (V,) int64 of each visit (V,). See `kdsim.engines.samples.Samples`."""
    count: tl.constexpr = MEMBERS if MEMBERS else SIZE
    if PERMUTATION:
        left: tl.constexpr = MEMBERS_LEFT if MEMBERS else LEFT
        right: tl.constexpr = MEMBERS_RIGHT if MEMBERS else RIGHT
        row = permuted_index(visit, count, left, right, INDEX, low, high, replica)
    else:
        row = uniform_index(words(visit, tl.zeros((1,), tl.uint32), INDEX, low, high, replica), count)
    if MEMBERS:
        row = permuted_index(row, SIZE, LEFT, RIGHT, SPLIT, low, high, replica)
    return row
