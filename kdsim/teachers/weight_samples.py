"""Copies of a network with other weights, for teachers that are samples of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from kdsim.data.augmentation import Normalisation, Unchanged
from kdsim.teachers.checks import require_memory
from kdsim.training.evaluation import BATCH, forward
from kdsim.training.flat_module import put_vector
from kdsim.training.trained import TrainedNetwork


def require_copies(kind: str, network: TrainedNetwork, samples: int, device: torch.device) -> None:
    """Refuse more copies of the network than the free memory of the device holds."""
    require_memory(f"{kind} with {samples} samples of a {network.network}", (samples + 1) * size_of(network), device)


def size_of(network: TrainedNetwork) -> int:
    """Bytes of its parameters and statistics."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.weights.values())


def copies(network: TrainedNetwork, vectors: Iterable[Tensor], device: torch.device) -> list[nn.Module]:
    """The network once for each vector of parameters (P,), in evaluation mode; its statistics are the same in all.

    Copies and not one network whose weights are exchanged: students on several threads ask one teacher at a time.
    """
    plain = network.module(device)
    found: list[nn.Module] = []
    for vector in vectors:
        module = copy.deepcopy(plain)
        put_vector(vector.to(device), module)
        found.append(module)
    return found


@torch.no_grad()
def recompute_statistics(module: nn.Module, images: Tensor, normalise: Normalisation | Unchanged, mixed: bool) -> None:
    """BatchNorm's running statistics of the present weights: means over batches of these images (N, 3, h, w) uint8.

    The batches are equal to within an image, for torch's cumulative mean weighs them alike.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not layers:
        return
    usual = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean
    module.train()
    for batch in images.tensor_split(-(-len(images) // BATCH)):
        forward(module, batch, normalise, mixed)
    module.eval()
    for layer, momentum in zip(layers, usual, strict=True):
        layer.momentum = momentum


def said_by(
    modules: Sequence[nn.Module], normalise: Normalisation | Unchanged, mixed: bool
) -> Callable[[Tensor], Tensor]:
    """A predictor from networks in evaluation mode: images uint8 (b, 3, h, w) -> log-probabilities (S, b, K)."""

    def predict(images: Tensor) -> Tensor:
        return torch.stack([torch.log_softmax(forward(module, images, normalise, mixed), -1) for module in modules])

    return predict
