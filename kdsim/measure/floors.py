"""Error floors and fluctuations from a record, with intervals from the independent replicas."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from scipy import special
from torch import Tensor

from kdsim.conventions import CONFIDENCE, FEWEST_REPLICAS, NEGLIGIBLE
from kdsim.engines.recorder import Record

DRIFT_Z_LIMIT = 4.0
"""A floor is stationary if the change between the halves of the tail stays within this many standard errors (with the
quantile of Student's t in place of the normal's)."""
ONE_WAY = 0.9
"""... and fewer than this share of the replicas moved the same way, or no more than chance explains (sign test, as
rarely as DRIFT_Z_LIMIT): where replicas differ by orders of magnitude, the mean's standard error hides a drift."""
ROUNDING = 1e-12
"""Where replicas agree exactly there is no standard error: any change above this fraction of the floor is a drift. A
run whose floor is its start, to this fraction, has not moved."""


@dataclass(frozen=True)
class Measurement:
    """What a run showed. Intervals are 95 % t-intervals over independent replicas.

    What each field is says the schema of results: `kdsim columns`, kdsim/results/columns/measured.py.
    """

    floor: float | None
    floor_low: float | None
    floor_high: float | None
    floor_se: float | None
    excess_risk_floor: float | None
    excess_risk_floor_low: float | None
    excess_risk_floor_high: float | None
    fluctuation: float | None
    fluctuation_low: float | None
    fluctuation_high: float | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    bcp_l2: float | None
    bcp_l2_low: float | None
    bcp_l2_high: float | None
    stationary: bool | None
    drift_z: float | None
    diverged: int
    replicas: int

    def row(self) -> dict[str, float | bool | int | None]:
        """Field names to values."""
        return asdict(self)


@dataclass(frozen=True)
class Interval:
    """Mean over replicas, its standard error, and the ends of its t-interval."""

    mean: float
    se: float
    low: float
    high: float


def interval(values: Tensor, confidence: float = CONFIDENCE) -> Interval:
    """t-interval for the mean of independent values, one a replica. (R,), R >= 2."""
    count = values.numel()
    mean, se = values.mean().item(), (values.std() / count**0.5).item()
    half = float(special.stdtrit(count - 1, (1 + confidence) / 2)) * se
    return Interval(mean, se, mean - half, mean + half)


def tail_floor(record: Record) -> Tensor:
    """Tail average of the squared distance of each replica, (R,)."""
    samples = torch.tensor(record.half_samples, dtype=torch.float64)[:, None]
    means = torch.where(samples > 0, record.tail_mean, 0.0)  # a half without samples has none
    return (samples * means).sum(0) / samples.sum()


def drift_z_limit(replicas: int) -> float:
    """Student's t with R - 1 degrees of freedom that is passed as rarely as DRIFT_Z_LIMIT by a normal."""
    return float(special.stdtrit(replicas - 1, special.ndtr(DRIFT_Z_LIMIT)))


def drift_test(change: Tensor, level: float) -> tuple[float | None, bool | None]:
    """Mean change over replicas in standard errors, and whether there is no drift; None where that is not known.

    Args:
        change: from the first to the second half of the tail, of each replica, (R,); NaN where a half has no samples.
        level: the mean in the tail.
    """
    replicas = change.numel()
    if replicas < 2 or change.isnan().any():
        return None, None
    found = interval(change)
    if found.se == 0:  # replicas that agree exactly: a pool of one point, say. Engines add squares in different orders
        drifts = abs(found.mean) > ROUNDING * level
        return math.copysign(math.inf, found.mean) if drifts else 0.0, not drifts
    drift_z = found.mean / found.se
    if replicas < FEWEST_REPLICAS:
        return drift_z, None
    return drift_z, abs(drift_z) <= drift_z_limit(replicas) and not _one_way(change)


def _one_way(change: Tensor) -> bool:
    """Whether nearly all replicas moved the same way, and too many for chance."""
    replicas = change.numel()
    same = max(int((change > 0).sum()), int((change < 0).sum()))
    by_chance = 2 * float(special.bdtrc(same - 1, replicas, 0.5))
    return same >= ONE_WAY * replicas and by_chance <= 2 * float(special.ndtr(-DRIFT_Z_LIMIT))


def tail_curve(record: Record, metric: str) -> Tensor:
    """Average of a metric over the checkpoints in the tail, of each replica, (R,)."""
    return record.curves[metric][record.steps > record.tail_start].double().mean(0)


def _drift(record: Record) -> tuple[Tensor, float, float]:
    """Change from the first to the second half of the tail (R,), mean in the tail and mean at the start.

    Of the squared distance; of the excess risk at the checkpoints for a student that has no distance.
    """
    distance, risk = record.curves["dist_sq"], record.curves["excess_risk"].double()
    if not distance.isnan().all():
        return record.tail_mean[1] - record.tail_mean[0], tail_floor(record).mean().item(), distance[0].mean().item()
    tail = risk[record.steps > record.tail_start]
    half = len(tail) // 2
    return tail[half:].mean(0) - tail[:half].mean(0), tail.mean().item(), risk[0].mean().item()


def measure(record: Record) -> Measurement:
    """Floor, fluctuation and stationarity of a block of replicas."""
    diverged = int((record.diverged_at >= 0).sum())
    replicas = record.diverged_at.numel()
    if diverged:
        nothing = dict.fromkeys((name for name in Measurement.__annotations__ if name not in _COUNTS), None)
        return Measurement(**nothing, stationary=False, diverged=diverged, replicas=replicas)
    floor = interval(tail_floor(record))
    risk = interval(tail_curve(record, "excess_risk"))
    fluctuation = interval(record.tail_std)
    accuracy, bcp_l2 = interval(tail_curve(record, "accuracy")), interval(tail_curve(record, "bcp_l2"))
    change, level, start = _drift(record)
    drift_z, steady = drift_test(change, level)
    zero = level <= NEGLIGIBLE * start
    unmoved = abs(level - start) <= ROUNDING * start
    return Measurement(
        floor=floor.mean,
        floor_low=floor.low,
        floor_high=floor.high,
        floor_se=floor.se,
        excess_risk_floor=risk.mean,
        excess_risk_floor_low=risk.low,
        excess_risk_floor_high=risk.high,
        fluctuation=fluctuation.mean,
        fluctuation_low=fluctuation.low,
        fluctuation_high=fluctuation.high,
        accuracy=accuracy.mean,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        bcp_l2=bcp_l2.mean,
        bcp_l2_low=bcp_l2.low,
        bcp_l2_high=bcp_l2.high,
        stationary=True if zero else None if unmoved else steady,
        drift_z=drift_z,
        diverged=0,
        replicas=replicas,
    )


_COUNTS = ("stationary", "diverged", "replicas")
