"""Which engine runs a configuration, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdsim import config
from kdsim.engines.autograd import Autograd
from kdsim.engines.base import SGD, Engine, Lane, check_device
from kdsim.engines.cpu_fused import CpuFused
from kdsim.engines.fused.compilation import tell, unavailable
from kdsim.engines.gpu_fused import GpuFused
from kdsim.engines.recorder import Recording
from kdsim.engines.torch_batched import TorchBatched
from kdsim.population import Population
from kdsim.students.base import LinearStudent
from kdsim.students.network import NetworkStudent

AUTO = "auto"
ENGINES: dict[str, Engine] = {
    engine.name: engine  # type: ignore[misc]  # `refusal` names the students that an engine does not take
    for engine in (CpuFused(), GpuFused(), TorchBatched(), Autograd())
}
PREFERENCE = {"cpu": ("cpu_fused", "torch", "autograd"), "cuda": ("gpu_fused", "torch", "autograd")}
"""Engines of a kind of device, the fastest first (benchmarks/results)."""


@dataclass(frozen=True)
class Choice:
    """An engine's name, and the reason in one line."""

    engine: str
    reason: str


def choose_engine(
    name: str,
    student: LinearStudent | NetworkStudent,
    population: Population,
    lanes: Sequence[Lane],
    sgd: SGD,
    recording: Recording,
    device: str,
) -> Choice:
    """The engine of that name, or for "auto" the fastest that does not refuse the configuration.

    Raises:
        ConfigError: no engine has that name, or it refuses, or all do; with the reason.
    """
    configuration = (student, population, lanes, sgd, recording, device)
    config.choose("engine", name, {AUTO: None, **ENGINES})
    if name != AUTO:
        if refused := ENGINES[name].refusal(*configuration):
            raise config.ConfigError(refused)
        return Choice(name, "asked for")
    refusals: list[str] = []
    uncompiled = unavailable()
    for candidate in PREFERENCE[check_device(device).type]:
        refused = ENGINES[candidate].refusal(*configuration)
        if refused is None:
            if uncompiled and refusals and uncompiled in refusals[0]:
                tell(f"{uncompiled}: the engine {candidate} takes the place of {PREFERENCE['cpu'][0]}, and is slower")
            return Choice(candidate, "; ".join(refusals) or f"fastest on {device}")
        refusals.append(refused)
    raise config.ConfigError(refusals[-1])
