"""Cells that are trainings (`StudentTrainer`): in which order they run, their rows, and their weights on disk.

DIR/cells/<digest>/weights-<replica>.pt beside cell.json and the tables, see `TrainedNetwork`
DIR/partial/<digest>-r<replica>.pt      a replica of an interrupted training
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kdsim import config
from kdsim.config import kind_of
from kdsim.measure.convergence import summarise
from kdsim.study.rows import json_ready
from kdsim.study.store import PARTIAL, Store
from kdsim.study.tables import columns_over_replicas
from kdsim.study.training_rows import TRAINING, known, student_name, summary, taught_by
from kdsim.trainer import StudentTrainer, Trained
from kdsim.training.record import TrainingRecord


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
    def digest(self) -> str:
        """Of the trainer: it names the result."""
        return config.digest(self.trainer)

    def __str__(self) -> str:
        """What it is, for messages."""
        trainer = self.trainer
        return f"training of {student_name(trainer)} on {kind_of(type(trainer.data))} ({taught_by(trainer)})"


def trainings(cells: Iterable[StudentTrainer], store: Store) -> list[Training]:
    """Those of the cells that are not stored, each once and behind its teacher's, which may be no cell itself."""
    order: dict[str, Training] = {}

    def add(trainer: StudentTrainer) -> None:
        digest = config.digest(trainer)
        if digest in order or store.has_cell(digest):
            return
        if trainer.teacher is not None:
            add(trainer.teacher.training)
        order[digest] = Training(trainer)

    for cell in cells:
        add(cell)
    return list(order.values())


def train(
    training: Training, store: Store, progress: Callable[[int, int], None], stop: Callable[[], bool]
) -> Trained | None:
    """Run a training, or go on where it was interrupted; None if it was told to stop. Its teacher is read from disk."""
    trainer = training.trainer
    teachers = ()
    if trainer.teacher is not None:
        teachers = store.read_weights(config.digest(trainer.teacher.training))
    return trainer.run(teachers=teachers, checkpoints=store.root / PARTIAL, progress=progress, stop=stop)


def info(training: Training, trained: Trained) -> dict[str, Any]:
    """The content of cell.json, less versions and date."""
    trainer, record = training.trainer, trained.record
    seconds = record.seconds.sum().item()
    images = training.steps * trainer.recipe.batch_size
    return {
        "kind": TRAINING,
        "cell": config.encode(trainer),
        "summary": summary(trainer) | {"steps": training.steps, "train_size": trained.provenance["train_size"]},
        "prediction": json_ready(known(trainer)),
        "measurement": json_ready(
            summarise(record, trainer.window) | {"images_per_second": images * trainer.replicas / seconds}
        ),
        "provenance": trained.provenance,
        "seed": trainer.seed,
        "device": trainer.device,
        "replica_steps": training.replicas * training.steps,
        "wall_seconds": seconds,
    }


def tables(record: TrainingRecord) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves (one row an evaluation, columns as in `kdsim.study.tables`) and one row a replica."""
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
    return curves, pd.DataFrame(replicas)
