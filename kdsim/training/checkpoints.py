"""Files of the states of a training, from which it goes on bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsim.config import ConfigError
from kdsim.files import Damaged
from kdsim.tensors import read_checked, write_checked

ALL = "all"
"""Stands for the number of a replica in the name of the state of all of them."""


class Checkpoints:
    """The states of one training in a folder.

    Args:
        folder: or None: nothing is written, and nothing found.
        training: digest of the configuration, which names the files.
        provenance: of the data.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, folder: Path | None, training: str, provenance: Mapping[str, Any]) -> None:
        self.folder, self.training = folder, training
        self.data = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()
        """SHA-256 of all that is said of the data: images, labels, human labels, splits."""
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"checkpoints = {str(folder)!r} cannot be written: {error.strerror}") from None

    def write(self, replica: int | str, state: Mapping[str, Any], seconds: float) -> None:
        """Store a state, whole or not at all.

        Args:
            replica: its number, or `ALL`.
            seconds: that it took so far.
        """
        if self.folder is not None:
            file = checkpoint_file(self.folder, self.training, replica)
            write_checked(file, self._own(replica) | {"walk": state, "seconds": seconds})

    def read(self, replica: int | str) -> dict[str, Any] | None:
        """A stored state (`walk`) and its `seconds`, or None.

        Raises:
            Damaged: it is, or is that of another training or of other data.
        """
        if self.folder is None:
            return None
        file = checkpoint_file(self.folder, self.training, replica)
        if not file.exists():
            return None
        content, own = read_checked(file), self._own(replica)
        if content.keys() != own.keys() | {"walk", "seconds"}:
            raise Damaged(f"{file} is not a checkpoint, it has {', '.join(content)}: delete it to start over", file)
        for key, value in own.items():
            if type(content[key]) is not type(value) or content[key] != value:  # other types may have no equality
                raise Damaged(
                    f"checkpoint {file} is of {key} {str(content[key])[:20]!r}, this is {str(value)[:20]!r}: "
                    "delete it to start over",
                    file,
                )
        walk, seconds = content["walk"], content["seconds"]
        whole = isinstance(walk, dict) and type(walk.get("step")) is int and walk["step"] >= 0
        if not whole or not isinstance(seconds, float) or not 0 <= seconds < float("inf"):
            raise Damaged(f"{file} is not a checkpoint: it has no state with a step, or no time: delete it", file)
        return content

    def _own(self, replica: int | str) -> dict[str, Any]:
        return {"training": self.training, "data": self.data, "replica": replica}


def checkpoint_file(folder: Path, training: str, replica: int | str) -> Path:
    """File of the state of one replica, or of `ALL`, of the training of that digest."""
    return folder / f"{training}-{replica if replica == ALL else f'r{replica:03d}'}.safetensors"
