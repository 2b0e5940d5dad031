"""How fast are networks trained? Images a second of whole steps, and the share of the machine's peak.

    python -m benchmarks.networks [--device cuda] [--batch 64] [NETWORK ...]

A step is all of one: gathering bytes, crop and flip, normalisation, forward, loss, backward, optimiser, in the recipe
crd. One replica on all of torch's threads, and on a CPU also one a thread, as `StudentTrainer` runs several. A training
step counts three forward passes of multiply-adds, two operations each; the peak is that of a large product in bfloat16
on the same device, measured just before. The result goes to benchmarks/results/networks-DEVICE.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.machine import hardware, versions
from kdsim.data import KnownImages
from kdsim.engines.base import check_device
from kdsim.networks import build, flops
from kdsim.problems import Images
from kdsim.trainer import ImageNetwork, StudentTrainer
from kdsim.training import CRD, Task, Walk

NETWORKS = ("resnet8", "resnet20", "wrn-16-2", "resnet8x4")
SECONDS, ROUNDS = 4.0, 5
IMAGES = 2_000


def synchronised(device: torch.device) -> float:
    """Time, once the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak(device: torch.device) -> float:
    """Operations a second of a product of two large bfloat16 matrices; the best of a few."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device).bfloat16()
    best = 0.0
    for _ in range(ROUNDS + 1):
        started = synchronised(device)
        for _ in range(4):
            a @ a
        best = max(best, 4 * 2 * size**3 / (synchronised(device) - started))
    return best


def task_of(name: str, precision: str, batch: int, device: str) -> Task:
    """A training on images drawn for it; their content does not matter, and crops are those of real images."""
    source = KnownImages(Images(samples=IMAGES, validation_samples=50, test_samples=50))
    recipe = CRD(epochs=1e6, batch_size=batch, precision=precision)
    trainer = StudentTrainer(ImageNetwork(name), source, recipe=recipe, evaluations=1, device=device)
    return replace(trainer.task(source.pools(0)), augmentation=recipe.augmentation)


def rate(walks: list[Walk], threads: int, device: torch.device) -> float:
    """Images a second of all walks together, side by side."""
    batch = walks[0].task.recipe.batch_size
    for walk in walks:
        walk.advance()

    def work(walk: Walk) -> int:
        torch.set_num_threads(threads)
        until, steps = time.perf_counter() + SECONDS, 0
        while time.perf_counter() < until:
            walk.advance()
            steps += 1
        return steps

    started = synchronised(device)
    if len(walks) == 1:
        steps = work(walks[0])
    else:
        with ThreadPoolExecutor(len(walks)) as pool:
            steps = sum(pool.map(work, walks))
    return steps * batch / (synchronised(device) - started)


def measure(name: str, precision: str, batch: int, device: torch.device, most: float) -> list[dict]:
    """Rows of one network: one replica, and on a CPU one a thread."""
    workers = torch.get_num_threads()
    cost = 3 * 2 * flops(build(name, 10), (3, 32, 32))
    rows = []
    for replicas in (1, workers) if device.type == "cpu" and workers > 1 else (1,):
        task = task_of(name, precision, batch, str(device))
        walks = [Walk(task, number) for number in range(replicas)]
        each = [rate(walks, workers if replicas == 1 else 1, device) for _ in range(ROUNDS)]
        torch.set_num_threads(workers)
        middle = statistics.median(each)
        rows.append(
            {
                "network": name,
                "precision": precision,
                "batch": batch,
                "replicas": replicas,
                "images_per_second": middle,
                "slowest": min(each),
                "fastest": max(each),
                "operations_per_image": cost,
                "share_of_bfloat16_peak": middle * cost / most,
            }
        )
        print(f"{name:10s} {precision:9s} {replicas} replicas {middle:9,.0f} images/s  {middle * cost / most:6.1%}")
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    chosen = parser.parse_args()
    device = check_device(chosen.device)
    most = peak(device)
    print(f"{most / 1e12:.3g} TFLOP/s in bfloat16")
    rows = []
    for name in chosen.networks:
        for precision in ("bfloat16", "float32"):
            rows += measure(name, precision, chosen.batch, device, most)
    found = {
        "date": datetime.date.today().isoformat(),
        "command": f"python -m benchmarks.networks --device {chosen.device} --batch {chosen.batch}",
        "hardware": hardware() | {"device": _name(device), "threads": torch.get_num_threads()},
        "versions": versions(),
        "peak_bfloat16": most,
        "rows": rows,
    }
    file = Path(__file__).parent / "results" / f"networks-{device.type}.json"
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(file)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
