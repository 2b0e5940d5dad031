"""The student trainer: one call from 64 replicas of an MLP on a problem to one CIFAR network taught by another.

    trainer = StudentTrainer(ImageNetwork("wrn-16-2"), Cifar10(), recipe=CRD(epochs=10))
    trained = trainer.run(data_dir="my/data")
    trained.record.test["accuracy"]

A network of images (BatchNorm, crops) is walked batch by batch, a replica a thread. One of points is a row of all
replicas in one program, and has teachers and every loss as well. Any other student goes to the engines.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from kdsim import config
from kdsim.config import ConfigError, Configuration, require, require_between, require_count
from kdsim.data.augmentation import Normalisation, Unchanged
from kdsim.data.points import forget_points
from kdsim.data.sources import ImageSource, KnownImages, PointSource, Pools, Source
from kdsim.engines.base import Lane, check_device
from kdsim.losses import CrossEntropy, DistillationLoss
from kdsim.population import Population
from kdsim.problems.base import Problem
from kdsim.students import LinearStudent, NetworkStudent, SoftmaxRegression
from kdsim.supervision import OneHot, Supervision
from kdsim.supervision.checks import require_sound
from kdsim.threads import one_thread
from kdsim.training.checkpoints import ALL, Checkpoints, checkpoint_file
from kdsim.training.crowd import fits, run_crowd
from kdsim.training.evaluation import BATCH, scores
from kdsim.training.fitted import FittedTeacher
from kdsim.training.groups import groups_of
from kdsim.training.on_engine import held_out_of, run_on_engine
from kdsim.training.precision import emulated, precision_on, require_multiplied
from kdsim.training.recipe import Recipe
from kdsim.training.record import TrainingRecord, joined
from kdsim.training.remembered import Remembered, asked_each_time
from kdsim.training.replicas import Replicas, replicas_at_once
from kdsim.training.students import ImageNetwork, PointNetwork
from kdsim.training.trained import TrainedNetwork
from kdsim.training.walk import Task

CHECKPOINT_SECONDS = 60.0
"""Time between two checkpoints of a replica: what a killed training loses at most."""
FEWEST_LOOKS = 12
"""Evaluations of a training that does not say how many."""


class Teacher(Configuration, ABC):
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

    def replicas_of(self, number: int) -> Sequence[int]:
        """Replicas of the training that teacher `number` is made of."""
        return range(number * self.members, (number + 1) * self.members)

    def fit(self, networks: Sequence[TrainedNetwork], pools: Pools, number: int) -> dict[str, Tensor]:
        """What is found after the training: tensors by name, on the CPU.

        Whatever is tuned by predictions is tuned on those of the validation images.

        Args:
            networks: the `members` networks of this teacher.
            pools: what they were trained on.
            number: of the teacher, 0 the first.
        """
        return {}

    @abstractmethod
    def predictor(self, fitted: FittedTeacher, device: torch.device, mixed: bool) -> Callable[[Tensor], Tensor]:
        """A function from images uint8 (b, 3, h, w), or points (b, d), to log-probabilities of S samples, (S, b, K).

        S = 1 for a teacher without samples, which may give logits. The same images give the same numbers: samples are
        drawn once, when the function is made.

        Args:
            fitted: one teacher of this configuration.
            mixed: whether to run convolutions in bfloat16.
        """


def fit_teacher(
    teacher: Teacher, networks: Sequence[TrainedNetwork], pools: Pools, number: int, device: str | None = None
) -> FittedTeacher:
    """Teacher `number` of a configuration from all trained networks of its training.

    Raises:
        ConfigError: they are not the replicas of that training, all and in order, or one diverged.
    """
    _check_networks(teacher.training, networks)
    own = tuple(networks[replica] for replica in teacher.replicas_of(number))
    tensors = teacher.fit(own, pools, number)
    fitted = FittedTeacher(config.digest(teacher), teacher.name, number, own, tensors, {})
    return replace(fitted, scores=teacher_scores(teacher, fitted, pools.validation, device))


def teacher_log_probs(teacher: Teacher, fitted: FittedTeacher, pool: Population, device: str | None = None) -> Tensor:
    """Log-probabilities of the teacher's samples at all images, (S, N, K) float64 on the CPU.

    Args:
        device: where they are computed; None: where it was trained.
    """
    mixed = teacher.training.mixed
    device = device or teacher.training.device
    predict = teacher.predictor(fitted, torch.device(device), mixed)
    with torch.no_grad():
        parts = [torch.log_softmax(predict(x.to(device)).double(), -1).cpu() for x in pool.x.split(BATCH)]
    return torch.cat(parts, 1)


def teacher_scores(
    teacher: Teacher, fitted: FittedTeacher, pool: Population, device: str | None = None
) -> dict[str, float]:
    """Scores of the predictive distribution, the mean over samples, see `kdsim.training.evaluation.scores`."""
    log_probs = teacher_log_probs(teacher, fitted, pool, device)
    return scores(log_probs.logsumexp(0) - math.log(len(log_probs)), pool, teacher.training.data.train_truth)


@dataclass(frozen=True)
class StudentTrainer(Configuration):
    """A student, what it learns from, and how. A configuration: its digest names its results.

    Attributes:
        student: a network of images or of points, or a student of the engines.
        data: a source of images, a source of points, or a problem.
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

    student: ImageNetwork | PointNetwork | NetworkStudent | LinearStudent = field(default_factory=ImageNetwork)
    data: ImageSource | PointSource | Problem = field(default_factory=KnownImages)
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
        kind = ImageSource if self.on_images else PointSource if self.on_points else Problem
        whose = self.student if self.is_network else "a student of the engines"
        require(isinstance(self.data, kind), "data", self.data, f"{kind.__name__} for {whose}")
        if self.evaluations is not None:
            require_count("evaluations", self.evaluations)
        require_between("window", self.window, 0, 1, "(]")
        require_count("replicas", self.replicas)
        require_count("seed", self.seed, least=0)
        if self.teacher is not None:
            replicas = self.teacher.training.replicas
            require(self.teacher.count >= 1, "replicas of the teacher", replicas, f"at least {self.teacher.members}")
        if self.is_network:
            blind = self.teacher is not None or not self.supervision.uses_x
            require(blind, "supervision", self.supervision, "one that does not look at x, for a network")
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
    def on_points(self) -> bool:
        """Whether the student is a network of points."""
        return isinstance(self.student, PointNetwork)

    @property
    def is_network(self) -> bool:
        """Whether the student is a network of `kdsim.networks`: its data are pools, and it is a trained network."""
        return self.on_images or self.on_points

    @property
    def teacher(self) -> Teacher | None:
        """What the student learns from, if it is a teacher."""
        return self.supervision if isinstance(self.supervision, Teacher) else None

    def pools(self, data_dir: str | Path | None = None) -> Pools:
        """The images or points; those of the last two sources are kept. KDSIM_DATA where no folder is given."""
        return _pools(self.data, self.seed, str(data_dir or os.environ.get("KDSIM_DATA", "")))

    def train_size(self, data_dir: str | Path | None = None) -> int:
        """Number of training images, or points."""
        if self.is_network:
            return self.pools(data_dir).train.size
        population = self.data.population(self.seed)
        return population.size - held_out_of(self.student, population)

    @property
    def precision(self) -> str:
        """Of its convolutions and products, "float32" or "bfloat16": a function of the configuration alone."""
        return precision_on(self.recipe.precision, self.device) if self.on_images else "float32"

    @property
    def mixed(self) -> bool:
        """Whether its convolutions run in bfloat16."""
        return self.precision == "bfloat16"

    @property
    def emulated(self) -> bool:
        """Whether this CPU emulates its precision, some ten times slower than float32."""
        return self.on_images and emulated(self.recipe.precision, self.device)

    def check_machine(self) -> None:
        """Refuse a device that is not there, or that does not multiply the precision."""
        device = check_device(self.device)
        if self.on_images:
            require_multiplied(self.recipe.precision, device)

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
                for bit as an undisturbed one (on a CPU, with the same library versions and KDSIM_REPLICA_THREADS). They
                are deleted by `delete_checkpoints`, once the result is stored.
            progress: called with replica-steps done and all there are.
            stop: asked after each step; when it says True the states are saved and None is returned. An engine asks
                between chunks of steps, and saves nothing.
            checkpoint_seconds: time between two checkpoints of a replica.

        Raises:
            ConfigError: the device, the data or a checkpoint is not there or not what it should be.
        """
        self.check_machine()
        _check_teachers(self.teacher, teachers)
        stop = stop or (lambda: False)
        if not self.is_network:
            found = run_on_engine(
                self.student,
                self.data,
                Lane(self.supervision, self.recipe.step_size, self.seed, self.replicas),
                self.recipe,
                targets=self.targets,
                looks=self.looks,
                window=self.window,
                device=self.device,
                progress=progress,
                stop=stop,
            )
            return found and Trained(found[0], (), found[1])
        pools = self.pools(data_dir)
        if self.teacher is None and self.data.train_truth != "labels":  # else nobody asks for its moments
            require_sound(self.supervision, pools.train)
        task = self.task(pools, teachers)
        truth = (self.data.train_truth, self.data.test_truth)
        arguments = (
            task,
            self.replicas,
            (self._held(pools.test, task.device), truth[1]),
            config.digest(self),
            pools.provenance,
            None if checkpoints is None else Path(checkpoints),
            progress,
            stop,
            checkpoint_seconds,
        )
        results = run_crowd(*arguments) if fits(task) else Replicas(*arguments).run()
        if results is None:
            return None
        record = joined(task.schedule(), task.pieces(), task.metrics, truth, [result for result, _ in results])
        return Trained(record, tuple(network for _, network in results), dict(pools.provenance))

    def task(self, pools: Pools, teachers: Sequence[FittedTeacher] = ()) -> Task:
        """What the replicas share, on the device."""
        device = torch.device(self.device)
        train, steps = self._held(pools.train, device), self.steps(pools.train.size)
        shares, prior = self.data.class_shares, self.data.class_prior
        loss = self.loss.for_epochs(self.recipe.epochs)
        known = self.on_points or self.data.train_truth == "bcp"
        augmentation = None if known else self.recipe.augmentation
        predictors = [self.teacher.predictor(fitted, device, self.mixed) for fitted in teachers]
        # Images that stay as they are, and are visited once at least.
        remember = augmentation is None and steps * self.recipe.batch_size >= pools.train.size
        return Task(
            network=self.student.network,
            train=train,
            validation=self._held(pools.validation, device),
            truth=self.data.train_truth,
            normalise=Unchanged() if self.on_points else Normalisation.of(pools.train.x),
            recipe=self.recipe,
            augmentation=augmentation,
            steps=steps,
            evaluations=self.looks,
            supervision=None if self.teacher else self.supervision,
            teachers=tuple(Remembered(each, train.x) if remember else asked_each_time(each) for each in predictors),
            loss=loss if prior is None else loss.for_class_shares(prior),
            targets=self.targets,
            seed=self.seed,
            device=device,
            dropout=self.student.dropout,
            groups=groups_of(shares),
        )

    def _held(self, pool: Population, device: torch.device) -> Population:
        """A pool as the replicas hold it: bytes of images as they are, points in float32."""
        return (replace(pool, x=pool.x.float()) if self.on_points else pool).to(device)

    def seconds_before(self, folder: str | Path) -> float:
        """Seconds for which this training ran before, by the states in a folder of checkpoints; 0.0 without any.

        Each state says what its replica took; those that ran side by side took it at the same time.
        """
        if not self.is_network:  # an engine call is short and leaves nothing
            return 0.0
        checkpoints = Checkpoints(Path(folder), config.digest(self), self.pools().provenance)
        apart = [found["seconds"] for number in range(self.replicas) if (found := checkpoints.read(number))]
        together = checkpoints.read(ALL)
        seconds = sum(apart) / replicas_at_once(self.replicas, self.device)
        return seconds + (together["seconds"] if together else 0.0)

    def delete_checkpoints(self, folder: str | Path) -> None:
        """Forget the states of the replicas."""
        for replica in (*range(self.replicas), ALL):
            checkpoint_file(Path(folder), config.digest(self), replica).unlink(missing_ok=True)


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


def forget_pools() -> None:
    """From now on images and points are read or drawn anew: files may have changed."""
    _pools.cache_clear()
    forget_points()


@lru_cache(maxsize=2)  # cells of a study share their data
def _pools(data: Source, seed: int, data_dir: str) -> Pools:
    with one_thread():  # the same bits on every machine
        return data.pools(seed, data_dir or None)
