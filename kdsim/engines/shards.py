"""Replicas cut into shards that threads walk side by side: the loop that the CPU engines share.

Shards depend on the lanes alone, never on the machine, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from operator import methodcaller
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from kdsim.engines.base import Lane, State
from kdsim.engines.recorder import Record, Recorder, join

Item = TypeVar("Item")
Result = TypeVar("Result")


class Shard(Protocol):
    """A block of replicas under way.

    Attributes:
        error: what `State.error` holds of them, (R, K, d) or (R, P).
        buffers: what `State.buffers` holds of them.
        recorder: what sees them.
    """

    @property
    def error(self) -> Tensor: ...
    @property
    def buffers(self) -> dict[str, Tensor]: ...
    @property
    def recorder(self) -> Recorder: ...

    def advance(self, start: int, end: int) -> None:
        """Walk from step `start` to step `end`."""


def split(lanes: Sequence[Lane], limit: int | None) -> list[list[Lane]]:
    """Cut the replica axis of the lanes into parts of nearly equal size, at most `limit` replicas each."""
    total = count_replicas(lanes)
    count = 1 if limit is None else -(-total // limit)
    ends = [total * (number + 1) // count for number in range(count)]
    parts: list[list[Lane]] = [[] for _ in range(count)]
    done, part = 0, 0
    for lane in lanes:
        first = 0
        while first < lane.replicas:
            if done == ends[part]:
                part += 1
            size = min(lane.replicas - first, ends[part] - done)
            parts[part].append(replace(lane, replicas=size, first_replica=lane.first_replica + first))
            first, done = first + size, done + size
    return parts


def count_replicas(lanes: Sequence[Lane]) -> int:
    """Replicas of all lanes together."""
    return sum(lane.replicas for lane in lanes)


def walk(
    parts: Sequence[Sequence[Lane]],
    make: Callable[[Sequence[Lane], State | None], Shard],
    steps: int,
    chunk: int,
    state: State | None,
    stop: Callable[[int], bool] | None,
) -> tuple[Record | None, State]:
    """Walk the shards to `steps`, and return what `Engine.run` returns.

    Args:
        parts: the lanes of each shard, see `split`.
        make: a shard at the start, or with the parameters and buffers of its rows of a state.
        chunk: steps between two calls of `stop`. Chunks end at multiples of it, so that a run that goes on cuts them
            where an undisturbed one does.
    """
    ends = list(accumulate(map(count_replicas, parts)))

    def begin(lanes: Sequence[Lane], end: int) -> Shard:
        rows = slice(end - count_replicas(lanes), end)
        if state is None:
            shard = make(lanes, None)
            shard.recorder.observe(0, shard.error)
        else:
            shard = make(lanes, _rows(state, rows))
            shard.recorder.restore({name: tensor[..., rows] for name, tensor in state.recorder.items()})
        return shard

    step = 0 if state is None else state.step
    with _threads(len(parts)) as each:
        # Shards begin in their threads, each with one torch thread: drawing the starts of a network takes as long as
        # some hundred steps, and sums are rounded as the number of torch's threads has it.
        shards = each(lambda item: begin(*item), list(zip(parts, ends, strict=True)))
        while step < steps:
            start, step = step, min((step // chunk + 1) * chunk, steps)
            each(methodcaller("advance", start, step), shards)
            if stop is not None and stop(step) and step < steps:
                return None, _joined(step, shards)
    return join((shard.recorder.record() for shard in shards), ends[-1]), _joined(step, shards)


@contextmanager
def _threads(shards: int) -> Iterator[Callable[[Callable[[Item], Result], Sequence[Item]], list[Result]]]:
    """A function that applies another to all shards, on as many threads as torch was given."""
    workers = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(min(workers, shards), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield lambda function, items: [future.result() for future in [pool.submit(function, i) for i in items]]
    finally:
        torch.set_num_threads(workers)


def _rows(state: State, rows: slice) -> State:
    """Parameters and buffers of some replicas."""
    return State(state.step, state.error[rows], {}, {name: buffer[rows] for name, buffer in state.buffers.items()})


def _joined(step: int, shards: Sequence[Shard]) -> State:
    recorders = [shard.recorder.state() for shard in shards]
    recorder = {name: torch.cat([state[name] for state in recorders], dim=-1) for name in recorders[0]}
    buffers = {name: torch.cat([shard.buffers[name] for shard in shards]) for name in shards[0].buffers}
    return State(step, torch.cat([shard.error for shard in shards]), recorder, buffers)
