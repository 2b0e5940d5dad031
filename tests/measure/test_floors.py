"""Floors, intervals and stationarity on records whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from kdsim.conventions import FEWEST_REPLICAS
from kdsim.engines import ENGINES, METRICS, SGD, Lane, Record, Recording
from kdsim.measure import interval, measure, tail_floor
from kdsim.measure.floors import drift_z_limit
from kdsim.problems import SimplexLinear
from kdsim.students import LeastSquares, minimiser
from kdsim.supervision import OneHot
from kdsim.theory import constants


def _record(
    first: torch.Tensor,
    second: torch.Tensor,
    initial: float = 10.0,
    diverged: int = 0,
    half_samples: tuple[int, int] = (10, 10),
) -> Record:
    """A record with the given tail means of the two halves (R,)."""
    replicas = first.numel()
    curve = torch.stack([torch.full((replicas,), initial), first, second]).double()
    diverged_at = torch.full((replicas,), -1)
    diverged_at[:diverged] = 5
    return Record(
        steps=torch.tensor([0, 80, 100]),
        curves={name: curve.clone() for name in METRICS},
        tail_mean=torch.stack([first, second]).double(),
        tail_std=torch.full((replicas,), 3.0, dtype=torch.float64),
        half_samples=half_samples,
        tail_start=75,
        diverged_at=diverged_at,
    )


def _noise(seed: int, count: int = 200) -> torch.Tensor:
    return torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_interval_covers_the_mean_at_its_rate():
    """1,000 intervals of 12 normals: 95 % within 4 standard errors (0.7 %)."""
    values = _noise(0, 12_000).view(1_000, 12)
    covered = sum(found.low <= 0 <= found.high for found in map(interval, values))
    assert abs(covered / 1_000 - 0.95) < 4 * (0.95 * 0.05 / 1_000) ** 0.5


def test_floor_is_the_mean_of_the_tail():
    record = _record(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    assert tail_floor(record).tolist() == [2.0, 3.0]
    measured = measure(record)
    assert measured.floor == pytest.approx(2.5)
    assert measured.excess_risk_floor == pytest.approx(2.5)
    assert measured.floor_low < 2.5 < measured.floor_high
    assert measured.replicas == 2


def test_halves_count_by_their_samples():
    record = _record(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 5.0]), half_samples=(2, 1))
    assert tail_floor(record).tolist() == [2.0, 3.0]
    assert measure(record).fluctuation == pytest.approx(3.0)


def test_a_tail_of_one_sample_tells_no_drift():
    nan = torch.full((8,), float("nan"))
    measured = measure(_record(1 + 0.1 * _noise(1, 8), nan, half_samples=(1, 0)))
    assert measured.floor == pytest.approx(1, abs=0.2)
    assert measured.drift_z is None
    assert measured.stationary is None


def test_replicas_that_agree_exactly_still_drift():
    measured = measure(_record(torch.full((4,), 2.0), torch.full((4,), 1.0)))
    assert measured.drift_z == -math.inf
    assert measured.stationary is False
    assert measure(_record(torch.full((4,), 2.0), torch.full((4,), 2.0))).stationary is True


@pytest.mark.slow
def test_the_drift_limit_is_as_rare_with_few_replicas():
    """False alarms of steady floors with 6 replicas: 6e-5 as at 4 sigma, so none in 2,000 (1 % with z = 4)."""
    noise = _noise(5, 24_000).view(2_000, 2, 6)
    alarms = sum(not measure(_record(2 + 0.1 * first, 2 + 0.1 * second)).stationary for first, second in noise)
    assert alarms <= 2


@pytest.mark.parametrize("replicas", [2, 3, 4, 5, 8])
def test_few_replicas_do_not_know_whether_a_run_is_stationary(replicas, young_runs):
    """Ten runs .18 relaxations old each: the test passed 10 of 10 at 2 and 3 replicas, and passes none at 8."""
    runs = [measure(young_runs.replicas(slice(replicas * run, replicas * (run + 1)))) for run in range(10)]
    assert {run.stationary for run in runs} == {None if replicas < FEWEST_REPLICAS else False}
    assert all(run.drift_z < -2 for run in runs)


@pytest.fixture(scope="module")
def young_runs() -> Record:
    """80 replicas whose tail begins .18 relaxation times after the start."""
    population, student = SimplexLinear(samples=60, dimension=3, classes=3).population(0), LeastSquares(0.05, "centred")
    known = constants(student, population)
    step_size = 0.01 / known.sample_smoothness
    steps = round(0.18 / (step_size * known.mu) / 0.75)
    record, _ = ENGINES["torch"].run(
        student, population, [Lane(OneHot(), step_size, 1, 80)], SGD(steps, dtype="float64"),
        Recording(2, tail_stride=2), reference=minimiser(student, population), anchor=student.anchor(population),
    )  # fmt: skip
    return record


def test_limits_of_drift_are_as_rare_as_four_sigma():
    """One tail of Student's t with R - 1 degrees of freedom; two tails of a coin for replicas that all move one way."""
    for replicas in (2, 3, 64):
        assert drift_z_limit(replicas) == pytest.approx(stats.t.isf(stats.norm.sf(4), replicas - 1), rel=1e-9)
    apart = torch.exp(10 * _noise(4, 15))  # so far apart that the mean's standard error shows nothing
    assert not measure(_record(apart, 0.9 * apart, initial=1e12)).stationary  # 2 / 2^15 < P(|z| > 4) = 6.3e-5
    assert measure(_record(apart[:14], 0.9 * apart[:14], initial=1e12)).stationary


def test_a_checkpoint_at_the_start_of_the_tail_is_before_it():
    """Floors of curves are means over later checkpoints: as the tail's first sample comes after its start."""
    record = _record(torch.ones(4), torch.ones(4))
    risk = torch.tensor([9.0, 5.0, 1.0]).double()[:, None].repeat(1, 4)
    record.curves["excess_risk"] = risk
    assert record.steps.tolist() == [0, 80, 100]
    for start, floor in ((75, 3.0), (79, 3.0), (80, 1.0)):
        assert measure(replace(record, tail_start=start)).excess_risk_floor == floor


def test_drift_is_noticed():
    steady = measure(_record(1 + 0.1 * _noise(1), 1 + 0.1 * _noise(2)))
    assert steady.stationary
    falling = measure(_record(1.1 + 0.1 * _noise(1), 1 + 0.1 * _noise(2)))
    assert not falling.stationary
    assert falling.drift_z < -4


def test_a_floor_that_is_zero_to_rounding_is_stationary():
    """Exact BCP falls until rounding: a drift from 1e-13 to 1e-14 is not a drift of the floor."""
    noise = 1 + 0.1 * _noise(3)
    assert measure(_record(1e-13 * noise, 1e-14 * noise)).stationary
    assert not measure(_record(1e-5 * noise, 1e-6 * noise)).stationary


def test_replicas_that_all_fall_drift_however_far_apart_they_are():
    """Floors over 20 decades, each a tenth lower in the second half: the mean's standard error hides it."""
    first = torch.exp(10 * _noise(4))
    falling = measure(_record(first, 0.9 * first, initial=1e20))
    assert abs(falling.drift_z) < 4 and not falling.stationary
    either_way = measure(_record(first, first * torch.exp(0.1 * _noise(6)), initial=1e20))
    assert either_way.stationary


def test_divergence_leaves_no_floor():
    """The mean of the survivors is not the expectation."""
    measured = measure(_record(torch.ones(4), torch.ones(4), diverged=1))
    assert measured.diverged == 1
    assert measured.floor is None
    assert not measured.stationary
