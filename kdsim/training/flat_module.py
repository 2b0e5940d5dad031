"""A module whose parameters are views of one vector, so that an optimiser of the engines moves all of them at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class FlatModule:
    """A module with its parameters in one vector (1, P) and their gradients in another.

    Kernels of convolutions lie channels last in both, as the convolutions of mixed precision like them.

    Attributes:
        module: the module; its parameters and their `grad` are views.
        parameters, gradient: (1, P) float32. Zero the gradient before a backward pass, which adds to it.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module = module.to(device)
        tensors = list(module.parameters())
        size = sum(tensor.numel() for tensor in tensors)
        self.parameters = torch.empty(1, size, device=device)
        self.gradient = torch.zeros(1, size, device=device)
        first = 0
        for tensor in tensors:
            stretch = slice(first, first + tensor.numel())
            place = _view(self.parameters[0, stretch], tensor.shape)
            place.copy_(tensor.detach())
            tensor.data = place
            tensor.grad = _view(self.gradient[0, stretch], tensor.shape)
            first = stretch.stop

    def buffers(self) -> dict[str, Tensor]:
        """Copies of what training updates beside the parameters: the running statistics of BatchNorm."""
        return {name: buffer.detach().cpu().clone() for name, buffer in self.module.named_buffers()}

    @torch.no_grad()
    def restore(self, parameters: Tensor, buffers: Mapping[str, Tensor]) -> None:
        """Put back parameters (1, P) and buffers."""
        self.parameters.copy_(parameters)
        for name, buffer in self.module.named_buffers():
            buffer.copy_(buffers[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The module's, copied to the CPU, contiguous: what is stored does not depend on how kernels lie in memory."""
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.module.state_dict().items()}


def vector_of(module: nn.Module) -> Tensor:
    """The parameters in one vector (P,), in the order of `FlatModule`."""
    tensors = (tensor.detach() for tensor in module.parameters())
    return torch.cat([(t.permute(0, 2, 3, 1) if t.dim() == 4 else t).reshape(-1) for t in tensors])


@torch.no_grad()
def put_vector(vector: Tensor, module: nn.Module) -> None:
    """Copy a vector (P,) in the order of `FlatModule` into the parameters."""
    tensors = list(module.parameters())
    for tensor, stretch in zip(tensors, vector.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(_view(stretch, tensor.shape))


def _view(stretch: Tensor, shape: torch.Size) -> Tensor:
    """The stretch of a vector as a tensor of that shape."""
    if len(shape) != 4:
        return stretch.view(shape)
    outputs, inputs, height, width = shape
    return stretch.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
