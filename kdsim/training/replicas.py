"""All replicas of a training, side by side on a CPU, and the checkpoints from which each goes on bit for bit."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from kdsim.config import require
from kdsim.population import Population
from kdsim.threads import on_threads
from kdsim.training.checkpoints import Checkpoints
from kdsim.training.evaluation import scored
from kdsim.training.record import ReplicaResult
from kdsim.training.trained import TrainedNetwork
from kdsim.training.walk import Task, Walk

REPLICA_THREADS = "KDSIM_REPLICA_THREADS"
"""Environment variable: threads of one replica."""
MOST_THREADS = 1024


class Replicas:
    """The replicas of a task: each trained to its end, or until it is told to stop, with checkpoints on the way.

    Args:
        task: what they share.
        count: how many there are.
        test: the test images, on the device, and what their p is.
        training: digest of the configuration, which names the checkpoints.
        provenance: of the data.
        folder: of the checkpoints, or None.
        progress, stop, checkpoint_seconds: see `StudentTrainer.run`.

    Raises:
        ConfigError: a checkpoint is damaged, or that of another training or of other data.
    """

    def __init__(
        self,
        task: Task,
        count: int,
        test: tuple[Population, str],
        training: str,
        provenance: Mapping[str, Any],
        folder: Path | None,
        progress: Callable[[int, int], None] | None,
        stop: Callable[[], bool],
        checkpoint_seconds: float,
    ) -> None:
        self.task, self.count, self.stop = task, count, stop
        self.test, self.test_truth = test
        self.progress, self.checkpoint_seconds = progress, checkpoint_seconds
        self.checkpoints = Checkpoints(folder, training, provenance)
        self.lock = threading.Lock()
        self.failed = False
        # A checkpoint that is damaged is refused before anything is computed.
        stored = (self.checkpoints.read(number) for number in range(count))
        self.done = [found["walk"]["step"] if found else 0 for found in stored]
        self._report(0, self.done[0])

    def run(self) -> list[tuple[ReplicaResult, TrainedNetwork]] | None:
        """All of them, on a CPU side by side; None if they were told to stop."""
        with side_by_side(self.count, self.task.device) as each:
            try:
                results = each(self.replica, range(self.count))
            except BaseException:  # an interruption by hand reaches this thread alone
                self.failed = True
                raise
        return None if any(result is None for result in results) else results

    def replica(self, number: int) -> tuple[ReplicaResult, TrainedNetwork] | None:
        """Train one replica to its end; None if it was told to stop, its state is then saved."""
        try:
            return self._replica(number)
        except BaseException:
            self.failed = True  # the others save their states and leave
            raise

    def _replica(self, number: int) -> tuple[ReplicaResult, TrainedNetwork] | None:
        if self.stop() or self.failed:
            return None
        found = self.checkpoints.read(number)
        walk = Walk(self.task, number, found["walk"] if found else None)
        if walk.teacher is None and walk.step == 0:
            walk.require_finite()
        before, started = (found["seconds"] if found else 0.0), time.monotonic()
        saved = started
        while not walk.finished:
            walk.advance()
            self._report(number, walk.step)
            told = self.stop() or self.failed
            now = time.monotonic()
            if told or walk.finished or now - saved > self.checkpoint_seconds:
                self.checkpoints.write(number, walk.state(), before + now - started)
                saved = now
            if told and not walk.finished:
                return None
        return self._finished(number, walk, before + time.monotonic() - started)

    def _finished(self, number: int, walk: Walk, seconds: float) -> tuple[ReplicaResult, TrainedNetwork]:
        task = self.task
        well = walk.diverged_at < 0
        nothing = dict.fromkeys(scored(task.train.classes, self.test_truth, task.groups), float("nan"))
        last = walk.scores(self.test, self.test_truth) if well else nothing
        found = walk.scores(task.validation, task.truth) if well else {}
        network = walk.trained(self.checkpoints.training, self.checkpoints.data, found)
        best = nothing
        if well:
            walk.use_best()
            best = walk.scores(self.test, self.test_truth)
        return ReplicaResult(walk.curves, last, best, walk.best["step"], walk.diverged_at, seconds), network

    def _report(self, number: int, step: int) -> None:
        with self.lock:
            self.done[number] = step
            if self.progress is not None:
                self.progress(sum(self.done), self.task.steps * self.count)


def replica_threads() -> int:
    """Threads of one replica of a network on a CPU, and of the fit of a teacher: KDSIM_REPLICA_THREADS, by default one.

    A replica on two threads of its own is faster where nothing else wants a core, and five times slower
    where something does. Results are rounded as this number has it, and no other number of threads changes them.

    Raises:
        ConfigError: the variable is no whole number above 0.
    """
    text = os.environ.get(REPLICA_THREADS, "").strip() or "1"
    require(text.isdecimal() and 0 < int(text) <= MOST_THREADS, REPLICA_THREADS, text, f"1 to {MOST_THREADS}")
    return int(text)


def replicas_at_once(replicas: int, device: torch.device | str = "cpu") -> int:
    """Replicas that run side by side: on a CPU so many that they share torch's threads, elsewhere one."""
    if torch.device(device).type != "cpu":
        return 1
    return max(1, min(replicas, torch.get_num_threads() // replica_threads()))


@contextmanager
def as_a_replica(device: torch.device | str) -> Iterator[None]:
    """Within the block torch computes on the threads of one replica, on a CPU."""
    with on_threads(replica_threads()) if torch.device(device).type == "cpu" else nullcontext():
        yield


@contextmanager
def side_by_side(replicas: int, device: torch.device) -> Iterator[Callable[..., list[Any]]]:
    """A map over replicas. On a CPU several of them run side by side, each on `replica_threads`."""
    together = replicas_at_once(replicas, device)
    with as_a_replica(device):
        if together == 1:
            yield lambda function, items: [function(item) for item in items]
            return
        with ThreadPoolExecutor(together, initializer=torch.set_num_threads, initargs=(replica_threads(),)) as pool:
            yield lambda function, items: [future.result() for future in [pool.submit(function, i) for i in items]]
