"""How good a teacher is: its predictive distribution, and the supervision that its posterior samples are."""

from __future__ import annotations

import math

from torch import Tensor

from kdsim.config import ConfigError
from kdsim.population import Population
from kdsim.scores import expected_calibration_error
from kdsim.training.evaluation import scores

BINS = 15
"""Of the adaptive calibration error; fewer where there are fewer images."""
PREDICTIVE = ("accuracy", "loss", "brier", "ece", "bcp_l2", "bcp_kl")


def quality(log_probs: Tensor, pool: Population, truth: str) -> dict[str, float | None]:
    """Scores of the mean over samples, and moments of the samples about p.

    Of the predictive mean m(x), the mean of the samples q_1 .. q_S: accuracy, loss (-log m_y in nats), brier, ece, and
    where p is known bcp_l2 = E|m - p| and bcp_kl = E KL(p, m), see `kdsim.training.evaluation.scores`; adaptive_ece,
    with bins of equal numbers of images.

    As a supervision, a target being the q of one sample, E_x over the images:

        bias_sq         E|m - p|^2
        nu              E tr Cov(q | x) / K, unbiased over the posterior; 0 for S = 1, a teacher without samples
        gradient_noise  E[tr Cov(q | x) + |E[q | x] - p|^2] = E|q - p|^2

    The last is the second moment of the gradient at the Bayes classifier: cross-entropy against q has the gradient
    phi - q in the outputs, which at phi = p is p - q, and E|p - q|^2 splits into variance and squared bias. A one-hot
    label drawn from p has no bias and tr Cov = 1 - |p|^2, so that it has E[1 - |p|^2] in this place: theory's sigma*^2
    where |x|^2 = 1. It is the mean over samples of |q_s - p|^2, unbiased over the posterior, whereas bias_sq is that of
    the teacher at hand: on the average it has tr Cov / S more than the mean over infinitely many samples would, and so
    gradient_noise = bias_sq + (1 - 1 / S) K nu.

    Where people are the truth, their own sampling noise is part of all distances to p.

    Args:
        log_probs: (S, N, K), normalised.
        pool: p and y of the N images.
        truth: what p is, "bcp", "people" or "labels", see `ImageSource`; with labels alone, what looks at p is None.

    Raises:
        ConfigError: log_probs is of another shape, or not normalised.
    """
    if log_probs.dim() != 3 or log_probs.shape[1:] != pool.p.shape or not len(log_probs):
        raise ConfigError(f"shape of log_probs = {tuple(log_probs.shape)} is not allowed: must be (S, N, K)")
    log_probs = log_probs.double().cpu()
    off = log_probs.logsumexp(-1).abs().max().item()
    if not off <= 1e-4:
        raise ConfigError(f"log_probs must be normalised: the logarithm of a sum is {off:.3g}")
    count = len(log_probs)
    mean = log_probs.logsumexp(0) - math.log(count)  # (N, K)
    found = scores(mean, pool, truth)
    values: dict[str, float | None] = {name: found.get(name) for name in PREDICTIVE}
    m, q = mean.exp(), log_probs.exp()
    values["adaptive_ece"] = expected_calibration_error(m, pool.y, min(BINS, len(m)), adaptive=True).item()
    spread = (q - m).square().sum((0, 2)) / max(count - 1, 1)  # (N,) tr Cov
    values["nu"] = spread.mean().item() / m.shape[-1]
    known = truth != "labels"
    values["bias_sq"] = (m - pool.p).square().sum(-1).mean().item() if known else None
    values["gradient_noise"] = (q - pool.p).square().sum(-1).mean().item() if known else None
    return values
