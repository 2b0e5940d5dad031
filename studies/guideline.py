"""guideline: does a better estimate of the BCP make a better, steadier student, and does accuracy explain it less?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from kdsim.studies.teacher_kinds import TeacherStudy
from kdsim.teachers.kinds import teacher_of
from kdsim.trainer import StudentTrainer, Teacher


@dataclass(frozen=True)
class Guideline(TeacherStudy):
    """Teachers of many kinds against the truth: their distance to it, their accuracy, and what their students do.

    The paper's guideline is to teach with Bayesian networks, because they estimate the BCP better. Here the truth is
    known: the exact BCP (`known-images`), or what some 51 people say of the test images (`data=cifar10
    data.people=true`). The rank correlations that the study prints are over teachers and replicas, with intervals by a
    bootstrap of kinds; with few kinds they are wide.
    """

    name: ClassVar[str] = "guideline"
    summary: ClassVar[str] = "distance of teachers to the true BCP against their students' accuracy and steadiness"
    figure: ClassVar[str] = "guideline"

    kinds: tuple[str, ...] = ("deterministic", "temperature-scaled", "laplace", "mse", "ivon", "mc-dropout", "swag")

    def cells(self) -> tuple[StudentTrainer | Teacher, ...]:
        cells: list[StudentTrainer | Teacher] = []
        for base, student in self.trainings():
            for kind in self.kinds:
                teacher = teacher_of(kind, base, self.samples)
                cells += [teacher, replace(student, supervision=teacher, loss=self.loss)]
        return tuple(cells)
