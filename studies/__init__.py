"""Studies that come with kdsim: declarations of what to simulate, one a file.

A study's module, and with it torch, is imported when the study is asked for. Which module it is stands in
`__init__.pyi`; `NAMES` is known without any of them.
"""

from __future__ import annotations

from typing import Any

import lazy_loader as _lazy

NAMES = {
    "noise-sweep": "NoiseSweep",
    "dimension-sweep": "DimensionSweep",
    "bias-sweep": "BiasSweep",
    "frozen-labels": "FrozenLabels",
    "step-size-sweep": "StepSizeSweep",
    "batch-sweep": "BatchSweep",
    "pl-sweep": "PLSweep",
    "nonconvex-sweep": "NonconvexSweep",
    "paper-synthetic": "PaperSynthetic",
    "image-noise-sweep": "ImageNoiseSweep",
    "cifar-distillation": "CifarDistillation",
    "teacher-kinds": "TeacherKinds",
    "guideline": "Guideline",
    "bayesian-losses": "BayesianLosses",
    "few-shot": "FewShot",
    "temperature": "Temperature",
    "posterior-samples": "PosteriorSamples",
    "bnn-ablation": "BNNAblation",
    "deviations": "Deviations",
    "long-tail": "LongTailStudy",
    "train": "Train",
    "distill": "Distill",
}
"""Every study by its name, in the order in which they are listed."""

_import, _list, __all__ = _lazy.attach_stub(__name__, __file__)
__all__ = [*__all__, "NAMES", "STUDIES"]


def __getattr__(name: str) -> Any:
    """A study, or `STUDIES`, all of them."""
    return tuple(map(_import, NAMES.values())) if name == "STUDIES" else _import(name)


def __dir__() -> list[str]:
    return list(__all__)
