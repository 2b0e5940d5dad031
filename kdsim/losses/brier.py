"""The Brier score: squared error of the predicted probabilities."""

from __future__ import annotations

import torch
from torch import Tensor


def brier(logits: Tensor, q: Tensor) -> Tensor:
    """Mean over batch *and* classes of (softmax(z) - q)^2. K times this is the score as Brier has it.

    Trains teachers for calibrated probabilities. The squared error of the logits themselves against one-hot labels,
    `logit_mse(z, one_hot)`, is another loss: its outputs estimate p as they are, and their softmax is nearly flat at
    K = 100 (largest probability 2.7 % where z is exactly one-hot).

    Args:
        logits: (..., B, K).
        q: target probabilities, one-hot or not, (..., B, K).

    Returns:
        (...), between 0 and 2 / K.

    Source: G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78
    (1950); as a teacher's loss: S. M. Hamidi, X. Deng, R. Tan, L. Ye, A. H. Salamah, "How to train the teacher model
    for effective knowledge distillation", ECCV 2024, arXiv 2407.18041.
    """
    return (torch.softmax(logits, -1) - q).square().mean((-2, -1))
