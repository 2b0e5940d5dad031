"""Counter-based random numbers: Philox 4x32-10, stateless and keyed by (seed, stream, replica, visit).

A random number is a function of where it is used, not of when it was asked for. A replica's
numbers therefore do not depend on packing, chunking, device, number of workers or resume.

Every visit of a sample owns one 32-bit word for each `slot`. Visits are numbered
step * batch_size + position in the batch; frozen targets use the pool index as the visit.
Four successive visits share one Philox block: visit v, slot s of replica r reads word
v mod 4 of the block with counter (v // 4, s, r, stream), under the key (seed).

Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy
as 1, 2, 3", SC 2011, doi:10.1145/2063384.2063405.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
M0, M1 = 0xD2511F53, 0xCD9E8D57  # multipliers and Weyl increments of Philox 4x32 (Salmon et al., table 2)
W0, W1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
FEISTEL_ROUNDS = 12
FEISTEL_SLOT = 1 << 31  # first slot of a permutation's round keys, apart from those of `Draws.words`
COUNT_SLOT = (1 << 24) + 1  # slot of the number of annotators, above those of all their labels
MAX_VISITS = 1 << 42  # the block number has 40 bits


class Stream(IntEnum):
    """What a random number is for. The index stream is shared by all supervisions of a study."""

    INDEX = 0
    LABEL = 1
    INIT = 2
    AUGMENTATION = 3
    SPLIT = 4


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox 4x32-10 on 32-bit words held in int64 tensors of broadcastable shapes; returns four words."""
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(ROUNDS):
        # The int64 product wraps at 2^64, and its bits are those of the unsigned product. Only factors are masked.
        product0, product1 = c0 * M0, c2 * M1
        c0 = (product1 >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(MASK)
        c2 = (product0 >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(MASK)
        c1, c3 = product1, product0
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1.bitwise_and_(MASK), c2, c3.bitwise_and_(MASK)


@dataclass(frozen=True)
class Draws:
    """Handle on the random numbers of R replicas at V visits (or of any set of visits, see `take`).

    Attributes:
        seed, replica: int64 tensors that broadcast against `visit`, e.g. (R, 1).
        visit: int64 tensor, e.g. (1, V) for a range of visits or (R, V) for pool indices.
        stream: what the numbers are for.
        dtype: floating type of the uniforms.
        start: if given, `visit` is the range start .. start + V - 1, and blocks are shared
            between neighbouring visits (four times faster; same numbers).
        rows: if given, row i of the result is row rows[i] of (seed, replica): replicas that
            share a seed and a number are generated once (same numbers).
    """

    seed: Tensor
    replica: Tensor
    visit: Tensor
    stream: Stream
    dtype: torch.dtype
    start: int | None = None
    rows: Tensor | None = None

    def words(self, slot: int | Tensor) -> Tensor:
        """Uniform 32-bit words in an int64 tensor of the broadcast shape, e.g. (R, V).

        `slot` is a number, or after `take` an int64 tensor with a slot of its own for each visit.
        """
        key = (self.seed & MASK, (self.seed >> 32) & MASK)
        words = self._any_words(slot, key) if self.start is None else self._range_words(self.start, slot, key)
        return words if self.rows is None else words[self.rows]

    def _counter(self, block: Tensor, slot: int | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        high = ((block >> 32) << 8) | int(self.stream)
        slot = slot if isinstance(slot, Tensor) else torch.full_like(block, slot)
        return block & MASK, slot, self.replica, high

    def _any_words(self, slot: int | Tensor, key: tuple[Tensor, Tensor]) -> Tensor:
        words = torch.stack(philox(self._counter(self.visit >> 2, slot), key), -1)  # (..., 4)
        lane = (self.visit & 3).expand(words.shape[:-1])
        return words.gather(-1, lane[..., None])[..., 0]

    def _range_words(self, start: int, slot: int | Tensor, key: tuple[Tensor, Tensor]) -> Tensor:
        count = self.visit.shape[-1]
        first, last = start >> 2, (start + count - 1) >> 2
        block = torch.arange(first, last + 1, device=self.visit.device)[None, :]  # (1, B)
        words = torch.stack(philox(self._counter(block, slot), key), -1).flatten(-2)  # (R, 4 B)
        offset = start & 3
        return words[:, offset : offset + count]

    def uniform(self, slot: int | Tensor) -> Tensor:
        """Uniforms in the open interval (0, 1): 23 bits in float32, 32 bits in float64."""
        return to_uniform(self.words(slot), self.dtype)

    def normal(self, slot: int | Tensor) -> Tensor:
        """Standard normals by Box-Muller from the slots 2 `slot` and 2 `slot` + 1 of `uniform`: do not use both."""
        return box_muller(self.uniform(2 * slot), self.uniform(2 * slot + 1))[0]

    def normals(self, count: int) -> Tensor:
        """`count` independent standard normals for each visit, (count, R, V): both outputs of Box-Muller.

        Normal k is the cosine (k even) or the sine (k odd) of the slots 2 (k // 2) and 2 (k // 2) + 1.
        """
        pairs = (box_muller(self.uniform(first), self.uniform(first + 1)) for first in range(0, count, 2))
        return torch.stack([normal for pair in pairs for normal in pair][:count])

    def replicas(self, keep: Tensor) -> Draws:
        """The draws of the replicas whose rows are numbered in `keep` (int64), at the same visits."""
        source = keep if self.rows is None else self.rows[keep]
        kept, rows = source.unique(return_inverse=True)
        seed, replica, visit = (t if t.shape[0] == 1 else t[kept] for t in (self.seed, self.replica, self.visit))
        return replace(self, seed=seed, replica=replica, visit=visit, rows=rows)

    def take(self, mask: Tensor) -> Draws:
        """The draws of the visits where `mask` holds, as one flat axis.

        `mask` has the full broadcast shape; a leading axis more, as in (K, R, V), takes visits several times.
        """
        seed, replica, visit = self.seed, self.replica, self.visit
        if self.rows is not None:
            seed, replica, visit = (t if t.shape[0] == 1 else t[self.rows] for t in (seed, replica, visit))
        places = mask.nonzero(as_tuple=True)
        seed, replica, visit = (t.expand(mask.shape)[places] for t in (seed, replica, visit))
        return replace(self, seed=seed, replica=replica, visit=visit, start=None, rows=None)


def to_uniform(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Map 32-bit words (int64) to the open interval (0, 1); exact in the given floating type."""
    if dtype == torch.float64:
        return words.to(dtype).add_(0.5).mul_(2.0**-32)
    return (words >> 9).to(dtype).add_(0.5).mul_(2.0**-23)


def box_muller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normals from two uniforms in (0, 1): the cosine and the sine of one angle."""
    radius, angle = (-2 * first.log()).sqrt_(), 2 * math.pi * second
    return radius * angle.cos(), radius * angle.sin()


def uniform_index(words: Tensor, size: int) -> Tensor:
    """Index in 0 .. size - 1 from a 32-bit word by multiply and shift; bias below size / 2^32."""
    return (words * size) >> 32


def permuted_index(seed: Tensor, replica: Tensor, visit: Tensor, size: int, stream: Stream = Stream.INDEX) -> Tensor:
    """Pool index of each visit when every epoch of `size` visits is a fresh permutation.

    The permutation of an epoch is a keyed bijection of 0 .. size - 1, evaluated point by point
    with no table: a generalised Feistel network on a x b >= size with cycle walking
    (J. Black, P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002), its round
    keys drawn by Philox from (seed, epoch, replica).

    Args:
        seed, replica: int64, (R, 1); visit: int64, (1, V) or (R, V); size: number of pool points.

    Returns:
        int64 (R, V).
    """
    epoch, position = visit // size, visit % size
    seed, replica, epoch, position = torch.broadcast_tensors(seed, replica, epoch, position)
    key = (seed & MASK, (seed >> 32) & MASK)
    high = ((epoch >> 32) << 8) | int(stream)
    keys: list[Tensor] = []
    for block in range(FEISTEL_ROUNDS // 4):
        slot = torch.full_like(epoch, FEISTEL_SLOT + block)
        keys.extend(philox((epoch & MASK, slot, replica, high), key))
    left_size, right_size = feistel_sides(size)
    point = _feistel(position, keys, left_size, right_size)
    outside = point >= size
    while outside.any():
        walked = _feistel(point[outside], [k[outside] for k in keys], left_size, right_size)
        point = point.masked_scatter(outside, walked)
        outside = point >= size
    return point


def feistel_sides(size: int) -> tuple[int, int]:
    """Sides a, b of the domain a x b >= size in which `permuted_index` walks.

    On fewer than some 64 points a Feistel network is far from uniform over permutations: the domain is larger there.
    """
    left = max(math.isqrt(max(size - 1, 0)) + 1, 8)
    return left, max(-(-size // left), 8)


def _feistel(point: Tensor, keys: list[Tensor], left_size: int, right_size: int) -> Tensor:
    left, right = point % left_size, point // left_size
    for number, key in enumerate(keys):
        if number % 2 == 0:
            left = (left + _mix(right, key)) % left_size
        else:
            right = (right + _mix(left, key)) % right_size
    return left + left_size * right


def _mix(value: Tensor, key: Tensor) -> Tensor:
    """32-bit finaliser of MurmurHash3 (A. Appleby, public domain) on value xor key."""
    value = (value ^ key) & MASK
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & MASK
    return value ^ (value >> 16)
