"""Figures: stored results in, matplotlib figure out. One a file; nothing here computes or simulates."""

from collections.abc import Callable
from typing import Any

from kdsim.figures import noise_sweep

FIGURES: dict[str, Callable[..., Any]] = {"noise-sweep": noise_sweep.figure}

__all__ = ["FIGURES"]
