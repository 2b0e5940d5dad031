"""A teacher as it stands before a student: its networks, what was fitted after their training, and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from torch import Tensor

from kdsim.config import ConfigError
from kdsim.sources import kdsim_digest
from kdsim.tensors import read_checked, write_checked
from kdsim.training.trained import TrainedNetwork, by_text


@dataclass(frozen=True, eq=False)  # holds tensors
class FittedTeacher:
    """Everything that rebuilds a teacher beside its configuration.

    Attributes:
        teacher: digest of the configuration of the teacher.
        kind: its name.
        number: which of the teachers of this configuration, 0 the first.
        networks: its trained networks, one for most kinds.
        tensors: what `Teacher.fit` found, by name.
        scores: of its predictive distribution on the validation images: a file of other weights does not give them.
        source: of kdsim that fitted it, `kdsim.sources.kdsim_digest`; "" where an older one did not say.
    """

    teacher: str
    kind: str
    number: int
    networks: tuple[TrainedNetwork, ...]
    tensors: Mapping[str, Tensor]
    scores: Mapping[str, float]
    source: str = field(default_factory=kdsim_digest)

    def save(self, path: Path) -> None:
        """Write it to a file, whole or not at all."""
        content = {item.name: getattr(self, item.name) for item in fields(self)}
        networks = [network.content() for network in self.networks]
        own = {"networks": networks, "tensors": dict(self.tensors), "scores": dict(self.scores)}
        write_checked(path, content | own)

    @classmethod
    def load(cls, path: Path) -> FittedTeacher:
        """Read it back.

        Raises:
            ConfigError: the file is missing, truncated, altered or something else.
        """
        content = {"source": "", **read_checked(path)}
        if content.keys() != {item.name for item in fields(cls)}:
            raise ConfigError(f"{path} is not a teacher: it has {', '.join(sorted(content)) or 'nothing'}")
        kinds = {"teacher": str, "kind": str, "number": int, "networks": list, "source": str}
        right = all(type(content[name]) in (kind, tuple if kind is list else kind) for name, kind in kinds.items())
        right = right and all(isinstance(item, dict) for item in content["networks"])
        if not (right and by_text(content["tensors"], Tensor) and by_text(content["scores"], float)):
            raise ConfigError(f"{path} is not a teacher: its parts are not of the types that they must have")
        networks = tuple(TrainedNetwork.of(item) for item in content["networks"])
        return cls(**content | {"networks": networks})
