"""A trained network with everything that rebuilds it, and files that notice when they were altered."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdsim.config import ConfigError
from kdsim.data.augmentation import Normalisation, Unchanged
from kdsim.networks import POINT_NETWORKS, build

FORMAT = 1
HEAD = b"kdsim 1 sha256 "
"""First bytes of a file; after them the SHA-256 of the rest in hexadecimal digits, and a line feed."""


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

    def module(self, device: torch.device | str = "cpu") -> nn.Module:
        """The network on a device, in evaluation mode, channels last, without gradients."""
        with torch.random.fork_rng(devices=[]):
            network = build(self.network, self.classes, self.inputs)
        try:
            network.load_state_dict(dict(self.weights), strict=True)
        except RuntimeError as error:
            why = " ".join(str(error).split())
            what = f"a {self.network} with {self.classes} classes"
            raise ConfigError(f"the weights are not those of {what}: {why:.200}") from None
        return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)

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
            right = all(isinstance(tensor, Tensor) for tensor in network.weights.values())
        except (TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"a trained network is not as it must be: {error}") from None
        if not right:
            raise ConfigError("a trained network is not as it must be: its weights are not all tensors")
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


def write_checked(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values to a file under a temporary name, and rename it.

    `read_checked` notices every later change of the file.
    """
    stream = io.BytesIO()
    torch.save({"format": FORMAT, **content}, stream)
    data = stream.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "wb") as file:
            file.write(HEAD + hashlib.sha256(data).hexdigest().encode() + b"\n")
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checked(path: Path) -> dict[str, Any]:
    """What `write_checked` wrote; no code in the file is run.

    Raises:
        ConfigError: the file is missing, truncated, altered, of another format or something else.
    """
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    end = len(HEAD) + 64
    if not whole.startswith(HEAD) or whole[end : end + 1] != b"\n":
        raise ConfigError(f"{path} is not a file of kdsim, or its first bytes are lost: delete it to train again")
    data = whole[end + 1 :]
    expected, found = whole[len(HEAD) : end].decode("ascii", "replace"), hashlib.sha256(data).hexdigest()
    if found != expected:
        raise ConfigError(
            f"{path} is truncated or altered: its SHA-256 is {found[:12]}..., it should be {expected[:12]}...; "
            "delete it to train again"
        )
    try:
        content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # a hostile or foreign file makes the reader raise almost anything
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path} holds more than tensors and plain values, and is not read: {line:.200}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ConfigError(f"{path} has another format than {FORMAT}: read it with the kdsim that wrote it")
    return {name: value for name, value in content.items() if name != "format"}
