"""The random numbers of `kdsim.rng` for 16 replicas at once, visit by visit or four visits from one Philox block.

Every number is that of `kdsim.rng.Draws`, word for word: visit v, slot s of replica r reads word v mod 4 of the block
(v // 4, s, r, stream) under the key of the seed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import overload

from kdsim.engines.fused.simd import (
    LANES,
    Vector,
    both,
    equal,
    high_product,
    less,
    load,
    low_bits,
    number,
    outside,
    select,
    shift_right,
    somewhere,
    splat,
    store,
    to_float,
)
from kdsim.rng import FEISTEL_ROUNDS, FEISTEL_SLOT, M0, M1, ROUNDS, W0, W1

_M0, _M1, _W0, _W1 = (np.uint32(constant) for constant in (M0, M1, W0, W1))
_MASK = 0xFFFFFFFF


class Replicas(NamedTuple):
    """16 replicas of one seed: numbers, (R,) uint32 from `first` on, and the two words of the seed."""

    numbers: np.ndarray
    first: int
    key0: np.uint32
    key1: np.uint32


@njit(forceinline=True)
def philox(c0, c1, c2, c3, k0, k1):
    """Philox 4x32-10 on vectors of words; the key is shared."""
    for _ in range(ROUNDS):
        high0, low0 = high_product(c0, _M0), c0 * splat(_M0)
        high1, low1 = high_product(c2, _M1), c2 * splat(_M1)
        c0, c1, c2, c3 = high1 ^ c1 ^ splat(k0), low1, high0 ^ c3 ^ splat(k1), low0
        k0, k1 = np.uint32(k0 + _W0), np.uint32(k1 + _W1)
    return c0, c1, c2, c3


@njit(forceinline=True)
def _stream_word(block, stream):
    return np.uint32(((block >> 32) << 8) | stream)


@njit
def block_words(replicas, block, slot, stream):
    """The words of the visits 4 block .. 4 block + 3."""
    return philox(
        splat(np.uint32(block & _MASK)),
        splat(np.uint32(slot)),
        load(replicas.numbers, replicas.first),
        splat(_stream_word(block, stream)),
        replicas.key0,
        replicas.key1,
    )


@njit
def words_at(replicas, visit, slot, stream):
    """The words of visits that differ between the replicas: a vector of numbers below 2^32."""
    w0, w1, w2, w3 = philox(
        shift_right(visit, np.uint32(2)),
        splat(np.uint32(slot)),
        load(replicas.numbers, replicas.first),
        splat(np.uint32(stream)),
        replicas.key0,
        replicas.key1,
    )
    place = low_bits(visit, np.uint32(3))
    lower = select(equal(place, splat(np.uint32(0))), w0, w1)
    upper = select(equal(place, splat(np.uint32(2))), w2, w3)
    return select(less(place, splat(np.uint32(2))), lower, upper)


@njit(forceinline=True)
def store_block(words, place, four):
    """Four vectors of words one after the other."""
    w0, w1, w2, w3 = four
    store(words, place, w0)
    store(words, place + LANES, w1)
    store(words, place + 2 * LANES, w2)
    store(words, place + 3 * LANES, w3)


def uniforms(words, like):
    """Uniforms in (0, 1) as `kdsim.rng.to_uniform` has them, in the kind of the vector `like`."""


@overload(uniforms)
def _uniforms(words, like):
    if not isinstance(like, Vector):
        return None
    shift, bits = (np.uint32(9), 23) if like.element == "f4" else (np.uint32(0), 32)
    scale = 2.0**-bits

    def code(words, like):
        return (to_float(shift_right(words, shift), like) + number(0.5, like)) * number(scale, like)

    return code


# Pool indices -----------------------------------------------------------------------------------


@njit(forceinline=True)
def _remainder(value, modulus, inverse):
    """value // m and value % m for words; inverse = floor(2^32 / m) gives a quotient that is one low at most."""
    quotient = high_product(value, inverse)
    rest = value - quotient * splat(modulus)
    fits = less(rest, splat(modulus))
    return select(fits, quotient, quotient + splat(np.uint32(1))), select(fits, rest, rest - splat(modulus))


@njit(forceinline=True)
def _mix(value, key):
    """32-bit finaliser of MurmurHash3."""
    value = value ^ key
    value = (value ^ shift_right(value, np.uint32(16))) * splat(np.uint32(0x85EBCA6B))
    value = (value ^ shift_right(value, np.uint32(13))) * splat(np.uint32(0xC2B2AE35))
    return value ^ shift_right(value, np.uint32(16))


@njit(forceinline=True)
def _shifted(half, other, key, modulus, inverse):
    """(half + mix(other)) mod m for half < m."""
    total = half + _remainder(_mix(other, key), modulus, inverse)[1]
    return select(less(total, splat(modulus)), total, total - splat(modulus))


class Permutation(NamedTuple):
    """Sides of the Feistel network of `kdsim.rng.permuted_index`, and 2^32 over them."""

    size: np.uint32
    left: np.uint32
    right: np.uint32
    left_inverse: np.uint32
    right_inverse: np.uint32


@njit
def epoch_keys(replicas, epoch, stream, keys):
    """The round keys of an epoch's permutation, into (12 x 16) words."""
    for block in range(FEISTEL_ROUNDS // 4):
        four = block_words(replicas, epoch, FEISTEL_SLOT + block, stream)
        store_block(keys, 4 * block * LANES, four)


@njit
def _feistel(point, keys, permutation):
    right, left = _remainder(point, permutation.left, permutation.left_inverse)
    for turn in range(0, FEISTEL_ROUNDS, 2):
        key = load(keys, turn * LANES)
        left = _shifted(left, right, key, permutation.left, permutation.left_inverse)
        key = load(keys, (turn + 1) * LANES)
        right = _shifted(right, left, key, permutation.right, permutation.right_inverse)
    return left + splat(permutation.left) * right


@njit
def permuted(position, keys, permutation):
    """Pool index of each position of an epoch, by cycle walking."""
    size = splat(permutation.size)
    point = _feistel(position, keys, permutation)
    beyond = outside(less(point, size))
    while somewhere(beyond):
        point = select(beyond, _feistel(point, keys, permutation), point)
        beyond = both(beyond, outside(less(point, size)))
    return point
