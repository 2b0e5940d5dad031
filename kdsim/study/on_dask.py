"""The executor that computes on the workers of a dask.distributed cluster, on this machine or on many.

A task travels as bytes with the study files that define its classes (`Packed`), and comes back as bytes.
Packs need nothing of a worker but kdsim: their states and results go to the process that runs the study, which alone
writes them. Trainings, fits and computations write where they run, so all workers must see the results folder. Tasks of
cells on a GPU ask for the resource GPU, of which a worker has as many as it says (`dask worker --resources "GPU=1"`).
A worker does one task at a time, on as many threads as it was given.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kdsim import config
from kdsim.config import ConfigError
from kdsim.engines import AUTO, ENGINES, Choice
from kdsim.files import sweep, temporary_beside
from kdsim.sources import kdsim_digest
from kdsim.study.base import Cell
from kdsim.study.dask_worker import DATA_DIR, Sent, choice_on_worker, other_kdsim, packed, run_task, tell_to_stop
from kdsim.study.executors import Executor, ExecutorGone, Failed, Outcome, Task, failed
from kdsim.study.packs import choice_of
from kdsim.study.provenance import versions

if TYPE_CHECKING:  # an extra: `pip install 'kdsim[dask]'`
    from distributed import Client, Future

BLOCK_REPLICAS = 1024
"""Replicas of a pack, unless one cell has more: small enough that a study has work for many workers."""
PREFETCH = 2
"""Tasks for each worker at a time: the next one lies ready when one ends."""
LOOK_SECONDS = 1.0
"""Time between two looks at what workers there are."""
MOST_WORKERS = 16
"""Local workers for each core, at most."""
PATIENCE_SECONDS = 10.0
"""Time in which a scheduler must answer."""
LOCAL = {
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.system-monitor.log-length": 100,
    "distributed.worker.profile.enabled": False,
}
"""Settings of local clusters: without them the library's logs and profiles of tasks grow for an hour or more."""
GPU = "GPU"
"""Resource that tasks on a GPU ask for."""


class OnDask(Executor):
    """Computes on the workers of a cluster; see `local_cluster` and `cluster`.

    Args:
        client: connected.
        is_local: whether the workers are this process's own children.
        note: called with lines for people.
    """

    block_replicas = BLOCK_REPLICAS

    def __init__(self, client: Client, is_local: bool, note: Callable[[str], None]) -> None:
        self.client, self.is_local, self.note = client, is_local, note
        self._token = uuid.uuid4().hex
        self._events: queue.SimpleQueue[tuple[int, int | None]] = queue.SimpleQueue()
        self._futures: dict[int, Future] = {}
        self._on_gpu: set[int] = set()
        self._looked = self._told = float("-inf")
        self._workers = 0
        self._able, self._able_at, self._missed = True, time.monotonic(), False
        self._address = client.scheduler_info()["address"]
        client.subscribe_topic(self._token, lambda event: self._events.put(tuple(event[1])))

    @property
    def slots(self) -> int:
        """Tasks that it takes at a time: more when more workers are there."""
        self._look()
        return PREFETCH * max(self._workers, 1)

    @property
    def stranded(self) -> bool:
        """No worker is left, or none with a GPU and all tasks need one."""
        self._look()
        return not self._able

    def _look(self) -> None:
        """See what workers there are, and say so if for a while none was there that could do anything."""
        now = time.monotonic()
        if now - self._looked <= LOOK_SECONDS:
            return
        all_on_gpu = bool(self._futures) and self._on_gpu == self._futures.keys()
        with self._reached():
            self._looked, self._workers = now, len(self.client.nthreads())
            workers = self._gpus() if all_on_gpu else self._workers
        self._able = bool(workers or not self._futures)
        if self._able:
            self._able_at, self._missed = now, False
        elif now - self._able_at > PATIENCE_SECONDS and not self._missed:
            self._missed = True
            self.note(f"no worker {'with a GPU ' if all_on_gpu else ''}is left: waiting for one")

    def check(self, cells: Sequence[Any]) -> None:
        """Wait for a worker; refuse engines that do not exist, GPUs that no worker has, workers of another kdsim."""
        for cell in cells:
            if isinstance(cell, Cell):
                config.choose("engine", cell.engine, {AUTO: None, **ENGINES})
        if not self.client.nthreads():
            self.note("no worker is there yet: waiting for the first")
            while not self.client.nthreads():
                time.sleep(LOOK_SECONDS)
        if any(_device(cell).startswith("cuda") for cell in cells) and not self._gpus():
            advice = 'start workers with --resources "GPU=1"'
            raise ConfigError(f"device = 'cuda' is not available on any worker: {advice}")
        ours, found = versions(), self.client.run(versions, on_error="ignore")  # a worker may die meanwhile
        for worker, theirs in found.items():
            if theirs["source_sha256"] != ours["source_sha256"]:
                raise ConfigError(other_kdsim(worker))
        libraries = {name for name in ours for theirs in found.values() if theirs.get(name) != ours[name]} - {"threads"}
        if libraries:
            self.note(f"workers have another {', '.join(sorted(libraries))}: results agree to rounding only")

    def check_folder(self, root: Path, cells: Sequence[Any]) -> None:
        """Refuse workers that do not see the results folder, where a task writes there itself."""
        if all(isinstance(cell, Cell) for cell in cells):
            return
        probe = root.absolute() / f".seen-{self._token}"
        try:
            probe.touch()
            blind = [worker for worker, sees in self.client.run(probe.exists, on_error="ignore").items() if not sees]
        finally:
            probe.unlink(missing_ok=True)
        if blind:
            what = f"results folder {str(root)!r} is not seen by worker {blind[0]}"
            raise ConfigError(f"{what}: trainings need a folder that all workers share")

    def choose(self, cell: Cell) -> Choice:
        """The engine of a cell; of one on a GPU a worker that has one says it."""
        if not cell.device.startswith("cuda"):
            return choice_of(cell)
        chosen = self.client.submit(choice_on_worker, packed(cell), resources={GPU: 1}, pure=False).result()
        if isinstance(chosen, Failed):
            raise ConfigError(chosen.line)
        return chosen

    def submit(self, number: int, task: Task) -> None:
        """Send it to the cluster."""
        on_gpu = task.device.startswith("cuda")
        sent = Sent(
            token=self._token,
            number=number,
            source=kdsim_digest(),
            slice_seconds=self.slice_seconds,
            choose_gpu=on_gpu and self.is_local,
            data_dir=os.environ.get(DATA_DIR),
        )
        resources = {GPU: 1} if on_gpu else None
        with self._reached():
            future = self.client.submit(run_task, sent, packed(task), resources=resources, pure=False, priority=-number)
        self._futures[number] = future
        if on_gpu:
            self._on_gpu.add(number)
        future.add_done_callback(lambda _: self._events.put((number, None)))

    def wait(self, seconds: float) -> tuple[int, Outcome] | None:
        """Pass reports on until a task ends or the time is over."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._look()
            if self.stop() and time.monotonic() - self._told > LOOK_SECONDS:  # again: workers may have come
                if self._told < 0:
                    self.note("told to stop: workers end their chunks of steps, and what they have is saved")
                self._told = time.monotonic()
                with self._reached():
                    self.client.run(tell_to_stop, self._token, wait=False, on_error="ignore")
            try:
                number, done = self._events.get(timeout=left)
            except queue.Empty:
                return None
            if done is not None:
                self.report(number, done)
            elif number in self._futures:
                self._on_gpu.discard(number)
                return number, self._outcome(self._futures.pop(number))
        return None

    def _outcome(self, future: Future) -> Outcome:
        from distributed import KilledWorker

        try:
            return pickle.loads(future.result())
        except KilledWorker:
            why = "workers died of it several times, most likely of memory: fewer --block-replicas or larger workers"
            return Outcome(Failed(why, user_error=False), 0.0)
        except Exception as error:  # whatever the cluster has to say
            if future.cancelled():
                raise self._gone() from None
            return Outcome(failed(error), 0.0)
        finally:
            future.release()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Within the block a scheduler that does not answer is `ExecutorGone`."""
        try:
            yield
        except Exception as error:  # what the library raises depends on how far it is with closing
            if isinstance(error, OSError) or self.client.status != "running":
                raise self._gone() from None
            raise

    def _gone(self) -> ExecutorGone:
        return ExecutorGone(f"the scheduler at {self._address} is gone")

    def _gpus(self) -> int:
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return sum(bool(worker.get("resources", {}).get(GPU)) for worker in workers)


# Clusters ---------------------------------------------------------------------------------------


@contextmanager
def local_cluster(workers: int, note: Callable[[str], None]) -> Iterator[OnDask]:
    """Workers on this machine, a process each with one thread. A worker that dies is replaced.

    Args:
        workers: how many.
        note: called with lines for people.
    """
    most = MOST_WORKERS * (os.cpu_count() or 1)
    config.require_count("workers", workers, most=most)
    distributed = _distributed()
    place = Path(tempfile.gettempdir())
    sweep(place)
    import dask

    with (
        _quiet(),
        dask.config.set(LOCAL),
        temporary_beside(place / "kdsim-workers") as scratch,
        _started(workers, scratch) as running,
        distributed.Client(running) as client,
    ):
        client.register_plugin(_local_worker())
        yield OnDask(client, True, note)


def _started(workers: int, scratch: Path) -> Any:
    """A local cluster."""
    start = partial(
        _distributed().LocalCluster,
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address=":0",  # any free port: the usual one may be taken, and is warned of
        local_directory=str(scratch),
        silence_logs=logging.CRITICAL + 1,
        resources={GPU: 1} if torch.cuda.is_available() else None,
    )
    try:
        return start()
    except RuntimeError:  # a worker died while it started
        try:
            return start()
        except RuntimeError as error:
            raise ConfigError(f"workers = {workers}: they do not start ({error})") from None


@contextmanager
def cluster(address: str, note: Callable[[str], None]) -> Iterator[OnDask]:
    """The workers of a scheduler that is running.

    Args:
        address: of the scheduler, as tcp://HOST:8786, or a file that it has written (`--scheduler-file`).
        note: called with lines for people.

    Raises:
        ConfigError: no scheduler answers.
    """
    distributed = _distributed()
    given = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    if address.endswith(".json") and not Path(address).is_file():
        raise ConfigError(f"scheduler = {address!r} is not allowed: there is no such file")
    try:
        client = distributed.Client(**given, timeout=PATIENCE_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        why = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"scheduler = {address!r} does not answer ({type(error).__name__}: {why})") from None
    with _quiet(), client:
        yield OnDask(client, False, note)


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block the library logs nothing: what matters is said by this module, in one line."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
    levels = {name: logging.getLogger(name).level for name in names}  # some have a level of their own
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _distributed() -> Any:
    """The library, which is an extra."""
    try:
        import distributed
    except ImportError:
        raise ConfigError("executor = 'dask' needs dask.distributed: pip install 'kdsim[dask]'") from None
    return distributed


def _local_worker() -> Any:
    """A plugin by which local workers leave signals to the process that runs the study."""
    from distributed import WorkerPlugin

    class LeaveSignals(WorkerPlugin):
        name = "kdsim-leave-signals"

        def setup(self, worker: Any) -> None:
            # Ctrl-C, and schedulers of batch systems, reach all processes of a group. The workers' tasks end when the
            # study tells them to; the cluster ends a worker by other means.
            with suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)

    return LeaveSignals()


def _device(cell: Any) -> str:
    """Where a cell runs."""
    training = getattr(cell, "training", cell)
    return getattr(training, "device", "cpu")
