"""The parts of the floor: identities, what is refused, and the unbiased squared norm of a mean."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from kdsim.config import ConfigError
from kdsim.engines import ENGINES, SGD, Lane, Record, Recording
from kdsim.measure import decompose, measure, squared_norm_of_mean
from kdsim.measure.decomposition import parts
from kdsim.problems import GaussianMixture
from kdsim.students import SoftmaxRegression, minimiser
from kdsim.supervision import LabelSmoothing

POOL = GaussianMixture(classes=3, dimension=2, samples=100).population(0)
STUDENT = SoftmaxRegression(0.2, "centred")
SHIFT = minimiser(STUDENT, POOL, LabelSmoothing(0.3).mean(POOL.p)) - POOL.optimum


def _record(mean_error: bool = True, replicas: int = 8) -> Record:
    lane = Lane(LabelSmoothing(0.3), 0.05, 1, replicas)
    return ENGINES["torch"].run(
        STUDENT, POOL, [lane], SGD(400), Recording(4, 0.5, 4, mean_error),
        reference=POOL.optimum, anchor=STUDENT.anchor(POOL),
    )[0]  # fmt: skip


def test_parts_add_up_to_the_floor():
    record = _record()
    found, floor = decompose(record, SHIFT), measure(record).floor
    bias_sq = SHIFT.square().sum().item()
    assert bias_sq + found.measured_cross_term + found.measured_variance == pytest.approx(floor, rel=1e-12)
    for cross, variance in zip(*parts(record, SHIFT), strict=True):
        assert variance >= cross**2 / (4 * bias_sq)  # E|e - s|^2 >= <s, E e - s>^2 / |s|^2


def test_unbiased_supervision_has_the_floor_as_its_variance():
    record = _record()
    found = decompose(record, torch.zeros_like(SHIFT))
    assert found.measured_cross_term == 0
    assert found.measured_variance == pytest.approx(measure(record).floor)


def test_a_record_without_the_mean_error_is_refused():
    with pytest.raises(ConfigError, match="mean_error=True"):
        decompose(_record(mean_error=False), SHIFT)


def test_a_diverged_replica_leaves_nothing():
    record = _record()
    diverged = dataclasses.replace(record, diverged_at=torch.tensor([-1] * 7 + [3]))
    assert set(decompose(diverged, SHIFT).row().values()) == {None}


def test_two_replicas_have_no_mean_dist_sq():
    found = decompose(_record(replicas=2), SHIFT)
    assert found.mean_dist_sq is None and found.measured_variance is not None
    with pytest.raises(ConfigError, match="3 replicas"):
        squared_norm_of_mean(torch.ones(2, 4))


def _samples(mean: float, seed: int, count: int = 12, repeats: int = 2_000) -> torch.Tensor:
    noise = torch.randn(repeats, count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return noise + mean


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0.0, 0.3, 2.0])
def test_squared_norm_of_a_mean_is_unbiased_and_covered(mean):
    """2,000 samples of 12: the mean within 4 standard errors, coverage at least 92 %. |mean|^2 is 5/12 too large."""
    truth = 5 * mean**2
    found = [squared_norm_of_mean(sample) for sample in _samples(mean, seed=3)]
    values = torch.tensor([each.mean for each in found])
    assert abs(values.mean() - truth) < 4 * values.std() / len(values) ** 0.5
    covered = sum(each.low <= truth <= each.high for each in found) / len(found)
    assert covered > 0.92
    naive = torch.stack([sample.mean(0).square().sum() for sample in _samples(mean, seed=3)])
    assert abs((naive - values).mean().item() - 5 / 12) < 0.02


def test_squared_norm_is_the_mean_over_pairs_and_its_error_the_jackknife():
    values = _samples(1.0, seed=4, count=7, repeats=1)[0]

    def pairs(v: torch.Tensor) -> float:
        products = v @ v.T
        return ((products.sum() - products.trace()) / (len(v) * (len(v) - 1))).item()

    found = squared_norm_of_mean(values)
    left_out = torch.tensor([pairs(torch.cat([values[:r], values[r + 1 :]])) for r in range(7)], dtype=torch.float64)
    assert found.mean == pytest.approx(pairs(values))
    assert found.se == pytest.approx((6 / 7 * (left_out - left_out.mean()).square().sum()).sqrt().item())
