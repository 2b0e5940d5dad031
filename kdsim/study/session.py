"""One run of packs and jobs: what is next, what is kept on the way, and what is stored in the end.

A pack is locked, planned, walked block by block and slice by slice with its state saved in between, and finished a few
cells at a time; a job is locked and done. Several are under way at a time where the executor has several slots.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from filelock import BaseFileLock

from kdsim import config
from kdsim.config import ConfigError
from kdsim.files import Damaged, StorageError
from kdsim.results.provenance import POPULATION, Fingerprint, same
from kdsim.results.store import Store
from kdsim.results.unfinished import Plan, release
from kdsim.study import work
from kdsim.study.costs import step_cost
from kdsim.study.executors import (
    FINISH_CELLS,
    Executor,
    ExecutorGone,
    Failed,
    Finish,
    Job,
    Outcome,
    RunJob,
    Task,
    Walk,
    failed,
)
from kdsim.study.packs import Pack
from kdsim.study.reuse import data_of
from kdsim.study.states import read_block, read_state, write_block, write_state
from kdsim.study.trainings import Fitting, Training, jobs, require_trained
from kdsim.trainer import Teacher

POLL_SECONDS = 0.25
"""Time between two looks at signals, progress and the locks of other processes."""


class Interrupted(Exception):
    """The run was told to stop (SIGINT or SIGTERM) and saved what it had."""


class _Forgotten(Exception):
    """A finished block is no longer there."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done, total: replica-steps of all packs of this run; `done` includes what an interrupted run had done.
        step, steps, replicas: of the pack that is running.
        share: of the cost of all packs that is done, in [0, 1]; see `kdsim.study.costs`.
    """

    done: int
    total: int
    step: int
    steps: int
    replicas: int
    share: float


@dataclass(eq=False)  # found by identity: what a study file defines may have no equality
class _Item:
    """A pack or job of this run.

    Attributes:
        work: what it is.
        size, cost: replica-steps, and what they cost in all.
        wanted: digests of its cells that are not stored.
        digest: its own.
        lock: held while it is under way.
        tasks: what is to be submitted next.
        flying: tasks that are under way.
        spent: seconds that each block took, by its number.
        reached: replica-steps of each block, or of the job (0), that are done.
        before: those that an earlier run had done.
        over: whether it is stored or has failed.
    """

    work: Pack | Job
    size: int
    cost: float
    wanted: set[str]
    digest: str
    lock: BaseFileLock | None = None
    tasks: deque[Task] = field(default_factory=deque)
    flying: int = 0
    spent: dict[int, float] = field(default_factory=dict)
    reached: dict[int, int] = field(default_factory=dict)
    before: dict[int, int] = field(default_factory=dict)
    over: bool = False

    @property
    def done(self) -> int:
        """Replica-steps."""
        return sum(self.reached.values())

    @property
    def new(self) -> int:
        """Replica-steps of this run."""
        return sum(self.reached.values()) - sum(self.before.values())


class Session:
    """Runs packs and jobs to their ends.

    Args:
        store: where results go.
        executor: what computes.
        todo: packs and jobs, those on which others depend first.
        stored: digests of finished cells; grows.
        progress: called as the run goes on.
        note: called with a line for people.
        repair: set damaged files of unfinished work aside and start over, instead of failing.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        todo: Sequence[Pack | Job],
        stored: set[str],
        told_to_stop: threading.Event,
        slice_seconds: float,
        progress: Callable[[Progress], None] | None,
        note: Callable[[str], None],
        repair: bool,
    ) -> None:
        self.store, self.executor, self.stored, self.told_to_stop = store, executor, stored, told_to_stop
        self.progress, self.note, self.repair = progress, note, repair
        self.items = [_item(each) for each in todo]
        self.total = sum(item.size for item in self.items)
        self.failures: list[Failed] = []
        self.failed: dict[str, Failed] = {}  # the failure of each cell that has one, by digest
        self.engine_seconds = 0.0
        self._cost = sum(item.cost for item in self.items)
        self._done_behind, self._cost_behind = 0, 0.0  # of items that are over
        self._waiting = deque(self.items)  # not begun
        self._active: list[_Item] = []
        self._flying: dict[int, tuple[_Item, Task]] = {}
        self._number = 0
        self._elsewhere = self._lockless = False  # whether it was said that another process runs some, and of no locks
        executor.begin(self._report, told_to_stop.is_set, slice_seconds)

    @property
    def replica_steps(self) -> int:
        """Done in this run."""
        return sum(item.new for item in self.items)

    def run(self) -> None:
        """Run all. What fails is in `failures`; the others run.

        Raises:
            Interrupted: it was told to stop; what was done is saved.
            StorageError: results cannot be written.
        """
        try:
            while self._waiting or self._active:
                if not self.told_to_stop.is_set():
                    self._fill()
                elif not self._flying or self.executor.stranded:
                    raise Interrupted(self._where())
                if self._flying:
                    ended = self.executor.wait(POLL_SECONDS)
                    if ended is not None:
                        self._take(*ended)
                elif self._waiting and not self._active:
                    time.sleep(POLL_SECONDS)  # other processes hold their locks
        finally:
            for item in self._active:
                self._unlock(item)

    # What is next

    def _fill(self) -> None:
        """Submit as many tasks as the executor takes: of what is under way first, then of what is not begun."""
        while len(self._flying) < self.executor.slots:
            task = next(self._ready(), None)
            if task is None:
                return
            item, what = task
            self._number += 1
            item.flying += 1
            self._flying[self._number] = item, what
            self.executor.submit(self._number, what)

    def _ready(self) -> Iterator[tuple[_Item, Task]]:
        for item in self._active:
            if item.tasks:
                yield item, item.tasks.popleft()
        for _ in range(len(self._waiting)):
            item = self._waiting.popleft()
            if not self._may_begin(item):
                self._waiting.append(item)
                continue
            self._guarded(item, lambda item=item: self._begin(item))
            if item.tasks:
                yield item, item.tasks.popleft()

    def _may_begin(self, item: _Item) -> bool:
        """Whether what it depends on is over, and no other process runs it; its lock is then held."""
        if (needed := _needs(item.work)) and any(other.digest in needed for other in (*self._waiting, *self._active)):
            return False
        item.lock = self.store.unfinished.lock(item.digest)
        if item.lock is None and not self._elsewhere:
            self._elsewhere = True
            self.note("another process runs a part of this study: it is left to it")
        if item.lock is not None and not item.lock.is_locked and not self._lockless:
            self._lockless = True
            self.note("the results folder is on a file system without locks: processes that share it may work twice")
        return item.lock is not None

    def _begin(self, item: _Item) -> None:
        """Find out what is left of an item whose lock is held."""
        self._active.append(item)
        for digest in [digest for digest in item.wanted if self.store.has_cell(digest)]:  # another process stored it
            self.store.check_cell(digest)
            self._count(item, digest)
        if not item.wanted:
            if isinstance(item.work, Pack):  # that process may have been killed before it forgot them
                self._forget(item.work)
            self._over(item)
        elif isinstance(item.work, Pack):
            self._begin_pack(item, item.work)
        else:
            if (teacher := _teacher_of(item.work)) is not None:
                require_trained(teacher, self.store)  # a worker's store does not know what is to be run again
            item.tasks.append(RunJob(item.work, self.store.root.absolute()))

    def _begin_pack(self, item: _Item, pack: Pack) -> None:
        unfinished = self.store.unfinished
        plan = unfinished.read_plan(unfinished.plan_file(pack.digest))
        if plan is not None and _is_moved(plan, pack):
            self.note(f"{pack} had been begun on other data than the problem gives now: it starts over")
            self._forget(pack)
            plan = None
        for number, block in enumerate(pack.blocks()):
            if unfinished.block_file(block.key).exists():
                item.reached[number] = item.before[number] = block.replicas * pack.steps
                continue
            state, item.spent[number] = read_state(unfinished, block.key, pack.choice.engine)
            if plan is None:  # of a state without a plan nobody knows on which points it was reached
                state, item.spent[number] = None, 0.0
            item.before[number] = item.reached[number] = state.step * block.replicas if state else 0
            item.tasks.append(Walk(pack, number, state, plan and plan.population))
        if not item.tasks:
            self._finish_pack(item, pack)

    # What came of it

    def _take(self, number: int, outcome: Outcome) -> None:
        item, task = self._flying.pop(number)
        item.flying -= 1
        if item.over:  # another of its tasks failed
            return
        if not isinstance(task, Finish):
            self.engine_seconds += outcome.seconds
        self._guarded(item, lambda: self._use(item, task, outcome))

    def _use(self, item: _Item, task: Task, outcome: Outcome) -> None:
        if isinstance(outcome.result, Failed):
            self._fail(item, outcome.result)
        elif isinstance(task, Walk):
            item.spent[task.number] += outcome.seconds
            self._walked(item, task, outcome.result)
        elif isinstance(task, Finish):
            for cell in outcome.result:
                self.store.write_tables(cell.digest, cell.info, cell.tables)
                self._count(item, cell.digest)
            if not item.wanted:
                self._forget(task.pack)
                self._over(item)
        elif outcome.result:
            self._count(item, task.job.digest)
            self._over(item)
        # else: a job that was told to stop has saved its state

    def _walked(self, item: _Item, task: Walk, walked: work.Walked) -> None:
        pack, unfinished = task.pack, self.store.unfinished
        block = pack.blocks()[task.number]
        self._tell(item, task.number, walked.state.step * block.replicas, block.replicas)
        population = walked.marks[POPULATION]
        if walked.record is None:
            self._plan(pack, population)
            write_state(unfinished, block.key, pack.choice.engine, walked.state, item.spent[task.number])
            item.tasks.appendleft(Walk(pack, task.number, walked.state, population))
            return
        ended = work.Ended(walked.record, walked.parameters, item.spent[task.number], walked.marks)
        if len(pack.cells) == len(pack.blocks()) == 1 and not self.told_to_stop.is_set():  # its cell is stored at once
            self._finish(item, pack, ended)
            return
        self._plan(pack, population)
        write_block(unfinished, block.key, pack.choice.engine, ended)
        if not item.tasks and not item.flying:
            self._finish_pack(item, pack)

    def _plan(self, pack: Pack, population: Fingerprint) -> None:
        """Say what the pack consists of before something of it is kept."""
        if not self.store.unfinished.has_plan(pack.digest):
            self.store.unfinished.write_plan(Plan(pack.digest, pack.digests, pack.block_replicas, population))

    def _forget(self, pack: Pack) -> None:
        """Delete what was kept on the way: all its cells are stored."""
        self.store.unfinished.forget(pack.digest, [block.key for block in pack.blocks()])

    def _finish_pack(self, item: _Item, pack: Pack) -> None:
        """All blocks are on disk: join them, and finish what is wanted."""

        def blocks() -> Iterator[work.Ended]:
            for block in pack.blocks():
                if (found := read_block(self.store.unfinished, block.key, pack.choice.engine)) is None:
                    raise _Forgotten
                yield found

        try:
            ended = work.joined(blocks(), pack.replicas)
        except _Forgotten:  # where locks do not work, another process may have stored the cells meanwhile
            self._restart(item)
        else:
            self._finish(item, pack, ended)

    def _finish(self, item: _Item, pack: Pack, ended: work.Ended) -> None:
        cells = list(work.seen(pack, ended, item.wanted))
        for first in range(0, len(cells), FINISH_CELLS):
            item.tasks.append(Finish(pack, cells[first : first + FINISH_CELLS], ended.seconds, ended.marks))

    # Ends

    def _guarded(self, item: _Item, step: Callable[[], None]) -> None:
        """A step of an item: what it raises is the item's failure, unless nothing can be stored any more."""
        try:
            step()
        except (StorageError, ExecutorGone):
            raise
        except Exception as error:
            self._fail(item, failed(error))

    def _fail(self, item: _Item, failure: Failed) -> None:
        if failure.no_storage:
            raise StorageError(failure.line)
        if failure.damaged is not None and self.repair:
            self.note(self.store.set_aside(Damaged(failure.line, failure.damaged)))
            self._restart(item)
            return
        line = f"{item.work} failed: {failure.line}"
        self.failures.append(Failed(line, failure.user_error, failure.damaged))
        self.failed.update(dict.fromkeys(item.wanted, self.failures[-1]))
        self._over(item)

    def _restart(self, item: _Item) -> None:
        """Begin it again from what is on disk; results that are under way are dropped.

        A training that lost the teacher which it reads, damaged and set aside, begins with that one.
        """
        self._over(item)
        self._done_behind -= item.size
        self._cost_behind -= item.cost
        if isinstance(item.work, Pack):
            again = [_item(item.work, item.wanted)]
        else:
            others = {other.digest for other in (*self._waiting, *self._active)}
            again = [_item(job) for job in jobs([item.work.cell], self.store) if job.digest not in others]
            self.stored.difference_update(job.digest for job in again)  # of one that was set aside
        place = self.items.index(item)
        self.items[place : place + 1] = again
        self._waiting.extendleft(reversed(again))
        self.total, self._cost = sum(each.size for each in self.items), sum(each.cost for each in self.items)

    def _count(self, item: _Item, digest: str) -> None:
        self.store.renewed(digest)
        item.wanted.discard(digest)
        self.stored.add(digest)

    def _over(self, item: _Item) -> None:
        item.over = True
        self._done_behind += item.size
        self._cost_behind += item.cost
        self._leave(item)

    def _leave(self, item: _Item) -> None:
        item.tasks.clear()
        self._active.remove(item)
        self._unlock(item)

    def _unlock(self, item: _Item) -> None:
        if item.lock is not None:
            release(item.lock)
            item.lock = None

    # What is said of it

    def _report(self, number: int, done: int) -> None:
        """Replica-steps of a task, while it is under way."""
        if number not in self._flying:  # a late word of a task that is over
            return
        item, task = self._flying[number]
        at = task.number if isinstance(task, Walk) else 0
        if at not in item.before:  # a job says where it goes on with its first word
            item.before[at] = done
        self._tell(item, at, done, item.work.blocks()[at].replicas if isinstance(task, Walk) else item.work.replicas)

    def _tell(self, item: _Item, at: int, done: int, replicas: int) -> None:
        """So many replica-steps of a block or job are done."""
        item.reached[at] = done
        if self.progress is not None and not self.told_to_stop.is_set():
            # Of ten thousand items few are under way: the others count as behind, or as nothing.
            under_way = [each for each in self._active if each.size]
            cost = self._cost_behind + sum(each.cost * each.done / each.size for each in under_way)
            self.progress(
                Progress(
                    done=self._done_behind + sum(each.done for each in under_way),
                    total=self.total,
                    step=done // replicas,
                    steps=item.work.steps,
                    replicas=replicas,
                    share=min(cost / (self._cost or 1), 1.0),
                )
            )

    def _where(self) -> str:
        """Where the run stands, for a message."""
        begun = [item for item in self._active if item.size]
        if len(begun) > 1:
            return f"interrupted in {len(begun)} packs or trainings"
        if not begun:
            return "interrupted"
        item = begun[0]
        return f"interrupted at step {item.done * item.work.steps // item.size} of {item.work.steps}"


def _item(what: Pack | Job, wanted: set[str] | None = None) -> _Item:
    size = _size(what)
    cells = set(what.digests) if isinstance(what, Pack) else {what.digest}
    return _Item(what, size, size * step_cost(what), wanted if wanted is not None else cells, what.digest)


def _is_moved(plan: Plan, pack: Pack) -> bool:
    """Whether a pack was begun on other points than its problem gives here and now."""
    try:
        now = data_of(pack.cells[0])
    except Exception:  # of a study file, or of data that workers alone have: where it runs it is compared, too
        return False
    return now is not None and not same(plan.population, now)


def _size(what: Pack | Job) -> int:
    """Replica-steps; 0 where the data that they depend on is missing, which the work says when it is its turn."""
    try:
        return what.replicas * what.steps
    except ConfigError:
        return 0


def _needs(what: Pack | Job) -> set[str]:
    """Digests of trainings that must be over before it begins: that of its teacher."""
    teacher = _teacher_of(what)
    return set() if teacher is None else {config.digest(teacher.training)}


def _teacher_of(what: Pack | Job) -> Teacher | None:
    """The teacher that it fits, or from which it learns."""
    if isinstance(what, Fitting):
        return what.teacher
    return what.trainer.teacher if isinstance(what, Training) else None
