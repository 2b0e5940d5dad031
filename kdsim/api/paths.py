"""Folders as users name them."""

from __future__ import annotations

import os
from pathlib import Path

from kdsim.config import require


def folder_of(what: str, path: object) -> Path:
    """The folder that an argument names; `~` stands for the home folder, as for pandas.

    Args:
        what: name of the argument.
        path: its value.

    Raises:
        ConfigError: it is no path, or empty (which would be the current folder).

    Example:
        >>> folder_of("out", "results").name
        'results'
    """
    named = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    require(isinstance(named, str) and named != "", what, path, "the path of a folder")
    try:
        return Path(str(named)).expanduser()
    except RuntimeError:  # nobody of that name has a home folder
        return Path(str(named))
