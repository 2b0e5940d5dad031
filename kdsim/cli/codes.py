"""Exit codes of the command line."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended; docs/operations.md says the same to users."""

    DONE = 0
    FAILED = 1
    """It ran, and something of it failed, is damaged or differs: each is named in a line."""
    REFUSED = 2
    """What was asked for is not allowed or not possible: one line says what, and what is allowed."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM: what was done is saved."""
    UNREAD = 141
    """The reader of standard output went away, as `head` does: what was run is stored."""
