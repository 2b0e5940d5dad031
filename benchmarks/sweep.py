"""Ten thousand cells in one process, and through dask on two local workers: time, memory, and whether they agree.

    python -m benchmarks.sweep [--pools 100] [--rounds 1] [--workers 2]

The study is benchmarks/sweep_study.py: so many pools x 100 cells that take milliseconds each, so that what is timed is
the cost of keeping books. Both ways are whole processes, from `kdsim run-study` to the printed JSON, in turns. Memory
is the resident memory of the process and of its children, looked at every second beside the number of cells that are
stored by then. Nothing else should run on the machine. The result goes to benchmarks/results/sweep.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.machine import hardware, versions

RESULT = Path(__file__).parent / "results" / "sweep.json"
STUDY = Path(__file__).parent / "sweep_study.py"
LIMIT = 1.3
"""Time with dask over time without."""
LOOK_SECONDS = 1.0
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


def timed(pools: int, out: Path, options: list[str]) -> dict:
    """Run the study in a process; what it took, and a look at its memory every second."""
    command = [sys.executable, "-m", "kdsim.cli", "run-study", str(STUDY), "--set", f"pools={pools}", "--json"]
    looks, started = [], time.monotonic()
    with open(out.with_suffix(".json"), "w+", encoding="utf-8") as output:
        process = subprocess.Popen([*command, "--out", str(out), *options], stdout=output)
        while process.poll() is None:
            looks.append((stored(out), *resident(process.pid)))
            time.sleep(LOOK_SECONDS)
        seconds = time.monotonic() - started
        assert process.returncode == 0
        output.seek(0)
        rows = json.load(output)["rows"]
    return {"seconds": seconds, "cells": len(rows), "memory": memory(np.array(looks), len(rows)), "rows": rows}


def stored(out: Path) -> int:
    """Cells that are there."""
    return sum(1 for _ in (out / "cells").glob("[0-9a-f]*"))


def resident(pid: int) -> tuple[float, float]:
    """MiB of the process, and of all its children."""
    try:
        process = psutil.Process(pid)
        children = [_mebibytes(child) for child in process.children(recursive=True)]
        return _mebibytes(process), sum(children)
    except psutil.NoSuchProcess:
        return 0.0, 0.0


def _mebibytes(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def memory(looks: np.ndarray, cells: int) -> dict:
    """Resident MiB when so many cells were stored, and growth per 1,000 cells from a quarter of them to nine tenths."""
    found = {}
    under_way = looks[(looks[:, 0] >= cells / 4) & (looks[:, 0] <= 0.9 * cells)]
    for name, column in (("process", 1), ("workers", 2)):
        values = {f"{share:g}": looks[np.abs(looks[:, 0] - share * cells).argmin(), column] for share in SHARES}
        slope, error = _slope(under_way[:, 0] / 1000, under_way[:, column])
        found[name] = {
            "mib_at_share": values,
            "peak_mib": looks[:, column].max(),
            "growth_mib_per_1000_cells": slope,
            "standard_error": error,
        }
    return found


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least-squares slope and its standard error."""
    centred = x - x.mean()
    slope = (centred * y).sum() / (centred**2).sum()
    residual = y - y.mean() - slope * centred
    return slope, float(np.sqrt((residual**2).sum() / (len(x) - 2) / (centred**2).sum()))


def main() -> None:
    """Take turns, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pools", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    ways = {"local": [], "dask": ["--executor", "dask", "--workers", str(options.workers)]}
    runs: dict[str, list[dict]] = {way: [] for way in ways}
    for number in range(options.rounds):
        for way in list(ways) if number % 2 == 0 else list(ways)[::-1]:
            with tempfile.TemporaryDirectory() as folder:
                runs[way].append(timed(options.pools, Path(folder) / "out", ways[way]))
            print(way, f"{runs[way][-1]['seconds']:.0f} s", file=sys.stderr)
    same = all(run["rows"] == runs["local"][0]["rows"] for each in runs.values() for run in each)
    ratios = [dask["seconds"] / local["seconds"] for local, dask in zip(runs["local"], runs["dask"], strict=True)]
    found = {
        "date": datetime.date.today().isoformat(),
        "command": f"python -m benchmarks.sweep --pools {options.pools} --rounds {options.rounds}",
        "hardware": hardware(),
        "versions": versions(),
        "workers": options.workers,
        "ratio": ratios,
        "limit": LIMIT,
        "same_rows": same,
        **{way: [{k: v for k, v in run.items() if k != "rows"} for run in each] for way, each in runs.items()},
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    assert same and max(ratios) <= LIMIT


if __name__ == "__main__":
    main()
