"""Settings of all tests: reproducible examples, one thread.

Two torch threads wait for each other at every operation when another process holds a core: ten times slower.
"""

import torch
from hypothesis import HealthCheck, settings

settings.register_profile("kdsim", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kdsim")
torch.set_num_threads(1)
