"""In tests, every cell that kdsim stores is held against the schema of columns as it is written."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyarrow.parquet import read_schema

from kdsim.results import rows, schema
from kdsim.results.cells import Cells

checked: set[tuple[str, str]] = set()
"""Kinds and columns of rows that went through the schema in this process."""


def check_all() -> None:
    """From now on a cell with a column that nobody declares, or with a value of another type, is not stored."""
    write = Cells.write_tables

    def checking(self: Cells, digest: str, info: dict[str, Any], tables: Mapping[str, bytes], *rest: Any) -> None:
        require_declared(info, tables)
        write(self, digest, info, tables, *rest)

    Cells.write_tables = checking


def require_declared(info: Mapping[str, Any], tables: Mapping[str, bytes]) -> None:
    """Refuse a row or table that the schema does not know. A user's own computation may measure what it likes."""
    if not info.get("summary"):  # made up by a test
        return
    kind = rows.kind_of_row(info)
    row = {name: value for part in rows.PARTS for name, value in info[part].items()}
    own = rows.own_columns(info)
    if kind == rows.COMPUTATION:
        row = {name: value for name, value in row.items() if name not in info["summary"]}
        if not own:
            return
    schema.require_declared(row, kind, own)
    checked.update((kind, name) for name in row)
    for name, data in tables.items() if kind != rows.COMPUTATION else ():
        table = Path(name).stem
        if missing := schema.undeclared(dict.fromkeys(read_schema(io.BytesIO(data)).names), kind, table):
            raise AssertionError(f"{table} of a {kind} has columns that no schema declares: {', '.join(missing)}")
