"""Counts of parameters and operations against formulas, published figures and torch's own counter."""

from __future__ import annotations

import pytest
import torch
from tiny_network import PUBLISHED as NAMES
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdsim.config import ConfigError
from kdsim.networks import build, flops, parameter_count

PUBLISHED = {
    "resnet18": 11_220_132,
    "resnet34": 21_328_292,
    "resnet50": 23_705_252,
    "resnet8": 83_892,
    "resnet20": 278_324,
    "resnet56": 861_620,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn-16-1": 180_916,
    "wrn-16-2": 703_284,
    "wrn-40-1": 569_780,
    "wrn-40-2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg13": 9_462_180,
}
"""Parameters for 100 classes of the benchmarks' models (0.28 M, 0.86 M, 1.23 M, ...)."""


def resnet_count(stem: int, widths: tuple[int, ...], blocks: tuple[int, ...], classes: int, channels: int) -> int:
    """Basic blocks. A stage v -> w: 9vw + 9w^2 + 4w once, 18w^2 + 4w for each further block, a shortcut vw + 2w."""
    total, v = 9 * channels * stem + 2 * stem, stem
    for stage, (w, n) in enumerate(zip(widths, blocks, strict=True)):
        shortcut = v * w + 2 * w if stage > 0 or v != w else 0
        total += 9 * v * w + 9 * w**2 + 4 * w + (n - 1) * (18 * w**2 + 4 * w) + shortcut
        v = w
    return total + v * classes + classes


def bottleneck_count(widths: tuple[int, ...], blocks: tuple[int, ...], classes: int, channels: int) -> int:
    """Bottlenecks, v -> 4w: vw + 9w^2 + 4w^2 + 12w each, a shortcut 4vw + 8w once a stage."""
    total, v = 9 * channels * 64 + 128, 64
    for w, n in zip(widths, blocks, strict=True):
        total += v * w + 13 * w**2 + 12 * w + (n - 1) * (17 * w**2 + 12 * w) + 4 * v * w + 8 * w
        v = 4 * w
    return total + v * classes + classes


def wide_count(depth: int, k: int, classes: int, channels: int) -> int:
    """Pre-activation blocks: BatchNorm of the input, no BatchNorm in the shortcut, one after the last stage."""
    n, total, v = (depth - 4) // 6, 9 * channels * 16, 16
    for w in (16 * k, 32 * k, 64 * k):
        total += 2 * v + 9 * v * w + 2 * w + 9 * w**2 + (v * w if v != w else 0) + (n - 1) * (18 * w**2 + 4 * w)
        v = w
    return total + 2 * v + v * classes + classes


def vgg_count(widths: tuple[int, ...], classes: int, channels: int) -> int:
    """Convolutions with biases, and BatchNorm: 9vw + 3w each."""
    total = sum(9 * v * w + 3 * w for v, w in zip((channels, *widths), widths, strict=False))
    return total + widths[-1] * classes + classes


WIDE, DEEP = (64, 128, 256, 512), (3, 4, 6, 3)
FORMULAS = {
    "resnet18": lambda k, c: resnet_count(64, WIDE, (2, 2, 2, 2), k, c),
    "resnet34": lambda k, c: resnet_count(64, WIDE, DEEP, k, c),
    "resnet50": lambda k, c: bottleneck_count(WIDE, DEEP, k, c),
    "resnet8": lambda k, c: resnet_count(16, (16, 32, 64), (1, 1, 1), k, c),
    "resnet20": lambda k, c: resnet_count(16, (16, 32, 64), (3, 3, 3), k, c),
    "resnet56": lambda k, c: resnet_count(16, (16, 32, 64), (9, 9, 9), k, c),
    "resnet8x4": lambda k, c: resnet_count(32, (64, 128, 256), (1, 1, 1), k, c),
    "resnet32x4": lambda k, c: resnet_count(32, (64, 128, 256), (5, 5, 5), k, c),
    "wrn-16-1": lambda k, c: wide_count(16, 1, k, c),
    "wrn-16-2": lambda k, c: wide_count(16, 2, k, c),
    "wrn-40-1": lambda k, c: wide_count(40, 1, k, c),
    "wrn-40-2": lambda k, c: wide_count(40, 2, k, c),
    "vgg8": lambda k, c: vgg_count((64, 128, 256, 512, 512), k, c),
    "vgg13": lambda k, c: vgg_count((64, 64, 128, 128, 256, 256, 512, 512, 512, 512), k, c),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("classes", "channels"), [(100, 3), (10, 1)])
def test_parameters_are_those_of_the_formula(name: str, classes: int, channels: int) -> None:
    with torch.device("meta"):  # shapes only: nothing is drawn
        network = build(name, classes, channels)
    assert parameter_count(network) == FORMULAS[name](classes, channels)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_published(name: str) -> None:
    with torch.device("meta"):
        assert parameter_count(build(name, 100)) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "count"), [("wrn-16-1", 175_066), ("wrn-16-2", 691_674), ("wrn-40-1", 563_930)])
def test_parameters_for_ten_classes(name: str, count: int) -> None:
    """Published with models of data-free distillation on CIFAR-10."""
    with torch.device("meta"):
        assert parameter_count(build(name, 10)) == count


def test_every_network_has_a_formula_and_a_published_count() -> None:
    assert set(FORMULAS) == set(PUBLISHED) == set(NAMES)


def test_shared_and_frozen_parameters_count_once() -> None:
    layer = nn.Linear(3, 3)
    layer.bias.requires_grad_(False)
    assert parameter_count(nn.Sequential(layer, nn.BatchNorm1d(3), layer)) == 9 + 3 + 6


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_operations_are_half_of_torchs_count(name: str) -> None:
    """torch counts a multiply-add as two operations."""
    network = build(name, 100)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, 32, 32))
    assert flops(network, (3, 32, 32)) == counter.get_total_flops() // 2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "billions"), [("resnet18", 0.56), ("resnet34", 1.16), ("resnet50", 1.30)])
def test_operations_are_those_published(name: str, billions: float) -> None:
    """Published to two decimals with models of this form on CIFAR-10."""
    assert round(flops(build(name, 10), (3, 32, 32)) / 1e9, 2) == billions


def test_operations_by_hand() -> None:
    """ResNet-20 has w s = 512 in all stages of width w and side s; but for those that halve, blocks cost 18 (w s)^2."""
    block = 18 * 512**2
    stem = 9 * 3 * 16 * 32**2
    halving = (9 * 16 * 32 + 9 * 32**2 + 16 * 32) * 16**2  # conv, conv, shortcut; w = 32, s = 16
    assert flops(build("resnet20", 10), (3, 32, 32)) == stem + 7 * block + 2 * halving + 64 * 10
    assert halving == (9 * 32 * 64 + 9 * 64**2 + 32 * 64) * 8**2


def test_operations_of_groups_strides_and_repeated_layers() -> None:
    once = nn.Conv2d(4, 8, 3, stride=2, groups=2)  # 9 x 9 -> 4 x 4, from 2 channels each
    assert flops(once, (4, 9, 9)) == 8 * 16 * 2 * 9
    line = nn.Linear(5, 5)
    assert flops(nn.Sequential(line, nn.ReLU(), line, nn.LayerNorm(5)), (7, 5)) == 2 * 7 * 25
    assert flops(nn.Sequential(line, nn.BatchNorm1d(5)), (5,)) == 25  # in training, one input would be refused
    assert flops(nn.ReLU(), (3,)) == 0


def test_counting_leaves_the_module_as_it_was() -> None:
    network = build("resnet8x4", 10).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    flops(network, (3, 16, 16))
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^cannot count the operations of 1 \(Bilinear\): .* one of Conv1d, .*$"):
        flops(nn.Sequential(nn.ReLU(), nn.Bilinear(2, 2, 2)), (2,))
    with pytest.raises(ConfigError, match="MultiheadAttention"):
        flops(nn.MultiheadAttention(4, 2), (3, 4))
