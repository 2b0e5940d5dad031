"""What a run costs as it grows: replicas, steps, features, classes, pool; time and memory.

    python -m benchmarks.scaling [--quick]

Engines cpu_fused and torch on one core. Softmax regression on a GaussianMixture, float32, batch size 1, a one-hot label
drawn at each visit. One setting is varied at a time; the others stay at 1,024 replicas, d = 30 and a bias, K = 5, a
pool of 4,096 points. Nanoseconds of a replica-step without recording, as in benchmarks/sgd.py, except:
- steps: a whole run of 256 replicas with its set-up and the default recording (36 looks at the whole pool), over all
  its replica-steps. The torch engine stops at 100,000 steps, where its run takes half a minute;
- memory: peak resident memory of a process that does one short run, a pool of 1,024 points, Python and torch included.

The figures go to benchmarks/results/scaling.json and scaling.png. Linux only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from benchmarks.contenders import OURS, Work, Worker
from benchmarks.machine import hardware, versions
from kdsim.figures import style

RESULTS = Path(__file__).parent / "results"
BASE = Work(samples=4_096)
STEPS_REPLICAS, CHECKPOINTS = 256, 36
MEMORY_SAMPLES, MEMORY_STEPS = 1_024, 64
LABELS = {
    "replicas": "replicas",
    "steps": "steps of a whole run",
    "dimension": "dimension d (and a bias)",
    "classes": "classes K",
    "samples": "pool points N",
    "memory": "replicas",
}
TITLES = {"samples": "pool", "steps": "whole runs"}
STYLES = {"cpu_fused": (style.BLUE, "o"), "torch": (style.RED, "s")}


@dataclass(frozen=True)
class Plan:
    """What is measured: values along the axes, rounds, seconds of one measurement (engines end their chunk).

    `torch_steps`: the longest whole run of the torch engine.
    """

    replicas: tuple[int, ...] = (16, 64, 256, 1_024, 4_096, 16_384, 65_536)
    steps: tuple[int, ...] = (100, 1_000, 10_000, 100_000, 1_000_000)
    dimension: tuple[int, ...] = (2, 5, 10, 20, 50, 100, 200)
    classes: tuple[int, ...] = (2, 5, 10, 20, 50, 100)
    samples: tuple[int, ...] = (256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_000_000)
    memory: tuple[int, ...] = (256, 1_024, 4_096, 16_384, 65_536)
    rounds: int = 3
    seconds: float = 0.2
    torch_steps: int = 100_000

    def works(self, axis: str) -> list[tuple[int, Work]]:
        """(value, work) along an axis of time without recording."""
        return [(value, replace(BASE, **{axis: value})) for value in getattr(self, axis)]


FULL = Plan()
QUICK = Plan((16, 1_024), (100, 1_000), (2, 50), (2, 20), (256, 16_384), (256, 1_024), rounds=2, seconds=0.05)
AXES = ("replicas", "dimension", "classes", "samples")


def slope(values: Sequence[float], costs: Sequence[float]) -> float:
    """Exponent a of cost ~ value^a by least squares in logarithms; 0: no growth, 1: in proportion."""
    x, y = [math.log(value) for value in values], [math.log(cost) for cost in costs]
    return statistics.linear_regression(x, y).slope


def row(engine: str, axis: str, value: int, unit: str, figures: Sequence[float]) -> dict:
    """One point of a panel: median and range over the rounds."""
    found = {"median": statistics.median(figures), "low": min(figures), "high": max(figures)}
    return {"engine": engine, "axis": axis, "value": value, "unit": unit, **found, "rounds": list(figures)}


def stepping(engine: str, axis: str, plan: Plan) -> list[dict]:
    """Nanoseconds of a replica-step without recording."""
    rows = []
    with Worker(engine, 1) as worker:
        for value, work in plan.works(axis):
            worker.ask("prepare", work=work)
            # 65,536 replicas take seconds a chunk: once is enough
            rounds = plan.rounds if work.replicas <= BASE.replicas else 1
            rates = [worker.ask("walk", seconds=plan.seconds)["rate"] for _ in range(rounds)]
            rows.append(row(engine, axis, value, "ns", [1e9 / rate for rate in rates]))
    return rows


def whole_runs(engine: str, plan: Plan) -> list[dict]:
    """Nanoseconds of a replica-step of whole runs, set-up and recording included."""
    work, rows = replace(BASE, replicas=STEPS_REPLICAS), []
    with Worker(engine, 1) as worker:
        for steps in plan.steps:
            if engine == "torch" and steps > plan.torch_steps:
                continue
            found = worker.ask("whole_run", steps=steps, work=work, checkpoints=CHECKPOINTS)
            rows.append(row(engine, "steps", steps, "ns", [1e9 * found["seconds"] / (steps * work.replicas)]))
    return rows


def memory(engine: str, plan: Plan) -> list[dict]:
    """Peak memory in MiB, each point in a process of its own, since a peak does not fall."""
    rows = []
    for replicas in plan.memory:
        with Worker(engine, 1) as worker:
            work = replace(BASE, replicas=replicas, samples=MEMORY_SAMPLES)
            found = worker.ask("whole_run", steps=MEMORY_STEPS, work=work, checkpoints=2)
        rows.append(row(engine, "memory", replicas, "MiB", [found["peak_bytes"] / 2**20]))
    return rows


def benchmark(plan: Plan, command: str) -> dict:
    """The whole result."""
    rows = []
    for engine in OURS:
        parts = [partial(stepping, engine, axis, plan) for axis in AXES]
        for part in (*parts, partial(whole_runs, engine, plan), partial(memory, engine, plan)):
            more = part()
            rows += more
            print(line(more), flush=True)
    return {
        "date": datetime.date.today().isoformat(),
        "command": command,
        "hardware": hardware(),
        "versions": versions(),
        "plan": asdict(plan),
        "base": {**asdict(BASE), "threads": 1, "dtype": "float32"},
        "rows": rows,
    }


def line(rows: Sequence[dict]) -> str:
    """An axis of an engine in one line."""
    first = rows[0]
    points = ", ".join(f"{row['value']:,}: {row['median']:.3g}" for row in rows)
    last = slope([row["value"] for row in rows[-2:]], [row["median"] for row in rows[-2:]])
    return f"{first['engine']}, {first['unit']} against {first['axis']}: {points} (last exponent {last:.2f})"


def figure(rows: Sequence[dict]) -> Figure:
    """Six panels: cost of a replica-step along each axis, and memory."""
    with style.paper():
        drawing = Figure((style.TEXT_WIDTH, 3.9), layout="constrained")
        panels = drawing.subplots(2, 3)
        for panel, letter, (axis, label) in zip(panels.flat, "abcdef", LABELS.items(), strict=True):
            for engine, (colour, marker) in STYLES.items():
                points = [row for row in rows if row["axis"] == axis and row["engine"] == engine]
                values, medians = [p["value"] for p in points], [p["median"] for p in points]
                around = [[p["median"] - p["low"] for p in points], [p["high"] - p["median"] for p in points]]
                panel.errorbar(values, medians, around, color=colour, marker=marker, label=engine, capsize=2)
            panel.set(xscale="log", xlabel=label, ylabel="ns a replica-step")
            panel.xaxis.set_minor_formatter(NullFormatter())
            if axis in ("dimension", "classes"):  # less than two decades each side: the values measured
                panel.set_xticks(values, [str(value) for value in values])
                panel.xaxis.set_minor_locator(NullLocator())
            if axis == "memory":
                panel.set(ylabel="peak memory, MiB")
                panel.set_ylim(0, 1.1 * panel.get_ylim()[1])
            else:
                panel.set_yscale("log")
                low, high = panel.get_ylim()
                panel.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
            panel.set_title(f"({letter}) {TITLES.get(axis, axis)}", loc="left")
        panels[0, 0].legend(loc="best")
    return drawing


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few points; written to a temporary folder")
    quick = parser.parse_args(arguments).quick
    result = benchmark(QUICK if quick else FULL, "python -m benchmarks.scaling" + " --quick" * quick)
    folder = Path(tempfile.mkdtemp(prefix="scaling-")) if quick else RESULTS
    folder.mkdir(exist_ok=True)
    (folder / "scaling.json").write_text(json.dumps(result, indent=1) + "\n")
    with style.paper():
        figure(result["rows"]).savefig(folder / "scaling.png")
    print(f"-> {folder / 'scaling.json'}, {folder / 'scaling.png'}")


if __name__ == "__main__":
    main()
