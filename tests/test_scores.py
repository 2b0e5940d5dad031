"""Calibration and scores: against loops over points and bins, and predictors whose truth is known."""

from __future__ import annotations

import math

import pytest
import torch

from kdsim.config import ConfigError
from kdsim.scores import (
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    top_k_accuracy,
)


def _predictions(replicas: int = 3, points: int = 200, classes: int = 4, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(replicas, points, classes, generator=generator, dtype=torch.float64)
    probs = logits.softmax(-1)
    labels = torch.multinomial(probs[0], 1, generator=generator)[:, 0]
    return probs, labels


def test_scores_against_loops():
    probs, labels = _predictions()
    for r, q in enumerate(probs):
        nll = -sum(math.log(q[n, y]) for n, y in enumerate(labels.tolist())) / 200
        brier = sum(((q[n] - torch.eye(4)[y]) ** 2).sum().item() for n, y in enumerate(labels.tolist())) / 200
        top2 = sum(y in q[n].topk(2).indices.tolist() for n, y in enumerate(labels.tolist())) / 200
        assert negative_log_likelihood(probs.log(), labels)[r].item() == pytest.approx(nll)
        assert brier_score(probs, labels)[r].item() == pytest.approx(brier)
        assert top_k_accuracy(probs, labels, 2)[r].item() == pytest.approx(top2)
        assert top_k_accuracy(probs, labels)[r].item() == pytest.approx((q.argmax(-1) == labels).double().mean().item())


def _naive_ece(q: torch.Tensor, labels: torch.Tensor, bins: int, adaptive: bool) -> float:
    rows = sorted((float(row.max()), int(row.argmax()) == int(y)) for row, y in zip(q, labels, strict=True))
    if adaptive:
        groups = [[row for i, row in enumerate(rows) if i * bins // len(rows) == b] for b in range(bins)]
    else:
        groups = [[row for row in rows if min(int(row[0] * bins), bins - 1) == b] for b in range(bins)]
    return sum(abs(sum(hit - confidence for confidence, hit in group)) for group in groups) / len(rows)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("bins", [1, 7, 15])
def test_calibration_error_against_a_loop(adaptive, bins):
    probs, labels = _predictions()
    found = expected_calibration_error(probs, labels, bins, adaptive=adaptive)
    assert found.tolist() == pytest.approx([_naive_ece(q, labels, bins, adaptive) for q in probs])


def test_a_calibrated_predictor_has_no_error_and_a_sharpened_one_has():
    """40,000 points: 0.02 is four times what chance leaves."""
    probs, labels = _predictions(1, 40_000)
    assert expected_calibration_error(probs, labels).item() < 0.02
    sharpened = (3 * probs.log()).softmax(-1)
    assert expected_calibration_error(sharpened, labels).item() > 0.1
    assert negative_log_likelihood(sharpened.log(), labels) > negative_log_likelihood(probs.log(), labels)


def test_ties_count_by_their_expectation():
    scores, labels = torch.zeros(5, 4), torch.tensor([0, 1, 2, 3, 0])
    assert top_k_accuracy(scores, labels).item() == 0.25 and top_k_accuracy(scores, labels, 3).item() == 0.75
    assert top_k_accuracy(scores, labels, 4).item() == 1


def test_bad_numbers_are_refused():
    probs, labels = _predictions(1, 10)
    with pytest.raises(ConfigError, match="bins"):
        expected_calibration_error(probs, labels, 0)
    with pytest.raises(ConfigError, match="bins = 11"):
        expected_calibration_error(probs, labels, 11, adaptive=True)
    with pytest.raises(ConfigError, match="k"):
        top_k_accuracy(probs, labels, 5)


def test_the_calibration_error_has_15_bins():
    """Confidences .61 (right) and .69 (wrong) share one of ten bins, [.6, .7), and lie in two of fifteen."""
    probs = torch.tensor([[0.61, 0.39], [0.69, 0.31]], dtype=torch.float64)
    assert expected_calibration_error(probs, torch.tensor([0, 1])).item() == pytest.approx((0.39 + 0.69) / 2)
