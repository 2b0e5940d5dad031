"""Results folders that were changed after they were written, with checksums that are right."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from kdsim.files import sha256, signed
from kdsim.results.cells import CELL_FILE, CELLS

Change = Callable[[dict[str, Any], dict[str, pd.DataFrame]], None]


def digests(out: Path) -> list[str]:
    """Of all cells."""
    return sorted(path.name for path in (out / CELLS).iterdir())


def rewrite(out: Path, digest: str, change: Change) -> None:
    """Change the content of cell.json, and tables by their names, and make all checksums right again."""
    folder = out / CELLS / digest
    info = json.loads((folder / CELL_FILE).read_text())
    tables = {Path(name).stem: pd.read_parquet(folder / name) for name in info["files"]}
    change(info, tables)
    for name, table in tables.items():
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        (folder / f"{name}.parquet").write_bytes(buffer.getvalue())
        info["files"][f"{name}.parquet"] = sha256(buffer.getvalue())
    (folder / CELL_FILE).write_text(json.dumps(signed(info)))


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
