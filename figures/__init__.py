"""Figures: stored results in, matplotlib figure out. One a file; nothing here computes or simulates."""

from collections.abc import Callable
from typing import Any

from kdsim.figures import (
    batch_sweep,
    bias_sweep,
    dimension_sweep,
    frozen_labels,
    noise_sweep,
    nonconvex_sweep,
    paper_synthetic,
    pl_sweep,
    step_size_sweep,
)

FIGURES: dict[str, Callable[..., Any]] = {
    "noise-sweep": noise_sweep.figure,
    "dimension-sweep": dimension_sweep.figure,
    "bias-sweep": bias_sweep.figure,
    "step-size-sweep": step_size_sweep.figure,
    "batch-sweep": batch_sweep.figure,
    "pl-sweep": pl_sweep.figure,
    "frozen-labels": frozen_labels.figure,
    "nonconvex-sweep": nonconvex_sweep.figure,
    "paper-synthetic": paper_synthetic.figure,
}

__all__ = ["FIGURES"]
