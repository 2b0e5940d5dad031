"""What a benchmark ran on: processor, memory, versions, cores to pin to, and the peak of fused multiply-add."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from kdsim.engines.fused.compilation import kernel
from kdsim.engines.fused.simd import LANES, fma, load, store

PACKAGES = ("kdsim", "numpy", "numba", "llvmlite", "torch", "jax", "jaxlib")


def cores() -> list[int]:
    """Cores that this process may use, in order; exits where cores cannot be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        sys.exit(f"this benchmark pins processes to cores, which {platform.system()} cannot do: run it on Linux")
    return sorted(os.sched_getaffinity(0))


@contextmanager
def pinned(chosen: list[int]) -> Iterator[None]:
    """Processes started within inherit these cores: thread pools that are sized at import see no others."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def hardware() -> dict:
    """Processor, number of cores that may be used, memory."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    flags = next((line.split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(cores()),
        "vectors": next((name for name in ("avx512f", "avx2") if name in flags), platform.machine()),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
    }


def versions() -> dict:
    """Versions of Python and of what is timed; None where a package is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines() if Path(file).exists() else []


# Peak of fused multiply-add ---------------------------------------------------------------------


@kernel(nogil=True)
def _five_chains(count, values):
    """5 independent chains: as many as the registers of AVX2 hold (two for each vector)."""
    a0, a1, a2 = load(values, 0), load(values, LANES), load(values, 2 * LANES)
    a3, a4 = load(values, 3 * LANES), load(values, 4 * LANES)
    b, c = load(values, 12 * LANES), load(values, 13 * LANES)
    for _ in range(count):
        a0, a1, a2, a3, a4 = fma(a0, b, c), fma(a1, b, c), fma(a2, b, c), fma(a3, b, c), fma(a4, b, c)
    store(values, 0, a0 + a1 + a2 + a3 + a4)


@kernel(nogil=True)
def _twelve_chains(count, values):
    """12 independent chains: more than two units of latency 4 can be busy with."""
    a0, a1, a2 = load(values, 0), load(values, LANES), load(values, 2 * LANES)
    a3, a4, a5 = load(values, 3 * LANES), load(values, 4 * LANES), load(values, 5 * LANES)
    a6, a7, a8 = load(values, 6 * LANES), load(values, 7 * LANES), load(values, 8 * LANES)
    a9, a10, a11 = load(values, 9 * LANES), load(values, 10 * LANES), load(values, 11 * LANES)
    b, c = load(values, 12 * LANES), load(values, 13 * LANES)
    for _ in range(count):
        a0, a1, a2, a3 = fma(a0, b, c), fma(a1, b, c), fma(a2, b, c), fma(a3, b, c)
        a4, a5, a6, a7 = fma(a4, b, c), fma(a5, b, c), fma(a6, b, c), fma(a7, b, c)
        a8, a9, a10, a11 = fma(a8, b, c), fma(a9, b, c), fma(a10, b, c), fma(a11, b, c)
    store(values, 0, a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11)


CHAINS: tuple[tuple[Callable, int], ...] = ((_five_chains, 5), (_twelve_chains, 12))
LOOPS = 1 << 20


def fma_flops(threads: int, seconds: float) -> float:
    """float32 operations a second of register-resident fused multiply-add on so many threads; the faster loop."""
    each = [np.full(14 * LANES, 0.5, np.float32) for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for kernel, chains in CHAINS:
            list(pool.map(lambda values, kernel=kernel: kernel(1, values), each))  # compiles
            loops, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < seconds / len(CHAINS):
                list(pool.map(lambda values, kernel=kernel: kernel(LOOPS, values), each))
                loops += LOOPS
            elapsed = time.perf_counter() - started
            best = max(best, threads * loops * chains * LANES * 2 / elapsed)
    return best
