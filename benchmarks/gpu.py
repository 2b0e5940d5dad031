"""The engine gpu_fused on a GPU: is it right, does noise-sweep agree with theory there, how fast is it?

    python -m benchmarks.gpu

1. Every family and two kinds of visits, float64, 2,000 steps: errors within 1e-9 of the torch engine's, on the GPU and
   on the CPU. float32: floors of 1,024 replicas within 0.1 % of the torch engine's, replica for replica the same draws.
2. noise-sweep at its defaults, with the figures that the CPU engine has to reach: every cell stationary, floors within
   10 % of first order, the floor of exact BCP below 1e-8 of one-hot's.
3. Replica-steps a second at K = 5, d = 30 and a bias, a pool of 65,536 points, beside the torch engine on the same GPU.

Stops at the first figure that is not reached (exit 1); without a GPU it says so (exit 2). The result goes to
benchmarks/results/gpu.json. Not run yet: no GPU was at hand when it was written.
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import kdsim
from kdsim.engines import SGD, Engine, Lane, Recording, State, TorchBatched
from kdsim.engines.base import DTYPES
from kdsim.engines.gpu_fused import GpuFused
from kdsim.engines.recorder import Recorder
from kdsim.population import Population
from kdsim.problems import GaussianMixture, SimplexLinear
from kdsim.results.store import read_study
from kdsim.students import LeastSquares, LinearStudent, SoftmaxRegression, minimiser
from kdsim.studies import NoiseSweep
from kdsim.study.runner import run as run_study
from kdsim.supervision import Annotators, Dirichlet, Exact, Independent, OneHot, Supervision, TwoPoint

RESULT = Path(__file__).parent / "results" / "gpu.json"
DEVICE = "cuda"
FUSED, TORCH = GpuFused(), TorchBatched()
FAMILIES = (Exact(), OneHot(), Annotators(2.5), Dirichlet(0.3), Dirichlet(20.0), TwoPoint(0.7), Independent(0.05))

AGREEMENT_STEPS, AGREEMENT_REPLICAS, AGREEMENT = 2_000, 16, 1e-9
FLOOR_STEPS, FLOOR_REPLICAS, FLOOR_AGREEMENT = 8_000, 1_024, 1e-3
SPEED_REPLICAS = (1_024, 4_096, 16_384, 65_536, 262_144)
SPEED_BATCHES = (1, 16)
SPEED_SECONDS = 2.0


def run(
    engine: Engine, device: str, student: LinearStudent, population: Population, lanes: list[Lane], sgd: SGD, **more
):
    reference, anchor = minimiser(student, population), student.anchor(population)
    recording = more.pop("recording", Recording(checkpoints=6))
    return engine.run(
        student, population, lanes, sgd, recording, reference=reference, anchor=anchor, device=device, **more
    )


def agreement() -> list[dict]:
    """Largest difference of an error between the engines after 2,000 steps in float64, for each family."""
    rows = []
    for student, population in (
        (SoftmaxRegression(0.1, "centred"), GaussianMixture(samples=2_000).population(0)),
        (SoftmaxRegression(0.1, "ordinary"), GaussianMixture(samples=2_000).population(0)),
        (LeastSquares(), SimplexLinear(samples=2_000).population(0)),
    ):
        for sgd in (
            SGD(AGREEMENT_STEPS, dtype="float64"),
            SGD(AGREEMENT_STEPS, 3, "permutation", "frozen", "float64", training_set=300),
        ):
            lanes = [Lane(s, 0.01, (7 << 32) + n, AGREEMENT_REPLICAS, 5) for n, s in enumerate(FAMILIES)]
            _, ours = run(FUSED, DEVICE, student, population, lanes, sgd)
            for device in ("cpu", DEVICE):
                _, theirs = run(TORCH, device, student, population, lanes, sgd)
                gaps = (ours.error.cpu() - theirs.error.cpu()).abs().flatten(1).amax(-1).split(AGREEMENT_REPLICAS)
                for supervision, gap in zip(FAMILIES, gaps, strict=True):
                    rows.append(
                        {
                            "student": student.name,
                            "ridge": student.ridge_kind,
                            "supervision": supervision.name,
                            "batch_size": sgd.batch_size,
                            "torch_on": device,
                            "largest_difference": gap.max().item(),
                        }
                    )
                    require(rows[-1]["largest_difference"] <= AGREEMENT, rows[-1])
    return rows


def float32_floors() -> list[dict]:
    """Floors in float32, of the same draws on both engines."""
    student, population = SoftmaxRegression(0.1, "centred"), GaussianMixture(samples=2_000).population(0)
    lanes = [Lane(supervision, 0.01, 0, FLOOR_REPLICAS) for supervision in FAMILIES[1:]]
    floors = []
    for engine in (FUSED, TORCH):
        record, _ = run(engine, DEVICE, student, population, lanes, SGD(FLOOR_STEPS))
        floors.append([part.mean().item() for part in record.tail_mean.mean(0).split(FLOOR_REPLICAS)])
    rows = []
    for supervision, ours, theirs in zip(FAMILIES[1:], *floors, strict=True):
        rows.append({"supervision": supervision.name, "floor": ours, "over_torch_minus_one": ours / theirs - 1})
        require(abs(ours / theirs - 1) <= FLOOR_AGREEMENT, rows[-1])
    return rows


def noise_sweep() -> dict:
    """noise-sweep at its defaults on the GPU, with the figures of tests/studies/test_noise_sweep.py."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        rows = read_study(run_study(NoiseSweep(engine=FUSED.name, device=DEVICE), Path(folder)).folder).rows
        seconds = time.monotonic() - started
    noisy = rows[rows["supervision"] != "exact"]
    ratio = noisy["floor"] / noisy["first_order_floor"]
    one_hot, exact = (rows.loc[rows["supervision"] == name, "floor"].item() for name in ("one-hot", "exact"))
    found = {
        "cells": len(rows),
        "seconds": seconds,
        "stationary": bool(rows["stationary"].eq(True).all()),
        "diverged": int(rows["diverged"].sum()),
        "floor_over_first_order": [ratio.min(), ratio.max()],
        "exact_floor_over_one_hot_floor": exact / one_hot,
    }
    require(found["stationary"] and found["diverged"] == 0, found)
    require(ratio.min() > 0.9 and ratio.max() < 1.1, found)
    require(exact < 1e-8 * one_hot, found)
    return found


def speed() -> list[dict]:
    student = SoftmaxRegression(0.1, "centred")
    population = GaussianMixture(classes=5, dimension=30, samples=65_536).population(0)
    rows = []
    for supervision in (OneHot(), Dirichlet(1.0)):
        for batch_size in SPEED_BATCHES:
            for replicas in SPEED_REPLICAS:
                rates = {
                    engine.name: replica_steps_per_second(
                        engine, student, population, supervision, replicas, batch_size
                    )
                    for engine in (FUSED, TORCH)
                }
                rows.append(
                    {
                        "supervision": supervision.name,
                        "batch_size": batch_size,
                        "replicas": replicas,
                        "replica_steps_per_second": rates,
                        "ratio": rates[FUSED.name] / rates[TORCH.name],
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def replica_steps_per_second(
    engine: Engine,
    student: LinearStudent,
    population: Population,
    supervision: Supervision,
    replicas: int,
    batch_size: int,
) -> float:
    """Speed of SGD alone: the run is entered after the first checkpoints and left long before the next.

    The first chunk pays for compilation and is not counted.
    """
    sgd = SGD(10_000_000, batch_size)
    recording = Recording(checkpoints=2, tail_fraction=0.01)
    reference, where = minimiser(student, population), torch.device(DEVICE)
    dtype = DTYPES[sgd.dtype]
    recorder = Recorder(recording, student, population, reference, replicas, sgd.steps, dtype, where)
    start = recording.schedule(sgd.steps)[1] + 1
    error = (-reference).to(where, dtype).repeat(replicas, 1, 1)
    times: list[tuple[float, int]] = []

    def stop(step: int) -> bool:
        torch.cuda.synchronize()
        times.append((time.perf_counter(), step))
        return len(times) > 3 and times[-1][0] - times[1][0] > SPEED_SECONDS

    lanes = [Lane(supervision, 0.01, 0, replicas)]
    state = State(start, error, recorder.state())
    run(engine, DEVICE, student, population, lanes, sgd, recording=recording, state=state, stop=stop)
    (began, first), (ended, last) = times[1], times[-1]
    return replicas * (last - first) / (ended - began)


def require(holds: bool, found: dict) -> None:
    if not holds:
        sys.exit(f"not reached: {json.dumps(found)}")


def hardware() -> dict:
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True
    )
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "driver": driver.stdout.split("\n")[0] or None,
        "cuda": torch.version.cuda,
        "cpu": platform.processor() or platform.machine(),
    }


def main() -> None:
    if not torch.cuda.is_available():
        print("benchmarks.gpu needs a GPU that torch can use; there is none here", file=sys.stderr)
        sys.exit(2)
    import triton

    versions = {"kdsim": kdsim.__version__, "torch": torch.__version__, "triton": triton.__version__}
    result = {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "versions": {**versions, "python": platform.python_version()},
    }
    for part in (agreement, float32_floors, noise_sweep, speed):
        result[part.__name__] = part()
        print(f"{part.__name__}: done", flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"-> {RESULT}")


if __name__ == "__main__":
    main()
