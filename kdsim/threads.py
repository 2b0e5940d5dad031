"""How many threads mathematics takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch and BLAS compute on one thread.

    Sums are rounded as the number of threads has it, so numbers that are to be the same on every machine are computed
    so. Nor is it slower: teams of threads wait for each other at every product when another process wants a core.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
