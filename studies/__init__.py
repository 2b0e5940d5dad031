"""Studies that come with kdsim: declarations of what to simulate, one a file."""

from kdsim.studies.batch_sweep import BatchSweep
from kdsim.studies.bias_sweep import BiasSweep
from kdsim.studies.dimension_sweep import DimensionSweep
from kdsim.studies.frozen_labels import FrozenLabels
from kdsim.studies.noise_sweep import NoiseSweep
from kdsim.studies.nonconvex_sweep import NonconvexSweep
from kdsim.studies.paper_synthetic import PaperSynthetic
from kdsim.studies.pl_sweep import PLSweep
from kdsim.studies.step_size_sweep import StepSizeSweep

STUDIES = (
    NoiseSweep,
    DimensionSweep,
    BiasSweep,
    FrozenLabels,
    StepSizeSweep,
    BatchSweep,
    PLSweep,
    NonconvexSweep,
    PaperSynthetic,
)

__all__ = [
    "STUDIES",
    "BatchSweep",
    "BiasSweep",
    "DimensionSweep",
    "FrozenLabels",
    "NoiseSweep",
    "NonconvexSweep",
    "PLSweep",
    "PaperSynthetic",
    "StepSizeSweep",
]
