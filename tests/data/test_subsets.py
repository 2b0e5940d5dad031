"""Parts of a training set: exact sizes, the promised relations between parts, and independence of all but the seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdsim.config import ConfigError, decode, digest, encode
from kdsim.data import SUBSETS, FewShot, LongTailed, ValidationSplit

CASES = [FewShot(0.1), FewShot(0.35), FewShot(1.0), LongTailed(10), LongTailed(100), ValidationSplit(0.1)]


def shuffled_labels(classes=10, each=500, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), each)))


@pytest.mark.parametrize("subset", CASES, ids=repr)
class TestContract:
    def test_indices_are_positions_in_ascending_order(self, subset):
        labels = shuffled_labels()
        chosen = subset.indices(labels, 3)
        assert chosen.dtype == torch.int64 and chosen.ndim == 1
        assert (chosen.diff() > 0).all() and chosen[0] >= 0 and chosen[-1] < len(labels)
        assert labels[chosen].bincount().tolist() == subset.sizes([500] * 10)

    def test_the_seed_decides(self, subset):
        labels = shuffled_labels()
        before = torch.get_rng_state()
        first, again, other = (subset.indices(labels, seed) for seed in (7, 7, 8))
        assert torch.equal(first, again) and torch.equal(before, torch.get_rng_state())
        assert torch.equal(first, other) == (subset == FewShot(1.0))
        if subset != FewShot(1.0):
            assert not torch.equal(first, subset.indices(labels, 7 + 2**32))

    def test_it_is_a_config(self, subset):
        assert decode(encode(subset), SUBSETS) == subset
        level = next(iter(vars(subset)))
        assert digest(subset) != digest(replace(subset, **{level: 5.0 if subset.name == "long-tailed" else 0.5}))

    def test_bad_input(self, subset):
        for seed in (-1, 1.5, True, 2**63):
            with pytest.raises(ConfigError, match="seed"):
                subset.indices(shuffled_labels(), seed)
        for labels in (torch.tensor([0, 2, 2]), torch.tensor([], dtype=torch.int64)):
            with pytest.raises(ConfigError, match="has no images"):
                subset.indices(labels, 0)
        for labels in (torch.tensor([0, 1]).int(), torch.tensor([[0, 1]]), torch.tensor([0, -1])):
            with pytest.raises(ConfigError, match="must be \\(N,\\) int64"):
                subset.indices(labels, 0)


@pytest.mark.parametrize("percent", [5, 10, 15, 25, 35, 50])
@pytest.mark.parametrize(("classes", "each"), [(10, 5000), (100, 500)])
def test_few_shot_counts_are_exact(percent, classes, each):
    labels = torch.arange(classes).repeat(each)
    counts = labels[FewShot(percent / 100).indices(labels, 0)].bincount()
    assert counts.tolist() == [percent * each // 100] * classes


def test_few_shot_counts_are_rounded_halves_up():
    assert FewShot(0.35).sizes([10, 12, 8]) == [4, 4, 3]
    assert FewShot(0.29).sizes([50]) == [15]  # 14.5, of which floating point makes 14.499999999999998


def test_few_shot_sets_are_nested():
    labels = shuffled_labels()
    small, large = (set(FewShot(fraction).indices(labels, 5).tolist()) for fraction in (0.1, 0.25))
    assert small < large


def test_long_tail_profile():
    sizes = LongTailed(100).sizes([5000] * 10)
    assert sizes == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert sum(sizes) == 12406 and sum(LongTailed(100).sizes([500] * 100)) == 10847  # as published
    assert LongTailed(64).sizes([64] * 7) == [64, 32, 16, 8, 4, 2, 1]  # 2, not the floor of 1.9999999999999998
    for ratio in (1, 10, 50, 200):
        sizes = LongTailed(ratio).sizes([5000] * 10)
        assert sizes[0] == 5000 and sizes[-1] == 5000 // ratio
        exact = 5000 * np.exp(-np.log(ratio) * np.arange(10) / 9)
        assert ((exact - sizes > -1e-6) & (exact - sizes < 1)).all()


@pytest.mark.slow
@given(st.integers(2, 6), st.integers(2, 40), st.floats(0.05, 0.95), st.integers(0, 2**40))
@settings(max_examples=40)
def test_validation_split_is_disjoint_complete_and_stratified(classes, each, fraction, seed):
    labels, split = shuffled_labels(classes, each), ValidationSplit(fraction)
    out = int(np.floor(fraction * each + 0.5))
    if not 1 <= out < each:
        with pytest.raises(ConfigError, match="at least 1 of each class"):
            split.indices(labels, seed)
        return
    train, held_out = split.indices(labels, seed), split.held_out(labels, seed)
    assert torch.equal(torch.cat([train, held_out]).sort().values, torch.arange(classes * each))
    assert labels[held_out].bincount().tolist() == [out] * classes


@pytest.mark.slow
def test_every_image_is_as_likely_as_any_other_of_its_class():
    labels = shuffled_labels(classes=2, each=20)
    chosen = torch.zeros(40)
    for seed in range(400):
        chosen[FewShot(0.25).indices(labels, seed)] += 1
    # Within a class 5 of 20: the counts have variance 400 p (1 - p), p = 1/4, and correlation -1/19.
    for label in range(2):
        z = (chosen[labels == label] - 100).square().sum().item() / (400 * 0.25 * 0.75 * 20 / 19)
        assert 1e-4 < stats.chi2.sf(z, 19) < 1 - 1e-4


def test_parts_of_different_kinds_are_independent():
    labels = torch.zeros(20_000, dtype=torch.int64)
    few = set(FewShot(0.5).indices(labels, 0).tolist())
    kept = set(ValidationSplit(0.5).indices(labels, 0).tolist())
    assert abs(len(few & kept) - 5000) < 4.5 * (20_000 / 16) ** 0.5


@pytest.mark.parametrize(
    ("kind", "value"),
    [(FewShot, 0), (FewShot, 1.1), (FewShot, float("nan")), (LongTailed, 0.5), (LongTailed, float("inf")),
     (ValidationSplit, 0), (ValidationSplit, 1), (ValidationSplit, True)],
)  # fmt: skip
def test_levels_that_are_refused(kind, value):
    with pytest.raises(ConfigError, match="is not allowed"):
        kind(value)


def test_a_class_of_which_nothing_would_be_kept():
    labels = torch.tensor([0] * 100 + [1] * 4)
    with pytest.raises(ConfigError, match="class 1 of 4 images"):
        FewShot(0.1).indices(labels, 0)
    with pytest.raises(ConfigError, match="keeps nothing of class 8 of 50 images"):
        LongTailed(100).indices(torch.arange(10).repeat(50), 0)  # 50 / 100^(8/9) = 0.8
    with pytest.raises(ConfigError, match="at least 2"):
        LongTailed(100).indices(torch.zeros(50, dtype=torch.int64), 0)
