"""The recorder of students that are not linear in their parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdsim.engines.recorder import DIVERGED, METRICS, Recorder, _at_largest, _classes_first
from kdsim.population import Population
from kdsim.scores import expected_calibration_error, negative_log_likelihood, top_k_accuracy
from kdsim.students.network import NetworkStudent

LABEL_METRICS = ("loss", "label_accuracy", "ece")
"""Recorded at the points of a validation set: cross-entropy, accuracy and calibration error against their labels."""


class NetworkRecorder(Recorder):
    """Records parameters (R, P) where `Recorder` records errors (R, K, d).

    dist_sq is |W - W*|^2 of the linear map, NaN for a student that has none. Excess risk is the divergence from p
    itself, whether the student can be p or not. A replica has diverged once |parameters|^2 is not finite or exceeds
    `DIVERGED`.
    """

    student: NetworkStudent  # type: ignore[assignment]  # its outputs are asked for, nowhere x times parameters

    def _tables(self, population: Population, reference: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        self.limit = DIVERGED
        self.reference = reference.to(device, torch.float64)
        self.linear = not reference.isnan().any()
        self.best_outputs = _classes_first(self.student.best_outputs(population.p).to(device, dtype))

    def _distance(self, error: Tensor) -> tuple[Tensor, Tensor]:
        size = torch.linalg.vector_norm(error, dim=-1).to(torch.float64).square()
        if not self.linear:
            return torch.full_like(size, float("nan")), size
        linear: Any = self.student.linear_map(error.to(torch.float64), self.reference.shape[-1])
        return (linear - self.reference).square().sum((-2, -1)), size

    def _block_metrics(self, error: Tensor) -> Tensor:
        return self._metrics_of(self.student.pool_outputs(error, self.x, self.p.shape[-1]))

    def _metrics_of(self, outputs: Tensor) -> Tensor:
        """What is recorded of outputs (R, N, K), in the order of `metrics` after dist_sq."""
        risk, gap = self.student.head.compare(outputs - self.best_outputs, self.best_outputs)
        l2 = gap.square().sum(-1).sqrt_()
        metrics = (risk, _at_largest(self.p, outputs), l2)
        return torch.stack([metric.mean(-1, dtype=torch.float64) for metric in metrics])


class ValidationRecorder(NetworkRecorder):
    """A `NetworkRecorder` on a validation set, which looks at its labels as well. For cross-entropy."""

    def metric_names(self, population: Population) -> tuple[str, ...]:
        return (*METRICS, *LABEL_METRICS)

    def _tables(self, population: Population, reference: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        super()._tables(population, reference, dtype, device)
        self.labels = population.y.to(device)

    def _metrics_of(self, outputs: Tensor) -> Tensor:
        # log_softmax along an axis that is not the last in memory takes twenty times as long as its parts.
        log_probs = outputs - outputs.logsumexp(-1, keepdim=True)
        loss = negative_log_likelihood(log_probs.double(), self.labels)
        hits = top_k_accuracy(log_probs, self.labels)
        calibration = expected_calibration_error(log_probs.exp(), self.labels)
        return torch.cat([super()._metrics_of(outputs), torch.stack([loss, hits, calibration])])
