"""Size and cost of a module: its parameters, and the multiply-adds of one forward pass."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from kdsim.config import ConfigError

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers with one multiply-add per output and entry of weight[0]."""

FREE = (_NormBase, nn.GroupNorm, nn.LayerNorm)
"""Layers with parameters whose cost is left out, as in published figures."""


def parameter_count(module: nn.Module) -> int:
    """Number of entries of all parameters, trained or not; a shared tensor counts once. Buffers do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def flops(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of convolutions and linear layers in one forward pass of one input.

    A multiplication with its addition counts as one, as in tables of networks ("MAdds", and often "FLOPs"); floating
    point operations proper are twice as many. Biases, normalisations, activations, pooling and sums are left out.

    Args:
        module: any module; it is left as it is, since a copy runs, in evaluation mode.
        shape: of one input, without the batch, such as (3, 32, 32).

    Raises:
        ConfigError: the module has parameters in a layer whose operations are not known here.
    """
    twin = copy.deepcopy(module).eval()
    total = 0

    def count(layer: Any, _: object, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()  # weight (outputs, inputs / groups, kernel...)

    for name, layer in twin.named_modules():
        if isinstance(layer, WEIGHTED):
            layer.register_forward_hook(count)
        elif not isinstance(layer, FREE) and next(layer.parameters(recurse=False), None) is not None:
            known = ", ".join(kind.__name__ for kind in (*WEIGHTED, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm))
            where = f"{name} ({type(layer).__name__})" if name else type(layer).__name__
            raise ConfigError(f"cannot count the operations of {where}: it has parameters, and is not one of {known}")
    like = next(twin.parameters(), torch.empty(0))
    with torch.no_grad():
        twin(torch.zeros(1, *shape, dtype=like.dtype, device=like.device))
    return total
