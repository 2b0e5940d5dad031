"""A trained network with everything that rebuilds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.data.augmentation import Normalisation, Unchanged
from kdsim.networks import POINT_NETWORKS, DenseNetwork, Network, build
from kdsim.tensors import read_checked, write_checked

_CONTENT = (
    ("network", str, "a name"), ("classes", int, "a number"), ("training", str, "a digest"), ("data", str, "a digest"),
    ("replica", int, "a number"), ("dropout", float, "a number"), ("weights", Tensor, "tensors by name"),
    ("posterior", Tensor, "tensors by name"), ("scores", float, "numbers by name"),
)  # fmt: skip
"""Name and type of the attributes that are read from a file, and what to say of others."""


def by_text(found: object, kind: type) -> bool:
    """Whether it is a dictionary of that type of values, with texts as keys."""
    return isinstance(found, dict) and all(type(key) is str and type(value) is kind for key, value in found.items())


@dataclass(frozen=True, eq=False)  # holds tensors
class TrainedNetwork:
    """A network of `kdsim.networks` with its weights.

    Attributes:
        network, classes: what `build` takes.
        mean, std: of the normalisation that stands before the network, see `Normalisation`; none for points.
        weights: the state_dict: tensors by name.
        training: digest of the configuration that it was trained with.
        replica: its number.
        data: SHA-256 of the provenance of the data that it was trained on.
        scores: on its validation images at the last step, by name: a file of other weights does not reproduce them.
        dropout: rate of the dropout before the head that it was trained with; `module` has none.
        posterior: what an optimiser that holds a posterior over the weights says beside their mean, tensors by name.
    """

    network: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: Mapping[str, Tensor]
    training: str
    replica: int
    data: str
    scores: Mapping[str, float]
    dropout: float = 0.0
    posterior: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def normalisation(self) -> Normalisation | Unchanged:
        """From images of bytes, or points, to what the network sees."""
        return Unchanged() if self.network in POINT_NETWORKS else Normalisation(self.mean, self.std)

    @property
    def inputs(self) -> int:
        """Channels of images, which are red, green and blue, or features of points, which the first matrix tells."""
        if self.network not in POINT_NETWORKS:
            return 3
        # Without a matrix any number will do: the weights are refused.
        return next((tensor.shape[1] for tensor in self.weights.values() if tensor.ndim == 2 and tensor.shape[1]), 1)

    def module(self, device: torch.device | str = "cpu") -> Network | DenseNetwork:
        """The network on a device, in evaluation mode, channels last, without gradients."""
        with torch.random.fork_rng(devices=[]):
            network = build(self.network, self.classes, self.inputs)
        try:
            network.load_state_dict(dict(self.weights), strict=True)
        except RuntimeError as error:
            why = " ".join(str(error).split())
            what = f"a {self.network} with {self.classes} classes"
            raise ConfigError(f"the weights are not those of {what}: {why:.200}") from None
        # The types of torch have no memory format beside a device.
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.eval().requires_grad_(False)

    def save(self, path: Path) -> None:
        """Write it to a file, whole or not at all."""
        write_checked(path, self.content())

    def content(self) -> dict[str, Any]:
        """Tensors and plain values, from which `of` makes it again."""
        content = {item.name: getattr(self, item.name) for item in fields(self)}
        return content | {name: dict(content[name]) for name in ("weights", "scores", "posterior")}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> TrainedNetwork:
        """The network of a `content`.

        Raises:
            ConfigError: it has other keys, or values of other types.
        """
        try:
            network = cls(**{**content, "mean": tuple(content["mean"]), "std": tuple(content["std"])})
            network.normalisation  # noqa: B018 - checks its numbers
        except (TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"a trained network is not as it must be: {error}") from None
        for name, kind, words in _CONTENT:
            value = getattr(network, name)
            right = by_text(value, kind) if name in ("weights", "posterior", "scores") else type(value) is kind
            if not right:
                raise ConfigError(f"a trained network is not as it must be: its {name} must be {words}")
        # A network is built before its weights are put in: what says another size must not take the memory for it.
        if not any(tensor.shape[:1] == (network.classes,) for tensor in network.weights.values()):
            raise ConfigError(f"a trained network is not as it must be: no weights are of {network.classes} classes")
        return network

    @classmethod
    def load(cls, path: Path) -> TrainedNetwork:
        """Read it back.

        Raises:
            ConfigError: the file is missing, truncated, altered or something else.
        """
        content = read_checked(path)
        names = {item.name for item in fields(cls)}
        if content.keys() != names:
            raise ConfigError(f"{path} is not a trained network: it has {', '.join(sorted(content)) or 'nothing'}")
        return cls.of(content)
