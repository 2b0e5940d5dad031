"""Fingerprints: equal for one population but for rounding, and for no other."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kdsim.fingerprint import fingerprint
from kdsim.population import Population
from kdsim.results.provenance import TOLERANCE, same


def population(seed: int = 0, points: int = 50) -> Population:
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(points, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(points, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (points,), generator=generator)
    return Population(x=x, p=p / p.sum(1, keepdim=True), y=y, optimum=torch.ones(3, 4, dtype=torch.float64))


def changed(of: Population, name: str, to: Tensor) -> Population:
    return Population(**{key: to if key == name else getattr(of, key) for key in ("x", "p", "y", "optimum")})


def test_equal_populations() -> None:
    one, other = (fingerprint(population()) for _ in range(2))
    assert one == other and same(one, json.loads(json.dumps(other)))


def test_rounding_makes_no_other_population() -> None:
    base = population()
    rounded = fingerprint(changed(base, "x", base.x * (1 + 1e-15)))
    assert rounded["sha256"] != fingerprint(base)["sha256"] and same(rounded, fingerprint(base))


@pytest.mark.slow
@given(st.sampled_from(["x", "p", "y", "optimum"]), st.integers(0, 2), st.integers(0, 2**31))
def test_a_changed_entry_does(name: str, row: int, seed: int) -> None:
    base = population(seed)
    tensor = getattr(base, name).clone()
    entry = tensor.view(len(tensor), -1)[row]
    if name == "p":
        entry[:] = entry.flip(0) if entry[0] != entry[2] else entry.roll(1)
    else:
        entry[0] = (entry[0] + 1) % 3
    assert not same(fingerprint(base), fingerprint(changed(base, name, tensor)))


def test_order_and_size_count() -> None:
    base = population()
    swapped = Population(x=base.x.flip(0), p=base.p.flip(0), y=base.y.flip(0), optimum=base.optimum)
    assert not same(fingerprint(base), fingerprint(swapped))
    assert not same(fingerprint(base), fingerprint(base.points(slice(0, 49))))
    assert not same(fingerprint(base), fingerprint(changed(base, "y", None)))


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_tolerance(factor: float) -> None:
    """A change along the first projection by so many tolerances."""
    one = fingerprint(population())
    other = json.loads(json.dumps(one)) | {"sha256": "other"}
    other["x"]["projections"][0] += factor * TOLERANCE * one["x"]["norm"]
    assert same(one, other) == (factor < 1)


@pytest.mark.parametrize(
    "other", [{}, {"sha256": None}, {"x": 3}, {"sha256": "a", "x": {}, "p": {}, "y": 1, "optimum": 2}]
)
def test_what_is_no_fingerprint_is_like_no_other(other: dict) -> None:
    assert not same(other, fingerprint(population())) and not same(fingerprint(population()), other)


def test_several_populations() -> None:
    pools = [{"train": fingerprint(population()), "test": fingerprint(population(seed))} for seed in (1, 2)]
    assert same(pools[0], pools[0]) and not same(*pools)


def test_images_and_many_rows() -> None:
    """uint8 images, and more rows than are projected at a time."""
    x = torch.randint(256, (5000, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    base = Population(x=x)
    found = fingerprint(base)
    assert found["x"]["norm"] == pytest.approx(x.double().square().sum().sqrt().item())
    last = x.clone()
    last[-1] = 255 - last[-1]
    assert not same(found, fingerprint(Population(x=last)))
