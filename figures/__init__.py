"""Figures: stored results in, matplotlib figure out. One a file; nothing here computes or simulates."""

from collections.abc import Callable
from typing import Any

from kdsim.figures import (
    batch_sweep,
    bias_sweep,
    cifar_distillation,
    deviations,
    dimension_sweep,
    frozen_labels,
    guideline,
    image_noise_sweep,
    long_tail,
    noise_sweep,
    nonconvex_sweep,
    paper_synthetic,
    pl_sweep,
    step_size_sweep,
    teacher_kinds,
    training_curves,
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
    "image-noise-sweep": image_noise_sweep.figure,
    "cifar-distillation": cifar_distillation.figure,
    "teacher-kinds": teacher_kinds.figure,
    "guideline": guideline.figure,
    "deviations": deviations.figure,
    "long-tail": long_tail.figure,
    "training-curves": training_curves.figure,
}

__all__ = ["FIGURES"]
