"""Studies that come with kdsim: declarations of what to simulate, one a file."""

from kdsim.studies.batch_sweep import BatchSweep
from kdsim.studies.bias_sweep import BiasSweep
from kdsim.studies.cifar_distillation import CifarDistillation
from kdsim.studies.deviations import Deviations
from kdsim.studies.dimension_sweep import DimensionSweep
from kdsim.studies.distill import Distill
from kdsim.studies.frozen_labels import FrozenLabels
from kdsim.studies.guideline import Guideline
from kdsim.studies.image_noise_sweep import ImageNoiseSweep
from kdsim.studies.long_tail import LongTailStudy
from kdsim.studies.noise_sweep import NoiseSweep
from kdsim.studies.nonconvex_sweep import NonconvexSweep
from kdsim.studies.paper_synthetic import PaperSynthetic
from kdsim.studies.pl_sweep import PLSweep
from kdsim.studies.step_size_sweep import StepSizeSweep
from kdsim.studies.teacher_kinds import TeacherKinds
from kdsim.studies.teacher_sweeps import BayesianLosses, BNNAblation, FewShot, PosteriorSamples, Temperature
from kdsim.studies.train import Train

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
    ImageNoiseSweep,
    CifarDistillation,
    TeacherKinds,
    Guideline,
    BayesianLosses,
    FewShot,
    Temperature,
    PosteriorSamples,
    BNNAblation,
    Deviations,
    LongTailStudy,
    Train,
    Distill,
)

__all__ = [
    "STUDIES",
    "BNNAblation",
    "BatchSweep",
    "BayesianLosses",
    "BiasSweep",
    "CifarDistillation",
    "Deviations",
    "DimensionSweep",
    "Distill",
    "FewShot",
    "FrozenLabels",
    "Guideline",
    "ImageNoiseSweep",
    "LongTailStudy",
    "NoiseSweep",
    "NonconvexSweep",
    "PLSweep",
    "PaperSynthetic",
    "PosteriorSamples",
    "StepSizeSweep",
    "TeacherKinds",
    "Temperature",
    "Train",
]
