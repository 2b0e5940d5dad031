"""The two tables of a cell: learning curves over replicas, and one row a replica."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kdsim.conventions import QUANTILES
from kdsim.engines.recorder import Record
from kdsim.measure.floors import tail_floor


def curves_table(record: Record) -> pd.DataFrame:
    """One row a checkpoint: step, and of each metric the columns of `columns_over_replicas`."""
    return columns_over_replicas(record.steps.numpy(), {name: curve.numpy() for name, curve in record.curves.items()})


def columns_over_replicas(steps: np.ndarray, curves: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Step, and of each metric (C, R) the mean over replicas, its standard error and quantiles.

    Columns are `<metric>_mean`, `<metric>_se`, `<metric>_q05` ... `<metric>_q95`. Replicas that are no longer
    finite make mean and standard error not finite; for the quantiles they count as worse than all others. A single
    replica has no standard error.
    """
    columns = {"step": steps}
    for metric, values in curves.items():
        several = values.shape[1] > 1
        with np.errstate(all="ignore"):
            columns[f"{metric}_mean"] = values.mean(1, dtype=np.float64)
            spread = values.std(1, ddof=1, dtype=np.float64) if several else np.full(len(values), np.nan)
            columns[f"{metric}_se"] = spread / np.sqrt(values.shape[1])
        if np.isnan(values).all():  # a student that has no such metric: not the worst, but none
            columns |= {f"{metric}_q{percent:02d}": np.full(len(values), np.nan) for percent in QUANTILES}
            continue
        worst = -np.inf if metric.endswith("accuracy") else np.inf
        ranked = np.sort(np.where(np.isnan(values), worst, values), axis=1)
        for percent in QUANTILES:
            columns[f"{metric}_q{percent:02d}"] = _quantile(ranked, percent / 100)
    return pd.DataFrame(columns)


def _quantile(ranked: np.ndarray, level: float) -> np.ndarray:
    """Linear interpolation between order statistics (C, R) -> (C,); np.quantile gives NaN next to an infinity."""
    position = level * (ranked.shape[1] - 1)
    low = int(position)
    high = min(low + 1, ranked.shape[1] - 1)
    weight = position - low
    between = np.isfinite(ranked[:, low]) & np.isfinite(ranked[:, high])
    width = np.where(between, ranked[:, high], 0) - np.where(between, ranked[:, low], 0)
    nearest = ranked[:, high if weight > 0.5 else low]
    return np.where(between, ranked[:, low] + weight * width, nearest)


def replicas_table(record: Record) -> pd.DataFrame:
    """One row a replica: its number, floor (tail mean of dist_sq), fluctuation, diverged_at (-1: not), final values."""
    columns = {
        "replica": np.arange(record.diverged_at.numel()),
        "floor": tail_floor(record).numpy(),
        "fluctuation": record.tail_std.numpy(),
        "diverged_at": record.diverged_at.numpy(),
    }
    columns |= {f"final_{metric}": values[-1].numpy() for metric, values in record.curves.items()}
    return pd.DataFrame(columns)
