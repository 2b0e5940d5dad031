"""Engines: what walks the replicas of SGD."""

from kdsim.engines.base import SGD, Engine, Lane, State, check_device
from kdsim.engines.recorder import METRICS, Record, Recording
from kdsim.engines.torch_batched import TorchBatched

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (TorchBatched(),)}

__all__ = [
    "ENGINES",
    "METRICS",
    "SGD",
    "Engine",
    "Lane",
    "Record",
    "Recording",
    "State",
    "TorchBatched",
    "check_device",
]
