"""How many threads mathematics takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Within the block torch and BLAS compute on so many threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch and BLAS compute on one thread.

    Sums are rounded as the number of threads has it, so numbers that are to be the same on every machine are computed
    so. Nor is it slower: teams of threads wait for each other at every product when another process wants a core.
    """
    with on_threads(1):
        yield
