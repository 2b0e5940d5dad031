"""Engines: what walks the replicas of SGD."""

from kdsim.engines.autograd import Autograd
from kdsim.engines.base import SGD, Engine, Lane, State, check_device
from kdsim.engines.recorder import METRICS, Record, Recording
from kdsim.engines.torch_batched import TorchBatched

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (TorchBatched(), Autograd())}

__all__ = [
    "ENGINES",
    "METRICS",
    "SGD",
    "Autograd",
    "Engine",
    "Lane",
    "Record",
    "Recording",
    "State",
    "TorchBatched",
    "check_device",
]
