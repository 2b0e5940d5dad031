"""The tables of a cell as files: learning curves over replicas, one row a replica, and one row a recorded direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

CURVES_FILE, REPLICAS_FILE, SPECTRUM_FILE = "curves.parquet", "replicas.parquet", "spectrum.parquet"


def parquets(curves: pd.DataFrame, replicas: pd.DataFrame, spectrum: pd.DataFrame | None = None) -> dict[str, bytes]:
    """The tables of a cell as files, by their names."""
    tables = {CURVES_FILE: curves, REPLICAS_FILE: replicas, SPECTRUM_FILE: spectrum}
    return {name: table.to_parquet(index=False) for name, table in tables.items() if table is not None}
