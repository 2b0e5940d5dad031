"""Blocks and networks against the same formulas written out in plain functions, from the papers' figures.

Counts and shapes do not show where a ReLU stands or what a shortcut starts from; these do. Each function takes its
parameters in the order in which the network holds them. BatchNorm has made-up weights, so that none is the identity.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, linear, max_pool2d, relu

from kdsim.networks import build
from kdsim.networks.resnet import Bottleneck

Parameters = Iterator[nn.Parameter]


def norm(x: Tensor, p: Parameters) -> Tensor:
    return batch_norm(x, None, None, next(p), next(p), training=True)


def basic(x: Tensor, p: Parameters, stride: int, projects: bool) -> Tensor:
    y = relu(norm(conv2d(x, next(p), stride=stride, padding=1), p))
    y = norm(conv2d(y, next(p), padding=1), p)
    return relu(y + (norm(conv2d(x, next(p), stride=stride), p) if projects else x))


def bottleneck(x: Tensor, p: Parameters, stride: int, projects: bool) -> Tensor:
    y = relu(norm(conv2d(x, next(p)), p))
    y = relu(norm(conv2d(y, next(p), stride=stride, padding=1), p))
    y = norm(conv2d(y, next(p)), p)
    return relu(y + (norm(conv2d(x, next(p), stride=stride), p) if projects else x))


def pre_activation(x: Tensor, p: Parameters, stride: int, projects: bool) -> Tensor:
    a = relu(norm(x, p))
    y = relu(norm(conv2d(a, next(p), stride=stride, padding=1), p))
    y = conv2d(y, next(p), padding=1)
    return y + (conv2d(a, next(p), stride=stride) if projects else x)


def resnet20(x: Tensor, p: Parameters) -> Tensor:
    x = relu(norm(conv2d(x, next(p), padding=1), p))
    for stride in (1, 2, 2):
        x = basic(x, p, stride, projects=stride == 2)
        x = basic(basic(x, p, 1, False), p, 1, False)
    return linear(x.flatten(2).mean(2), next(p), next(p))


def resnet8x4(x: Tensor, p: Parameters) -> Tensor:
    x = relu(norm(conv2d(x, next(p), padding=1), p))
    for stride in (1, 2, 2):
        x = basic(x, p, stride, projects=True)  # also the first: 32 -> 64
    return linear(x.flatten(2).mean(2), next(p), next(p))


def wrn_16(x: Tensor, p: Parameters, widening: int) -> Tensor:
    x = conv2d(x, next(p), padding=1)
    for stage, stride in enumerate((1, 2, 2)):
        x = pre_activation(x, p, stride, projects=stage > 0 or widening > 1)
        x = pre_activation(x, p, 1, False)
    return linear(relu(norm(x, p)).flatten(2).mean(2), next(p), next(p))


def vgg(x: Tensor, p: Parameters, convolutions: int) -> Tensor:
    for stage in range(5):
        for _ in range(convolutions):
            x = relu(norm(conv2d(x, next(p), next(p), padding=1), p))
        x = max_pool2d(x, 2) if stage < 3 else x
    return linear(x.flatten(2).mean(2), next(p), next(p))


REFERENCES = {
    "resnet20": resnet20,
    "resnet8x4": resnet8x4,
    "wrn-16-1": lambda x, p: wrn_16(x, p, 1),
    "wrn-16-2": lambda x, p: wrn_16(x, p, 2),
    "vgg8": lambda x, p: vgg(x, p, 1),
    "vgg13": lambda x, p: vgg(x, p, 2),
}


def disturb(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.ndim == 1:  # BatchNorm and biases
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


@pytest.mark.parametrize("name", REFERENCES)
def test_networks_are_their_formulas(name: str) -> None:
    torch.manual_seed(0)
    network, x = build(name, 5).double().train(), torch.randn(3, 3, 16, 16).double()
    disturb(network)
    p = network.parameters()
    with torch.no_grad():
        expected = REFERENCES[name](x, p)
        assert torch.allclose(network(x), expected, rtol=1e-9, atol=1e-11)
    assert next(p, None) is None  # all were used


@pytest.mark.parametrize(("inputs", "stride"), [(8, 1), (8, 2), (16, 1), (16, 2)])
def test_bottlenecks_are_their_formula(inputs: int, stride: int) -> None:
    torch.manual_seed(0)
    block, x = Bottleneck(inputs, 4, stride).double().train(), torch.randn(3, inputs, 9, 9).double()
    disturb(block)
    p = block.parameters()
    with torch.no_grad():
        expected = bottleneck(x, p, stride, projects=stride == 2 or inputs != 16)
        assert torch.allclose(block(x), expected, rtol=1e-9, atol=1e-11)
    assert next(p, None) is None


def test_the_formula_of_deeper_networks_is_more_of_the_same_blocks() -> None:
    with torch.device("meta"):
        depths = {name: [len(stage) for stage in list(build(name, 10).body)[1:]] for name in ("resnet34", "resnet50")}
        depths["resnet56"] = [len(stage) for stage in list(build("resnet56", 10).body)[1:]]
        depths["wrn-40-2"] = [len(stage) for stage in list(build("wrn-40-2", 10).body)[1:4]]
    assert depths == {
        "resnet34": [3, 4, 6, 3], "resnet50": [3, 4, 6, 3], "resnet56": [9, 9, 9], "wrn-40-2": [6, 6, 6],
    }  # fmt: skip
