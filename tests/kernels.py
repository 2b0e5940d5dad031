"""Each kernel is compiled once, though several workers of pytest-xdist want it at the same time.

numba writes what it has compiled into its cache, and looks there before it compiles. Without a lock two workers that
begin together both find nothing.
"""

from __future__ import annotations

import getpass
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher

_compile = Dispatcher.compile
# One for all threads: a thread that waits for numba's own lock must not keep another from the file's.
_lock = FileLock(Path(tempfile.gettempdir()) / f"kdsim-kernels-{getpass.getuser()}.lock", thread_local=False)


def share() -> None:
    """From now on a kernel with a cache is compiled, or read, by one process at a time."""

    def compile_in_turn(self: Dispatcher, signature: Any) -> Any:
        if isinstance(self._cache, NullCache):
            return _compile(self, signature)
        with _lock:
            return _compile(self, signature)

    Dispatcher.compile = compile_in_turn
