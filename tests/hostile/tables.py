"""Surface: the parquet tables of a results folder: damaged, or whole with the right checksum and other columns."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hostile import texts
from hostile.folders import Run, command_case, prepare
from hostile.harness import Box, Case
from kdsim.files import CHECKSUM, sha256, signed

__all__ = ["case", "prepare"]


def case(random: Random, runs: dict[str, Run], box: Box) -> Case:
    """A results folder with one bad table, and a command that reads it."""
    run = runs[random.choice(list(runs))]
    shutil.copytree(run.root, box.out)
    file = random.choice(sorted(box.out.rglob("*.parquet")))
    if random.randrange(3) == 0:
        data, what = texts.changed(random, file.read_bytes())
    else:
        data, what = _other(random, file)
    file.write_bytes(data)
    if random.randrange(5):
        _sign(file, data)
        what += ", signed"
    return command_case(random, run, box, f"{file.name}: {what}")


def _sign(file: Path, data: bytes) -> None:
    """Put the table's checksum into cell.json."""
    cell = file.parent / "cell.json"
    content = json.loads(cell.read_text(encoding="utf-8"))
    if CHECKSUM in content:
        content["files"][file.name] = sha256(data)
        cell.write_text(json.dumps(signed(content)), encoding="utf-8")


def _other(random: Random, file: Path) -> tuple[bytes, str]:
    """Another table in good parquet."""
    table = pd.read_parquet(file)
    name = random.choice(list(table.columns))
    kind = random.choice(("no column", "texts", "NaN", "infinite", "nulls", "objects", "no rows", "rows", "more",
                         "names", "dates", "huge",
                          "index", "lists", "whole numbers", "metadata", "extension", "shuffled", "negative",
                          "twice"))  # fmt: skip
    if kind == "no column":
        table = table.drop(columns=name)
    elif kind == "texts":
        table[name] = random.choice(("x", "nan", "\x1b[31m", "../../x", "1"))
    elif kind in ("NaN", "infinite", "nulls", "huge", "negative"):
        table[name] = {"NaN": float("nan"), "infinite": float("inf"), "nulls": None, "huge": 1e308, "negative": -1.0}[
            kind
        ]
    elif kind == "objects":
        table[name] = [{"a": 1}] * len(table)
    elif kind == "no rows":
        table = table.iloc[:0]
    elif kind == "rows":
        table = table.iloc[np.zeros(random.choice((1, 5, 3_000_000)), int)]
    elif kind == "more":
        table["cell"] = "x"
        table["../../x"] = 1
    elif kind == "dates":
        table[name] = pd.Timestamp("2020-01-01")
    elif kind == "lists":
        table[name] = [[1, 2]] * len(table)
    elif kind == "index":
        table = table.set_index(name)
    elif kind == "whole numbers":
        table[name] = 2**62
    elif kind == "shuffled":
        table = table.iloc[::-1]
    arrow = pa.Table.from_pandas(table, preserve_index=kind == "index")
    if kind == "names":
        other = random.choice(("", "cell", "step", "\x00", "x" * 5000))
        arrow = arrow.rename_columns([other if column == name else column for column in arrow.column_names])
    if kind == "metadata":  # what pandas reads to rebuild its types
        noise = random.choice((b"{", b"{}", b"[]", b'{"columns": 5}', b'{"index_columns": ["x"], "columns": []}',
                              b"\xff",
                               json.dumps({"index_columns": [{"kind": "range", "name": "x", "start": 0,
                                          "stop": 10**12, "step": 1}],
                                           "columns": [], "column_indexes": []}).encode()))  # fmt: skip
        arrow = arrow.replace_schema_metadata({b"pandas": noise})
    elif kind == "extension":  # a name of a type that pyarrow of old would have unpickled
        planted = {"name": b"arrow.py_extension_type", "metadata": b"cos\nsystem\n(S'id'\ntR."}
        metadata = {f"ARROW:extension:{key}".encode(): value for key, value in planted.items()}
        field = pa.field(name, pa.binary(), metadata=metadata)
        arrow = pa.table([pa.array([b"x"] * len(table))], schema=pa.schema([field]))
    elif kind == "twice":
        arrow = pa.table([*arrow.columns, arrow.columns[0]], names=[*arrow.column_names, arrow.column_names[0]])
    stream = io.BytesIO()
    pq.write_table(arrow, stream, compression=random.choice(("snappy", "zstd")))
    return stream.getvalue(), f"{kind} {name}"
