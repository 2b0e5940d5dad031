"""What several teachers ask before they start: the right loss, enough memory, random numbers of their own."""

from __future__ import annotations

import psutil
import torch

from kdsim.config import ConfigError, kind_of, require
from kdsim.losses import DistillationLoss
from kdsim.rng import Draws, Stream
from kdsim.trainer import StudentTrainer, Teacher

SAMPLES = 6
"""First slot of what teachers draw, behind those of `kdsim.training.walk`, in the stream of first weights."""


def require_loss(training: StudentTrainer, allowed: tuple[type[DistillationLoss], ...]) -> None:
    """Refuse a training of another student than a network, or under another loss (subclasses count as other).

    Raises:
        ConfigError: in one line, with the losses that are allowed.
    """
    require_network(training)
    if type(training.loss) not in allowed:
        names = " or ".join(kind_of(kind) for kind in allowed)
        raise ConfigError(f"training.loss = {kind_of(type(training.loss))} is not allowed: must be {names}")


def refuse_loss(training: StudentTrainer, refused: type[DistillationLoss], why: str) -> None:
    """Refuse a training of another student than a network, or under that loss."""
    require_network(training)
    if isinstance(training.loss, refused):
        raise ConfigError(f"training.loss = {kind_of(type(training.loss))} is not allowed here: {why}")


def require_network(training: StudentTrainer) -> None:
    """Refuse a training of another student than a network of images or of points."""
    require(isinstance(training, StudentTrainer), "training", training, "a StudentTrainer")
    allowed = "a network of images or of points (ImageNetwork, PointNetwork)"
    require(training.is_network, "training.student", training.student, allowed)


def require_memory(what: str, needed: int, device: torch.device) -> None:
    """Refuse what the free memory of the device does not hold, before it is asked for."""
    free = free_memory(device)
    if needed > free:
        raise ConfigError(
            f"{what} needs about {needed / 2**30:.2g} GiB of memory, and {free / 2**30:.2g} GiB are free on {device}"
        )


def free_memory(device: torch.device) -> int:
    """Bytes."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def generator(teacher: Teacher, number: int) -> torch.Generator:
    """Random numbers of teacher `number`, on the CPU so that they are the same on every device."""
    seed, which, first = (torch.tensor([[value]]) for value in (teacher.training.seed, number, 0))
    draws = Draws(seed, which, first, Stream.INIT, torch.float64)
    return torch.Generator().manual_seed((int(draws.words(SAMPLES)) << 31) ^ int(draws.words(SAMPLES + 1)))
