# The studies, and where each is defined: `studies/__init__.py` imports one from there when it is asked for.
from .batch_sweep import BatchSweep as BatchSweep
from .bias_sweep import BiasSweep as BiasSweep
from .cifar_distillation import CifarDistillation as CifarDistillation
from .deviations import Deviations as Deviations
from .dimension_sweep import DimensionSweep as DimensionSweep
from .distill import Distill as Distill
from .frozen_labels import FrozenLabels as FrozenLabels
from .guideline import Guideline as Guideline
from .image_noise_sweep import ImageNoiseSweep as ImageNoiseSweep
from .long_tail import LongTailStudy as LongTailStudy
from .noise_sweep import NoiseSweep as NoiseSweep
from .nonconvex_sweep import NonconvexSweep as NonconvexSweep
from .paper_synthetic import PaperSynthetic as PaperSynthetic
from .pl_sweep import PLSweep as PLSweep
from .step_size_sweep import StepSizeSweep as StepSizeSweep
from .teacher_kinds import TeacherKinds as TeacherKinds
from .teacher_sweeps import BayesianLosses as BayesianLosses
from .teacher_sweeps import BNNAblation as BNNAblation
from .teacher_sweeps import FewShot as FewShot
from .teacher_sweeps import PosteriorSamples as PosteriorSamples
from .teacher_sweeps import Temperature as Temperature
from .train import Train as Train

NAMES: dict[str, str]
STUDIES: tuple[type, ...]
