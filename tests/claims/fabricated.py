"""Stored results that nobody simulated: what a claim's parts are tested on, true or false as one likes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdsim.results.store import StudyResults


def results(
    records: Sequence[dict[str, Any]],
    replicas: dict[str, dict[str, Any]] | None = None,
    curves: dict[str, dict[str, Any]] | None = None,
    name: str = "fabricated",
) -> StudyResults:
    """From rows, and for each cell columns of its replicas and of its curve."""
    tables = {
        "curves": _stack(curves or {}),
        "replicas": _stack({cell: {"replica": _count(each)} | each for cell, each in (replicas or {}).items()}),
        "spectrum": pd.DataFrame({"cell": []}),
    }
    return StudyResults(name, {}, list(records), Path("nowhere"), {}, tables.__getitem__)


def spread(mean: float, width: float = 0.01, count: int = 12, seed: int = 0) -> np.ndarray:
    """Values of replicas about a mean, with this relative standard deviation, and exactly this mean."""
    noise = np.random.default_rng(seed).standard_normal(count)
    return mean + width * (abs(mean) or 1e-3) * (noise - noise.mean())


def _count(columns: dict[str, Any]) -> range:
    return range(len(next(iter(columns.values()))))


def _stack(tables: dict[str, dict[str, Any]]) -> pd.DataFrame:
    if not tables:
        return pd.DataFrame({"cell": []})
    return pd.concat([pd.DataFrame(columns).assign(cell=cell) for cell, columns in tables.items()], ignore_index=True)
