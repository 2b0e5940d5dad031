"""Points of problems as pools: what `KnownPoints` promises, and that images and points are not taken for each other."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import ClassVar, get_args

import pytest
import torch

from kdsim import problems
from kdsim.config import ConfigError, by_name, decode, digest, encode, override
from kdsim.data import POINT_SOURCES, SOURCES, KnownImages, KnownPoints, PointSource, Pools, Unchanged
from kdsim.data.sources import Truth
from kdsim.population import Population
from kdsim.problems import Digits, GaussianMixture, Images, LongTail, SimplexLinear, SoftmaxLinear
from kdsim.problems.base import Problem
from kdsim.simplex import entropy

MIXTURE = GaussianMixture(classes=4, dimension=3, samples=120)
CASES = (
    KnownPoints(MIXTURE, 30, 40),
    KnownPoints(SoftmaxLinear(classes=3, samples=90), 20, 30),
    KnownPoints(SimplexLinear(classes=3, samples=90), 20, 30),
    KnownPoints(Digits(samples=90), 20, 30),
    KnownPoints(LongTail(SoftmaxLinear(classes=4, samples=60), imbalance=10.0), 20, 30),
)
PARTS = ("train", "validation", "test")


def refusal(function, *args, **settings) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(ConfigError) as caught:
        function(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows(table: torch.Tensor) -> list[bytes]:
    return [row.numpy().tobytes() for row in table]


@pytest.mark.parametrize("source", CASES, ids=lambda source: source.problem.name)
class TestContract:
    @pytest.mark.slow
    def test_shapes_and_types(self, source):
        pools = source.pools(0)
        for part in PARTS:
            pool = getattr(pools, part)
            assert pool.x.shape == (pool.size, pools.train.x.shape[1]) and pool.x.dtype == torch.float64
            assert pool.p.shape == (pool.size, source.classes) and pool.p.dtype == torch.float64
            assert pool.y.shape == (pool.size,) and pool.y.dtype == torch.int64 and pool.y.max() < source.classes
            assert entropy(pool.p).mean() > 0.01 and pool.optimum is None
        assert pools.validation.size == source.validation_samples and pools.test.size == source.test_samples
        assert {source.train_truth, source.test_truth} == {"bcp"} <= set(get_args(Truth))

    def test_no_point_is_in_two_pools(self, source):
        pools = source.pools(0)
        points = [set(rows(getattr(pools, part).x)) for part in PARTS]
        assert len(set.union(*points)) == sum(map(len, points))

    def test_the_seed_decides(self, source):
        before = torch.get_rng_state()
        first, again, other = (source.pools(seed) for seed in (7, 7, 8))
        assert torch.equal(before, torch.get_rng_state())
        for part in PARTS:
            one, two, three = (getattr(pools, part) for pools in (first, again, other))
            assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in "xpy")
            assert not torch.equal(one.x, three.x)
        assert first.provenance == again.provenance
        assert first.provenance["digest"] != other.provenance["digest"]
        for seed in (-1, 0.5, True):
            assert "seed" in refusal(source.pools, seed)

    @pytest.mark.slow
    def test_pools_are_copies(self, source):
        first = source.pools(5)
        expected = [getattr(first, part).x.clone() for part in PARTS]
        for part in PARTS:
            for name in "xpy":
                getattr(getattr(first, part), name).zero_()
        again = source.pools(5)
        assert all(torch.equal(getattr(again, part).x, x) for part, x in zip(PARTS, expected, strict=True))
        assert (again.train.p.sum(1) - 1).abs().max() < 1e-12 and again.provenance == first.provenance

    def test_provenance(self, source):
        pools = source.pools(0, "nowhere")  # a folder is not looked for
        found = json.loads(json.dumps(pools.provenance))
        assert found == pools.provenance and source.problem.name in found["source"] and found["source_sha256"] == ""
        assert [found[f"{part}_size"] for part in PARTS] == [getattr(pools, part).size for part in PARTS]
        assert found["classes"] == source.classes and len(found["digest"]) == 64

    def test_it_is_a_config(self, source):
        kinds = (*POINT_SOURCES, *problems.PROBLEMS)
        again = decode(json.loads(json.dumps(encode(source))), kinds)
        assert again == source and digest(again) == digest(source)


@pytest.mark.parametrize("source", CASES[:4], ids=lambda source: source.problem.name)
def test_the_pool_is_the_problems_without_its_column_of_ones(source):
    """Each point of the problem once, with its own p and y; simplex-linear has no such column."""
    pools, whole = source.pools(3), source.problem.population(3)
    width = whole.features - (source.problem.name != "simplex-linear")
    assert pools.train.x.shape[1] == width and ((whole.x[:, -1] == 1).all() == (width < whole.features))
    joined = [torch.cat([getattr(getattr(pools, part), name) for part in PARTS]) for name in "xpy"]
    found, place = rows(torch.cat([*joined[:2], joined[2][:, None].double()], 1)), whole.x[:, :width]
    expected = rows(torch.cat([place, whole.p, whole.y[:, None].double()], 1))
    assert sorted(found) == sorted(expected) and found != expected


def test_a_long_tail_is_long_in_training_alone():
    """Counts against the expected ones: |z| < 5 in 4 classes, twice."""
    source = KnownPoints(LongTail(GaussianMixture(classes=4, samples=2000), imbalance=20.0), 400, 1600)
    pools = source.pools(1)
    for pool, prior in ((pools.train, source.problem.prior), (pools.test, torch.full((4,), 0.25).double())):
        share = torch.bincount(pool.y, minlength=4) / pool.size
        assert ((share - prior) / (prior * (1 - prior) / pool.size).sqrt()).abs().max() < 5
    assert pools.train.size == 2000 and (pools.train.x[:, -1] != 1).any()


@dataclass(frozen=True)
class OnlyOnes(Problem):
    """Features that are a column of ones alone."""

    name: ClassVar[str] = "only-ones"

    def population(self, seed: int) -> Population:
        return Population(
            torch.ones(9, 1).double(), torch.full((9, 2), 0.5).double(), torch.zeros(9, dtype=torch.int64)
        )


def test_refusals():
    assert "validation_samples = 0" in refusal(KnownPoints, MIXTURE, 0)
    assert "test_samples = 1.5" in refusal(KnownPoints, MIXTURE, 5, 1.5)
    assert "problem = 3 is not allowed: must be a Problem" in refusal(KnownPoints, 3)
    line = refusal(KnownPoints(MIXTURE, 60, 60).pools, 0)
    assert "validation_samples + test_samples = 120 is not allowed: must be below 120" in line
    small = Images(classes=3, samples=20, validation_samples=5, test_samples=5)
    assert "must be (N, d)" in refusal(KnownPoints(small, 2, 2).pools, 0)
    assert "beside the column of ones" in refusal(KnownPoints(OnlyOnes(), 2, 2).pools, 0)
    assert KnownPoints(OnlyOnes()).classes == 2


@pytest.mark.slow
def test_pools_that_mix_or_break_are_refused():
    good, images = CASES[0].pools(0), KnownImages(Images(classes=4, samples=20, validation_samples=5, test_samples=5))
    for change, text in (
        ({"x": good.test.x[:, 1:]}, "must be (N, 3) of a floating type"),
        ({"x": good.test.x.long()}, "must be (N, 3) of a floating type"),
        ({"x": good.test.x[:, :, None]}, "must be (N, 3) of a floating type"),
        ({"p": None}, "p and y must be given"),
    ):
        line = refusal(Pools, good.train, good.validation, replace(good.test, **change), good.provenance)
        assert line.startswith("test pool: ") and text in line
    other = images.pools(0)
    assert "floating type" in refusal(Pools, good.train, other.validation, good.test, good.provenance)
    assert "uint8" in refusal(Pools, other.train, good.validation, other.test, good.provenance)


def test_sources_of_points_stand_apart():
    """An image study's `--set data=` lists no points, and every name is one of a kind."""
    assert not set(POINT_SOURCES) & set(SOURCES) and all(issubclass(source, PointSource) for source in POINT_SOURCES)
    kinds = (*POINT_SOURCES, *SOURCES, *problems.PROBLEMS, *problems.IMAGE_PROBLEMS)
    assert len(by_name(kinds)) == len(kinds)
    allowed = {Problem: by_name(problems.PROBLEMS), PointSource: by_name(POINT_SOURCES)}
    found = override(KnownPoints(), {"problem": "digits", "test_samples": "50"}, allowed)
    assert found == KnownPoints(Digits(), test_samples=50)


def test_points_stay_as_they_are():
    x = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Unchanged()(x), x.float()) and torch.equal(Unchanged()(x, torch.float64), x)
    assert "must be (..., d) of a floating type" in refusal(Unchanged(), x.byte())
