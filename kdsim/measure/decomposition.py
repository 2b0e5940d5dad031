"""The floor taken apart: bias of the point that SGD aims at, cross term, and variance about that point."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from scipy import special
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.conventions import CONFIDENCE
from kdsim.engines.recorder import Record
from kdsim.measure.floors import Interval, interval, tail_floor


@dataclass(frozen=True)
class Decomposition:
    """Parts of the floor E|theta - theta*|^2 with 95 % intervals over replicas. None if any replica diverged.

    With s = theta_m - theta*, where theta_m is the point that SGD aims at,

        floor = |s|^2 + 2 <s, E[theta - theta_m]> + E|theta - theta_m|^2,

    an identity for each replica's tail averages, so the measured parts add up to the measured floor to rounding.

    What each field is says the schema of results: `kdsim columns`, kdsim/results/columns/measured.py.
    """

    measured_cross_term: float | None
    measured_cross_term_low: float | None
    measured_cross_term_high: float | None
    measured_variance: float | None
    measured_variance_low: float | None
    measured_variance_high: float | None
    mean_dist_sq: float | None
    mean_dist_sq_low: float | None
    mean_dist_sq_high: float | None

    def row(self) -> dict[str, float | None]:
        """Field names to values."""
        return asdict(self)


def parts(record: Record, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Cross term 2 <s, mean - s> and variance |theta - theta_m|^2 of each replica's tail, (R,) each.

    Args:
        record: of a run with `Recording(mean_error=True)`.
        shift: s = theta_m - theta*, (K, d).

    Raises:
        ConfigError: the record has no mean error.
    """
    if record.mean_error is None:
        raise ConfigError("the parts of the floor need a run with Recording(mean_error=True)")
    cross = 2 * ((record.mean_error - shift) * shift).sum((-2, -1))
    return cross, tail_floor(record) - shift.square().sum() - cross


def decompose(record: Record, shift: Tensor) -> Decomposition:
    """The parts of the floor over all replicas; arguments as in `parts`."""
    cross, variance = parts(record, shift)
    if (record.diverged_at >= 0).any():
        return Decomposition(**dict.fromkeys(Decomposition.__annotations__))
    known = record.mean_error if len(cross) >= 3 else None
    mean_dist_sq = None if known is None else squared_norm_of_mean(known)
    return Decomposition(
        **columns("measured_cross_term", interval(cross)),
        **columns("measured_variance", interval(variance)),
        **columns("mean_dist_sq", mean_dist_sq),
    )


def columns(name: str, found: Interval | None) -> dict[str, float | None]:
    """An interval as three entries of a row: name, name_low, name_high."""
    values = (None, None, None) if found is None else (found.mean, found.low, found.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def squared_norm_of_mean(values: Tensor, confidence: float = CONFIDENCE) -> Interval:
    """|E v|^2 from independent v_r, one a replica, with its jackknife interval. (R, ...), R >= 3.

    The mean of <v_r, v_s> over pairs r != s, that is |mean|^2 less the estimated variance of the mean: unbiased, and
    negative at times where E v is near zero. The jackknife's variance of this U-statistic is biased upwards, so that
    the interval is rather too wide.

    Source: W. Hoeffding, "A class of statistics with asymptotically normal distribution", Ann. Math. Statist. 19
    (1948); B. Efron, C. Stein, "The jackknife estimate of variance", Ann. Statist. 9 (1981).
    """
    flat = values.flatten(1).to(torch.float64)
    count = len(flat)
    if count < 3:
        raise ConfigError(f"the squared norm of a mean needs at least 3 replicas, not {count}")
    # About the centre, so that a large common part does not cancel: sums of |v_r - c|^2 and <c, v_r - c> are small.
    centre = flat.mean(0)
    squares = (flat - centre).square().sum(-1)  # (R,)
    total = squares.sum()
    common = centre.square().sum()
    estimate = common - total / (count * (count - 1))
    # Without replica r the sum of the deviations is -(v_r - c).
    along = ((flat - centre) * centre).sum(-1)
    left_out = common - 2 * along / (count - 1) + (squares - (total - squares)) / ((count - 1) * (count - 2))
    se = ((count - 1) / count * (left_out - left_out.mean()).square().sum()).sqrt().item()
    half = float(special.stdtrit(count - 1, (1 + confidence) / 2)) * se
    return Interval(estimate.item(), se, estimate.item() - half, estimate.item() + half)
