"""A thousand hostile inputs a surface: no traceback, no write outside --out, no code run from data, no endless call.

    python -m benchmarks.fuzz [--inputs 1000] [--surface NAME] [--first N] [--seed S]

Surfaces: settings, study-files, archives, tables, weights, folders. Each input is made by a random number generator
from (seed, surface, number), so `--surface NAME --first NUMBER --inputs 1` makes an input again. Inputs run in a
process of their own with limited memory: one that hangs or crashes is a failure, and the next ones go on. The counts
and all failures go to benchmarks/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from random import Random

TESTS = Path(__file__).parents[1] / "tests"
RESULT = Path(__file__).parent / "results" / "fuzz.json"
ADDRESS_SPACE = 16 << 30
"""Bytes of a worker: torch maps some of them without using them."""
PATIENCE = 90
"""Seconds after which a worker that says nothing is killed; the harness itself ends a call before."""
SURFACES = ("settings", "study-files", "archives", "tables", "weights", "folders")


# The worker: makes inputs and calls kdsim -----------------------------------------------------------


def work(name: str, numbers: range, seed: int, folder: Path) -> None:
    """Run some inputs of a surface, one JSON line each on standard output."""
    sys.path[:0] = [str(TESTS), str(TESTS / "data")]
    from hostile.harness import Box, attempt
    from hostile.surfaces import SURFACES as modules

    surface = modules[name]
    files = surface.prepare(folder / "valid")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for number in numbers:
        box = Box(folder / f"box-{number}")
        box.make()
        case = surface.case(Random(f"{seed} {name} {number}"), files, box)
        say({"number": number, "what": case.what})  # first, since it may be its last
        outcome = attempt(case, box)
        shutil.rmtree(box.root, ignore_errors=True)
        found = {"number": number, "code": outcome.code, "seconds": round(outcome.seconds, 2)}
        say(found | {"faults": outcome.faults, "err": outcome.err[:500] if outcome.faults else ""})


def say(content: dict) -> None:
    print(json.dumps(content), flush=True)


# The parent: counts, and outlives its workers ----------------------------------------------------------


def measure(name: str, first: int, inputs: int, seed: int, verbose: bool = False) -> dict:
    """Counts by outcome, and the failures."""
    codes: Counter[str] = Counter()
    failures, slowest, number, last = [], 0.0, first, first + inputs
    while number < last:
        with tempfile.TemporaryDirectory(prefix="kdsim-fuzz-") as folder:
            what = None
            for line in lines_of(name, number, last, seed, folder):
                found = json.loads(line)
                if "code" not in found:
                    number, what = found["number"], found["what"]
                    continue
                codes[f"exit {found['code']}"] += 1
                slowest = max(slowest, found["seconds"])
                if found["faults"]:
                    failures.append(
                        {"number": number, "what": what, **{k: found[k] for k in ("code", "faults", "err")}}
                    )
                    print(f"{name} {number}: {what}: {'; '.join(found['faults'])}", file=sys.stderr, flush=True)
                number, what = number + 1, None
            if number < last and what is None:
                sys.exit(f"the worker of the surface {name} ended before an input, see above")
            if number < last:
                failures.append(
                    {"number": number, "what": what, "faults": ["the process ended, or hung and was killed"]}
                )
                print(f"{name} {number}: {what}: the process ended, or hung", file=sys.stderr, flush=True)
                number += 1
    counts = {key: codes[key] for key in sorted(codes)}
    return {"inputs": inputs, "first": first, "outcomes": counts, "slowest_seconds": slowest, "failures": failures}


def lines_of(name: str, first: int, last: int, seed: int, folder: str):
    """What a worker says; it is killed where it says nothing for too long."""
    command = [sys.executable, "-m", "benchmarks.fuzz", "--surface", name, "--first", str(first)]
    command += ["--inputs", str(last - first), "--seed", str(seed), "--worker", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TESTS.parent) as process:
        timer = None
        try:
            while True:
                timer = threading.Timer(PATIENCE, process.kill)
                timer.start()
                line = process.stdout.readline()
                timer.cancel()
                if not line:
                    return
                if line.startswith("{"):
                    yield line
        finally:
            timer.cancel()
            process.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--surface", choices=SURFACES)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        work(chosen.surface, range(chosen.first, chosen.first + chosen.inputs), chosen.seed, Path(chosen.worker))
        return 0
    found = {}
    for name in [chosen.surface] if chosen.surface else SURFACES:
        found[name] = measure(name, chosen.first, chosen.inputs, chosen.seed)
        print(name, json.dumps({key: value for key, value in found[name].items() if key != "failures"}),
              f"{len(found[name]['failures'])} failures", flush=True)  # fmt: skip
    if not chosen.surface:  # a part of it is for looking
        write(found, chosen.seed)
    return int(any(each["failures"] for each in found.values()))


def write(found: dict, seed: int) -> None:
    from benchmarks import machine

    content = {
        "date": datetime.date.today().isoformat(),
        "seed": seed,
        "inputs": sum(each["inputs"] for each in found.values()),
        "failures": sum(len(each["failures"]) for each in found.values()),
        "versions": machine.versions() | library_versions(),
        "hardware": machine.hardware(),
        "surfaces": found,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{content['inputs']} inputs, {content['failures']} failures -> {RESULT}")


def library_versions() -> dict:
    """Of what reads files."""
    from importlib.metadata import version

    return {name: version(name) for name in ("pandas", "pyarrow", "pillow")}


if __name__ == "__main__":
    sys.exit(main())
