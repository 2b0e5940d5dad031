"""What a result depends on beside its configuration: code, libraries, machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

import kdsim
from kdsim.sources import kdsim_digest
from kdsim.training.replicas import replica_threads

LIBRARIES = ("torch", "numpy", "scipy", "numba", "pandas", "pyarrow")


def stamp() -> dict[str, Any]:
    """What every record carries: versions, hardware and the date, in UTC."""
    return {
        "versions": versions(),
        "hardware": hardware(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
    }


@cache
def _libraries() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def versions() -> dict[str, str | int]:
    """Of kdsim, with the digest of its source, of Python and of the libraries; and the numbers of threads."""
    return {
        "kdsim": kdsim.__version__,
        "source_sha256": kdsim_digest(),
        "python": platform.python_version(),
        **_libraries(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "replica_threads": replica_threads(),
    }


@cache
def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, memory in GiB, and GPUs."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or a processor without a name there
        return platform.processor() or platform.machine()
