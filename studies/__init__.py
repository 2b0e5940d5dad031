"""Studies that come with kdsim: declarations of what to simulate, one a file."""

from kdsim.studies.batch_sweep import BatchSweep
from kdsim.studies.bias_sweep import BiasSweep
from kdsim.studies.dimension_sweep import DimensionSweep
from kdsim.studies.noise_sweep import NoiseSweep
from kdsim.studies.pl_sweep import PLSweep
from kdsim.studies.step_size_sweep import StepSizeSweep

STUDIES = (NoiseSweep, DimensionSweep, BiasSweep, StepSizeSweep, BatchSweep, PLSweep)

__all__ = ["STUDIES", "BatchSweep", "BiasSweep", "DimensionSweep", "NoiseSweep", "PLSweep", "StepSizeSweep"]
