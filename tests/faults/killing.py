"""Runs that end in the middle: at any of their operations on files, at a moment, or by their own hand at a step."""

from __future__ import annotations

import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdsim import files
from kdsim.results import store
from kdsim.study import runner
from kdsim.study.base import Study


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def operations(happens: Callable[[str, int], Any]) -> Iterator[Counter[str]]:
    """Call `happens` before each operation that changes files, and amid each write, with its name and how many of that
    name there were. Gives these numbers."""
    counts: Counter[str] = Counter()

    def next_is(name: str) -> None:
        counts[name] += 1
        happens(name, counts[name])

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, *arguments: Any, **named: Any) -> Any:
            next_is(name)
            return function(path, *arguments, **named)

        return call

    def write_new(path: Path, *parts: bytes, durable: bool) -> None:
        whole = b"".join(parts)
        with open(path, "xb") as file:
            file.write(whole[: len(whole) // 2])
            file.flush()
            next_is("write")
            file.write(whole[len(whole) // 2 :])

    names = ("rename", "replace", "unlink", "mkdir")
    before = [(Path, name, getattr(Path, name)) for name in names]
    before += [(module, "write_new", files.write_new) for module in (files, store)]
    for owner, name, function in before:
        setattr(owner, name, write_new if name == "write_new" else watched(name, function))
    try:
        yield counts
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def killed_at(name: str, number: int, study: Study, out: Path, **options: Any) -> tuple[bool, int]:
    """Run a study in a fork that is killed at its operation of this name and number. Returns whether it was, rather
    than having ended before, and the replica-steps that were done."""
    ends, mine = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(ends)

        def happens(found: str, count: int) -> None:
            if (found, count) == (name, number):
                os.write(mine, str(done).encode())
                die()

        done = 0

        def progress(state: runner.Progress) -> None:
            nonlocal done
            done = state.done

        try:
            with operations(happens):
                runner.run(study, out, progress=progress, **options)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(mine)
    with os.fdopen(ends) as stream:
        text = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status == (-signal.SIGKILL if text else 0), f"the run ended with {status}"
    return bool(text), int(text or 0)
