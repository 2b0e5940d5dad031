"""A million replicas of noise-sweep's problem: does the whole run, tables included, fit in 2 GiB?

    python -m benchmarks.million

One-hot labels, K = 5, d = 30 and a bias, float32, 36 checkpoints; 200 steps and a pool of 64 points, so that it ends in
minutes: neither changes what is held per replica. Peak memory is that of a process of its own, program and pool
included. The result goes to benchmarks/results/million.json. Linux only.
"""

from __future__ import annotations

import datetime
import json
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import hardware, versions
from kdsim.problems import GaussianMixture
from kdsim.studies import NoiseSweep
from kdsim.study import packs, runner
from kdsim.study.base import Cell

RESULT = Path(__file__).parent / "results" / "million.json"
REPLICAS = 1_000_000
LIMIT_GIB = 2.0


@dataclass(frozen=True)
class OneHotAlone(NoiseSweep):
    """The one-hot cell of noise-sweep."""

    def cells(self) -> tuple[Cell, ...]:
        return super().cells()[1:2]


def peak_gib() -> float:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**20


def main() -> None:
    """Run, check and write."""
    study = OneHotAlone(replicas=REPLICAS, steps=200, problem=GaussianMixture(samples=64))
    pack = packs.packs(study.cells())[0]
    estimate = pack.memory(study.problem.population(study.seed)) / 2**30
    before, started = peak_gib(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = runner.run(study, folder)
    found = {
        "date": datetime.date.today().isoformat(),
        "command": "python -m benchmarks.million",
        "hardware": hardware(),
        "versions": versions(),
        "replicas": REPLICAS,
        "blocks": len(pack.blocks()),
        "program_gib": before,
        "estimated_gib": estimate,
        "peak_gib": peak_gib(),
        "limit_gib": LIMIT_GIB,
        "seconds": time.monotonic() - started,
        "failures": result.failures,
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    assert not result.failures and found["peak_gib"] < LIMIT_GIB


if __name__ == "__main__":
    main()
