"""The steps of an MLP under heavy-ball SGD with one visit a step, compiled: each replica on its own, in one thread.

In batched tensors such a step is bound by memory: parameters and velocity of a block of replicas leave the caches of a
core between any two of some forty calls, and threads wait for each other in Python. Here a replica stays in a core's
cache for all steps up to the next recorded one, and each number is read for the way up, and read and written once more
on the way down. Widths (128, 128), d = 31, K = 5, float32, the steps alone on two cores, a block each: 280,000 to
340,000 replica-steps/s, where batched tensors did some 70,000 in blocks of 32 or 48.

A replica's path does not depend on its neighbours, on the steps of a call, or on threads: not in a single bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kdsim.engines.base import SGD
from kdsim.engines.optimisers import GradientDescent
from kdsim.students import MLP

BLOCK_REPLICAS = 16
"""Replicas of a block. A larger one is no faster; many blocks keep two, four or eight threads equally busy."""

# Sums may be reordered, so that they run in vectors, and products fused into them. Nothing else: NaN and infinity, by
# which diverged replicas are known, keep their meaning.
_compiled = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"}, cache=True)
_inlined = njit(error_model="numpy", fastmath={"reassoc", "contract"})


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


@_compiled
def walk(parameters, velocity, sizes, relu, x, index, q, first, step_size, factors, momentum, decay):
    """Steps of all replicas, one for each of `factors`, from visit `first`.

    Args:
        parameters, velocity: theta and v, (R, P), laid out as `MLP.shapes` has it.
        sizes: features, widths, classes.
        x: (N, d). index: (R, V). q: (R, V, K).
        decay: lambda of v <- momentum v + g + lambda theta.
    """
    layers = len(sizes) - 1
    values = np.empty((layers + 1, sizes.max()), parameters.dtype)  # what each layer sees, and the outputs
    delta, passed_on = np.empty_like(values[0]), np.empty_like(values[0])
    for replica in range(len(parameters)):
        theta, v = parameters[replica], velocity[replica]
        for step in range(len(factors)):
            rate = step_size[replica] * factors[step]
            values[0, : sizes[0]] = x[index[replica, first + step]]
            end = 0
            for layer in range(layers):
                end = _up(theta, end, layer, sizes, values[layer], values[layer + 1])
                if layer < layers - 1:
                    _activate(values[layer + 1, : sizes[layer + 1]], relu)
            _residual(values[layers, : sizes[layers]], q[replica, first + step], delta)
            for layer in range(layers - 1, -1, -1):
                end = _down(theta, v, end, layer, sizes, values[layer], delta, passed_on, rate, momentum, decay)
                if layer:
                    _slope(values[layer, : sizes[layer]], passed_on, delta, relu)


@_inlined
def _up(theta, start, layer, sizes, below, above):
    """W h, and + b in all layers but the first. Returns where the layer's parameters end."""
    n, m = sizes[layer], sizes[layer + 1]
    bias = start + m * n
    for i in range(m):
        weights = theta[start + i * n : start + (i + 1) * n]
        total = theta[bias + i] if layer else theta.dtype.type(0)
        for j in range(n):
            total += weights[j] * below[j]
        above[i] = total
    return bias + (m if layer else 0)


@_inlined
def _down(theta, v, end, layer, sizes, below, delta, passed_on, rate, momentum, decay):
    """The layer's step, and W' delta from before the step. Returns where the layer's parameters start."""
    n, m = sizes[layer], sizes[layer + 1]
    if layer:
        end -= m
        for i in range(m):
            v[end + i] = momentum * v[end + i] + (delta[i] + decay * theta[end + i])
            theta[end + i] -= rate * v[end + i]
        passed_on[:n] = 0
    start = end - m * n
    for i in range(m):
        weights, speed = theta[start + i * n : start + (i + 1) * n], v[start + i * n : start + (i + 1) * n]
        slope = delta[i]
        if layer:
            for j in range(n):
                passed_on[j] += slope * weights[j]
        for j in range(n):
            speed[j] = momentum * speed[j] + (slope * below[j] + decay * weights[j])
            weights[j] -= rate * speed[j]
    return start


@_inlined
def _activate(values, relu):
    if relu:
        for j in range(len(values)):
            values[j] = max(values[j], values.dtype.type(0))
    else:
        for j in range(len(values)):
            values[j] = math.tanh(values[j])


@_inlined
def _slope(values, passed_on, delta, relu):
    """delta of the layer below: what was passed on, times the derivative of the activation at its value."""
    if relu:
        for j in range(len(values)):
            delta[j] = passed_on[j] if values[j] > 0 else values.dtype.type(0)
    else:
        for j in range(len(values)):
            delta[j] = passed_on[j] * (1 - values[j] * values[j])


@_inlined
def _residual(outputs, q, delta):
    """softmax(outputs) * sum(q) - q, the gradient of cross-entropy in the outputs."""
    largest = outputs[0]
    for k in range(1, len(outputs)):
        largest = max(largest, outputs[k])
    total, mass = outputs.dtype.type(0), outputs.dtype.type(0)
    for k in range(len(outputs)):
        delta[k] = math.exp(outputs[k] - largest)
        total += delta[k]
        mass += q[k]
    for k in range(len(outputs)):
        delta[k] = delta[k] / total * mass - q[k]
