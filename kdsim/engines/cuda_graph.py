"""One step as a CUDA graph: its kernels are launched as one, which pays where each takes a few microseconds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdsim.students.network import AddGradient

WARM_UP = 3
"""Calls on a side stream before the capture, in which libraries choose their kernels, as torch's documentation asks."""


def graphed(add: AddGradient, into: Tensor) -> AddGradient:
    """`add` for batches of one shape, captured at the first call and replayed from then on.

    A graph replays the same kernels on the same memory: arguments are copied to where they lay at the capture. Calls
    before it change `into`, which is put back.

    Not run on a GPU so far: none was at hand. What is tested on a CPU is everything but `_capture`.
    """
    captured: list[tuple[tuple[Tensor, ...], Callable[[], None]]] = []

    def replay(*arguments: Tensor) -> None:
        if not captured:
            static = tuple(argument.clone() for argument in arguments)
            captured.append((static, _capture(lambda: add(*static), into)))
        static, graph = captured[0]
        for place, argument in zip(static, arguments, strict=True):
            place.copy_(argument)
        graph()

    return replay


def _capture(step: Callable[[], None], into: Tensor) -> Callable[[], None]:
    """Warm up, put `into` back, and capture. See "CUDA Graphs" in torch's notes on CUDA semantics."""
    before = into.clone()
    with torch.cuda.device(into.device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        into.copy_(before)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    return graph.replay
