"""What there is to say beside a result, as a warning that names the line of the user's code."""

from __future__ import annotations

import inspect
import warnings


class KdsimWarning(UserWarning):
    """What is said beside a result: what failed, that another version computed a stored result, and so on."""


def warn(line: str) -> None:
    """Warn, and name the line of the user's code that called kdsim."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "kdsim":
        level, frame = level + 1, frame.f_back
    warnings.warn(line, KdsimWarning, stacklevel=level - 1 if frame is None else level)
