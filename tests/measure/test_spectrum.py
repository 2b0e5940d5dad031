"""Variance and autocorrelation time on autoregressive series whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdsim.measure.spectrum import COLUMNS, autocovariances, spectrum

Z_LIMIT = 4.0


def _ar1(decay: float, variance: float, samples: int, replicas: int, seed: int = 0) -> torch.Tensor:
    """z_{t+1} = decay z_t + noise, stationary from the first sample. (samples, R)."""
    generator = np.random.default_rng(seed)
    z = np.empty((samples, replicas))
    z[0] = generator.standard_normal(replicas)
    for t in range(1, samples):
        z[t] = decay * z[t - 1] + np.sqrt(1 - decay**2) * generator.standard_normal(replicas)
    return torch.from_numpy(np.sqrt(variance) * z)


@pytest.mark.parametrize(("decay", "stride"), [(0.99, 1), (0.9, 1), (0.99, 4)])
def test_ar1_is_recovered(decay, stride):
    """1 / (1 - decay) within 4 standard errors, which are at most 1.5 times maximum likelihood's sqrt(2 / (a T))."""
    series = _ar1(decay, 3.0, 2_000, 64)[::stride]
    row = spectrum(series[None], stride).iloc[0]
    se = (row.time_high - row.time_low) / 4
    assert abs(row.time - 1 / (1 - decay)) < Z_LIMIT * se
    assert se < 1.5 * (2 / ((1 - decay) * 2_000 * 64)) ** 0.5 * row.time
    assert abs(row.variance - 3.0) < Z_LIMIT * (row.variance_high - row.variance_low) / 4
    assert row.memory == pytest.approx(0.5, abs=0.06)


def test_intervals_cover_at_their_rate():
    """200 series of 24 replicas: 95 % of the intervals cover, within 4 standard errors (1.5 %) and a lag's choice."""
    series = _ar1(0.95, 1.0, 400, 24 * 200, seed=3).view(400, 200, 24).permute(1, 0, 2)
    table = spectrum(series, 1)
    for column, truth in (("time", 20.0), ("variance", 1.0)):
        covered = ((table[f"{column}_low"] <= truth) & (truth <= table[f"{column}_high"])).mean()
        assert abs(covered - 0.95) < Z_LIMIT * (0.95 * 0.05 / 200) ** 0.5


def test_two_directions_are_told_apart():
    along = torch.stack([_ar1(0.9, 1.0, 1_000, 32), _ar1(0.98, 0.1, 1_000, 32)])
    table = spectrum(along, 1)
    assert list(table.columns) == list(COLUMNS)
    assert table["time_high"][0] < table["time_low"][1]
    assert table["variance_low"][0] > table["variance_high"][1]
    assert table["lag"][0] < table["lag"][1]


def test_ends_that_the_data_leave_open():
    constant = spectrum(torch.ones(1, 40, 8), 1).iloc[0]
    assert constant.time == np.inf and constant.lag == 10
    white = spectrum(torch.randn(1, 4_000, 8, generator=torch.Generator().manual_seed(0)), 16).iloc[0]
    assert white.lag == 1 and white.time_high < 16


def test_autocovariances_subtract_nothing():
    """The mean is known to be zero: a constant c has autocovariance c^2 at every lag."""
    assert autocovariances(torch.full((10, 2), 3.0), 2).tolist() == [[9.0, 9.0]] * 3
