"""What a run showed on its validation set: final scores, and how much the loss fluctuates."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsim.engines.recorder import Record
from kdsim.measure.decomposition import columns
from kdsim.measure.floors import interval
from kdsim.population import Population
from kdsim.scores import negative_log_likelihood


def validate(record: Record, validation: Population) -> dict[str, float | None]:
    """Means over replicas with 95 % intervals, as columns NAME, NAME_low, NAME_high.

    final_loss (cross-entropy), accuracy, ece: against the labels, at the last step; bcp_l2: E|prediction - p| there.
    bayes_loss: loss of the BCP on the same labels; excess_loss: final_loss above it. fluctuation: standard deviation of
    a replica's loss over the checkpoints in the tail, trend included. None where a replica diverged.

    Args:
        record: of a `ValidationRecorder`.
        validation: the held-out points.
    """
    bayes = negative_log_likelihood(validation.p.clamp(min=1e-300).log(), validation.y).item()
    loss = record.curves["loss"].double()  # (C, R)
    values: dict[str, Tensor] = {
        "final_loss": loss[-1],
        "excess_loss": loss[-1] - bayes,
        "accuracy": record.curves["label_accuracy"][-1].double(),
        "fluctuation": loss[record.steps > record.tail_start].std(0),
        "bcp_l2": record.curves["bcp_l2"][-1].double(),
        "ece": record.curves["ece"][-1].double(),
    }
    diverged = bool((record.diverged_at >= 0).any())
    found: dict[str, float | None] = {"bayes_loss": bayes}
    for name, each in values.items():
        if diverged or not torch.isfinite(each).all():
            found |= dict.fromkeys((name, f"{name}_low", f"{name}_high"))
        else:
            found |= columns(name, interval(each))
    return found
