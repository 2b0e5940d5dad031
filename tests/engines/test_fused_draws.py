"""The compiled random numbers are those of `kdsim.rng`, bit for bit, at the ends of their range too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numba import njit

from kdsim.engines.fused.draws import uniforms
from kdsim.engines.fused.simd import LANES, load, store
from kdsim.rng import MASK, to_uniform


@njit
def _sixteen(words, out):
    store(out, 0, uniforms(load(words, 0), load(out, 0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniforms_are_those_of_rng_and_never_0_or_1(dtype: type) -> None:
    """A logarithm of 0 would be an infinite normal; words of 0 and of ones alone come once in 4e9 draws each."""
    words = np.array(
        [0, 1, 255, 256, 511, 512, 1 << 31, MASK - 512, MASK - 511, MASK - 1, MASK, *range(10**9, 10**9 + 5)]
    )
    out = np.zeros(LANES, dtype)
    _sixteen(words.astype(np.uint32), out)
    assert out.min() > 0 and out.max() < 1
    np.testing.assert_array_equal(out, to_uniform(torch.from_numpy(words), torch.from_numpy(out).dtype).numpy())
