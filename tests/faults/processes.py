"""kdsim in child processes that start within milliseconds, can be killed, and can have a small disk of their own.

Children are forks of a server that has imported everything and has one thread. A test names a function of a module
beside it; the child runs it and sends back what it returns. Disks are mounted in a mount namespace of the child's own:
nobody else sees them, and they are gone with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import math
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SIMULATIONS = str(Path(__file__).with_name("fault_simulations.py"))
TRAININGS = str(Path(__file__).with_name("fault_trainings.py"))
IDLE = 300
"""Looks, a second apart at least, after which a child counts as stuck that has not had a hundredth of a second of the
processor between them: one that waits for its turn on a busy machine gets some."""

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 1, 32, 4096, 16384, 1 << 18, 2


# Children ---------------------------------------------------------------------------------------


@functools.cache
def _context() -> Any:
    """Its server starts with the first child. It finds the modules of the tests by PYTHONPATH."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kdsim_preloaded"])
    folders = [
        str(Path(__file__).parent),
        str(Path(__file__).parent.parent),
        *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
    ]
    before = dict(os.environ)
    os.environ |= {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


class Child:
    """A function that runs in a process of its own.

    Args:
        function: of a module.
        arguments: travel to the child.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._results, theirs = multiprocessing.Pipe(duplex=False)
        self.process = _context().Process(target=_run, args=(theirs, function, arguments), daemon=True)
        self.process.start()
        theirs.close()

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def result(self) -> Any:
        """What the function returned.

        Raises:
            AssertionError: it raised, with its traceback; or it was killed.
        """
        try:
            self._wait(lambda: self._results.poll(1.0))
            worked, found = self._results.recv()
        except EOFError:
            raise AssertionError(f"the child ended with exit code {self.ended()}") from None
        self.ended()
        assert worked, found
        return found

    def ended(self) -> int:
        """Its exit code once it is over; that of a killed one is minus the signal's number."""
        self._wait(lambda: self.process.join(1.0) or self.process.exitcode is not None)
        return self.process.exitcode

    def cpu_seconds(self) -> float:
        """Of the processor that it has had, to a hundredth of a second; infinite once it is over.

        A clock that stands still while others have the processor.
        """
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.NoSuchProcess:
            return math.inf
        return times.user + times.system if self.process.is_alive() else math.inf

    def _wait(self, over: Callable[[], bool]) -> None:
        """Until it is over, as long as the child gives signs of life.

        Raises:
            AssertionError: it did not; it is then killed.
        """
        idle, spent = 0, self.cpu_seconds()
        while not over():
            before, spent = spent, self.cpu_seconds()
            idle = idle + 1 if spent == before else 0
            if idle > IDLE:
                self.process.kill()
                raise AssertionError(f"the child did nothing between {IDLE} looks")


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a child and return what it returns."""
    return Child(function, *arguments).result()


def _run(results: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        found = True, function(*arguments)
    except BaseException:
        found = False, traceback.format_exc()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which would cut off the answer
    results.send(found)


# The command line in this process ---------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of its error; asserts that there is one, and no traceback."""
        lines = [line for line in self.err.splitlines() if line.startswith("kdsim: error:")]
        assert len(lines) == 1 and "Traceback" not in self.err, self.err
        return lines[0]


def kdsim(*arguments: str) -> Ended:
    """Run the command line here."""
    from kdsim.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return Ended(code, out.getvalue(), err.getvalue())


def run_study(file: str, out: Path, *arguments: str) -> Ended:
    """`kdsim run-study FILE --out DIR ... --json`."""
    return kdsim("run-study", file, "--out", str(out), "--json", *arguments)


def finish_study(file: str, out: Path, *arguments: str) -> Ended:
    """The same; asserts that it ends well."""
    ended = run_study(file, out, *arguments)
    assert ended.code == 0, ended.err
    return ended


def save_often(seconds: float = 0.0) -> None:
    """From now on states of packs are saved after every chunk of an engine, those of trainings after every step."""
    from kdsim.study import runner
    from kdsim.trainer import StudentTrainer

    runner.run.__kwdefaults__["slice_seconds"] = seconds
    StudentTrainer.run.__kwdefaults__["checkpoint_seconds"] = seconds


# Small disks ------------------------------------------------------------------------------------


def unshare_mounts() -> None:
    """Give this process, which must have one thread, mounts of its own; it needs no rights for that.

    Raises:
        OSError: the system does not allow it.
    """
    if sys.platform != "linux":
        raise OSError("only Linux has mount namespaces")
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if user == 0:
        _checked(libc.unshare(_CLONE_NEWNS), "unshare")
    else:
        _checked(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _checked(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount")


def mount(folder: Path, size: int = 1 << 25, files: int = 10_000) -> None:
    """A disk of so many bytes (whole pages) and files, in memory, at a folder."""
    _mount("tmpfs", folder, 0, f"size={size},nr_inodes={files},mode=755")


def remount(folder: Path, size: int = 1 << 25, files: int = 10_000) -> None:
    """Give that disk another size."""
    _mount("tmpfs", folder, _MS_REMOUNT, f"size={size},nr_inodes={files}")


def unmount(folder: Path) -> None:
    """Take away what was mounted last at a folder, though files in it may be open."""
    _checked(ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(folder), _MNT_DETACH), f"unmount {folder}")


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Within the block nothing new can be written below the folder."""
    _mount(str(folder), folder, _MS_BIND, "")
    _mount("none", folder, _MS_REMOUNT | _MS_BIND | _MS_RDONLY, "")
    try:
        yield
    finally:
        unmount(folder)


def _mount(source: str, folder: Path, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    status = libc.mount(os.fsencode(source), os.fsencode(folder), b"tmpfs", flags, options.encode())
    _checked(status, f"mount at {folder}")


def _checked(status: int, what: str) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


DISK = Path("/mnt")
"""Where children mount their disks: an empty folder that everybody may enter."""


def _try_to_mount() -> str:
    try:
        unshare_mounts()
        mount(DISK)
        with read_only(DISK):
            pass
    except OSError as error:
        return str(error)
    return ""


@functools.cache
def why_no_disks() -> str:
    """Why small disks cannot be mounted here; empty where they can."""
    return in_child(_try_to_mount)


# What is stored ---------------------------------------------------------------------------------

TIMED = ("seconds", "images_per_replica_second")


def stored(out: Path) -> dict[str, Any]:
    """Everything in a results folder that two runs must agree on: tables, weights and teachers byte for byte, and
    cells' numbers; not times and dates."""
    import json

    import pandas as pd

    found: dict[str, Any] = {}
    for folder in sorted((out / "cells").iterdir()):
        content = json.loads((folder / "cell.json").read_text())
        numbers = {key: value for key, value in content["measurement"].items() if key not in TIMED}
        found[f"{folder.name}/cell"] = [content[key] for key in ("cell", "summary", "prediction", "engine")
                                        if key in content] + [numbers]  # fmt: skip
        for file in sorted(folder.iterdir()):
            if file.name == "replicas.parquet":
                table = pd.read_parquet(file)
                table = table.drop(columns=[name for name in TIMED if name in table])
                found[f"{folder.name}/{file.name}"] = {name: table[name].to_numpy().tobytes() for name in table}
            elif file.suffix != ".json":
                found[f"{folder.name}/{file.name}"] = file.read_bytes()
    for file in sorted((out / "teachers").iterdir()):
        found[f"teachers/{file.name}"] = file.read_bytes()
    return found


def leftovers(out: Path) -> list[str]:
    """Files that no finished run leaves: of work under way, and temporary ones."""
    under_way = [path for path in (out / "partial").rglob("*") if (out / "partial").is_dir()]
    hidden = [path for path in out.rglob(".*")]
    return sorted(str(path.relative_to(out)) for path in {*under_way, *hidden})
