"""What the server of `processes` does before it forks: it imports everything and loads the compiled kernels."""

import tempfile

import kernels
import scipy.stats  # noqa: F401
import tiny_network
import torch
from fault_simulations import FaultSimulations
from fault_trainings import FaultTrainings

import kdsim.cli.app
import kdsim.figures
import kdsim.studies
import kdsim.study.group_report
import kdsim.study.teacher_report  # noqa: F401
from kdsim.study import runner

torch.set_num_threads(1)
tiny_network.register()
kernels.share()
with tempfile.TemporaryDirectory() as folder:
    for study in (
        *(FaultSimulations(engine, 20, 2) for engine in ("cpu_fused", "torch", "autograd")),
        FaultTrainings(2),
    ):
        runner.run(study, folder)
