"""The steps of an MLP under heavy-ball SGD with one visit a step, compiled: each replica on its own, in one thread.

In batched tensors such a step is bound by memory: parameters and velocity of a block of replicas leave the caches of a
core between any two of some forty calls, and threads wait for each other in Python. Here a replica stays in a core's
cache for all steps up to the next recorded one, and each number is read for the way up, and read and written once more
on the way down. Widths (128, 128), d = 31, K = 5, float32, the steps alone on two cores, a block each: 280,000 to
340,000 replica-steps/s, where batched tensors did some 70,000 in blocks of 32 or 48.

A replica's path does not depend on its neighbours, on the steps of a call, or on threads: not in a single bit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kdsim.engines.base import SGD
from kdsim.engines.fused.mlp_steps import walk
from kdsim.engines.optimisers import GradientDescent
from kdsim.students import MLP

BLOCK_REPLICAS = 16
"""Replicas of a block. A larger one is no faster; many blocks keep two, four or eight threads equally busy."""


def is_compiled(student: object, sgd: SGD, device: torch.device) -> bool:
    """Whether `walker` does what a run asks for: an MLP, no class derived from it; momentum, not Nesterov's; a CPU."""
    optimiser = sgd.optimiser
    heavy_ball = type(optimiser) is GradientDescent and optimiser.momentum > 0 and not optimiser.nesterov
    return type(student) is MLP and heavy_ball and sgd.batch_size == 1 and device.type == "cpu"


def walker(
    student: MLP, sgd: SGD, x: Tensor, classes: int, parameters: Tensor, velocity: Tensor, step_size: Tensor
) -> Callable[[Tensor, Tensor, int, range], None]:
    """A function that walks all replicas through a range of steps, in place.

    Its arguments are the indices (R, V) and targets (R, V, K) of a chunk of visits, the number of the visit of the
    first step, and the steps.

    Args:
        x: inputs of the pool, (N, d).
        parameters, velocity: (R, P).
        step_size: (R,).
    """
    kind = parameters.numpy().dtype.type
    sizes = np.array([x.shape[1], *student.widths, classes])
    constants = kind(sgd.optimiser.momentum), kind(student.ridge + sgd.optimiser.weight_decay)
    state = parameters.numpy(), velocity.numpy(), sizes, student.activation == "relu", x.numpy()
    rates = step_size.numpy()

    def advance(index: Tensor, q: Tensor, first: int, steps: range) -> None:
        factors = np.array([sgd.schedule.factor(step, sgd.steps) for step in steps], kind)
        walk(*state, index.numpy(), q.numpy(), first, rates, factors, *constants)

    return advance
