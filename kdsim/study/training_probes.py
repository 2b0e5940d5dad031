"""How long trainings and fits of teachers will take, from a few steps and a few images of each."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from kdsim import config
from kdsim.data import Pools
from kdsim.study.training_rows import teacher_quality
from kdsim.trainer import StudentTrainer, Teacher, fit_teacher
from kdsim.training.crowd import Crowd, fits, one_thread
from kdsim.training.fitted import FittedTeacher
from kdsim.training.replicas import as_a_replica, replica_threads, replicas_at_once
from kdsim.training.walk import Task, Walk

if TYPE_CHECKING:  # which imports this module
    from kdsim.study.trainings import Fitting, Training

PROBE_STEPS, PROBE_SECONDS = 5, 1.0
"""Steps of a network, or seconds of an engine, from which the duration of a training is estimated."""
PROBE_BATCHES = 4
"""Images, in batches, on which an estimate fits a teacher: kinds whose fit trains further do so for a few steps."""


@dataclass(frozen=True)
class Probe:
    """What a training will take.

    Attributes:
        seconds: by each of several probes.
        threads: on which it runs meanwhile.
    """

    seconds: list[float]
    threads: int


def probe(training: Training, repeats: int = 1) -> Probe:
    """How long a training will take. A teacher counts as a network with its first weights: it costs the same."""
    trainer = training.trainer
    if not trainer.is_network:
        return Probe([_probe_engine(trainer) for _ in range(repeats)], torch.get_num_threads())
    task = _task(trainer)
    together = fits(task)  # all replicas are one program
    on_cpu = trainer.device == "cpu" and not together
    side_by_side = replicas_at_once(training.replicas, training.trainer.device)
    with one_thread(task.device) if together else as_a_replica(task.device):
        walk = Crowd(task, training.replicas) if together else Walk(task, 0)
        started = time.monotonic()
        walk.advance()  # warms up, and asks a teacher of images that stay as they are about all of them
        first = time.monotonic() - started
        steps = []
        for _ in range(repeats):
            started = time.monotonic()
            for _ in range(PROBE_STEPS):
                walk.advance()
            steps.append((time.monotonic() - started) / PROBE_STEPS)
        started = time.monotonic()
        walk.scores(task.validation, task.truth)
        look = time.monotonic() - started
    rounds = 1 if together else -(-training.replicas // side_by_side)
    seconds = [rounds * (first + step * training.steps + look * len(walk.schedule)) for step in steps]
    return Probe(seconds, side_by_side * replica_threads() if on_cpu else 1)


def probe_fit(fitting: Fitting) -> float:
    """Seconds that fits and a look at each teacher will take: those of a fit on a few images, times the images.

    The networks are untrained ones, so a fit that goes on until something is reached may take longer or shorter.
    """
    teacher, pools = fitting.teacher, fitting.teacher.training.pools()
    with as_a_replica(teacher.training.device):
        started = time.monotonic()
        small, fitted, few = _untrained(teacher)
        fit = time.monotonic() - started
        started = time.monotonic()
        teacher_quality(small, fitted, replace(few, test=few.test.points(slice(few.validation.size))))
        look = time.monotonic() - started
    fit *= (pools.train.size + pools.validation.size) / (few.train.size + few.validation.size)
    look *= (pools.validation.size + pools.test.size) / (2 * few.validation.size)
    return fitting.replicas * (fit + look)


def _task(trainer: StudentTrainer) -> Task:
    """What its replicas share, with a teacher that knows nothing: first weights, fitted on a few images."""
    if trainer.teacher is None:
        return trainer.task(trainer.pools())
    return trainer.task(trainer.pools(), (_untrained(trainer.teacher)[1],))


def _untrained(teacher: Teacher) -> tuple[Teacher, FittedTeacher, Pools]:
    """A teacher of networks with their first weights, fitted on a few images: configuration, teacher, images."""
    training = replace(teacher.training, replicas=teacher.members)
    task, own = _task(training), config.digest(training)
    untrained = {"loss": float("nan")}
    networks = [Walk(task, number).trained(own, "", untrained) for number in range(training.replicas)]
    pools, few = training.pools(), slice(PROBE_BATCHES * training.recipe.batch_size)
    pools = replace(pools, train=pools.train.points(few), validation=pools.validation.points(few))
    teacher = replace(teacher, training=training)
    return teacher, fit_teacher(teacher, networks, pools, 0), pools


def _probe_engine(trainer: StudentTrainer) -> float:
    """Seconds of an engine's run, from its first steps."""
    started = time.monotonic()
    seen = [(0.0, 0, 1)]
    trainer.run(
        progress=lambda done, total: seen.append((time.monotonic() - started, done, total)),
        stop=lambda: time.monotonic() - started > PROBE_SECONDS,
    )
    seconds, done, total = seen[-1]
    return seconds * total / max(done, 1)
