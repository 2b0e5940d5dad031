"""Networks as students: what a `StudentTrainer` says of its network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdsim.config import Configuration, choose, require_between
from kdsim.networks import NETWORKS, POINT_NETWORKS


@dataclass(frozen=True)
class ImageNetwork(Configuration):
    """A network of `kdsim.networks` as a student.

    Attributes:
        network: its name, see `kdsim.networks.NETWORKS`.
        dropout: rate at which features are dropped before the head while it is trained, in [0, 1).
    """

    network: str = "resnet20"
    dropout: float = 0.0

    name: ClassVar[str] = "image-network"

    def __post_init__(self) -> None:
        choose("network", self.network, NETWORKS)
        require_between("dropout", self.dropout, 0, 1, "[)")


@dataclass(frozen=True)
class PointNetwork(Configuration):
    """A network of points as a student, in float32 whatever the recipe's precision.

    Attributes:
        network: its name, see `kdsim.networks.POINT_NETWORKS`.
        dropout: rate at which features are dropped before the head while it is trained, in [0, 1); the features of
            "linear" are x itself. With dropout, replicas are walked one by one.
    """

    network: str = "mlp"
    dropout: float = 0.0

    name: ClassVar[str] = "point-network"

    def __post_init__(self) -> None:
        choose("network of points", self.network, POINT_NETWORKS)
        require_between("dropout", self.dropout, 0, 1, "[)")
