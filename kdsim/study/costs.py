"""What a replica-step of a job costs next to others of one study, by which progress tells the time that is left.

A study may train softmax regression for a million steps and ResNet-20 for a thousand, so that a share of its
replica-steps says nothing about time. Costs are counts of multiply-adds, right to within a factor of two or so;
`show-study` measures.
"""

from __future__ import annotations

from functools import lru_cache

from kdsim.networks import build, flops
from kdsim.study.trainings import Fitting, Training
from kdsim.trainer import StudentTrainer

IMAGE = (3, 32, 32)
POINT_STEP, IMAGE_STEP = 5e6, 3e8
"""Multiply-adds in the time of a step's overhead, of a point network among many and of one network of images."""
BACKWARD = 3
"""Cost of a step over that of its forward pass."""
LOOKS = 3_000
"""Images at which a fitted teacher is evaluated, about."""


def step_cost(job: object) -> float:
    """Multiply-adds of a replica-step, or of one teacher's fit; 1 for jobs that are all alike."""
    if isinstance(job, Fitting):
        return LOOKS * _forward(job.teacher.training) + IMAGE_STEP
    if not isinstance(job, Training):
        return 1.0
    trainer = job.trainer
    if not trainer.on_images:
        return POINT_STEP
    own = BACKWARD * trainer.recipe.batch_size * _forward(trainer)
    return IMAGE_STEP + own + (_asked(trainer) if trainer.teacher else 0.0)


def _asked(trainer: StudentTrainer) -> float:
    """What asking the teacher at a step costs; images that stay as they are are asked about once."""
    if trainer.data.train_truth == "bcp":
        return 0.0
    teacher = trainer.teacher
    passes = teacher.members * getattr(teacher, "samples", 1)
    return passes * trainer.recipe.batch_size * _forward(teacher.training)


def _forward(trainer: StudentTrainer) -> float:
    """Of one input; next to nothing for networks of points."""
    return _multiply_adds(trainer.student.network, trainer.data.classes) if trainer.on_images else 1.0


@lru_cache
def _multiply_adds(network: str, classes: int) -> float:
    return float(flops(build(network, classes), IMAGE))
