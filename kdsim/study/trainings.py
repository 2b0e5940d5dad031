"""Cells that are trainings (`StudentTrainer`): in which order they run, their rows, and their weights on disk.

DIR/cells/<digest>/weights-<replica>.safetensors beside cell.json and the tables, see `TrainedNetwork`
DIR/teachers/<digest>-<number>.safetensors      a fitted teacher, see `FittedTeacher`
DIR/partial/<source>/<digest>-r<replica>.safetensors      a replica of an interrupted training
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kdsim import config
from kdsim.config import ConfigError, kind_of
from kdsim.data import Pools
from kdsim.files import Damaged, Unreadable
from kdsim.measure.convergence import in_window, summarise
from kdsim.measure.deviations import over_replicas
from kdsim.results.json_files import json_ready
from kdsim.results.provenance import POPULATION, TEACHER_SOURCE, source_of
from kdsim.results.rows import TEACHER, TRAINING
from kdsim.results.store import Store
from kdsim.sources import kdsim_digest
from kdsim.study.base import Cell, Computation, Study
from kdsim.study.computations import Computing
from kdsim.study.packs import Estimate, cells_of, check_machine
from kdsim.study.reuse import data_of_training
from kdsim.study.tables import columns_over_replicas
from kdsim.study.training_bias import bias_columns, prior_bias
from kdsim.study.training_deviations import PREFIX, student_deviations
from kdsim.study.training_probes import probe
from kdsim.study.training_rows import (
    known,
    over_teachers,
    student_name,
    summary,
    taught_by,
    teacher_quality,
    teacher_summary,
)
from kdsim.study.weights import read_weights
from kdsim.trainer import StudentTrainer, Teacher, Trained, fit_teacher, teacher_scores
from kdsim.training.fitted import FittedTeacher
from kdsim.training.record import TrainingRecord
from kdsim.training.replicas import as_a_replica
from kdsim.training.trained import TrainedNetwork

SCORE_TOLERANCE = 0.01
"""Relative change of a stored teacher's loss that rounding on another machine may make."""


Stop = Callable[[], bool]
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Training:
    """A training that is to be run.

    Attributes:
        trainer: what runs.
    """

    trainer: StudentTrainer

    @property
    def replicas(self) -> int:
        """Independent trainings."""
        return self.trainer.replicas

    @property
    def steps(self) -> int:
        """Steps of each replica. Reads or draws the data."""
        return self.trainer.steps(self.trainer.train_size())

    @property
    def cell(self) -> StudentTrainer:
        """The cell that it is."""
        return self.trainer

    @cached_property
    def digest(self) -> str:
        """Of the trainer: it names the result."""
        return config.digest(self.trainer)

    def __str__(self) -> str:
        """What it is, for messages."""
        trainer = self.trainer
        return f"training of {student_name(trainer)} on {kind_of(type(trainer.data))} ({taught_by(trainer)})"

    def run(self, store: Store, report: Report, stop: Stop, stamp: Mapping[str, Any]) -> dict[str, Any] | None:
        """Run it, or go on where it was interrupted, and store it: the content of cell.json; None if told to stop."""
        trainer, started = self.trainer, time.monotonic()
        with as_a_replica(trainer.device):
            teachers = () if trainer.teacher is None else fitted_teachers(trainer.teacher, store, stop)
        if teachers is None:
            return None
        before = trainer.seconds_before(store.unfinished.folder)
        trained = trainer.run(teachers=teachers, checkpoints=store.unfinished.folder, progress=report, stop=stop)
        if trained is None:
            return None
        with as_a_replica(trainer.device):
            found = student_deviations(trainer, trained, teachers, trainer.pools()) if teachers else []
            content = self.content(trained, found, teachers)
        content |= {
            "wall_seconds": before + time.monotonic() - started,
            **_teacher_source(trainer.teacher, store),
            **stamp,
        }
        curves, replicas = tables(trained.record, trainer.window)
        replicas = replicas.join(pd.DataFrame(found).add_prefix(PREFIX))
        config.require_unchanged(trainer, self.digest)
        store.write_cell(self.digest, content, curves, replicas, networks=trained.networks)
        trainer.delete_checkpoints(store.unfinished.folder)
        return content

    def content(
        self,
        trained: Trained,
        deviations: Sequence[Mapping[str, float]] = (),
        teachers: Sequence[FittedTeacher] = (),
    ) -> dict[str, Any]:
        """The content of cell.json, less versions and date.

        Args:
            deviations: of each student from its teacher, where there is one.
            teachers: those teachers.
        """
        trainer, record, steps = self.trainer, trained.record, self.steps
        seconds = record.seconds.sum().item()  # of replicas that ran side by side, each counts in full
        deviation = over_replicas(deviations, PREFIX) if deviations else {}
        speed = {"images_per_replica_second": steps * trainer.recipe.batch_size * trainer.replicas / seconds}
        return {
            "kind": TRAINING,
            "cell": config.encode(trainer),
            "summary": summary(trainer) | {"steps": steps, "train_size": trained.provenance["train_size"]},
            "prediction": json_ready(known(trainer) | prior_bias(trainer)),
            "measurement": json_ready(
                summarise(record, trainer.window) | bias_columns(trainer, trained, teachers) | speed | deviation
            ),
            "provenance": trained.provenance,
            POPULATION: data_of_training(trainer),
            "seed": trainer.seed,
            "device": trainer.device,
            "replica_steps": self.replicas * steps,
            "replica_seconds": seconds,
        }


@dataclass(frozen=True)
class Fitting:
    """Teachers of one configuration that are to be fitted after their training, and looked at.

    Attributes:
        teacher: what is fitted.
    """

    teacher: Teacher

    @property
    def replicas(self) -> int:
        """Independent teachers."""
        return self.teacher.count

    @property
    def steps(self) -> int:
        """Counts as one step each: most fits are short."""
        return 1

    @property
    def cell(self) -> Teacher:
        """The cell that it is."""
        return self.teacher

    @cached_property
    def digest(self) -> str:
        """Of the teacher: it names the result."""
        return config.digest(self.teacher)

    def __str__(self) -> str:
        """What it is, for messages."""
        return f"fit of the teacher {kind_of(type(self.teacher))} ({student_name(self.teacher.training)})"

    def run(self, store: Store, report: Report, stop: Stop, stamp: Mapping[str, Any]) -> dict[str, Any] | None:
        """Fit or read the teachers, look at each, and store what was seen: the content of cell.json."""
        with as_a_replica(self.teacher.training.device):
            return self._run(store, report, stop, stamp)

    def _run(self, store: Store, report: Report, stop: Stop, stamp: Mapping[str, Any]) -> dict[str, Any] | None:
        teacher, pools = self.teacher, self.teacher.training.pools()
        started, found = time.monotonic(), []
        fitted_ones = fitted_teachers(teacher, store, stop)
        for fitted in fitted_ones or ():
            if stop():
                return None
            found.append(teacher_quality(teacher, fitted, pools))
            report(len(found), self.replicas)
        if fitted_ones is None:
            return None
        content = {
            "kind": TEACHER,
            "cell": config.encode(teacher),
            "summary": teacher_summary(teacher),
            "prediction": {},
            "measurement": json_ready(over_teachers(found)),
            "provenance": dict(pools.provenance),
            POPULATION: data_of_training(teacher.training),
            "seed": teacher.training.seed,
            "device": teacher.training.device,
            "replica_steps": self.replicas,
            "wall_seconds": time.monotonic() - started,
            **_teacher_source(teacher, store),
            **stamp,
        }
        each = pd.DataFrame(found).assign(replica=range(len(found)))
        config.require_unchanged(teacher, self.digest)
        store.write_cell(self.digest, content, pd.DataFrame({"step": []}), each)
        return content


def jobs(
    cells: Iterable[StudentTrainer | Teacher | Computation], store: Store | None
) -> list[Training | Fitting | Computing]:
    """What is not stored of the cells, each once; a teacher's training, which may be no cell itself, before it."""
    order: dict[str, Training | Fitting | Computing] = {}

    def add(cell: StudentTrainer | Teacher | Computation) -> None:
        digest = config.digest(cell)
        if digest in order or (store is not None and store.has_cell(digest)):
            return
        if isinstance(cell, Teacher):
            add(cell.training)
            order[digest] = Fitting(cell)
            return
        if isinstance(cell, Computation):
            order[digest] = Computing(cell)
            return
        if cell.teacher is not None:
            add(cell.teacher.training)
        order[digest] = Training(cell)

    for cell in cells:
        add(cell)
    return list(order.values())


def warn_of_emulation(todo: Iterable[Training | Fitting | Computing], note: Callable[[str], None]) -> None:
    """One line where trainings run in bfloat16 on a processor that emulates it: few ask for that knowingly."""
    slow = [job for job in todo if isinstance(job, Training) and job.trainer.emulated]
    if slow:
        count = "1 training" if len(slow) == 1 else f"{len(slow)} trainings"
        note(
            f"precision = bfloat16 of {count} is emulated by this processor, some ten times slower than float32: "
            "precision = auto takes float32 on a CPU"
        )


def fitted_teachers(teacher: Teacher, store: Store, stop: Stop = lambda: False) -> tuple[FittedTeacher, ...] | None:
    """All teachers of a configuration, whose training is stored.

    Those are read that this source of kdsim has fitted to the networks that are stored now. None if told to stop, which
    is asked between two teachers.

    Raises:
        ConfigError: a file is damaged, or its teacher does not have the scores that it had when it was fitted.
    """
    pools, digest, training = teacher.training.pools(), config.digest(teacher), config.digest(teacher.training)
    require_trained(teacher, store)
    networks = read_weights(store, training)
    found = []
    for number in range(teacher.count):
        file = store.teacher_file(digest, number)
        with store.unfinished.waited_for(f"{digest}-{number:03d}", stop) as held:  # students of one teacher wait here
            if not held:
                return None
            fitted = _stored_teacher(file, digest, number) if file.exists() else None
            if fitted is not None and fitted.source == kdsim_digest() and _is_made_of(fitted, networks):
                check_scores(teacher, fitted, pools, str(file))
            else:
                fitted = fit_teacher(teacher, networks, pools, number)
                fitted.save(file)
        found.append(fitted)
    return tuple(found)


def _teacher_source(teacher: Teacher | None, store: Store) -> dict[str, str]:
    """Which source of kdsim trained it, for cell.json."""
    return {} if teacher is None else {TEACHER_SOURCE: source_of(store.read_info(config.digest(teacher.training)))}


def _is_made_of(fitted: FittedTeacher, networks: Sequence[TrainedNetwork]) -> bool:
    """Whether the networks of a teacher are among these, bit for bit: their training may have been run again."""
    trained = {network.replica: network.weights for network in networks}
    pairs = [(own.weights, trained.get(own.replica, {})) for own in fitted.networks]
    return all(
        own.keys() == there.keys() and all(torch.equal(own[name], there[name]) for name in own) for own, there in pairs
    )


def require_trained(teacher: Teacher, store: Store) -> None:
    """Refuse a teacher whose training is not stored, or was to be run again and failed."""
    if not store.has_cell(config.digest(teacher.training)):
        raise ConfigError(f"its teacher, the {Training(teacher.training)}, is not there: it failed before")


def _stored_teacher(file: Path, digest: str, number: int) -> FittedTeacher:
    """The fitted teacher in a file, which must be the one that its name says."""
    try:
        fitted = FittedTeacher.load(file)
    except (Damaged, Unreadable):
        raise
    except ConfigError as error:
        raise Damaged(str(error), file) from None
    if (fitted.teacher, fitted.number) != (digest, number):
        found = f"number {fitted.number} of {fitted.teacher!s:.40}"
        raise Damaged(f"teacher {file} is {found}: delete it to fit it again", file)
    return fitted


def check_scores(teacher: Teacher, fitted: FittedTeacher, pools: Pools, name: str) -> None:
    """Refuse a teacher whose loss on validation images is not that of its file: other weights, or another library."""
    now, then = teacher_scores(teacher, fitted, pools.validation)["loss"], fitted.scores["loss"]
    # Infinite losses (a teacher that rules classes out) agree with each other; NaN agrees with nothing.
    if not math.isclose(now, then, rel_tol=SCORE_TOLERANCE, abs_tol=SCORE_TOLERANCE):
        raise ConfigError(
            f"{name}: its loss on the validation images is {now:.6g}, it was {then:.6g} when it was stored: "
            "delete it to fit it again"
        )


def tables(record: TrainingRecord, window: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves (one row an evaluation, columns as in `kdsim.study.tables`) and one row a replica.

    Args:
        window: see `kdsim.measure.convergence.summarise`.
    """
    curves = columns_over_replicas(record.steps.numpy(), {k: v.numpy() for k, v in record.curves.items()})
    replicas = {
        "replica": list(range(record.replicas)),
        "diverged_at": record.diverged_at.numpy(),
        "best_step": record.best_step.numpy(),
        "seconds": record.seconds.numpy(),
    }
    replicas |= {f"final_{name}": values[-1].numpy() for name, values in record.curves.items()}
    replicas |= {f"test_{name}": values.numpy() for name, values in record.test.items()}
    replicas |= {f"best_test_{name}": values.numpy() for name, values in record.best_test.items()}
    replicas |= {name: values.numpy() for name, values in in_window(record, window).items()}
    return curves, pd.DataFrame(replicas)


# Before anything runs ---------------------------------------------------------------------------


def is_training(study: Study) -> bool:
    """Whether the study's cells are trainings, teachers and computations."""
    return not isinstance(cells_of(study)[0], Cell)


def planned_rows(study: Study) -> list[dict[str, Any]]:
    """What would be trained: one row a cell."""
    planned = []
    for trainer in cells_of(study):
        if not isinstance(trainer, StudentTrainer):
            continue
        size = trainer.train_size()
        row = {"cell": config.digest(trainer), **summary(trainer), "steps": trainer.steps(size), "train_size": size}
        planned.append(row | json_ready(known(trainer)))
    return planned


def estimate(study: Study) -> Estimate:
    """What the whole study costs, teachers included but for their fits, from a few steps and an evaluation of each.

    Computations are not counted.
    """
    cells = cells_of(study)
    check_machine(cells)
    todo = [job for job in jobs(cells, None) if isinstance(job, Training)]
    return Estimate(
        cells=len(dict.fromkeys(map(config.digest, cells))),
        packs=len(todo),
        replica_steps=sum(training.replicas * training.steps for training in todo),
        seconds=sum(probe(training).seconds[0] for training in todo),
    )
