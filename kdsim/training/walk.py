"""One replica of a network under way: steps, evaluations, and a state from which it goes on bit for bit.

All randomness is counter-based (`kdsim.rng`), keyed by seed, replica and visit: order of the images, targets, crops and
flips. So the state is tensors and a step number, and no generator has to be stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from kdsim.config import ConfigError, kind_of
from kdsim.data.augmentation import CropFlip, Normalisation, Unchanged
from kdsim.engines.base import SGD, Lane
from kdsim.engines.optimisers import WeightSampler
from kdsim.engines.samples import Samples
from kdsim.networks import build
from kdsim.population import Known, Population
from kdsim.rng import Draws, Stream
from kdsim.supervision import OneHot, Supervision
from kdsim.training.evaluation import forward, log_probs_of, scored, scores
from kdsim.training.flat_module import FlatModule
from kdsim.training.precision import precision_on
from kdsim.training.recipe import Recipe
from kdsim.training.remembered import Said
from kdsim.training.trained import TrainedNetwork

DROPOUT, WEIGHTS = 2, 4
"""First slots of what a step draws beside its visits; slots 0 and 1 of step 0 draw the first weights."""
CHUNK_STEPS = 64
"""Steps whose indices, targets and crops are drawn at a time."""

_torch_generator = threading.Lock()


@dataclass(frozen=True, eq=False)
class Task:
    """What all replicas of one training share. Images lie on the device as bytes, points in float32.

    Attributes:
        network: name of the network.
        train, validation: images uint8 (N, 3, 32, 32), or points (N, d), with p and y.
        truth: what p of the validation images is, see `ImageSource`.
        steps: of the whole training; `recipe.epochs` says how many epochs they are.
        evaluations: number of evaluations on the validation images, evenly spaced, the last at the end.
        supervision: gives the targets; None where a teacher does.
        teachers: what each says at a visit, see `kdsim.training.remembered`; replica r learns from number r modulo
            their number.
        loss: a `DistillationLoss`, or another function of outputs (b, K), targets, labels (b,) and epoch.
        targets: "fresh" or "frozen", see `SGD`.
        dropout: rate before the head, in training only.
        groups: of classes by which there are scores as well, see `kdsim.training.groups`; none for most sources.
    """

    network: str
    train: Population
    validation: Population
    truth: str
    normalise: Normalisation | Unchanged
    recipe: Recipe
    augmentation: CropFlip | None
    steps: int
    evaluations: int
    supervision: Supervision | None
    teachers: tuple[Said, ...]
    loss: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    targets: Literal["fresh", "frozen"]
    seed: int
    device: torch.device
    dropout: float = 0.0
    groups: tuple[Tensor, ...] = ()

    @property
    def mixed(self) -> bool:
        """Whether convolutions run in bfloat16."""
        return precision_on(self.recipe.precision, self.device) == "bfloat16"

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is seen at an evaluation: the mean loss of the steps since the last one, and scores."""
        return ("train_loss", *scored(self.train.classes, self.truth, self.groups))

    def schedule(self) -> list[int]:
        """Steps of the evaluations."""
        count = min(self.evaluations, self.steps)
        return [self.steps * (number + 1) // count for number in range(count)]

    def pieces(self) -> list[int]:
        """Number of the stretch of constant step size that ends at each evaluation."""
        return self.recipe.schedule.pieces([step - 1 for step in self.schedule()], self.steps)

    def epoch(self, step: int) -> float:
        """Where a step lies, the first epoch begins at 1."""
        return 1 + step * self.recipe.batch_size / self.train.size

    def samples(self, replicas: int, first_replica: int = 0) -> Samples:
        """Image numbers and targets of replicas; the images themselves are gathered by their numbers."""
        sgd = SGD(self.steps, self.recipe.batch_size, index="permutation", targets=self.targets)
        points = Population(torch.zeros(self.train.size, 1), self.train.p, self.train.y)
        unused = OneHot()  # with a teacher no targets are drawn
        supervision = self.supervision or unused
        lane = Lane(supervision, self.recipe.step_size, self.seed, replicas, first_replica=first_replica)
        return Samples(points, [lane], sgd, torch.float32, self.device)

    def trained(
        self,
        weights: Mapping[str, Tensor],
        replica: int,
        training: str,
        data: str,
        scores: Mapping[str, float],
        posterior: Mapping[str, Tensor] | None = None,
    ) -> TrainedNetwork:
        """A replica's network; see `TrainedNetwork` for the arguments."""
        return TrainedNetwork(
            network=self.network,
            classes=self.train.classes,
            mean=self.normalise.mean,
            std=self.normalise.std,
            weights=weights,
            training=training,
            replica=replica,
            data=data,
            scores=scores,
            dropout=self.dropout,
            posterior=posterior or {},
        )


class Walk:
    """A replica of a `Task`, at the start or where a stored state left it."""

    def __init__(self, task: Task, replica: int, found: dict[str, Any] | None = None) -> None:
        self.task, self.replica = task, replica
        self.flat = FlatModule(fresh(task, replica), task.device)
        self.module = self.flat.module.train()
        self.optimiser = task.recipe.optimiser.for_training(task.train.size, task.steps)
        self.buffers = self.optimiser.buffers(self.flat.parameters)
        self.step = 0
        self.schedule = task.schedule()
        self.curves = torch.full((len(task.metrics), len(self.schedule)), float("nan"), dtype=torch.float64)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=task.device)
        self.diverged_at = -1
        self.best: dict[str, Any] = {"step": 0, "rank": (-1.0, 0.0), "parameters": None, "buffers": None}
        self.teacher = task.teachers[replica % len(task.teachers)] if task.teachers else None
        self.samples = task.samples(1, first_replica=replica)
        self.step_size = torch.full((1, 1), task.recipe.step_size, device=task.device)
        self._chunk: tuple[int, Tensor, Tensor | None, Tensor | None] | None = None
        if found is not None:
            self._restore(found)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.step == self.task.steps or self.diverged_at >= 0

    def advance(self) -> None:
        """One step, and the evaluation that is due after it."""
        task = self.task
        index, q, choices = self._visits()
        images = task.train.x[index]  # (b, 3, h, w) uint8, or (b, d)
        if task.augmentation is not None:
            images = task.augmentation.apply(images, choices)
        with self._drawn():
            outputs = self._outputs(images)
            loss = self._loss(outputs, images, index, q)
            self.flat.gradient.zero_()
            loss.backward()
        factor = task.recipe.schedule.factor(self.step, task.steps)
        with torch.no_grad():
            self.optimiser.update(
                self.flat.parameters, self.flat.gradient, self.buffers, self.step_size * factor, self.step
            )
        self.loss_sum += loss.detach()
        self.step += 1
        if self.step in self.schedule:
            self._evaluate()

    def _loss(self, outputs: Tensor, images: Tensor, index: Tensor, q: Known) -> Tensor:
        """Of a batch: outputs (b, K), images uint8 (b, 3, h, w) as the network saw them, their numbers, targets."""
        task = self.task
        if self.teacher is not None:
            with torch.no_grad():
                said = self.teacher(images, index)
        else:
            said = q.log()  # log-probabilities; -inf where the target has none
        return task.loss(outputs, said, task.train.y[index], task.epoch(self.step))

    def _outputs(self, images: Tensor) -> Tensor:
        """Of the network in training, (b, K) float32; dropout, if there is any, stands before the head."""
        task = self.task
        if not task.dropout:
            return forward(self.module, images, task.normalise, task.mixed)
        keep = 1 - task.dropout

        def thinned(x: Tensor) -> Tensor:
            module: Any = self.module  # a `Network` or `DenseNetwork`
            features = module.features(x)
            mask = torch.rand(features.shape, generator=self._generator(DROPOUT), device=x.device) < keep
            return module.head(features * mask / keep)

        return forward(thinned, images, task.normalise, task.mixed)

    @contextmanager
    def _drawn(self) -> Iterator[None]:
        """Within the block the weights are a draw from the optimiser's posterior, where it holds one."""
        if not isinstance(self.optimiser, WeightSampler):
            yield
            return
        parameters, noise = self.flat.parameters, self.buffers["noise"]
        noise.normal_(generator=self._generator(WEIGHTS)).mul_(self.optimiser.std(parameters, self.buffers))
        mean = parameters.clone()
        parameters.add_(noise)
        try:
            yield
        finally:
            parameters.copy_(mean)

    def _generator(self, purpose: int) -> torch.Generator:
        """Random numbers of this step and replica: a state needs no generator's state."""
        seed, number, step = (torch.tensor([[value]]) for value in (self.task.seed, self.replica, self.step))
        draws = Draws(seed, number, step, Stream.INIT, torch.float64)
        word = (int(draws.words(purpose)) << 31) ^ int(draws.words(purpose + 1))
        return torch.Generator(self.task.device).manual_seed(word)

    def scores(self, pool: Population, truth: str) -> dict[str, float]:
        """Of the present parameters."""
        task = self.task
        return scores(log_probs_of(self.module, pool.x, task.normalise, task.mixed), pool, truth, task.groups)

    def trained(self, training: str, data: str, scores: Mapping[str, float]) -> TrainedNetwork:
        """The network as it is now; see `TrainedNetwork` for the arguments."""
        posterior = self.optimiser.posterior(self.flat.parameters, self.buffers, self.step)
        return self.task.trained(self.flat.state_dict(), self.replica, training, data, scores, posterior)

    def go_on_from(self, network: TrainedNetwork, step: int) -> None:
        """Stand where another training ended: its weights, the visits that follow its own, and no optimiser's memory.

        Args:
            network: what it gave, without a memory of its optimiser.
            step: its last one; the task's steps count from that training's first.
        """
        self.module.load_state_dict(dict(network.weights))  # in place: parameters stay views of one vector
        self.step = step

    def use_best(self) -> None:
        """Put back the parameters that were best on the validation images."""
        self.flat.restore(self.best["parameters"].to(self.task.device), self.best["buffers"])

    def state(self) -> dict[str, Any]:
        """Everything that the replica needs to go on: tensors on the CPU, numbers and names."""
        return {
            "step": self.step,
            "parameters": self.flat.parameters.cpu().clone(),
            "module_buffers": self.flat.buffers(),
            "optimiser": {name: buffer.cpu().clone() for name, buffer in self.buffers.items()},
            "curves": self.curves.clone(),
            "loss_sum": self.loss_sum.cpu().clone(),
            "diverged_at": self.diverged_at,
            "best": dict(self.best),
        }

    def _restore(self, found: dict[str, Any]) -> None:
        require_form(found, self.state(), f"the stored state of replica {self.replica}", self.task)
        self.step = found["step"]
        self.flat.restore(found["parameters"].to(self.task.device), found["module_buffers"])
        for name, buffer in self.buffers.items():
            buffer.copy_(found["optimiser"][name])
        self.curves.copy_(found["curves"])
        self.loss_sum.copy_(found["loss_sum"])
        self.diverged_at, self.best = found["diverged_at"], dict(found["best"])

    def _evaluate(self) -> None:
        number = self.schedule.index(self.step)
        since = self.step - (self.schedule[number - 1] if number else 0)
        found = self.scores(self.task.validation, self.task.truth)
        train_loss = float(self.loss_sum) / since
        self.curves[:, number] = torch.tensor([train_loss, *found.values()], dtype=torch.float64)
        self.loss_sum.zero_()
        if not (torch.isfinite(self.curves[:2, number]).all() and torch.isfinite(self.flat.parameters).all()):
            self.diverged_at = self.step
            return
        rank = (found["accuracy"], -found["loss"])
        if rank > tuple(self.best["rank"]):
            parameters = self.flat.parameters.cpu().clone()
            self.best = {"step": self.step, "rank": rank, "parameters": parameters, "buffers": self.flat.buffers()}

    def require_finite(self) -> None:
        """Refuse a loss that is infinite at the targets of the first batch whatever the student says.

        Losses that compare logits cannot take a target without a class: log 0 is no logit.
        """
        index, q, _ = self._visits()
        require_finite(self.task, index, q)

    def _visits(self) -> tuple[Tensor, Known, Known]:
        """Image numbers (b,), targets (b, K) and crops (3, b) of this step; drawn for `CHUNK_STEPS` at once."""
        task, batch_size = self.task, self.task.recipe.batch_size
        first = self.step - self.step % CHUNK_STEPS
        if self._chunk is None or self._chunk[0] != first:
            last = min(first + CHUNK_STEPS, task.steps)
            index, q = self.samples.visits(first, last, targets=self.teacher is None)
            choices = None
            if task.augmentation is not None:
                start = first * batch_size
                visit = torch.arange(start, last * batch_size, device=task.device)[None]
                seed, replica = (torch.tensor([[number]], device=task.device) for number in (task.seed, self.replica))
                draws = Draws(seed, replica, visit, Stream.AUGMENTATION, torch.float32, start=start)
                choices = task.augmentation.choices(draws)[:, 0]  # (3, V)
            self._chunk = (first, index[0], None if q is None else q[0], choices)
        _, index, q, choices = self._chunk
        visits = slice((self.step - first) * batch_size, (self.step - first + 1) * batch_size)
        return index[visits], None if q is None else q[visits], None if choices is None else choices[:, visits]


def require_finite(task: Task, index: Tensor, q: Tensor) -> None:
    """Refuse a loss that is infinite at targets q (..., b, K) of the images (..., b) whatever the student says.

    Also targets off the simplex where a loss looks at them: it sees their logarithms, which a negative one has not.
    """
    name, looked_at = kind_of(type(task.loss)), getattr(task.loss, "weights", (0.0, 1.0))[1] > 0
    if looked_at and not task.supervision.on_simplex:
        why = f"targets of {kind_of(type(task.supervision))}, which leave the simplex"
        raise ConfigError(f"loss = {name} is not allowed on {why}: a network takes class probabilities")
    outputs = torch.linspace(-1, 1, q.numel(), device=q.device).view(q.shape)
    if not torch.isfinite(task.loss(outputs, q.log(), task.train.y[index], 1.0)).all():
        targets = f"targets of {kind_of(type(task.supervision))}"
        if (q > 0).all():
            raise ConfigError(f"loss = {name} is not allowed on {targets}: it is not finite on the first batch")
        why = f"{targets}, which have classes of probability zero"
        raise ConfigError(f"loss = {name} is not allowed on {why}: must be one that takes them")


def require_form(found: dict[str, Any], own: dict[str, Any], what: str, task: Task) -> None:
    """Refuse a stored state that has not the names, types and shapes of one's own, or lies beyond the training."""
    right = isinstance(found, dict) and _form(found) == _form(own) and 0 <= found["step"] <= task.steps
    if right and "best" in own:
        right = _is_best(found["best"], own) and -1 <= found["diverged_at"] <= found["step"] >= found["best"]["step"]
    if not right:
        raise ConfigError(f"{what} is not one of a {task.network} in this training: delete its checkpoint")


def _form(state: Any) -> Any:
    """What all states of one replica agree in: names, and types, of tensors shapes too."""
    if isinstance(state, dict):
        return {name: None if name == "best" else _form(value) for name, value in state.items()}
    return (tuple(state.shape), state.dtype) if isinstance(state, Tensor) else type(state)


def _is_best(best: Any, own: dict[str, Any]) -> bool:
    """Whether it is what a state may say of the best step so far, `own` being the state."""
    if not isinstance(best, dict) or best.keys() != own["best"].keys() or type(best["step"]) is not int:
        return False
    rank, parameters, buffers = best["rank"], best["parameters"], best["buffers"]
    if not isinstance(rank, (tuple, list)) or [type(number) for number in rank] != [float, float]:
        return False
    if best["step"] == 0:
        return parameters is None and buffers is None
    return _form(parameters) == _form(own["parameters"]) and _form(buffers) == _form(own["module_buffers"])


def fresh(task: Task, replica: int) -> torch.nn.Module:
    """The network with the first weights of this replica; torch's generator is left as it was."""
    seed, number, first = (torch.tensor([[value]]) for value in (task.seed, replica, 0))
    draws = Draws(seed, number, first, Stream.INIT, torch.float64)
    with _torch_generator, torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which would seed the generators of the GPUs as well.
        torch.default_generator.manual_seed((int(draws.words(0)) << 31) ^ int(draws.words(1)))
        return build(task.network, task.train.classes, task.train.x.shape[1])  # channels, or features
