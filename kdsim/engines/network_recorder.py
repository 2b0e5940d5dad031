"""The recorder of students that are not linear in their parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsim.engines.recorder import DIVERGED, METRICS, Recorder, _at_largest, _classes_first
from kdsim.population import Population
from kdsim.scores import expected_calibration_error, negative_log_likelihood, top_k_accuracy
from kdsim.students.network import NetworkStudent

LABEL_METRICS = ("loss", "label_accuracy", "ece")
"""Recorded at the points of a validation set: cross-entropy, accuracy and calibration error against their labels."""
BLOCK_NUMBERS = 1 << 20
"""Numbers of a layer's outputs over the pool that are held at once."""


class NetworkRecorder(Recorder):
    """Records parameters (R, P) where `Recorder` records errors (R, K, d).

    dist_sq is |W - W*|^2 of the linear map, NaN for a student that has none. Excess risk is the divergence from p
    itself, whether the student can be p or not. A replica has diverged once |parameters|^2 is not finite or exceeds
    `DIVERGED`.
    """

    student: NetworkStudent

    def _tables(self, population: Population, reference: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        self.limit = DIVERGED
        self.reference = reference.to(device, torch.float64)
        self.best_outputs = _classes_first(self.student.best_outputs(population.p).to(device, dtype))
        shapes = self.student.shapes(population.features, population.classes)
        self.block = max(1, BLOCK_NUMBERS // (population.size * max(shape[0] for shape, _ in shapes)))

    def _distance(self, error: Tensor) -> tuple[Tensor, Tensor]:
        parameters = error.to(torch.float64)
        size = parameters.square().sum(-1)
        linear = self.student.linear_map(parameters, self.reference.shape[-1])
        if linear is None:
            return torch.full_like(size, float("nan")), size
        return (linear - self.reference).square().sum((-2, -1)), size

    def _pool_metrics(self, error: Tensor) -> Tensor:
        return torch.cat([self._block_metrics(part) for part in error.split(self.block)], dim=-1)

    def _outputs(self, error: Tensor) -> Tensor:
        """Of every replica at every point, (R, N, K)."""
        return torch.func.vmap(self.student.outputs, (0, None))(error, self.x)

    def _block_metrics(self, error: Tensor) -> Tensor:
        outputs = self._outputs(error)
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

    def _block_metrics(self, error: Tensor) -> Tensor:
        log_probs = self._outputs(error).log_softmax(-1)
        loss = negative_log_likelihood(log_probs.double(), self.labels)
        hits = top_k_accuracy(log_probs, self.labels)
        calibration = expected_calibration_error(log_probs.exp(), self.labels)
        return torch.cat([super()._block_metrics(error), torch.stack([loss, hits, calibration])])
