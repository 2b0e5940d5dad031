"""The student trainer: one call from 64 replicas of an MLP on a problem to one CIFAR network taught by another.

    trainer = StudentTrainer(ImageNetwork("wrn-16-2"), Cifar10(), recipe=CRD(epochs=10))
    trained = trainer.run(data_dir="my/data")
    trained.record.test["accuracy"]

A network of `kdsim.networks` (BatchNorm, crops, a teacher) is walked batch by batch, a replica a thread; any other
student goes to the engines, all replicas in one program.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from kdsim import config
from kdsim.config import ConfigError, choose, require, require_between, require_count
from kdsim.data.augmentation import Normalisation
from kdsim.data.sources import ImageSource, KnownImages, Pools
from kdsim.engines.base import SGD, Lane, check_device
from kdsim.engines.choice import AUTO, ENGINES, choose_engine
from kdsim.engines.recorder import Record, Recording
from kdsim.losses import CrossEntropy, DistillationLoss
from kdsim.networks import NETWORKS
from kdsim.population import Population
from kdsim.problems.base import Problem
from kdsim.students import LinearStudent, NetworkStudent, SoftmaxRegression, minimiser
from kdsim.supervision import OneHot, Supervision
from kdsim.training.evaluation import BATCH, scored, scores
from kdsim.training.fitted import FittedTeacher
from kdsim.training.recipe import Recipe
from kdsim.training.record import ReplicaResult, TrainingRecord, joined
from kdsim.training.trained import TrainedNetwork, read_checked, write_checked
from kdsim.training.walk import Task, Walk

CHECKPOINT_SECONDS = 60.0
"""Time between two checkpoints of a replica: what a killed training loses at most."""
FEWEST_LOOKS = 12
"""Evaluations of a training that does not say how many."""
HELD_OUT = 1 / 6
"""Share of a problem's pool that is the validation set; sources of images have one of their own."""


@dataclass(frozen=True)
class ImageNetwork:
    """A network of `kdsim.networks` as a student.

    Attributes:
        network: its name, see `kdsim.networks.NETWORKS`.
        dropout: rate at which features are dropped before the head while it is trained, in [0, 1).
    """

    network: str = "resnet20"
    dropout: float = 0.0

    name: ClassVar[str] = "image-network"

    def __post_init__(self) -> None:
        choose("network", self.network, NETWORKS)
        require_between("dropout", self.dropout, 0, 1, "[)")


class Teacher(ABC):
    """Trained networks that say what an image's class probabilities are. Implementations are frozen dataclasses.

    A teacher is a supervision: it takes its place in a `StudentTrainer`. There are `count` independent teachers of one
    configuration; student replica r learns from number r modulo `count`.
    """

    name: ClassVar[str]
    training: StudentTrainer
    """What trains its networks."""

    @property
    def members(self) -> int:
        """Networks that one teacher is made of."""
        return 1

    @property
    def count(self) -> int:
        """Independent teachers: replicas of the training over members."""
        return self.training.replicas // self.members

    def fit(self, networks: Sequence[TrainedNetwork], pools: Pools, number: int) -> dict[str, Tensor]:
        """What is found after the training: tensors by name, on the CPU.

        Whatever is tuned is tuned on the validation images.

        Args:
            networks: the `members` networks of this teacher.
            pools: what they were trained on.
            number: of the teacher, 0 the first.
        """
        return {}

    @abstractmethod
    def predictor(self, fitted: FittedTeacher, device: torch.device, mixed: bool) -> Callable[[Tensor], Tensor]:
        """A function from images uint8 (b, 3, h, w) to log-probabilities of S posterior samples, (S, b, K).

        S = 1 for a teacher without samples, which may give logits. The same images give the same numbers: samples are
        drawn once, when the function is made.

        Args:
            fitted: one teacher of this configuration.
            mixed: whether to run convolutions in bfloat16.
        """


def fit_teacher(
    teacher: Teacher, networks: Sequence[TrainedNetwork], pools: Pools, number: int, device: torch.device | str = "cpu"
) -> FittedTeacher:
    """Teacher `number` of a configuration from all trained networks of its training.

    Raises:
        ConfigError: they are not the replicas of that training, all and in order, or one diverged.
    """
    _check_networks(teacher.training, networks)
    own = tuple(networks[number * teacher.members : (number + 1) * teacher.members])
    tensors = teacher.fit(own, pools, number)
    fitted = FittedTeacher(config.digest(teacher), teacher.name, number, own, tensors, {})
    return replace(fitted, scores=teacher_scores(teacher, fitted, pools.validation, device))


def teacher_log_probs(
    teacher: Teacher, fitted: FittedTeacher, pool: Population, device: torch.device | str = "cpu"
) -> Tensor:
    """Log-probabilities of the teacher's samples at all images, (S, N, K) float64 on the CPU."""
    mixed = teacher.training.recipe.precision == "bfloat16"
    predict = teacher.predictor(fitted, torch.device(device), mixed)
    with torch.no_grad():
        parts = [torch.log_softmax(predict(x.to(device)).double(), -1).cpu() for x in pool.x.split(BATCH)]
    return torch.cat(parts, 1)


def teacher_scores(
    teacher: Teacher, fitted: FittedTeacher, pool: Population, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Scores of the predictive distribution, the mean over samples, see `kdsim.training.evaluation.scores`."""
    log_probs = teacher_log_probs(teacher, fitted, pool, device)
    return scores(log_probs.logsumexp(0) - math.log(len(log_probs)), pool, teacher.training.data.train_truth)


@dataclass(frozen=True)
class StudentTrainer:
    """A student, what it learns from, and how. A configuration: its digest names its results.

    Attributes:
        student: a network of images, or a student of the engines.
        data: images for the former, a problem for the latter.
        supervision: gives the targets: a noise model on p of the images (known BCPs, people's frequencies, labels), or
            a teacher.
        loss: what is minimised; students of the engines have cross-entropy.
        recipe: epochs, batches, optimiser, schedule, augmentation, precision.
        targets: "frozen" (drawn once for each image and replica: a data set) or "fresh" (drawn at each visit).
        evaluations: number of evaluations on the validation images, evenly spaced, the last at the end; None: one an
            epoch, and 12 at least.
        window: last part of the run over which convergence noise and the floor are taken, in (0, 1].
        replicas: independent trainings: first weights, order of the images, targets, crops. They share the images.
        seed: draws the data and splits it, and keys the random numbers.
        device: cpu, cuda or cuda:N.
    """

    student: ImageNetwork | NetworkStudent | LinearStudent = field(default_factory=ImageNetwork)
    data: ImageSource | Problem = field(default_factory=KnownImages)
    supervision: Supervision | Teacher = field(default_factory=OneHot)
    loss: DistillationLoss = field(default_factory=CrossEntropy)
    recipe: Recipe = field(default_factory=Recipe)
    targets: Literal["frozen", "fresh"] = "frozen"
    evaluations: int | None = None
    window: float = 1 / 3
    replicas: int = 1
    seed: int = 0
    device: str = "cpu"

    name: ClassVar[str] = "student-trainer"

    def __post_init__(self) -> None:
        kinds = {"student": (ImageNetwork, NetworkStudent, LinearStudent), "supervision": (Supervision, Teacher)}
        kinds["data"] = (ImageSource,) if self.on_images else (Problem,)
        kinds |= {"loss": (DistillationLoss,), "recipe": (Recipe,)}
        for what, allowed in kinds.items():
            value = getattr(self, what)
            require(isinstance(value, allowed), what, value, " or ".join(kind.__name__ for kind in allowed))
        require(self.targets in ("frozen", "fresh"), "targets", self.targets, "frozen or fresh")
        if self.evaluations is not None:
            require_count("evaluations", self.evaluations)
        require_between("window", self.window, 0, 1, "(]")
        require_count("replicas", self.replicas)
        require_count("seed", self.seed, least=0)
        if self.teacher is not None:
            replicas = self.teacher.training.replicas
            require(self.teacher.count >= 1, "replicas of the teacher", replicas, f"at least {self.teacher.members}")
        if self.on_images:
            blind = self.teacher is not None or not self.supervision.uses_x
            require(blind, "supervision", self.supervision, "one that does not look at x: x are bytes of images")
        else:
            head = self.student.head if isinstance(self.student, NetworkStudent) else self.student
            require(isinstance(head, SoftmaxRegression), "student", self.student, "one under cross-entropy")
            require(self.teacher is None, "supervision", self.supervision, "no teacher for a student of the engines")
            plain = isinstance(self.loss, CrossEntropy)
            require(plain, "loss", self.loss, "cross-entropy for a student of the engines")

    @property
    def on_images(self) -> bool:
        """Whether the student is a network of images."""
        return isinstance(self.student, ImageNetwork)

    @property
    def teacher(self) -> Teacher | None:
        """What the student learns from, if it is a teacher."""
        return self.supervision if isinstance(self.supervision, Teacher) else None

    def pools(self, data_dir: str | Path | None = None) -> Pools:
        """The images; those of the last two sources are kept. KDSIM_DATA where no folder is given."""
        return _pools(self.data, self.seed, str(data_dir or os.environ.get("KDSIM_DATA", "")))

    def train_size(self, data_dir: str | Path | None = None) -> int:
        """Number of training images, or points."""
        if self.on_images:
            return self.pools(data_dir).train.size
        population = self.data.population(self.seed)
        return population.size - _held_out(self, population)

    @property
    def looks(self) -> int:
        """Number of evaluations."""
        return max(FEWEST_LOOKS, round(self.recipe.epochs)) if self.evaluations is None else self.evaluations

    def steps(self, images: int) -> int:
        """Steps of a replica on so many training images."""
        return self.recipe.steps(images)

    def run(
        self,
        *,
        data_dir: str | Path | None = None,
        teachers: Sequence[FittedTeacher] = (),
        checkpoints: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> Trained | None:
        """Train all replicas, or go on where the checkpoints left them.

        Args:
            data_dir: folder of the real images; KDSIM_DATA if None.
            teachers: all `teacher.count` of them, see `fit_teacher`.
            checkpoints: folder for the states of the replicas. A run that was killed goes on from there, and ends bit
                for bit as an undisturbed one (on a CPU, with the same library versions and number of threads). They
                are deleted by `delete_checkpoints`, once the result is stored.
            progress: called with replica-steps done and all there are.
            stop: asked after each step; when it says True the states are saved and None is returned. An engine asks
                between chunks of steps, and saves nothing.
            checkpoint_seconds: time between two checkpoints of a replica.

        Raises:
            ConfigError: the device, the data or a checkpoint is not there or not what it should be.
        """
        check_device(self.device)
        _check_teachers(self.teacher, teachers)
        stop = stop or (lambda: False)
        if not self.on_images:
            return _run_on_engine(self, progress, stop)
        pools = self.pools(data_dir)
        task = self.task(pools, teachers)
        folder = None if checkpoints is None else Path(checkpoints)
        run = _Run(self, task, pools, folder, progress, stop, checkpoint_seconds)
        with _one_thread_each(self.replicas, task.device) as each:
            try:
                results = each(run.replica, range(self.replicas))
            except BaseException:  # an interruption by hand reaches this thread alone
                run.failed = True
                raise
        if any(result is None for result in results):
            return None
        truth = (self.data.train_truth, self.data.test_truth)
        record = joined(task.schedule(), task.metrics, truth, [result for result, _ in results])
        return Trained(record, tuple(network for _, network in results), dict(pools.provenance))

    def task(self, pools: Pools, teachers: Sequence[FittedTeacher] = ()) -> Task:
        """What the replicas share, on the device."""
        device = torch.device(self.device)
        mixed = self.recipe.precision == "bfloat16"
        return Task(
            network=self.student.network,
            train=_on(pools.train, device),
            validation=_on(pools.validation, device),
            truth=self.data.train_truth,
            normalise=Normalisation.of(pools.train.x),
            recipe=self.recipe,
            augmentation=None if self.data.train_truth == "bcp" else self.recipe.augmentation,
            steps=self.steps(pools.train.size),
            evaluations=self.looks,
            supervision=None if self.teacher else self.supervision,
            teachers=tuple(self.teacher.predictor(fitted, device, mixed) for fitted in teachers),
            loss=self.loss,
            targets=self.targets,
            seed=self.seed,
            device=device,
            dropout=self.student.dropout,
        )

    def delete_checkpoints(self, folder: str | Path) -> None:
        """Forget the states of the replicas."""
        for replica in range(self.replicas):
            _checkpoint_file(Path(folder), self, replica).unlink(missing_ok=True)


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        record: curves and scores.
        networks: the trained networks at the last step, one a replica; none for students of the engines.
        provenance: what the data was, see `Pools`.
    """

    record: TrainingRecord
    networks: tuple[TrainedNetwork, ...]
    provenance: dict[str, Any]


# Networks of images -----------------------------------------------------------------------------


class _Run:
    """One call of `StudentTrainer.run` on images."""

    def __init__(
        self,
        trainer: StudentTrainer,
        task: Task,
        pools: Pools,
        folder: Path | None,
        progress: Callable[[int, int], None] | None,
        stop: Callable[[], bool],
        checkpoint_seconds: float,
    ) -> None:
        self.trainer, self.task, self.pools, self.folder, self.stop = trainer, task, pools, folder, stop
        self.progress, self.checkpoint_seconds = progress, checkpoint_seconds
        self.test = _on(pools.test, task.device)
        self.digest, self.data = config.digest(trainer), _digest(pools.provenance)
        self.lock = threading.Lock()
        self.failed = False
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"checkpoints = {str(folder)!r} cannot be written: {error.strerror}") from None
        # A checkpoint that is damaged is refused before anything is computed.
        stored = (self._read(number) for number in range(trainer.replicas))
        self.done = [found["walk"]["step"] if found else 0 for found in stored]
        self._report(0, self.done[0])

    def replica(self, number: int) -> tuple[ReplicaResult, TrainedNetwork] | None:
        """Train one replica to its end; None if it was told to stop, its state is then saved."""
        try:
            return self._replica(number)
        except BaseException:
            self.failed = True  # the others save their states and leave
            raise

    def _replica(self, number: int) -> tuple[ReplicaResult, TrainedNetwork] | None:
        if self.stop() or self.failed:
            return None
        found = self._read(number)
        walk = Walk(self.task, number, found["walk"] if found else None)
        if walk.teacher is None and walk.step == 0:
            walk.require_finite()
        before, started = (found["seconds"] if found else 0.0), time.monotonic()
        saved = started
        while not walk.finished:
            walk.advance()
            self._report(number, walk.step)
            told = self.stop() or self.failed
            now = time.monotonic()
            if told or walk.finished or now - saved > self.checkpoint_seconds:
                self._write(number, walk, before + now - started)
                saved = now
            if told and not walk.finished:
                return None
        return self._finished(number, walk, before + time.monotonic() - started)

    def _finished(self, number: int, walk: Walk, seconds: float) -> tuple[ReplicaResult, TrainedNetwork]:
        data, task = self.trainer.data, self.task
        well = walk.diverged_at < 0
        nothing = dict.fromkeys(scored(task.train.classes, data.test_truth), float("nan"))
        last = walk.scores(self.test, data.test_truth) if well else nothing
        network = walk.trained(self.digest, self.data, walk.scores(task.validation, task.truth) if well else {})
        best = nothing
        if well:
            walk.use_best()
            best = walk.scores(self.test, data.test_truth)
        return ReplicaResult(walk.curves, last, best, walk.best["step"], walk.diverged_at, seconds), network

    def _report(self, number: int, step: int) -> None:
        with self.lock:
            self.done[number] = step
            if self.progress is not None:
                self.progress(sum(self.done), self.task.steps * self.trainer.replicas)

    def _write(self, number: int, walk: Walk, seconds: float) -> None:
        if self.folder is None:
            return
        content = {"training": self.digest, "data": self.data, "replica": number}
        write_checked(
            _checkpoint_file(self.folder, self.trainer, number),
            content | {"walk": walk.state(), "seconds": seconds},
        )

    def _read(self, number: int) -> dict[str, Any] | None:
        """A stored state, or None.

        Raises:
            ConfigError: it is damaged, or that of another training or of other data.
        """
        if self.folder is None:
            return None
        file = _checkpoint_file(self.folder, self.trainer, number)
        if not file.exists():
            return None
        content = read_checked(file)
        own = {"training": self.digest, "data": self.data, "replica": number}
        if content.keys() != own.keys() | {"walk", "seconds"}:
            raise ConfigError(f"{file} is not a checkpoint, it has {', '.join(content)}: delete it to start over")
        for key, value in own.items():
            if content.get(key) != value:
                raise ConfigError(
                    f"checkpoint {file} is of {key} {str(content.get(key))[:20]!r}, this is {str(value)[:20]!r}: "
                    "delete it to start over"
                )
        return content


def _check_networks(training: StudentTrainer, networks: Sequence[TrainedNetwork]) -> None:
    """Refuse what are not the replicas of a training, all and in order, and one that diverged."""
    count, own = training.replicas, config.digest(training)
    require(len(networks) == count, "number of trained networks", len(networks), f"{count}, the replicas")
    for number, network in enumerate(networks):
        if (network.training, network.replica) != (own, number):
            found = f"replica {network.replica} of training {network.training!r}"
            raise ConfigError(f"trained network {number} is {found}: must be replica {number} of {own!r}")
        if not network.scores:
            raise ConfigError(f"replica {number} of the teacher's training diverged: no student can learn from it")


def _check_teachers(teacher: Teacher | None, found: Sequence[FittedTeacher]) -> None:
    """Refuse what are not the teachers of this configuration, all and in order, and one that diverged."""
    count = teacher.count if teacher else 0
    require(len(found) == count, "number of teachers", len(found), f"{count}, those of the configuration")
    for number, fitted in enumerate(found):
        own = config.digest(teacher), number
        if (fitted.teacher, fitted.number) != own:
            raise ConfigError(
                f"teacher {number} is {fitted.teacher!r} number {fitted.number}: must be {own[0]!r} number {number}"
            )
        if not all(network.scores for network in fitted.networks):
            raise ConfigError(f"teacher {number} diverged when it was trained: no student can learn from it")


def _checkpoint_file(folder: Path, trainer: StudentTrainer, replica: int) -> Path:
    return folder / f"{config.digest(trainer)}-r{replica:03d}.pt"


def _digest(provenance: Mapping[str, Any]) -> str:
    """SHA-256 of all that is said of the data: images, labels, human labels, splits."""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()


def _on(pool: Population, device: torch.device) -> Population:
    """The pool on a device."""
    return Population(pool.x.to(device), pool.p.to(device), pool.y.to(device))


@lru_cache(maxsize=2)  # cells of a study share their data
def _pools(data: ImageSource, seed: int, data_dir: str) -> Pools:
    return data.pools(seed, data_dir or None)


@contextmanager
def _one_thread_each(replicas: int, device: torch.device) -> Iterator[Callable[..., list[Any]]]:
    """A map over replicas. On a CPU several of them run side by side, each on one of torch's threads.

    Two such threads train a fifth more images a second than one replica on both.
    """
    workers = torch.get_num_threads()
    if replicas == 1 or workers == 1 or device.type != "cpu":
        yield lambda function, items: [function(item) for item in items]
        return
    try:
        with ThreadPoolExecutor(min(workers, replicas), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield lambda function, items: [future.result() for future in [pool.submit(function, i) for i in items]]
    finally:
        torch.set_num_threads(workers)


# Students of the engines --------------------------------------------------------------------------


def _run_on_engine(
    trainer: StudentTrainer, progress: Callable[[int, int], None] | None, stop: Callable[[], bool]
) -> Trained | None:
    """All replicas in one engine call, which is short: nothing is stored on the way, and one told to stop is lost."""
    population = trainer.data.population(trainer.seed)
    network = isinstance(trainer.student, NetworkStudent)
    held_out = _held_out(trainer, population)
    training = population.size - held_out
    sgd = SGD(
        trainer.steps(training),
        trainer.recipe.batch_size,
        index="permutation",
        targets=trainer.targets,
        held_out=held_out,
        optimiser=trainer.recipe.optimiser,
        schedule=trainer.recipe.schedule,
    )
    recording = Recording(max(trainer.looks, 2), min(trainer.window, 0.99))
    lanes = [Lane(trainer.supervision, trainer.recipe.step_size, trainer.seed, trainer.replicas)]
    choice = choose_engine(AUTO, trainer.student, population, lanes, sgd, recording, trainer.device)
    reference = trainer.student.reference(population) if network else minimiser(trainer.student, population)
    anchor = torch.zeros_like(reference) if network else trainer.student.anchor(population)

    def report(step: int) -> None:
        if progress is not None:
            progress(step * trainer.replicas, sgd.steps * trainer.replicas)

    def ask(step: int) -> bool:
        report(step)
        return stop()

    report(0)
    started = time.monotonic()
    record, _ = ENGINES[choice.engine].run(
        trainer.student, population, lanes, sgd, recording, reference=reference, anchor=anchor, device=trainer.device,
        stop=ask,
    )  # fmt: skip
    if record is None:
        return None
    report(sgd.steps)
    seconds = time.monotonic() - started
    sizes = {"classes": population.classes, "train_size": training, "validation_size": held_out, "test_size": 0}
    provenance = {"source": trainer.data.name, "engine": choice.engine, **sizes}
    exact = network or trainer.student.realisable_optimum(population) is not None
    return Trained(_as_training(record, seconds / trainer.replicas, exact), (), provenance)


def _held_out(trainer: StudentTrainer, population: Population) -> int:
    """Points of the validation set: the last ones of the pool. A linear student is seen on the whole pool."""
    return round(HELD_OUT * population.size) if isinstance(trainer.student, NetworkStudent) else 0


_NAMES = {"loss": "loss", "label_accuracy": "accuracy", "ece": "ece", "excess_risk": "bcp_kl", "bcp_l2": "bcp_l2"}
"""Curves of an engine's record, and their names in a training record."""


def _as_training(record: Record, seconds: float, exact: bool) -> TrainingRecord:
    """The record of an engine as that of a training.

    Args:
        exact: whether excess risk is that above p itself, which is KL(p, q); else it is that above the best student.
    """
    seen = record.steps > 0
    names = {old: new for old, new in _NAMES.items() if old in record.curves}
    if not exact:
        names["excess_risk"] = "excess_risk"
    if "label_accuracy" not in names:
        names["accuracy"] = "accuracy"
    replicas = record.diverged_at.numel()
    steps = record.steps[seen]
    lost = (record.diverged_at >= 0) & (steps[:, None] >= record.diverged_at)  # (C, R)
    return TrainingRecord(
        steps=steps,
        curves={new: record.curves[old][seen].double().masked_fill(lost, float("nan")) for old, new in names.items()},
        test={},
        best_test={},
        best_step=torch.full((replicas,), int(record.steps[-1])),
        diverged_at=record.diverged_at,
        seconds=torch.full((replicas,), seconds, dtype=torch.float64),
        truth=("bcp", "bcp"),
    )
