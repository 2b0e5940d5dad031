"""Random numbers of `kdsim.rng` inside Triton kernels: the same words, bit for bit.

All 32-bit arithmetic is written as 64-bit products and sums that are cut off: both halves of a product come from one
instruction on a GPU (`mad.wide.u32`), and Triton's interpreter, which refuses 32-bit overflow, runs the same code.
The key of a replica is passed as `low`, `high` (the halves of its seed) and `replica`, uint32 scalars.

Checked bit for bit in Triton's interpreter and compiled to GPU machine code; not yet run on a GPU.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from kdsim import rng

M0, M1 = tl.constexpr(rng.M0), tl.constexpr(rng.M1)
W0, W1 = tl.constexpr(rng.W0), tl.constexpr(rng.W1)
ROUNDS = tl.constexpr(rng.ROUNDS)
FEISTEL_BLOCKS = tl.constexpr(rng.FEISTEL_ROUNDS // 4)
FEISTEL_SLOT = tl.constexpr(rng.FEISTEL_SLOT)
HALF_BITS, WHOLE_BITS = tl.constexpr(2.0**-23), tl.constexpr(2.0**-32)
TWO_PI = tl.constexpr(2 * math.pi)


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Philox 4x32-10 on uint32 counters of broadcastable shapes and a uint32 key. See `kdsim.rng.philox`."""
    for _ in tl.static_range(ROUNDS):
        product0, product1 = c0.to(tl.uint64) * M0, c2.to(tl.uint64) * M1
        c0 = (product1 >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (product0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c1, c3 = product1.to(tl.uint32), product0.to(tl.uint32)
        k0, k1 = (k0.to(tl.uint64) + W0).to(tl.uint32), (k1.to(tl.uint64) + W1).to(tl.uint32)
    return c0, c1, c2, c3


@triton.jit
def words(visit, slot, STREAM: tl.constexpr, low, high, replica):
    """The uint32 word of each visit (int64) and slot (uint32), of broadcastable shapes. See `kdsim.rng.Draws.words`."""
    block = visit >> 2
    stream = ((block >> 32) << 8).to(tl.uint32) | STREAM
    w0, w1, w2, w3 = philox(block.to(tl.uint32), slot, replica, stream, low, high)
    place = visit & 3
    return tl.where(place < 2, tl.where(place == 0, w0, w1), tl.where(place == 2, w2, w3))


@triton.jit
def to_uniform(word, DTYPE: tl.constexpr):
    """Words as numbers in the open interval (0, 1): 23 bits in float32, 32 bits in float64."""
    if DTYPE == tl.float64:  # noqa: SIM300
        return (word.to(tl.float64) + 0.5) * WHOLE_BITS
    else:
        return ((word >> 9).to(tl.float32) + 0.5) * HALF_BITS


@triton.jit
def uniform_index(word, SIZE: tl.constexpr):
    """Index in 0 .. SIZE - 1 by multiply and shift, int64."""
    return ((word.to(tl.uint64) * SIZE) >> 32).to(tl.int64)


@triton.jit
def permuted_index(
    visit, SIZE: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, STREAM: tl.constexpr, low, high, replica
):
    """Pool index (V,) int64 of each visit (V,) int64, a permutation an epoch. See `kdsim.rng.permuted_index`."""
    epoch = visit // SIZE
    stream = ((epoch >> 32) << 8).to(tl.uint32) | STREAM
    epoch = epoch.to(tl.uint32)
    point = _feistel((visit % SIZE).to(tl.uint32), epoch, stream, LEFT, RIGHT, low, high, replica)
    outside = point >= SIZE
    while tl.max(outside.to(tl.int32), axis=0) > 0:
        point = tl.where(outside, _feistel(point, epoch, stream, LEFT, RIGHT, low, high, replica), point)
        outside = point >= SIZE
    return point.to(tl.int64)


@triton.jit
def _feistel(point, epoch, stream, LEFT: tl.constexpr, RIGHT: tl.constexpr, low, high, replica):
    """One pass through the network. Its round keys are drawn again at each pass: passes after the first are rare."""
    left, right = point % LEFT, point // LEFT
    for block in tl.static_range(FEISTEL_BLOCKS):
        slot = tl.full((1,), FEISTEL_SLOT + block, tl.uint32)
        key0, key1, key2, key3 = philox(epoch, slot, replica, stream, low, high)
        left = (left + _mix(right, key0) % LEFT) % LEFT
        right = (right + _mix(left, key1) % RIGHT) % RIGHT
        left = (left + _mix(right, key2) % LEFT) % LEFT
        right = (right + _mix(left, key3) % RIGHT) % RIGHT
    return left + right * LEFT


@triton.jit
def _mix(value, key):
    value = value ^ key
    value = ((value ^ (value >> 16)).to(tl.uint64) * 0x85EBCA6B).to(tl.uint32)
    value = ((value ^ (value >> 13)).to(tl.uint64) * 0xC2B2AE35).to(tl.uint32)
    return value ^ (value >> 16)
