"""Precisions of convolutions and products, and the processors that multiply bfloat16 themselves.

What a precision is depends on the configuration alone, never on the processor: one that cannot is refused, or is slow.
"""

from __future__ import annotations

from typing import Literal

import torch

from kdsim.config import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]

_MULTIPLIERS = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "avx10_2", "bf16", "sve_bf16")
"""Capabilities, as `torch.cpu.get_capabilities` names them, with any of which bfloat16 is not emulated."""
_AMPERE = 8
"""Major compute capability of the first NVIDIA GPUs that multiply bfloat16."""


def precision_on(precision: Precision, device: torch.device | str) -> Literal["float32", "bfloat16"]:
    """What a precision is on a device: "auto" is float32 on a CPU and bfloat16 on a CUDA device."""
    if precision != "auto":
        return precision
    return "float32" if torch.device(device).type == "cpu" else "bfloat16"


def require_multiplied(precision: Precision, device: torch.device) -> None:
    """Refuse bfloat16 on a GPU that would emulate it.

    Raises:
        ConfigError: in one line with the key, the GPU and what is allowed.
    """
    if device.type != "cuda" or precision_on(precision, device) != "bfloat16" or torch.version.hip:
        return
    if torch.cuda.get_device_properties(device).major < _AMPERE:
        name = torch.cuda.get_device_name(device)
        what = f"precision = {precision!r} is not allowed on {device}"
        raise ConfigError(f"{what}: its {name} does not multiply bfloat16: must be float32")


def emulated(precision: Precision, device: torch.device | str) -> bool:
    """Whether this is bfloat16 on a CPU without instructions for it; False where torch cannot tell."""
    if torch.device(device).type != "cpu" or precision_on(precision, device) != "bfloat16":
        return False
    told = getattr(torch.cpu, "get_capabilities", None)  # not in torch 2.10
    return told is not None and not any(told().get(name) for name in _MULTIPLIERS)
