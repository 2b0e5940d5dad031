"""Published settings of the distillation losses for pairs of CIFAR-100 networks.

A pair and a loss that are not here have no settings known to this project: the class's defaults are then a start for a
sweep, not a reproduction.
"""

from __future__ import annotations

from kdsim.config import choose
from kdsim.losses.base import DistillationLoss
from kdsim.losses.distillation import ABKD, DIST, DKD, KD, TTM, WTTM

# One setting for all three pairs: KD as in the CIFAR-100 benchmarks, DIST at their temperature, standardised KD from
# its paper's configurations.
_COMMON: dict[str, DistillationLoss] = {
    "kd": KD(0.1, 0.9, 4.0),
    "kd-standardised": KD(0.1, 9.0, 2.0, standardised=True),
    "dist": DIST(1.0, 1.0, 4.0),
}

PRESETS: dict[str, dict[str, DistillationLoss]] = {
    "wrn-40-2 to wrn-16-2": _COMMON
    | {
        "dkd": DKD(beta=6.0),
        "ttm": TTM(teacher_weight=101.0, gamma=0.1),
        "wttm": WTTM(teacher_weight=4.0, gamma=0.1),
    },
    "resnet32x4 to resnet8x4": _COMMON
    | {
        "dkd": DKD(beta=8.0),
        "ttm": TTM(teacher_weight=100.0, gamma=0.1),
        "wttm": WTTM(teacher_weight=3.0, gamma=0.1),
    },
    "resnet56 to resnet20": _COMMON
    | {
        "dkd": DKD(beta=2.0),
        "ttm": TTM(teacher_weight=7.0, gamma=0.3),
        "wttm": WTTM(teacher_weight=1.5, gamma=0.3),
        "abkd": ABKD(teacher_weight=32.0, alpha=0.8, beta=0.3),
    },
}
"""Losses by pair, "teacher to student", and name."""


def preset(pair: str, loss: str) -> DistillationLoss:
    """The published settings of `loss` for `pair`, or a `ConfigError` that lists what there is."""
    return choose(f"preset for {pair}", loss, choose("pair of networks", pair, PRESETS))
