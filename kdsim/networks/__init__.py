"""Networks as plain torch modules: `logits = net.head(net.features(x))`.

Those of images take x (b, channels, h, w), those of points x (b, d).
"""

from __future__ import annotations

from collections.abc import Callable

from kdsim.config import choose
from kdsim.networks.base import Network
from kdsim.networks.counting import flops, parameter_count
from kdsim.networks.dense import DenseNetwork, linear, mlp
from kdsim.networks.resnet import resnet8, resnet8x4, resnet18, resnet20, resnet32x4, resnet34, resnet50, resnet56
from kdsim.networks.vgg import vgg8, vgg13
from kdsim.networks.wide_resnet import wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2

NETWORKS: dict[str, Callable[..., Network]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet56": resnet56,
    "resnet8x4": resnet8x4,
    "resnet32x4": resnet32x4,
    "wrn-16-1": wrn_16_1,
    "wrn-16-2": wrn_16_2,
    "wrn-40-1": wrn_40_1,
    "wrn-40-2": wrn_40_2,
    "vgg8": vgg8,
    "vgg13": vgg13,
}
"""Networks of images: name -> factory(classes: int, channels: int = 3)."""

POINT_NETWORKS: dict[str, Callable[[int, int], DenseNetwork]] = {"linear": linear, "mlp": mlp}
"""Networks of points: name -> factory(classes: int, features: int)."""


def build(name: str, classes: int, inputs: int = 3) -> Network | DenseNetwork:
    """The network of that name with fresh weights from torch's generator (`torch.manual_seed`).

    Args:
        name: a key of `NETWORKS` or `POINT_NETWORKS`.
        classes: K.
        inputs: channels of the images, or features of the points.

    Raises:
        ConfigError: there is no such network, or a number is not allowed.
    """
    factories: dict[str, Callable[..., Network | DenseNetwork]] = {**NETWORKS, **POINT_NETWORKS}
    return choose("network", name, factories)(classes, inputs)


__all__ = ["NETWORKS", "POINT_NETWORKS", "DenseNetwork", "Network", "build", "flops", "parameter_count"]
