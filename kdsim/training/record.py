"""What a training saw: curves on the validation images, and scores on the test images at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainingRecord:
    """R replicas, C evaluations. Names of scores: see `kdsim.training.evaluation.scores`.

    Attributes:
        steps: steps of the evaluations, (C,) int64.
        curves: score on the validation images to (C, R) float64, and train_loss: mean loss of the steps since the last
            evaluation. NaN after a replica diverged.
        test: score on the test images to (R,) float64: at the last step, which is the headline. NaN where diverged.
        best_test: likewise at the evaluation that was best on the validation images.
        best_step: that evaluation's step, (R,) int64; by accuracy, among equals by loss, the first of them.
        diverged_at: step at which a replica was found to have diverged, -1 if it did not, (R,) int64.
        seconds: that each replica took, all its sessions together, (R,) float64.
        truth: what the probabilities p of validation and test are: "bcp", "people" or "labels" each.
        pieces: number of the stretch of constant step size that ends at each evaluation, (C,) int64; all 0 where the
            step size changes all the time.
    """

    steps: Tensor
    curves: dict[str, Tensor]
    test: dict[str, Tensor]
    best_test: dict[str, Tensor]
    best_step: Tensor
    diverged_at: Tensor
    seconds: Tensor
    pieces: Tensor
    truth: tuple[str, str] = ("labels", "labels")

    @property
    def replicas(self) -> int:
        """Number of replicas R."""
        return self.diverged_at.numel()


@dataclass(frozen=True)
class ReplicaResult:
    """What one replica gave, see `TrainingRecord`; curves are (metrics, C)."""

    curves: Tensor
    test: Mapping[str, float]
    best_test: Mapping[str, float]
    best_step: int
    diverged_at: int
    seconds: float


def joined(
    steps: Sequence[int],
    pieces: Sequence[int],
    metrics: Sequence[str],
    truth: tuple[str, str],
    results: Sequence[ReplicaResult],
) -> TrainingRecord:
    """The record of all replicas."""
    curves = torch.stack([result.curves for result in results], -1)  # (metrics, C, R)

    def column(name: str) -> dict[str, Tensor]:
        found = [getattr(result, name) for result in results]
        names = next((scores.keys() for scores in found if scores), ())
        nothing = float("nan")
        return {key: torch.tensor([scores.get(key, nothing) for scores in found], dtype=torch.float64) for key in names}

    return TrainingRecord(
        steps=torch.tensor(list(steps)),
        curves=dict(zip(metrics, curves, strict=True)),
        test=column("test"),
        best_test=column("best_test"),
        best_step=torch.tensor([result.best_step for result in results]),
        diverged_at=torch.tensor([result.diverged_at for result in results]),
        seconds=torch.tensor([result.seconds for result in results], dtype=torch.float64),
        pieces=torch.tensor(list(pieces)),
        truth=truth,
    )
