"""Settings of all tests: reproducible examples, one thread, here and in processes that a test starts.

Two torch threads wait for each other at every operation when another process holds a core: ten times slower. Who leaves
out the slow tests also gets fewer generated examples of each property; CI runs all.
"""

import os
import sys
from pathlib import Path

import declared
import kernels
import pytest
import tiny_network
import torch
from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("kdsim", **COMMON, max_examples=30)
settings.register_profile("quick", **COMMON, max_examples=10)
settings.load_profile("kdsim")
tiny_network.register()
declared.check_all()
kernels.share()
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("COLUMNS", None)  # a worker of pytest-xdist has it: tables are whole where no test says otherwise
if sys.dont_write_bytecode:  # each process that a test starts would compile all of kdsim again: keep it out of the tree
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


def pytest_configure(config: pytest.Config) -> None:
    """With `-m "not slow"` the profile "quick"."""
    if config.option.markexpr == "not slow":
        settings.load_profile("quick")
