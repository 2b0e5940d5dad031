"""The executor that computes in this process, one task after the other, each on all threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdsim.study.executors import Executor, Outcome, Task, outcome
from kdsim.study.packs import check_machine


class Local(Executor):
    """Computes a task when its outcome is waited for."""

    def check(self, cells: Sequence[Any]) -> None:
        """Refuse engines and devices that this machine has not."""
        check_machine(cells)

    def submit(self, number: int, task: Task) -> None:
        """Take it; there is one slot."""
        self._task = number, task

    def wait(self, seconds: float) -> tuple[int, Outcome] | None:
        """Compute the task, however long it takes."""
        number, task = self._task
        return number, outcome(task, lambda done: self.report(number, done), self.stop, self.slice_seconds)
