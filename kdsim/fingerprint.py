"""What tells one population from another, short enough to be stored with every result.

Points that are computed differ in their last bits from one processor or library to the next, and are the same for all
that anyone wants to know. So beside a SHA-256 there are projections, which agree to rounding then.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kdsim.population import Population
from kdsim.rng import philox, to_uniform

PROJECTIONS = 4
ROWS = 4096
"""Rows that are projected at a time."""

Fingerprint = dict[str, Any]


def fingerprint(population: Population) -> Fingerprint:
    """SHA-256 of all tensors of a population, and of each its shape, norm and projections.

    A projection of x (N, ...) is sum_ij u_i x_ij v_j, with fixed u and v that are uniform on [-1, 1].
    """
    if population not in _known:
        _known[population] = _fingerprint(population)
    return _known[population]


_known: WeakKeyDictionary[Population, Fingerprint] = WeakKeyDictionary()
"""A population never changes, and seconds of work go into one of many images."""


def _fingerprint(population: Population) -> Fingerprint:
    tensors = {name: getattr(population, name) for name in ("x", "p", "y", "optimum")}
    known = {name: tensor.cpu() for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    whole = hashlib.sha256()
    for name, tensor in known.items():
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        whole.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    parts = {name: {"shape": list(tensor.shape), **_projected(tensor)} for name, tensor in known.items()}
    return {"sha256": whole.hexdigest(), **parts}


def _projected(tensor: Tensor) -> dict[str, Any]:
    rows = tensor.reshape(len(tensor), -1)
    left, right = _weights(len(rows), 0), _weights(rows.shape[1], 1)
    found, square = torch.zeros(PROJECTIONS, dtype=torch.float64), 0.0
    for start in range(0, len(rows), ROWS):
        block = rows[start : start + ROWS].double()  # (ROWS, D)
        found += torch.einsum("pn,nd,pd->p", left[:, start : start + ROWS], block, right)
        square += block.square().sum().item()
    return {"norm": math.sqrt(square), "projections": found.tolist()}


def _weights(count: int, side: int) -> Tensor:
    """(PROJECTIONS, count), uniform on [-1, 1], the same on every machine."""
    numbers = torch.arange(count)[None, :]
    each = torch.arange(PROJECTIONS)[:, None]
    zero = torch.zeros(1, 1, dtype=torch.int64)
    words = philox((numbers, each, zero + side, zero), (torch.tensor(0), torch.tensor(0)))[0]
    return 2 * to_uniform(words, torch.float64) - 1
