"""How the students of a training deviate from their teachers, at the test points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from kdsim.data import Pools
from kdsim.measure.deviations import deviations
from kdsim.trainer import StudentTrainer, Trained, teacher_log_probs
from kdsim.training.evaluation import log_probs_of
from kdsim.training.fitted import FittedTeacher

PREFIX = "deviation_"
"""Of the columns."""


def student_deviations(
    trainer: StudentTrainer, trained: Trained, teachers: Sequence[FittedTeacher], pools: Pools
) -> list[dict[str, float]]:
    """`kdsim.measure.deviations` of each student at the last step from its teacher, number r modulo their number.

    A teacher with posterior samples counts as their mean. p is looked at where it is the exact BCP.
    """
    test, mixed = pools.test, trainer.mixed
    p = test.p if trainer.data.test_truth == "bcp" else None

    @cache
    def said(number: int) -> Tensor:
        """Log-probabilities of a teacher, (N, K)."""
        samples = teacher_log_probs(trainer.teacher, teachers[number], test, trainer.device)  # (S, N, K)
        return samples.logsumexp(0) - math.log(len(samples))

    found = []
    for replica, network in enumerate(trained.networks):
        teacher = said(replica % len(teachers))
        if network.scores:
            module = network.module(trainer.device)
            own = log_probs_of(module, test.x.to(trainer.device), network.normalisation, mixed)
            student = torch.log_softmax(own.double(), -1).cpu()  # float32 leaves a sum of one to 1e-7
        else:  # it diverged
            student = torch.full_like(teacher, math.nan)
        found.append(deviations(teacher, student, p))
    return found
