"""Posterior samples of a Bayesian teacher, made into one distribution for each example."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

PosteriorOrder = Literal["temper-then-average", "average-then-temper"]


def average_posterior(samples: Tensor, *, temperature: float, order: PosteriorOrder) -> Tensor:
    """Logits z with softmax(z / T) = the teacher's distribution at T. (S, ..., B, K) -> (..., B, K).

    The order matters: a mean of powers is not the power of a mean. It is up to 0.02 per class at T = 4.

        temper-then-average    p~_T = mean_s softmax(z_s / T)
        average-then-temper    p~_T proportional to (mean_s softmax(z_s))^(1/T)

    At T = 1 both are the predictive distribution. Losses divide their teacher's logits by T themselves, so the first
    returns T log p~_T.

    Args:
        samples: logits or log-probabilities of S posterior samples.
        temperature: T > 0, the one at which the loss will look at the teacher.
        order: which of the two.

    Source: I. Morad, N. Shlezinger, Y. C. Eldar, arXiv 2601.01484: samples of a variational posterior are tempered
    each, a Laplace posterior's mean is tempered.
    """
    inner = temperature if order == "temper-then-average" else 1.0
    log_probs = torch.log_softmax(samples / inner, -1)  # (S, ..., B, K)
    return inner * (log_probs.logsumexp(0) - math.log(samples.shape[0]))
