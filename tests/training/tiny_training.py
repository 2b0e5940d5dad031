"""Trainings of a moment: the tests' network on 200 drawn images, with known class probabilities or labels alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from tiny_network import TINY, register
from torch import Tensor

from kdsim.data import ImageSource, KnownImages, Pools
from kdsim.engines.base import SGD, Lane
from kdsim.engines.samples import Samples
from kdsim.losses import DistillationLoss, cross_entropy
from kdsim.population import Population
from kdsim.problems import Images
from kdsim.supervision import OneHot, Supervision
from kdsim.trainer import ImageNetwork, StudentTrainer, Trained
from kdsim.training import Recipe

register()
PROBLEM = Images(classes=3, samples=200, validation_samples=50, test_samples=40, clutter=0, dimension=2)
BATCH = 16


@dataclass(frozen=True)
class LabelledImages(ImageSource):
    """The same images with their labels alone, so that crops and flips are allowed.

    A file `note` in the data folder is part of the provenance, as human labels are of CIFAR's.
    """

    name: ClassVar[str] = "labelled-images"
    classes: ClassVar[int] = 3
    train_truth: ClassVar[str] = "labels"
    test_truth: ClassVar[str] = "labels"

    def pools(self, seed: int, data_dir: str | Path | None = None) -> Pools:
        known = KnownImages(PROBLEM).pools(seed)
        parts = [
            Population(pool.x, torch.nn.functional.one_hot(pool.y, 3).double(), pool.y)
            for pool in (known.train, known.validation, known.test)
        ]
        note = (Path(data_dir) / "note").read_text() if data_dir else ""
        return Pools(*parts, known.provenance | {"note": note})


@dataclass(frozen=True)
class Heard(DistillationLoss):
    """Cross-entropy against what is taught, which keeps what it was called with."""

    calls: Any = field(default_factory=list, compare=False)

    name: ClassVar[str] = "heard"

    @property
    def weights(self) -> tuple[float, float]:
        return 0.0, 1.0

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, epoch: float) -> Tensor:
        self.calls.append((student_logits.detach().clone(), teacher_logits.clone(), labels.clone(), epoch))
        return super().__call__(student_logits, teacher_logits, labels, epoch)

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor | None, epoch: float) -> Tensor:
        return cross_entropy(student, torch.softmax(teacher, -1)).mean(-1)


def tiny(steps: int = 12, *, labelled: bool = False, recipe: Recipe | None = None, **changes: Any) -> StudentTrainer:
    """A training of so many steps of 16 images, float32 unless the recipe says otherwise, seen four times."""
    data = LabelledImages() if labelled else KnownImages(PROBLEM)
    recipe = replace(recipe or Recipe(precision="float32"), epochs=steps * BATCH / PROBLEM.samples, batch_size=BATCH)
    return StudentTrainer(ImageNetwork(TINY), data, **{"recipe": recipe, "evaluations": 4, "seed": 3} | changes)


def visits(trainer: StudentTrainer, replica: int, supervision: Supervision | None = None) -> tuple[Tensor, Tensor]:
    """Image numbers (V,) and targets (V, K) of all visits of a replica, drawn at once."""
    train = trainer.pools().train
    sgd = SGD(trainer.steps(train.size), BATCH, index="permutation", targets=trainer.targets)
    lane = Lane(supervision or OneHot(), 1.0, trainer.seed, 1, first_replica=replica)
    points = Population(train.x.flatten(1).double(), train.p, train.y)
    index, q = Samples(points, [lane], sgd, torch.float32, torch.device("cpu")).chunk(0, sgd.steps)
    return index[0], q[0]


def same(first: Trained, second: Trained) -> bool:
    """Whether two trainings ended bit for bit alike: all that was seen, and all weights. Not how long they took."""
    records = [trained.record for trained in (first, second)]
    tables = [
        {**{name: getattr(record, name) for name in ("steps", "best_step", "diverged_at")}, **record.curves}
        | {f"test {name}": value for name, value in record.test.items()}
        | {f"best {name}": value for name, value in record.best_test.items()}
        for record in records
    ]
    weights = [
        {f"{net.replica} {name}": value for net in trained.networks for name, value in net.weights.items()}
        for trained in (first, second)
    ]
    return all(
        one.keys() == other.keys()
        and all(torch.equal(one[name].nan_to_num(-1), other[name].nan_to_num(-1)) for name in one)
        for one, other in (tables, weights)
    )
