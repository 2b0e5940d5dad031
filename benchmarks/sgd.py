"""How fast is SGD on softmax regression with many replicas, and how fast are its peers on the same work?

    python -m benchmarks.sgd [--quick]

d = 30 and a bias, K = 5, float32, a one-hot label drawn at each visit, no ridge, a pool of 65,536 points. Contenders:
`cpu_fused` and `torch` (kdsim), `jax` (vmap over replicas of a scan over steps, random numbers drawn in the step),
`jax_outside` (the fastest program in jax that we found, see benchmarks/jax_sgd.py), `autograd_loop` (one replica in a
Python loop, as most papers do it). Without jax installed its rows are left out.

Each contender has a process pinned to as many cores as it may use threads. All build, compile and warm up; then they
are measured in turn, one after the other, for several rounds, so that a change of the machine meets all of them. Only
steps are timed: our engines are entered past their first checkpoints and left before the next, peers record nothing.
First of all contenders must agree on the mean squared distance after 1,000 steps: it is the same work.

A replica-step of batch size b counts 4 K d b operations (outputs and update, 2 K d each); the share of the peak is of
what a register-resident loop of fused multiply-adds reaches on the same cores in the same run. Ratios to jax are to
the faster of its two programs, round by round. The result goes to benchmarks/results/sgd.json. Linux only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.contenders import JAX, LOOP, PEAK, Work, Worker, available, environment
from benchmarks.machine import cores, hardware, versions
from kdsim.engines.fused.simd import LANES

RESULT = Path(__file__).parent / "results" / "sgd.json"
OURS = "cpu_fused"
AGREEMENT_ERRORS = 5  # standard errors by which two means may differ
AGREEMENT_SAMPLES = 4_096  # a smaller pool: here our engines do look at all of it


@dataclass(frozen=True)
class Plan:
    """How much is measured: settings, rounds, seconds of one measurement (engines end their chunk)."""

    batch_sizes: tuple[int, ...] = (1, 16)
    replicas: tuple[int, ...] = (1, 16, 256, 1_024, 4_096, 16_384)
    threads: tuple[int, ...] = (1, 2)
    rounds: int = 5
    seconds: float = 0.2
    samples: int = 65_536
    agreement: tuple[int, int, int] = (1_000, 256, 24)
    """Steps, replicas, replicas of the Python loop."""


FULL = Plan()
QUICK = Plan(replicas=(1, 1_024), rounds=3, seconds=0.1, agreement=(200, 64, 16))


# Counting ---------------------------------------------------------------------------------------


def flops_per_step(batch_size: int, classes: int, features: int) -> int:
    """Operations of a replica-step that cannot be avoided: K d multiply-adds for outputs, as many for the update."""
    return 4 * classes * features * batch_size


def vector_operations(classes: int, features: int, width: int) -> dict[str, int]:
    """Multiply-adds, loads and stores of a visit of 16 replicas at batch size 1, from kdsim/engines/fused/walk.py.

    Outputs read theta once and x once for every four classes (and once for each class that is left); the update reads
    theta and x and writes theta, class by class; a transposition reads and writes the `width` columns of the table.
    """
    size = classes * features
    passes = classes // 4 + classes % 4
    return {"fma": 2 * size, "loads": 3 * size + passes * features + width, "stores": size + width}


def fma_share_bound(operations: Mapping[str, int]) -> float:
    """Largest share of the multiply-add peak on a core with two loads, one store and two multiply-adds a cycle."""
    return operations["fma"] / 2 / max(operations["fma"] / 2, operations["loads"] / 2, operations["stores"])


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    values = list(values)
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def fastest(names: Iterable[str], rates: Mapping[str, Sequence[float]]) -> str | None:
    """The name of the highest median rate; None if none was measured."""
    return max((name for name in names if name in rates), key=lambda name: statistics.median(rates[name]), default=None)


def summary(
    rates: Mapping[str, Sequence[float]], cores_busy: Mapping[str, Sequence[float]], flops: int, peak: float
) -> dict:
    """What is said about one setting: rates (rounds) of each contender, relative to jax and to the peak."""
    jax = fastest(JAX, rates)
    contenders = {
        name: {
            "replica_steps_per_second": spread(values),
            "rounds": list(values),
            "cores_busy": statistics.median(cores_busy[name]),
            "share_of_fma_peak": statistics.median(values) * flops / peak,
            "over_jax": spread(v / j for v, j in zip(values, rates[jax], strict=True)) if jax else None,
        }
        for name, values in rates.items()
    }
    return {"fastest_jax": jax, "contenders": contenders}


def agree(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two means differ by no more than five standard errors."""
    error = sum(statistics.variance(values) / len(values) for values in (first, second)) ** 0.5
    return abs(statistics.fmean(first) - statistics.fmean(second)) <= AGREEMENT_ERRORS * error


# Measuring --------------------------------------------------------------------------------------


def same_work(workers: Mapping[str, Worker], plan: Plan) -> list[dict]:
    """Mean squared distance of all contenders from the same start.

    Raises:
        SystemExit: a contender does other work than cpu_fused.
    """
    steps, replicas, loop_replicas = plan.agreement
    rows = []
    for batch_size in plan.batch_sizes:
        found: dict[str, list[float]] = {}
        for name, worker in workers.items():
            work = Work(batch_size, loop_replicas if name == LOOP else replicas, min(plan.samples, AGREEMENT_SAMPLES))
            found[name] = worker.ask("distances", steps=steps, work=work)
            row = {"contender": name, "batch_size": batch_size, "steps": steps, "replicas": work.replicas}
            row["samples"] = work.samples
            row["mean_dist_sq"] = statistics.fmean(found[name])
            row["standard_error"] = statistics.stdev(found[name]) / math.sqrt(work.replicas)
            rows.append(row)
            if not agree(found[OURS], found[name]):
                raise SystemExit(f"{name} does other work than {OURS}: {json.dumps(rows)}")
    return rows


def measure(workers: Mapping[str, Worker], work: Work, plan: Plan) -> tuple[dict, dict]:
    """Rates and busy cores of all contenders, in turn for several rounds."""
    taking_part = {name: worker for name, worker in workers.items() if name != LOOP or work.replicas == 1}
    for worker in taking_part.values():
        worker.ask("prepare", work=work)
    rates, busy = {name: [] for name in taking_part}, {name: [] for name in taking_part}
    for _ in range(plan.rounds):
        for name, worker in taking_part.items():
            measured = worker.ask("walk", seconds=plan.seconds)
            rates[name].append(measured["rate"])
            busy[name].append(measured["cores_busy"])
    return rates, busy


def compare(threads: int, plan: Plan) -> tuple[list[dict], list[dict], float]:
    """Rows of all settings, rows of `same_work` (on one thread) and the peak on so many threads."""
    names = [name for name in available() if name != LOOP or threads == 1]
    rows = []
    with ExitStack() as stack:
        with Worker(PEAK, threads) as processor:
            peak = max(processor.ask("peak", seconds=0.3) for _ in range(3))
        workers = {name: stack.enter_context(Worker(name, threads)) for name in names}
        agreement = same_work(workers, plan) if threads == 1 else []
        for batch_size in plan.batch_sizes:
            for replicas in plan.replicas:
                work = Work(batch_size, replicas, plan.samples)
                flops = flops_per_step(batch_size, work.classes, work.dimension + 1)
                row = {"threads": threads, "batch_size": batch_size, "replicas": replicas}
                rows.append({**row, **summary(*measure(workers, work, plan), flops, peak)})
                print(line(rows[-1]), flush=True)
    return rows, agreement, peak


def limits(plan: Plan, peak: float) -> dict:
    """Where a visit's time goes in cpu_fused: what is saved by leaving something out, on one thread."""
    whole = Work(replicas=1_024, samples=plan.samples)
    settings = {
        "whole": whole,
        "pool_in_cache": replace(whole, samples=2_048),
        "targets_without_draws": replace(whole, supervision="exact"),
        "both": replace(whole, samples=2_048, supervision="exact"),
        "batch_of_16": replace(whole, batch_size=16),
        # 16 and 64 features: tables of 32 and 80 columns (x, outputs, p), so the padding is the same share of few
        "features_16": replace(whole, samples=1_024, dimension=15),
        "features_64": replace(whole, samples=1_024, dimension=63),
    }
    rounds: dict[str, list[float]] = {name: [] for name in settings}
    with Worker(OURS, 1) as worker:
        for _ in range(plan.rounds):
            for name, work in settings.items():
                worker.ask("prepare", work=work)
                rate = worker.ask("walk", seconds=plan.seconds)["rate"]
                rounds[name].append(1e9 * LANES / (rate * work.batch_size))
    ns = {name: spread(values) for name, values in rounds.items()}
    return {"ns_per_visit_of_16_replicas": ns, **shares({name: s["median"] for name, s in ns.items()}, whole, peak)}


def shares(ns: Mapping[str, float], whole: Work, peak: float) -> dict:
    """From nanoseconds of a visit of 16 replicas: what the parts cost."""
    features, columns = whole.dimension + 1, whole.dimension + 1 + 2 * whole.classes
    operations = vector_operations(whole.classes, features, -(-columns // LANES) * LANES)
    fma_ns = 1e9 * LANES * flops_per_step(1, whole.classes, 1) / peak  # multiply-adds of one feature at the peak
    per_feature = (ns["features_64"] - ns["features_16"]) / 48
    return {
        "vector_operations": operations,
        "bound_by_loads_and_stores": fma_share_bound(operations),
        "fma_at_peak_ns": fma_ns * features,
        "memory": 1 - ns["pool_in_cache"] / ns["whole"],
        "label_draws": 1 - ns["targets_without_draws"] / ns["whole"],
        "ns_per_feature": per_feature,
        "fma_share_per_feature": fma_ns / per_feature,
        "ns_without_features": ns["features_16"] - 16 * per_feature,
    }


# Reporting --------------------------------------------------------------------------------------


def line(row: dict) -> str:
    """A setting's figures in millions of replica-steps a second, with their range over the rounds."""
    head = f"{row['threads']} threads, batch {row['batch_size']:2}, {row['replicas']:6,} replicas: "
    parts = []
    for name, found in row["contenders"].items():
        rate = {key: value / 1e6 for key, value in found["replica_steps_per_second"].items()}
        parts.append(f"{name} {rate['median']:.3g} [{rate['low']:.3g}, {rate['high']:.3g}]")
    return head + "; ".join(parts)


def table(rows: Sequence[dict]) -> str:
    """Medians in millions of replica-steps a second, one setting a row."""
    names = list(dict.fromkeys(name for row in rows for name in row["contenders"]))
    header = ["threads", "batch", "replicas", *names, f"{OURS}/jax", "[low, high]", "of peak"]
    cells = [header]
    for row in rows:
        contenders, ours = row["contenders"], row["contenders"][OURS]
        medians = [contenders.get(name, {}).get("replica_steps_per_second", {}).get("median") for name in names]
        ratio = ours["over_jax"]
        cells.append(
            [
                str(row["threads"]), str(row["batch_size"]), f"{row['replicas']:,}",
                *("-" if rate is None else f"{rate / 1e6:.3g}" for rate in medians),
                f"{ratio['median']:.2f}" if ratio else "-",
                f"[{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else "-",
                f"{ours['share_of_fma_peak']:.1%}",
            ]
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(["millions of replica-steps a second, medians; ratios to the faster program in jax", *lines])


def paragraph(found: dict) -> str:
    """What limits cpu_fused, in words, from `limits`."""
    ns = {name: values["median"] for name, values in found["ns_per_visit_of_16_replicas"].items()}
    operations = found["vector_operations"]
    return (
        f"What limits cpu_fused (one thread, 1,024 replicas): a visit of 16 replicas takes {ns['whole']:.0f} ns, its "
        f"{operations['fma']} vector multiply-adds at the measured peak {found['fma_at_peak_ns']:.0f} ns "
        f"({found['fma_at_peak_ns'] / ns['whole']:.0%}). It also does {operations['loads']} vector loads and "
        f"{operations['stores']} stores, so a core with two loads, one store and two multiply-adds a cycle cannot "
        f"pass {found['bound_by_loads_and_stores']:.0%} of the peak. A pool that stays in the near cache saves "
        f"{found['memory']:.0%}, targets without a label to draw {found['label_draws']:.0%}. A further feature costs "
        f"{found['ns_per_feature']:.2f} ns, {found['fma_share_per_feature']:.0%} of the peak, and what does not "
        f"depend on the features (random numbers, label, softmax) {found['ns_without_features']:.0f} ns. "
        f"A visit in a batch of 16 takes {ns['batch_of_16']:.0f} ns."
    )


def benchmark(plan: Plan, command: str) -> dict:
    """The whole result; threads beyond the cores of this machine are left out."""
    rows, peaks, agreement = [], {}, []
    allowed = [threads for threads in plan.threads if threads <= len(cores())]
    for threads in allowed:
        more, agreed, peaks[threads] = compare(threads, plan)
        rows, agreement = rows + more, agreement + agreed
    found = limits(plan, peaks[1])
    return {
        "date": datetime.date.today().isoformat(),
        "command": command,
        "hardware": hardware(),
        "versions": versions(),
        "plan": asdict(plan),
        "work": {**asdict(Work(samples=plan.samples)), "dtype": "float32", "flops_per_visit": flops_per_step(1, 5, 31)},
        "environment": {name: {t: environment(name, t) for t in allowed} for name in available()},
        "fma_peak_flops": peaks,
        "same_work": agreement,
        "settings": rows,
        "limits": {**found, "in_words": paragraph(found)},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sgd", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few settings; the result is not written")
    quick = parser.parse_args(arguments).quick
    result = benchmark(QUICK if quick else FULL, "python -m benchmarks.sgd" + " --quick" * quick)
    print("", table(result["settings"]), "", result["limits"]["in_words"], sep="\n")
    if not quick:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(f"-> {RESULT}")


if __name__ == "__main__":
    main()
