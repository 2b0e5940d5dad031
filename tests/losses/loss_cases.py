"""Random logits and labels, and one list of loss configurations that reaches every branch of every loss."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from kdsim.losses import (
    ABKD,
    DIST,
    DKD,
    KD,
    LTKD,
    TTM,
    WTTM,
    BalancedSoftmax,
    BayesianKD,
    Brier,
    CrossEntropy,
    LabelCrossEntropy,
    LogitAdjustment,
    LogitMSE,
    OutputMSE,
    Switched,
)

SEEDS = st.integers(0, 2**20)
TEMPERATURES = st.floats(0.5, 8.0)
WEIGHTS = st.floats(0.0, 10.0)
COUNTS = (5.0, 9.0, 2.0, 7.0, 1.0)

LOSSES = (
    CrossEntropy(),
    LabelCrossEntropy(),
    KD(),
    KD(standardised=True),
    BayesianKD(0.7, 4.0, 2.0),
    LogitMSE(),
    LogitMSE(centred=True),
    DKD(),
    DKD(standardised=True),
    DIST(),
    DIST(temperature=1.0),
    TTM(),
    WTTM(),
    WTTM(standardised=True),
    LTKD(),
    LTKD(class_counts=(5, 9, 2, 7, 1)),
    LTKD(rebalance=False),
    LTKD(equal_groups=False),
    LTKD(rebalance=False, equal_groups=False),
    ABKD(),
    ABKD(alpha=0.8, beta=0.3),
    ABKD(alpha=0.6, beta=0.0),
    ABKD(alpha=0.0, beta=0.6),
    ABKD(alpha=0.0, beta=0.0),
    Brier(1.0, 0.5),
    OutputMSE(1.0, 0.5),
    BalancedSoftmax(class_counts=COUNTS),
    BalancedSoftmax(0.3, 0.7, COUNTS),
    LogitAdjustment(0.0, 1.0, COUNTS, tau=1.5),
    Switched(),
    Switched(at_epoch=40.0),
    Switched(DKD(), Switched(LTKD(), BalancedSoftmax(class_counts=COUNTS), at_epoch=20.0), at_epoch=3.0),
)
CLASSES = 5  # as many as the counts above


def label_of(loss) -> str:
    """Name of a case in pytest's output."""
    return repr(loss)


def random_case(seed: int, batch: int = 4, classes: int = CLASSES, scale: float = 2.0, dtype=torch.float64):
    """Student logits, teacher logits and labels."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(batch, classes, dtype=dtype, generator=generator) for _ in range(2))
    return student, teacher, torch.randint(classes, (batch,), generator=generator)


@st.composite
def cases(draw, least_classes: int = 3):
    """Student logits, teacher logits and labels of random shape and scale; 2 to 6 examples, float64."""
    classes = draw(st.integers(least_classes, 8))
    return random_case(draw(SEEDS), draw(st.integers(2, 6)), classes, draw(st.floats(0.1, 5.0)))
