"""The trained networks of a finished training, read back."""

from __future__ import annotations

from kdsim.config import ConfigError
from kdsim.files import Unreadable
from kdsim.results.cells import Cells
from kdsim.training.trained import TrainedNetwork


def read_weights(cells: Cells, digest: str) -> tuple[TrainedNetwork, ...]:
    """The trained networks of a finished training, one a replica.

    Raises:
        Damaged: there are none, or a file is damaged.
    """
    cells.check_cell(digest)
    files = cells.weights_files(digest)
    if not files:
        raise cells.damaged(digest, "it has no weights")
    try:
        networks = tuple(TrainedNetwork.load(file) for file in files)
    except Unreadable:
        raise
    except ConfigError as error:
        raise cells.damaged(digest, str(error)) from None
    for number, (file, network) in enumerate(zip(files, networks, strict=True)):
        if (network.training, network.replica) != (digest, number):
            found = f"replica {network.replica} of {network.training!s:.40}"
            raise cells.damaged(digest, f"{file.name} is {found}")
    return networks
