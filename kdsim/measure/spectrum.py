"""Fluctuations along fixed directions: how large they are and how long they last."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kdsim.measure.floors import interval

COLUMNS = (
    "direction", "variance", "variance_low", "variance_high", "memory", "memory_low", "memory_high", "lag",
    "time", "time_low", "time_high",
)  # fmt: skip
"""Of `spectrum`'s table."""
TARGET_MEMORY = 0.5
"""The lag is the first one at which the estimated autocorrelation is at most this."""


def autocovariances(along: Tensor, largest_lag: int) -> Tensor:
    """Mean of z_n z_{n+k} over the samples of each replica, k = 0 .. largest_lag; (samples, R) -> (lags, R).

    The mean of z is known to be zero (the error about the point that SGD aims at, up to order alpha), so nothing is
    subtracted: the estimate is unbiased at every length of the series.
    """
    samples = len(along)
    return torch.stack([(along[: samples - k] * along[k:]).mean(0) for k in range(largest_lag + 1)])


def spectrum(along: Tensor, stride: int) -> pd.DataFrame:
    """Variance and autocorrelation time along each direction, with 95 % intervals over replicas.

    Variance: mean over replicas of the mean of z^2. Memory: the lag-k regression coefficient pooled over replicas,

        r_k = sum_R c_k / sum_R c_0,   c_k = `autocovariances`,

    whose interval is the delta method's (the t-interval of the residuals c_k - r_k c_0 over the mean of c_0), replicas
    being independent. For z_{t+1} = (1 - a) z_t + noise r_k estimates (1 - a)^(k stride), hence the autocorrelation
    time 1/a = 1 / (1 - r_k^(1/(k stride))). k is the first lag with r_k <= TARGET_MEMORY: it measures the decay over
    half a memory. For an exactly autoregressive series lag one would be the maximum likelihood, with a standard error
    about a quarter smaller, but it infers the time from the loss of one stride, where any noise that is not
    autoregressive counts most. Choosing k by the same data biases r_k by less than its standard error. Where memory
    does not reach TARGET_MEMORY within a quarter of the series, that longest lag is taken; an end of the interval with
    r >= 1 or r <= 0 leaves the end of the time infinite or zero.

    Args:
        along: error along each direction, (m, samples, R), samples `stride` steps apart, of a stationary run.
        stride: steps between two samples.

    Returns:
        One row a direction with `COLUMNS`: lag in samples, time in steps.
    """
    along = along.to(torch.float64)
    rows = [_row(number, series, stride) for number, series in enumerate(along)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(number: int, series: Tensor, stride: int) -> dict[str, float]:
    longest = max(1, len(series) // 4)
    zero = series.square().mean(0)  # (R,)
    lag, products = _lag(series, zero, longest)
    memory = (products.sum() / zero.sum()).item()
    residual = interval(products - memory * zero)
    half = (residual.high - residual.low) / 2 / zero.mean().item()
    variance = interval(zero)
    span = lag * stride
    return {
        "direction": number,
        "variance": variance.mean,
        "variance_low": variance.low,
        "variance_high": variance.high,
        "memory": memory,
        "memory_low": memory - half,
        "memory_high": memory + half,
        "lag": lag,
        "time": _time(memory, span),
        "time_low": _time(memory - half, span),
        "time_high": _time(memory + half, span),
    }


def _lag(series: Tensor, zero: Tensor, longest: int) -> tuple[int, Tensor]:
    """The first lag whose pooled memory is at most TARGET_MEMORY, by bisection, and its products (R,)."""

    def products(lag: int) -> Tensor:
        return (series[: len(series) - lag] * series[lag:]).mean(0)

    total, low, high = TARGET_MEMORY * zero.sum(), 0, longest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if products(middle).sum() <= total else (middle, high)
    return high, products(high)


def _time(memory: float, span: int) -> float:
    """Autocorrelation time of a memory over `span` steps, in steps: 1 / (1 - memory^(1/span))."""
    if memory <= 0:
        return 0.0
    return float("inf") if memory >= 1 else float(-1 / np.expm1(np.log(memory) / span))
