"""Cells, and so the names of results, do not depend on the number of threads."""

from __future__ import annotations

import torch

from kdsim.config import digest
from kdsim.studies import NoiseSweep
from kdsim.study.packs import cells_of


def test_cells_are_those_of_any_number_of_threads() -> None:
    """The ridge of noise-sweep is a fraction of the pool's L, and one thread rounds it otherwise than two do."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append([digest(cell) for cell in cells_of(NoiseSweep())])
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]
