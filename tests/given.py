"""A study of any trainings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kdsim.study.base import Study
from kdsim.trainer import StudentTrainer


@dataclass(frozen=True)
class Given(Study):
    """The trainings that it is given."""

    name: ClassVar[str] = "given"
    summary: ClassVar[str] = "trainings"
    figure: ClassVar[Any] = None

    trainers: tuple[StudentTrainer, ...] = ()

    def cells(self) -> tuple[StudentTrainer, ...]:
        return self.trainers

    def quick(self) -> Given:
        return self
