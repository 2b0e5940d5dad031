"""Processor time until the command line has answered, and that of `import kdsim`.

    python -m benchmarks.startup [--runs 5]

Each command is a process of its own, with modules compiled before: user and system time, the best of five, since other
programs only add to it. Limits are those that the project holds itself to. `kdsim results` reads a run of
noise-sweep's quick version, which is made for it. The figures go to benchmarks/results/startup.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import hardware, versions

RESULT = Path(__file__).parent / "results" / "startup.json"
KDSIM = [sys.executable, "-m", "kdsim.cli"]
COMPLETION = {"_KDSIM_COMPLETE": "complete_bash", "COMP_WORDS": "kdsim run-study noi", "COMP_CWORD": "2"}
ANSWERS, READS = 0.5, 1.3
"""Seconds: of commands that compute nothing, and of those that read results."""


def seconds(command: list[str], environment: dict[str, str], runs: int) -> float:
    """Processor time of the command, the best of so many runs."""
    times = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=environment, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def main() -> int:
    """Time all commands, print and store the figures. Returns 1 if one took longer than its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup")
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "bytecode")
        out = str(Path(folder) / "results")
        subprocess.run([*KDSIM, "run-study", "noise-sweep", "--quick", "--out", out], env=environment, check=True)
        python = seconds([sys.executable, "-c", "pass"], environment, runs)
        rows = {"import kdsim, beyond Python's own start": (0.3, -python, [sys.executable, "-c", "import kdsim"])}
        for words in ("--help", "list studies", "list supervisions", "list teachers", "columns", "run-study --help"):
            rows[f"kdsim {words}"] = (ANSWERS, 0.0, [*KDSIM, *words.split()])
        for words in ("results noise-sweep", "results noise-sweep --json"):
            rows[f"kdsim {words}"] = (READS, 0.0, [*KDSIM, *words.split(), "--out", out])
        found = {
            name: {"seconds": round(offset + seconds(command, environment, runs), 3), "limit": limit}
            for name, (limit, offset, command) in rows.items()
        }
        completing = seconds(KDSIM, environment | COMPLETION, runs)
        found["completion of a study's name"] = {"seconds": round(completing, 3), "limit": ANSWERS}
    for name, row in found.items():
        print(f"{name:45}{row['seconds']:6.2f} s, at most {row['limit']:g}")
    stamp = {"date": datetime.date.today().isoformat(), "hardware": hardware(), "versions": versions(), "runs": runs}
    RESULT.write_text(json.dumps({**stamp, "python": round(python, 3), "commands": found}, indent=1) + "\n")
    return int(any(row["seconds"] > row["limit"] for row in found.values()))


if __name__ == "__main__":
    sys.exit(main())
