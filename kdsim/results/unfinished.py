"""Work under way on disk: from what is here a run goes on, and what is finished is deleted.

DIR/partial/<source of kdsim> has

<pack>.plan.json            which cells run together: an interrupted pack goes on as the same pack
<pack>[-<block>].safetensors         the exact state of an engine (`kdsim.study.states`)
<pack>-<block>.done.safetensors      a finished block of a pack that has several
<digest>-r<replica>.safetensors      a replica of an interrupted training (`kdsim.training.checkpoints`)
<digest>.lock               held by the process that runs the pack or training, or fits the teacher
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from kdsim.files import Damaged, is_intact, not_read, signed, storing, write_bytes
from kdsim.results.provenance import Fingerprint
from kdsim.untrusted import read_file

PARTIAL = "partial"
PLAN = ".plan.json"
POLL_SECONDS = 0.2
"""Time between two looks at a lock that another process holds."""
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems say that have no locks, as NFS without its daemon."""


@dataclass(frozen=True)
class Plan:
    """What an interrupted pack consists of.

    Attributes:
        pack: its digest.
        cells: digests of its cells, in their order.
        block_replicas: replicas of a block, at most.
        population: fingerprint of the points on which it was begun.
    """

    pack: str
    cells: tuple[str, ...]
    block_replicas: int
    population: Fingerprint


class Unfinished:
    """The folder of work under way.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # Plans

    def write_plan(self, plan: Plan) -> None:
        """Before a pack starts: without it, its state would be of no use to a run that packs the rest anew."""
        content = {"cells": list(plan.cells), "block_replicas": plan.block_replicas, "population": plan.population}
        with storing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self.plan_file(plan.pack), json.dumps(signed(content), indent=1).encode())

    def plans(self) -> Iterator[Plan]:
        """All that are there.

        Raises:
            Damaged: one cannot be read.
        """
        for file in sorted(self.folder.glob(f"*{PLAN}")):
            plan = self.read_plan(file)
            if plan is not None:
                yield plan

    def read_plan(self, file: Path) -> Plan | None:
        """The plan in a file; None if another process has finished it meanwhile.

        Raises:
            Damaged: it cannot be read.
        """
        try:
            content = json.loads(read_file(file))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise not_read(error, str(unusable(file, error)), file) from None
        except (ValueError, RecursionError) as error:
            raise unusable(file, error) from None
        if not isinstance(content, dict) or not is_intact(content):
            raise Damaged(f"plan {file} is truncated or altered: delete it to start over", file)
        cells, limit, population = (content.get(name) for name in ("cells", "block_replicas", "population"))
        digests = tuple(cells) if isinstance(cells, list) else ()
        names = bool(digests) and all(isinstance(digest, str) for digest in digests)
        if not names or type(limit) is not int or limit < 1 or not isinstance(population, dict):
            raise Damaged(f"plan {file} has no cells, size of a block or points: delete it to start over", file)
        return Plan(file.name.removesuffix(PLAN), digests, limit, population)

    def has_plan(self, pack: str) -> bool:
        """Whether there is one of that digest."""
        return self.plan_file(pack).exists()

    def plan_file(self, pack: str) -> Path:
        """File of the plan of a pack."""
        return self.folder / f"{pack}{PLAN}"

    # States and blocks, which `kdsim.study.states` reads and writes

    def state_file(self, key: str) -> Path:
        """File of the state of a pack, or of a block of it."""
        return self.folder / f"{key}.safetensors"

    def block_file(self, key: str) -> Path:
        """File of a finished block."""
        return self.folder / f"{key}.done.safetensors"

    def forget(self, pack: str, keys: Sequence[str]) -> None:
        """Delete all that is kept of a pack and of its blocks, the plan last."""
        with storing(self.folder):
            for key in keys:
                self.state_file(key).unlink(missing_ok=True)
                self.block_file(key).unlink(missing_ok=True)
            self.plan_file(pack).unlink(missing_ok=True)

    # Locks

    @contextmanager
    def waited_for(self, name: str, stop: Callable[[], bool]) -> Iterator[bool]:
        """Hold a lock, once no other holds it; yields False without it if told to stop before."""
        lock = None
        while not stop() and (lock := self.lock(name)) is None:
            time.sleep(POLL_SECONDS)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                release(lock)

    @contextmanager
    def _if_free(self, name: str) -> Iterator[bool]:
        """Hold a lock if no other holds it; yields whether it is held."""
        lock = self.lock(name)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                release(lock)

    def lock(self, name: str) -> BaseFileLock | None:
        """The lock of a pack, training or teacher, to be given to `release`; None if another holds it.

        Nothing depends on locks but the time that two processes would spend on the same work: whatever they write is
        the same, and is renamed into place. So the file may be removed while it is held, and a file system without
        locks is as one on which nobody holds any.
        """
        lock = FileLock(self.folder / f"{name}.lock", timeout=0, thread_local=False, fallback_to_soft=False)
        with storing(self.folder):
            while True:
                try:
                    lock.acquire()
                except Timeout:  # which is an OSError
                    return None
                except FileNotFoundError:  # another process has removed the empty folder
                    self.folder.mkdir(exist_ok=True)
                    continue
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        raise
                return lock

    def remove_if_empty(self) -> None:
        """Remove the folder of a source of kdsim of which nothing is under way any more."""
        if self.folder.name != PARTIAL:
            with suppress(OSError):
                self.folder.rmdir()

    def names(self) -> set[str]:
        """Digests of the packs and trainings of which something is here, and of the cells of the packs."""
        files = (file for ending in ("safetensors", "pt") for file in self.folder.glob(f"*-*.{ending}"))  # pt: kdsim 1
        found = {file.name.partition("-")[0] for file in files}
        for file in self.folder.glob(f"*{PLAN}"):
            with suppress(Damaged):
                if (plan := self.read_plan(file)) is not None:
                    found.update(plan.cells)
        return found

    def sweep(self, is_stored: Callable[[str, Fingerprint | None], bool]) -> None:
        """Remove what a process leaves that is killed after its result was stored: checkpoints, packs, and locks.

        What a process is at work on, to replace a stored result, is left to it.

        Args:
            is_stored: whether the result of that digest is stored, and is of those points where these are known.
        """
        for file in self.folder.glob("*-*.safetensors"):
            if is_stored(digest := file.name.partition("-")[0], None):
                with self._if_free(digest) as free, suppress(OSError):
                    if free:
                        file.unlink(missing_ok=True)
        for file in self.folder.glob(f"*{PLAN}"):
            with suppress(Damaged):
                plan = self.read_plan(file)
                if plan is not None and all(is_stored(digest, plan.population) for digest in plan.cells):
                    names = (path.name for path in self.folder.glob(f"{plan.pack}*.safetensors"))
                    with self._if_free(plan.pack) as free:
                        if free:
                            keys = (name.removesuffix(".safetensors").removesuffix(".done") for name in names)
                            self.forget(plan.pack, list(keys))
        for file in self.folder.glob("*.lock"):
            if (lock := self.lock(file.stem)) is not None:  # nobody holds it
                release(lock)


def release(lock: BaseFileLock) -> None:
    """Give a lock back and remove its file."""
    with suppress(OSError):  # of a folder that is gone
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def unusable(file: Path, error: Exception) -> Damaged:
    """What it means that a file of work under way cannot be used."""
    lines = str(error).splitlines() or [""]
    return Damaged(f"{file} cannot be used ({type(error).__name__}: {lines[0]}): delete it to start over", file)
