"""Whether kernels are being compiled, which takes a while the first time and never again on the same machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numba.core import event


class _Listener(event.Listener):
    """Calls back at the first compilation of a kernel that this process asks for."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def on_start(self, event: event.Event) -> None:
        kernel = event.data["dispatcher"].py_func.__module__
        if self.callback is not None and kernel.startswith(__package__):
            callback, self.callback = self.callback, None
            callback()

    def on_end(self, event: event.Event) -> None:
        pass


@contextmanager
def announced(callback: Callable[[], None]) -> Iterator[None]:
    """Within the block, `callback` is called once if kernels have to be compiled; not if they come from the cache."""
    with event.install_listener("numba:compile", _Listener(callback)):
        yield
