"""Scores of a network on images or points: against labels, and against class probabilities where they are known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdsim.data.augmentation import Normalisation, Unchanged
from kdsim.population import Population
from kdsim.scores import brier_score, expected_calibration_error, negative_log_likelihood, top_k_accuracy
from kdsim.training.groups import Groups, group_names, group_scores

BATCH = 500
"""Images, or points, evaluated at a time."""


def scored(classes: int, truth: str, groups: Groups = ()) -> tuple[str, ...]:
    """Names of the scores that there are: top5 for more than five classes, bcp_ ones where p is more than labels."""
    names = ["loss", "accuracy", *(["top5"] if classes > 5 else []), "brier", "ece"]
    names += ["bcp_kl", "bcp_l2"] if truth != "labels" else []
    return (*names, *(group_names(truth) if groups else ()))


def scores(log_probs: Tensor, pool: Population, truth: str, groups: Groups = ()) -> dict[str, float]:
    """Means over the images.

    loss: -log q_y in nats; accuracy, top5: share of labels that are the most probable class, among the five most
    probable; brier: |q - e_y|^2; ece: expected calibration error in 15 bins (`kdsim.scores`). bcp_kl: KL(p, q) in nats;
    bcp_l2: |q - p|, where p is the BCP or what people say. All are NaN where an entry of `log_probs` is.

    Args:
        log_probs: (N, K).
        pool: p and y.
        truth: what p is, see `ImageSource`.
        groups: of classes: with them the scores by group too, see `kdsim.training.groups.group_scores`.
    """
    log_probs, labels = log_probs.double(), pool.y.to(log_probs.device)
    if log_probs.isnan().any():
        return dict.fromkeys(scored(log_probs.shape[-1], truth, groups), float("nan"))
    q = log_probs.exp()
    found = {
        "loss": negative_log_likelihood(log_probs, labels),
        "accuracy": top_k_accuracy(log_probs, labels),
        "top5": top_k_accuracy(log_probs, labels, min(5, q.shape[-1])),
        "brier": brier_score(q, labels),
        "ece": expected_calibration_error(q, labels),
    }
    if truth != "labels":
        p = pool.p.to(log_probs.device)
        found["bcp_kl"] = (torch.xlogy(p, p) - torch.where(p > 0, p * log_probs, 0.0)).sum(-1).mean()
        found["bcp_l2"] = (q - p).square().sum(-1).sqrt().mean()
    if groups:
        found |= group_scores(log_probs, pool.p.to(log_probs.device), labels, truth, groups)
    return {name: float(found[name]) for name in scored(q.shape[-1], truth, groups)}


@torch.no_grad()
def log_probs_of(module: nn.Module, images: Tensor, normalise: Normalisation | Unchanged, mixed: bool) -> Tensor:
    """log softmax of the module's outputs, in evaluation mode. Images or points as in `forward` -> (N, K) float32."""
    training = module.training
    module.eval()
    parts = [torch.log_softmax(forward(module, batch, normalise, mixed), -1) for batch in images.split(BATCH)]
    module.train(training)
    return torch.cat(parts)


def forward(
    module: Callable[[Tensor], Tensor], images: Tensor, normalise: Normalisation | Unchanged, mixed: bool
) -> Tensor:
    """Outputs in float32; with `mixed`, convolutions and products run in bfloat16. uint8 (b, 3, h, w) -> (b, K).

    Points (..., b, d) are as they are, and computed in float32 whatever `mixed` is.
    """
    if isinstance(normalise, Unchanged):
        return module(normalise(images)).float()
    x = normalise(images).contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=mixed):
        return module(x).float()
