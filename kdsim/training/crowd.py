"""All replicas of a network of points in one program: replica r is row r of every tensor.

`Walk` takes one replica through torch's modules, which for networks of some thousand weights is all overhead. Here the
parameters are one matrix (R, P), and a forward pass is that of all rows (`torch.func.vmap` of the module). A row takes
the steps that its `Walk` takes, to rounding: visits, targets, first weights, losses, evaluations. Rows do not meet: a
replica that diverges is left where it did, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from kdsim import threads
from kdsim.config import require
from kdsim.engines.optimisers import WeightSampler
from kdsim.population import Known, Population
from kdsim.training.checkpoints import ALL, Checkpoints
from kdsim.training.evaluation import BATCH, forward, scored, scores
from kdsim.training.flat_module import vector_of
from kdsim.training.record import ReplicaResult
from kdsim.training.trained import TrainedNetwork
from kdsim.training.walk import CHUNK_STEPS, Task, fresh, require_finite, require_form

CHUNK_NUMBERS = 2**22
"""Most numbers among the targets that are drawn at a time, however many replicas there are."""
EVALUATED = 2**16
"""Most points, counted once for each replica, that are evaluated at a time: 32 MB of 128 features."""


def fits(task: Task) -> bool:
    """Whether the replicas of a task can be rows: points, and nothing drawn at a step but visits and targets."""
    sampled = isinstance(task.recipe.optimiser, WeightSampler)
    return task.train.x.ndim == 2 and task.augmentation is None and not task.dropout and not sampled


class Crowd:
    """R replicas of a `Task`, at the start or where a stored state left them.

    Attributes:
        parameters, gradient: (R, P) float32, in the order of `FlatModule`.
        leaves: views of the former by the names of the module's parameters, (R, *shape) each.
        diverged_at: step at which each was found to have diverged, -1 if it did not. (R,)
        rank, best_step: accuracy and -loss of each one's best evaluation so far, (R, 2), and its step, (R,).
        kept: its parameters then; of a replica that diverged, those where it did. (R, P)
    """

    def __init__(self, task: Task, replicas: int, found: dict[str, Any] | None = None) -> None:
        require(fits(task), "task", task.network, "one on points, without dropout and drawn weights")
        self.task, self.replicas = task, replicas
        self.module = fresh(task, 0)
        starts = [vector_of(fresh(task, replica)) for replica in range(replicas)]
        self.parameters = torch.stack(starts).to(task.device)
        self.leaves = {name: part.requires_grad_() for name, part in self._named(self.parameters).items()}
        self.gradient = torch.zeros_like(self.parameters)
        self.optimiser = task.recipe.optimiser.for_training(task.train.size, task.steps)
        self.buffers = self.optimiser.buffers(self.parameters)
        self.step_size = torch.full((replicas, 1), task.recipe.step_size, device=task.device)
        self.step, self.schedule = 0, task.schedule()
        self.curves = torch.full((len(task.metrics), len(self.schedule), replicas), float("nan"), dtype=torch.float64)
        self.loss_sum = torch.zeros(replicas, dtype=torch.float64, device=task.device)
        self.diverged_at = torch.full((replicas,), -1)
        self.rank = torch.tensor([[-1.0, 0.0]], dtype=torch.float64).repeat(replicas, 1)
        self.best_step = torch.zeros(replicas, dtype=torch.int64)
        self.kept = torch.zeros_like(self.parameters)
        self.samples = task.samples(replicas)
        numbers = replicas * task.recipe.batch_size * task.train.classes
        self.chunk_steps = max(1, min(CHUNK_STEPS, CHUNK_NUMBERS // numbers))
        self._chunk: tuple[int, Tensor, Tensor | None] | None = None
        if found is not None:
            self._restore(found)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.step == self.task.steps or bool((self.diverged_at >= 0).all())

    @property
    def done(self) -> int:
        """Replica-steps: those of a replica that diverged end there."""
        return int(torch.where(self.diverged_at >= 0, self.diverged_at, self.step).sum())

    def advance(self) -> None:
        """One step of every replica, and the evaluation that is due after it."""
        task = self.task
        index, q = self._visits()
        points = task.train.x[index]  # (R, b, d)
        outputs = self._outputs(self.leaves, points)  # (R, b, K)
        said = self._said(points, index) if task.teachers else q.log()
        loss = task.loss(outputs, said, task.train.y[index], task.epoch(self.step))  # (R,)
        require(loss.shape == (self.replicas,), "shape of the loss", tuple(loss.shape), f"({self.replicas},)")
        # A row's loss depends on its own parameters alone: the gradient of the sum is that of each.
        parts = torch.autograd.grad(loss.sum(), list(self.leaves.values()))
        gradient = torch.cat([part.flatten(1) for part in parts], 1, out=self.gradient)
        step_size = self.step_size * task.recipe.schedule.factor(self.step, task.steps)
        with torch.no_grad():
            self.optimiser.update(self.parameters, gradient, self.buffers, step_size, self.step)
        self.loss_sum += loss.detach()
        self.step += 1
        if self.step in self.schedule:
            self._evaluate()

    def _outputs(self, named: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Of each row's network at its own points (R, b, d), or at the same points (b, d) for all. (R, b, K)."""
        rows = vmap(lambda own, x: functional_call(self.module, own, (x,)), (0, 0 if x.ndim == 3 else None))
        return forward(lambda x: rows(named, x), x, self.task.normalise, self.task.mixed)

    def _said(self, points: Tensor, index: Tensor) -> Tensor:
        """What the teachers say: row r hears number r modulo their number. (R, b, K), or (S, R, b, K)."""
        teachers, parts = self.task.teachers[: self.replicas], []
        with torch.no_grad():
            for number, teacher in enumerate(teachers):
                rows = slice(number, None, len(teachers))
                found = teacher(points[rows].flatten(0, 1), index[rows].flatten())  # (..., rows b, K)
                parts.append((rows, found.unflatten(-2, index[rows].shape)))
        said = found.new_empty(*found.shape[:-2], *index.shape, found.shape[-1])
        for rows, part in parts:
            said[..., rows, :, :] = part
        return said

    @torch.no_grad()
    def log_probs(self, parameters: Tensor, pool: Population) -> Tensor:
        """log softmax of the outputs of all rows. (R, N, K) float32."""
        named, blocks = self._named(parameters), pool.x.split(max(1, min(BATCH, EVALUATED // self.replicas)))
        return torch.cat([torch.log_softmax(self._outputs(named, x), -1) for x in blocks], 1)

    def scores(self, pool: Population, truth: str) -> list[dict[str, float]]:
        """Of the present parameters, one a row."""
        return [scores(each, pool, truth, self.task.groups) for each in self.log_probs(self.parameters, pool)]

    def results(
        self, test: Population, truth: str, training: str, data: str, seconds: float
    ) -> list[tuple[ReplicaResult, TrainedNetwork]]:
        """What each replica gave at its end; see `ReplicaResult`, `TrainedNetwork` and `TrainingRecord`.

        Args:
            seconds: that all took together; each gets an equal share.
        """
        task, lost = self.task, self.diverged_at >= 0
        nothing = dict.fromkeys(scored(task.train.classes, truth, task.groups), float("nan"))
        best = [scores(each, test, truth, task.groups) for each in self.log_probs(self.kept, test)]
        last, own = self.scores(test, truth), self.scores(task.validation, task.truth)
        ended = torch.where(lost[:, None].to(task.device), self.kept, self.parameters)
        weights = {name: part.cpu() for name, part in self._named(ended).items()}
        found = []
        for row, gone in enumerate(lost.tolist()):
            steps = int(self.best_step[row]), int(self.diverged_at[row])
            tests = (nothing, nothing) if gone else (last[row], best[row])
            result = ReplicaResult(self.curves[..., row], *tests, *steps, seconds / self.replicas)
            tensors = {name: part[row].clone() for name, part in weights.items()}
            found.append((result, task.trained(tensors, row, training, data, {} if gone else own[row])))
        return found

    def state(self) -> dict[str, Any]:
        """Everything that the replicas need to go on: tensors on the CPU and the step."""
        tensors = {name: tensor.cpu().clone() for name, tensor in self._tensors().items()}
        return {"step": self.step, **tensors, "optimiser": {k: v.cpu().clone() for k, v in self.buffers.items()}}

    def _restore(self, found: dict[str, Any]) -> None:
        require_form(found, self.state(), f"the stored state of {self.replicas} replicas", self.task)
        self.step = found["step"]
        for name, tensor in self._tensors().items():
            tensor.copy_(found[name])
        for name, buffer in self.buffers.items():
            buffer.copy_(found["optimiser"][name])

    def _tensors(self) -> dict[str, Tensor]:
        names = ("parameters", "kept", "curves", "loss_sum", "diverged_at", "rank", "best_step")
        return {name: getattr(self, name) for name in names}

    def _named(self, parameters: Tensor) -> dict[str, Tensor]:
        """Views of (R, P) by the names of the module's parameters, (R, *shape) each."""
        own = dict(self.module.named_parameters())
        parts = parameters.detach().split([tensor.numel() for tensor in own.values()], 1)
        return {name: part.unflatten(1, own[name].shape) for name, part in zip(own, parts, strict=True)}

    def _evaluate(self) -> None:
        """As `Walk` does, row by row."""
        number, task = self.schedule.index(self.step), self.task
        since = self.step - (self.schedule[number - 1] if number else 0)
        seen, losses = self.scores(task.validation, task.truth), (self.loss_sum / since).tolist()
        finite = self.parameters.isfinite().all(1).tolist()
        for row in (self.diverged_at < 0).nonzero()[:, 0].tolist():
            values = torch.tensor([losses[row], *seen[row].values()], dtype=torch.float64)
            self.curves[:, number, row] = values
            rank = (seen[row]["accuracy"], -seen[row]["loss"])
            if not (values[:2].isfinite().all() and finite[row]):
                self.diverged_at[row] = self.step
            elif rank > tuple(self.rank[row].tolist()):
                self.rank[row], self.best_step[row] = torch.tensor(rank, dtype=torch.float64), self.step
            else:
                continue
            self.kept[row] = self.parameters[row]
        self.loss_sum.zero_()

    def require_finite(self) -> None:
        """Refuse a loss that is infinite at the targets of the first batch, see `kdsim.training.walk`."""
        require_finite(self.task, *self._visits())

    def _visits(self) -> tuple[Tensor, Known]:
        """Point numbers (R, b) and targets (R, b, K) of this step; without teachers alone are there targets."""
        batch_size = self.task.recipe.batch_size
        first = self.step - self.step % self.chunk_steps
        if self._chunk is None or self._chunk[0] != first:
            last = min(first + self.chunk_steps, self.task.steps)
            self._chunk = (first, *self.samples.visits(first, last, targets=not self.task.teachers))
        _, index, q = self._chunk
        visits = slice((self.step - first) * batch_size, (self.step - first + 1) * batch_size)
        return index[:, visits], None if q is None else q[:, visits]


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Within the block torch computes on one thread, on a CPU.

    An operation of a step takes some 20 microseconds. A second thread gains nothing there, and where another process
    wants its core both wait at every barrier: long-tail then ran eight times slower.
    """
    with threads.one_thread() if device.type == "cpu" else nullcontext():
        yield


def run_crowd(
    task: Task,
    count: int,
    test: tuple[Population, str],
    training: str,
    provenance: Mapping[str, Any],
    folder: Path | None,
    progress: Callable[[int, int], None] | None,
    stop: Callable[[], bool],
    checkpoint_seconds: float,
) -> list[tuple[ReplicaResult, TrainedNetwork]] | None:
    """Train all replicas, with one checkpoint for all; None if told to stop. Arguments as `Replicas` has them."""
    checkpoints = Checkpoints(folder, training, provenance)
    found = checkpoints.read(ALL)
    with one_thread(task.device):
        crowd = Crowd(task, count, found and found["walk"])
        report = progress or (lambda done, total: None)
        report(crowd.done, task.steps * count)
        if stop():
            return None
        if not task.teachers and crowd.step == 0:
            crowd.require_finite()
        before, started = (found["seconds"] if found else 0.0), time.monotonic()
        saved = started
        while not crowd.finished:
            crowd.advance()
            report(crowd.done, task.steps * count)
            told, now = stop(), time.monotonic()
            if told or crowd.finished or now - saved > checkpoint_seconds:
                checkpoints.write(ALL, crowd.state(), before + now - started)
                saved = now
            if told and not crowd.finished:
                return None
        return crowd.results(*test, training, checkpoints.data, before + time.monotonic() - started)
