"""What travels between a study and the workers of its cluster, and what a worker does with it."""

from __future__ import annotations

import io
import os
import pickle
import threading
import time
from dataclasses import dataclass
from typing import Any

import torch

from kdsim.config import ConfigError
from kdsim.engines import Choice
from kdsim.sources import kdsim_digest
from kdsim.study.executors import Failed, Outcome, failed, outcome
from kdsim.study.loading import load_study_file
from kdsim.study.packs import choice_of
from kdsim.study_files import StudyFile, study_file_of

REPORT_SECONDS = 1.0
"""Time between two words of a task about its progress."""
DATA_DIR = "KDSIM_DATA"


@dataclass(frozen=True)
class Packed:
    """A value in the form in which it travels.

    Attributes:
        data: it, as bytes.
        study_files: the files that define its classes, as this process read them; they are imported before it is read.
    """

    data: bytes
    study_files: tuple[StudyFile, ...]

    def value(self) -> Any:
        """The value.

        Raises:
            ConfigError: the code of a study file cannot be run here.
        """
        for file in self.study_files:
            load_study_file(file)
        return pickle.loads(self.data)


@dataclass(frozen=True)
class Sent:
    """What goes with a task.

    Attributes:
        token: of the run.
        number: of the task.
        source: digest of the source of the kdsim that sends it.
        slice_seconds: see `Executor.begin`.
        choose_gpu: whether the worker takes the GPU of its own number.
        data_dir: folder of real images, or None.
    """

    token: str
    number: int
    source: str
    slice_seconds: float
    choose_gpu: bool
    data_dir: str | None


def packed(value: Any) -> Packed:
    """A value with what it needs to be read. Of a tensor that shows a part of another only that part travels."""
    import cloudpickle

    files: dict[str, StudyFile] = {}  # in order, by the names of their modules

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, item: Any) -> Any:
            if (file := study_file_of(str(getattr(item, "__module__", "")))) is not None:
                files[file.name] = file
            if isinstance(item, torch.Tensor) and item.untyped_storage().nbytes() > item.nbytes:
                return item.clone().__reduce_ex__(pickle.DEFAULT_PROTOCOL)
            return super().reducer_override(item)

    stream = io.BytesIO()
    Pickler(stream, protocol=pickle.DEFAULT_PROTOCOL).dump(value)
    return Packed(stream.getvalue(), tuple(files.values()))


def other_kdsim(worker: str) -> str:
    """What is said of a worker whose source is another."""
    return f"worker {worker} has another kdsim than this process: install the same version on all machines"


# On a worker ------------------------------------------------------------------------------------

_stopped: set[str] = set()
"""Tokens of runs that were told to stop."""
_busy = threading.Lock()


async def tell_to_stop(token: str) -> None:
    """All tasks of a run on this worker end at their next chunk. A coroutine, since only for such nobody waits."""
    _stopped.add(token)


def run_task(sent: Sent, task: Packed) -> bytes:
    """Run a task on a worker. Returns an `Outcome` as bytes: who reads it has all its classes."""
    from distributed import get_worker

    worker = get_worker()
    spoken = float("-inf")

    def report(done: int) -> None:
        nonlocal spoken
        if time.monotonic() - spoken > REPORT_SECONDS:
            spoken = time.monotonic()
            worker.log_event(sent.token, [sent.number, done])

    with _busy:
        torch.set_num_threads(worker.state.nthreads)
        if sent.data_dir is not None:
            os.environ[DATA_DIR] = sent.data_dir
        if sent.choose_gpu:
            torch.cuda.set_device(int(worker.name) % torch.cuda.device_count())
        try:
            if kdsim_digest() != sent.source:
                raise ConfigError(other_kdsim(worker.address))
            value = task.value()
        except Exception as error:
            found = Outcome(failed(error), 0.0)
        else:
            found = outcome(value, report, lambda: sent.token in _stopped, sent.slice_seconds)
    return packed(found).data


def choice_on_worker(cell: Packed) -> Choice | Failed:
    """The engine of a cell, on a worker."""
    try:
        return choice_of(cell.value())
    except ConfigError as error:
        return failed(error)
