"""Engines: what walks the replicas of SGD."""

from kdsim.engines.autograd import Autograd
from kdsim.engines.base import SGD, Engine, Lane, State, check_device
from kdsim.engines.choice import AUTO, ENGINES, Choice, choose_engine
from kdsim.engines.cpu_fused import CpuFused
from kdsim.engines.gpu_fused import GpuFused
from kdsim.engines.optimisers import Adam, GradientDescent, Optimiser, WeightSampler
from kdsim.engines.recorder import METRICS, Record, Recording
from kdsim.engines.schedules import SCHEDULES, Constant, Cosine, Schedule, StepDecay
from kdsim.engines.torch_batched import TorchBatched
from kdsim.engines.variational import IVON, MeanField

OPTIMISERS = (GradientDescent, Adam, IVON, MeanField)
"""Every optimiser, in the order in which messages list them."""

__all__ = [
    "AUTO",
    "ENGINES",
    "IVON",
    "METRICS",
    "OPTIMISERS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "Autograd",
    "Choice",
    "Constant",
    "Cosine",
    "CpuFused",
    "Engine",
    "GpuFused",
    "GradientDescent",
    "Lane",
    "MeanField",
    "Optimiser",
    "Record",
    "Recording",
    "Schedule",
    "State",
    "StepDecay",
    "TorchBatched",
    "WeightSampler",
    "check_device",
    "choose_engine",
]
