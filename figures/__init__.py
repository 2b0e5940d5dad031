"""Figures: stored results in, matplotlib figure out. One a file; nothing here computes or simulates.

A figure's module, and with it matplotlib, is imported when the figure is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class _Figures(Mapping[str, Callable[..., Any]]):
    """By the name of a study, the function of the module of that name here."""

    def __init__(self, *names: str) -> None:
        self._names = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if name not in self._names:
            raise KeyError(name)
        return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").figure

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


FIGURES: Mapping[str, Callable[..., Any]] = _Figures(
    "noise-sweep",
    "dimension-sweep",
    "bias-sweep",
    "step-size-sweep",
    "batch-sweep",
    "pl-sweep",
    "frozen-labels",
    "nonconvex-sweep",
    "paper-synthetic",
    "image-noise-sweep",
    "cifar-distillation",
    "teacher-kinds",
    "guideline",
    "deviations",
    "long-tail",
    "training-curves",
    "learning-curves",
)

__all__ = ["FIGURES"]


def __getattr__(name: str) -> Any:
    """A figure's module, as `kdsim.figures.noise_sweep`."""
    if name.replace("_", "-") in FIGURES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(name.replace("-", "_") for name in FIGURES)]
