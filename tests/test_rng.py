"""Random numbers: known answers of Philox, the same numbers however they are asked for, and their distribution."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kdsim.rng import MASK, Draws, Stream, permuted_index, philox, to_uniform, uniform_index

DTYPES = [torch.float32, torch.float64]


def range_draws(replicas=3, visits=16, start=0, seed=7, stream=Stream.LABEL, dtype=torch.float64):
    seeds = torch.full((replicas, 1), seed)
    visit = torch.arange(start, start + visits)[None, :]
    return Draws(seeds, torch.arange(replicas)[:, None], visit, stream, dtype, start=start)


# Philox -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # kat_vectors of Random123 1.09, philox4x32 with 10 rounds
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_known_answers(counter, key, answer):
    def words(text):
        return tuple(torch.tensor([int(word, 16)]) for word in text.split())

    assert [f"{word.item():08x}" for word in philox(words(counter), words(key))] == answer.split()


def test_a_visit_reads_its_word_of_its_block():
    draws = range_draws(replicas=2, visits=9, start=6, seed=(5 << 32) | 3, stream=Stream.INIT)
    words = draws.words(11)
    for replica in range(2):
        for column, visit in enumerate(range(6, 15)):
            counter = [torch.tensor([c]) for c in (visit // 4, 11, replica, int(Stream.INIT))]
            block = philox(tuple(counter), (torch.tensor([3]), torch.tensor([5])))
            assert words[replica, column] == block[visit % 4].item()


@pytest.mark.parametrize("start", [1 << 34, 3 << 40])
def test_block_numbers_have_more_than_32_bits(start):
    far, near = range_draws(visits=8, start=start), range_draws(visits=8)
    assert torch.equal(far.words(0), replace(far, start=None).words(0))
    assert not (far.words(0) == near.words(0)).any()
    across = range_draws(visits=8, start=start - 3)
    assert torch.equal(across.words(0)[:, 3:], far.words(0)[:, :5])


# The same numbers however they are asked for ----------------------------------------------


@given(st.integers(0, 40), st.integers(1, 30), st.integers(0, 9))
def test_a_range_equals_its_visits_one_by_one(start, visits, slot):
    draws = range_draws(visits=visits, start=start)
    assert torch.equal(draws.words(slot), replace(draws, start=None).words(slot))
    longer = range_draws(visits=start + visits + 5)
    assert torch.equal(draws.words(slot), longer.words(slot)[:, start : start + visits])


def test_pool_indices_may_come_in_any_order():
    visit = torch.tensor([[5, 0, 5, 2], [1, 1, 7, 3], [0, 4, 2, 6]])
    gathered = replace(range_draws(), visit=visit, start=None)
    assert torch.equal(gathered.words(2), range_draws().words(2).gather(1, visit))


@pytest.mark.parametrize("start", [0, None])
def test_shared_rows_are_the_rows(start):
    draws = replace(range_draws(), start=start)
    rows = torch.tensor([2, 0, 0, 1, 2])
    assert torch.equal(replace(draws, rows=rows).words(1), draws.words(1)[rows])
    assert torch.equal(replace(draws, rows=rows).normals(3), draws.normals(3)[:, rows])


@pytest.mark.parametrize("rows", [None, torch.tensor([2, 0, 1]), torch.tensor([1, 1, 0, 2])])
@pytest.mark.parametrize("pool", [False, True])
def test_take_gives_the_masked_words(rows, pool):
    draws = replace(range_draws(), rows=rows)
    if pool:  # visits of each replica's own
        visit = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6], [5, 3, 5, 8]])
        draws = replace(draws, visit=visit, start=None)
    words = draws.words(4)
    mask = torch.rand(words.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    taken = draws.take(mask)
    assert torch.equal(taken.words(4), words[mask])
    again = torch.arange(len(words[mask])) % 2 == 0
    assert torch.equal(taken.take(again).words(4), words[mask][again])

    both = torch.stack([mask, ~mask])  # a leading axis takes every visit twice
    slots = both.nonzero()[:, 0] + 4
    expected = torch.stack([draws.words(4), draws.words(5)])[both]
    assert torch.equal(draws.take(both).words(slots), expected)


@pytest.mark.parametrize("rows", [None, torch.tensor([2, 0, 1]), torch.tensor([1, 1, 0, 2])])
def test_replicas_gives_the_rows_kept(rows):
    draws = replace(range_draws(), rows=rows)
    keep = torch.tensor([2, 0])
    assert torch.equal(draws.replicas(keep).words(4), draws.words(4)[keep])
    assert torch.equal(replace(draws, start=None).replicas(keep).words(4), draws.words(4)[keep])
    assert draws.replicas(torch.tensor([0])).seed.shape == (1, 1)  # nothing is generated for the others


def test_normals_are_box_muller_pairs():
    draws = range_draws()
    both = draws.normals(3)
    assert both.shape == (3, 3, 16)
    assert torch.equal(both[0], draws.normal(0))
    assert torch.equal(both[2], draws.normal(1))
    radius_sq = -2 * draws.uniform(0).log()
    assert torch.allclose(both[0] ** 2 + both[1] ** 2, radius_sq, rtol=1e-12)


# Distribution -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniforms_stay_inside_the_open_interval(dtype):
    ends = to_uniform(torch.tensor([0, MASK]), dtype)
    assert ends[0] > 0 and ends[1] < 1
    assert ends[0] == 1 - ends[1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_float32_and_float64_agree(dtype):
    words = range_draws().words(0)
    assert (to_uniform(words, dtype).double() - to_uniform(words, torch.float64)).abs().max() < 2**-23


SAMPLES = 200_000
P_VALUE = 1e-4  # at fixed seeds: a failure is a change of the numbers, not chance


def sample(kind, seed, stream, dtype):
    draws = range_draws(replicas=20, visits=SAMPLES // 20, seed=seed, stream=stream, dtype=dtype)
    return {
        "uniform": lambda: draws.uniform(3),
        "normal": lambda: draws.normal(3),
        "sine": lambda: draws.normals(2)[1],
    }[kind]().flatten()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["uniform", "normal", "sine"])
@pytest.mark.parametrize("seed", [0, 1, 2**40 + 5])
def test_distribution(kind, seed, dtype):
    values = sample(kind, seed, Stream.LABEL, dtype).double().numpy()
    law = stats.uniform() if kind == "uniform" else stats.norm()
    assert stats.kstest(values, law.cdf).pvalue > P_VALUE
    for order in (1, 2, 3, 4):
        error = (values**order).mean() - law.moment(order)
        assert abs(error) < 4 * (values**order).std() / SAMPLES**0.5


def test_streams_slots_seeds_and_replicas_are_uncorrelated():
    def words(**change):
        slot = change.pop("slot", 0)
        return range_draws(replicas=200, visits=250, **change).uniform(slot)

    columns = [
        words(),
        words(slot=1),
        words(seed=8),
        words(seed=7 | (1 << 32)),
        *(words(stream=s) for s in Stream if s != Stream.LABEL),
    ]
    first = words()
    columns += [first.roll(1, 0), first.roll(1, 1), first.roll(4, 1)]  # neighbouring replicas, visits and blocks
    correlation = np.corrcoef(torch.stack([c.flatten() for c in columns]).numpy()) - np.eye(len(columns))
    assert abs(correlation).max() < 4.5 / (200 * 250) ** 0.5  # 45 pairs


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 2**31])
def test_uniform_index_is_in_range(size):
    index = uniform_index(torch.cat([torch.tensor([0, MASK]), range_draws().words(0).flatten()]), size)
    assert index.min() == 0 and index.max() == size - 1


def test_uniform_index_is_uniform():
    index = uniform_index(range_draws(replicas=10, visits=10_000).words(0), 7)
    assert stats.chisquare(index.flatten().bincount(minlength=7)).pvalue > P_VALUE


# Permutations -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*range(1, 51), 1000])
def test_every_epoch_is_a_permutation(size):
    replica = torch.arange(3)[:, None]
    index = permuted_index(torch.full_like(replica, 7), replica, torch.arange(2 * size)[None, :], size)
    epochs = index.reshape(3, 2, size)
    assert torch.equal(epochs.sort(-1).values, torch.arange(size).expand(3, 2, size))


def test_permutations_differ_by_epoch_replica_and_seed():
    replica, visit = torch.arange(4)[:, None], torch.arange(300)[None, :]
    index = permuted_index(torch.tensor([[7], [7], [7], [8]]), replica, visit, 100).reshape(4, 3, 100)
    permutations = {tuple(row.tolist()) for row in index.flatten(0, 1)}
    assert len(permutations) == 12
    same = permuted_index(torch.full_like(replica, 7), replica * 0, visit, 100)
    assert torch.equal(same[0], same[1])


def test_permutations_are_keyed_by_all_of_seed_replica_epoch_and_stream():
    """Both words of the seed, epochs beyond 2^32, and the stream: training sets are no order of visits."""

    def permutation(seed=7, replica=0, epoch=0, stream=Stream.INDEX):
        visit = epoch * 100 + torch.arange(100)[None]
        return tuple(permuted_index(torch.tensor([[seed]]), torch.tensor([[replica]]), visit, 100, stream)[0].tolist())

    others = [{"seed": 8}, {"seed": 7 | (1 << 32)}, {"seed": 7 | (1 << 62)}, {"replica": 1}, {"epoch": 1}]
    others += [{"epoch": 1 << 32}, {"stream": Stream.SPLIT}]
    assert len({permutation(), *(permutation(**other) for other in others)}) == 1 + len(others)


def test_permuted_index_of_a_visit_stands_alone():
    replica = torch.arange(2)[:, None]
    seed = torch.full_like(replica, 7)
    whole = permuted_index(seed, replica, torch.arange(60)[None, :], 23)
    part = permuted_index(seed, replica, torch.tensor([[41, 3], [0, 59]]), 23)
    assert part.tolist() == [[whole[0, 41], whole[0, 3]], [whole[1, 0], whole[1, 59]]]


@pytest.mark.parametrize("size", [2, 5, 12, 37])
def test_permuted_positions_are_uniform(size):
    """Every (position, index) cell equally often: chi-square with (size - 1)^2 degrees of freedom, p > 1e-4."""
    epochs = 4000
    replica = torch.arange(40)[:, None]
    visit = torch.arange(epochs // 40 * size)[None, :]
    index = permuted_index(torch.full_like(replica, 3), replica, visit, size).reshape(epochs, size)
    counts = torch.stack([index[:, position].bincount(minlength=size) for position in range(size)]).double()
    chi_square = ((counts - epochs / size) ** 2 / (epochs / size)).sum().item()
    assert stats.chi2.sf(chi_square, (size - 1) ** 2) > P_VALUE


def test_successive_positions_are_uncorrelated():
    """All 4! orders of 4 points equally often: chi-square with 23 degrees of freedom, p > 1e-4."""
    replica = torch.arange(100)[:, None]
    index = permuted_index(torch.full_like(replica, 3), replica, torch.arange(400)[None, :], 4).reshape(-1, 4)
    orders = (index * torch.tensor([64, 16, 4, 1])).sum(-1)
    counts = orders.unique(return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > P_VALUE


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 7, 12, 20])
def test_permutations_of_small_pools_are_uniform_over_ordered_pairs(size):
    """First two points of 40,000 permutations: chi-square over all ordered pairs, 5 sigma of its own spread."""
    count = 40_000
    replica = torch.arange(count)[:, None]
    first = permuted_index(torch.zeros_like(replica), replica, torch.arange(2)[None], size)
    pairs = torch.bincount(first[:, 0] * size + first[:, 1], minlength=size * size).double()
    possible = ~torch.eye(size, dtype=torch.bool).flatten()
    assert (pairs[~possible] == 0).all()
    cells = size * (size - 1)
    chi_square = ((pairs[possible] - count / cells).square() / (count / cells)).sum().item()
    assert abs(chi_square - (cells - 1)) < 5 * (2 * (cells - 1)) ** 0.5
