"""Quality of predicted class probabilities against labels: loss, accuracy, Brier score, calibration error.

All take probabilities (..., N, K) of any number of predictors on the same N points and labels (N,), and return (...).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdsim.config import ConfigError, require_count


def negative_log_likelihood(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log q_y in nats. (..., N, K), (N,) -> (...)."""
    return -_at(log_probs, labels).mean(-1)


def top_k_accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """Share of points whose label is among the k highest scores. (..., N, K), (N,) -> (...).

    A label whose score ties with others counts by its expected place among them, so that constant scores get k / K.
    """
    require_count("k", k, most=scores.shape[-1])
    own = _at(scores, labels)[..., None]
    above = (scores > own).sum(-1)
    tied = (scores == own).sum(-1)  # the label included
    return ((k - above) / tied).clamp(0, 1).double().mean(-1)


def brier_score(probs: Tensor, labels: Tensor) -> Tensor:
    """Mean of |q - e_y|^2, between 0 and 2. (..., N, K), (N,) -> (...).

    Source: G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 1950.
    """
    return (probs.square().sum(-1) - 2 * _at(probs, labels) + 1).mean(-1)


def expected_calibration_error(probs: Tensor, labels: Tensor, bins: int = 15, *, adaptive: bool = False) -> Tensor:
    """Mean over bins of confidence, weighted by their points, of |accuracy - mean confidence|. (..., N, K) -> (...).

    Confidence is the largest probability. Bins are of equal width on [0, 1], or with `adaptive` of equal size in
    points (neighbours in confidence). It is biased upwards: a perfectly calibrated predictor has some
    sqrt(bins / N) of it.

    Source: Naeini, Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015
    (equal width, with 15 bins as in Guo et al., ICML 2017); Nixon et al., "Measuring calibration in deep learning",
    2019 (equal size).

    Raises:
        ConfigError: fewer than one bin, or with `adaptive` more bins than points.
    """
    require_count("bins", bins)
    confidence, predicted = probs.max(-1)  # (..., N)
    gap = (predicted == labels).double() - confidence.double()
    points = gap.shape[-1]
    if adaptive:
        if bins > points:
            raise ConfigError(f"bins = {bins!r} is not allowed: must be at most the {points} points")
        order = confidence.argsort(dim=-1, stable=True)
        rank = torch.arange(points, device=probs.device).expand_as(order)
        place = torch.empty_like(order).scatter_(-1, order, rank * bins // points)
    else:
        place = (confidence.double() * bins).nan_to_num().long().clamp(0, bins - 1)  # NaN stays NaN through `gap`
    sums = gap.new_zeros(*gap.shape[:-1], bins).scatter_add_(-1, place, gap)
    return sums.abs().sum(-1) / points


def _at(values: Tensor, labels: Tensor) -> Tensor:
    """values[..., n, labels[n]]. (..., N, K), (N,) -> (..., N)."""
    index = labels.to(values.device).expand(values.shape[:-1])[..., None]
    return values.gather(-1, index)[..., 0]
