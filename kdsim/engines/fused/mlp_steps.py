"""The kernel of `kdsim.engines.fused.mlp`, in a module of its own: what it is compiled from is this file."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from kdsim.engines.fused.compilation import kernel

# Sums may be reordered, so that they run in vectors, and products fused into them. Nothing else: NaN and infinity, by
# which diverged replicas are known, keep their meaning.
_OPTIONS = {"error_model": "numpy", "fastmath": {"reassoc", "contract"}}
_inlined = njit(**_OPTIONS)


@kernel(nogil=True, **_OPTIONS)
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
