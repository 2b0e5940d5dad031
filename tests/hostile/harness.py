"""Calls the command line with a hostile input and looks for everything that must not happen.

What must hold: exit code 0, 1 or 2; with 2 an error in one line on standard error; never a traceback, a warning of a
library, a name imported by data, a process or connection, a file written outside the folder for results, or a call that
takes longer or more memory than it may.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import platform
import resource
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kdsim.cli import main

SECONDS = 30.0
"""A call may take so long; most take less than a tenth."""
MEMORY = 1 << 30
"""Bytes by which a call may raise the peak of the process."""
INTERNAL = "KDSIM_TRACEBACK=1"
"""Part of the line with which the command line reports an error that it did not expect."""
RUNS_CODE = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.startfile",
    "socket.connect",
    "pty.spawn",
)
WRITES = {
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.symlink": (1,),
    "os.link": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "shutil.rmtree": (0,),
    "shutil.move": (0, 1),
    "shutil.copyfile": (1,),
}
"""Audit events of Python, and which of their arguments are paths that are written."""
ON_LINKS = ("os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link")
"""Of these, what change a link and not what it leads to."""
platform.processor()  # asks another program, once a process


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        arguments: of the command line.
        what: the input in words, to reproduce it by hand.
        refused: it is nonsense, and exit code 0 would be wrong.
        own_code: a study file's code runs, and may fail in its own way: exit code 1 is right for it.
    """

    arguments: list[str]
    what: str
    refused: bool = False
    own_code: bool = False


@dataclass(frozen=True)
class Box:
    """Where a case happens: nothing but `out` may be different afterwards.

    Attributes:
        root: everything lies below it.
        out: the folder for results, the only one that may change.
        marker: a file that planted code would make.
    """

    root: Path

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def marker(self) -> Path:
        return self.root / "planted code ran"

    def make(self) -> None:
        """Make the folders, with something in them that would be missed."""
        for name in ("work", "home", "temporary", "data"):
            (self.root / name).mkdir(parents=True)
            (self.root / name / "keep.txt").write_text(f"{name} of the user\n")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Within the block this is the working folder, and HOME and TMPDIR lie in the box."""
        before, folder = dict(os.environ), os.getcwd()
        os.environ |= {"HOME": str(self.root / "home"), "TMPDIR": str(self.root / "temporary")}
        os.chdir(self.root / "work")
        try:
            yield
        finally:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(before)

    def listing(self) -> dict[str, tuple[int, int, int]]:
        """Mode, size and time of change of everything outside `out`."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            if Path(folder) == self.root and "out" in folders:
                folders.remove("out")
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                if name.startswith("torchinductor_"):  # torch's, from some of its own errors
                    continue
                status = os.lstat(path)
                size = status.st_size if name in files else 0
                found[path] = (status.st_mode, size, status.st_mtime_ns if name in files else 0)
        return found


@dataclass
class Outcome:
    """What a call did; `faults` says what of it must not be, in words."""

    code: int | None
    out: str
    err: str
    seconds: float
    faults: list[str] = field(default_factory=list)


class TookTooLong(BaseException):
    """Not an Exception: the command line lets it through."""


# What Python itself reports -----------------------------------------------------------------------


class _Watch:
    """Audit events of Python while a call runs. Hooks cannot be taken out, so there is one, which is asleep outside."""

    def __init__(self) -> None:
        self.events: list[str] | None = None
        self.free: tuple[str, ...] = ()
        self.is_set = False

    def hook(self, event: str, arguments: tuple) -> None:
        if self.events is None:
            return
        if event in RUNS_CODE:
            self.events.append(f"{event} {arguments!r:.200}")
        elif event == "open":
            path, mode, flags = arguments
            written = mode is not None and any(letter in mode for letter in "wax+")
            if written or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                self.path(event, path)
        elif event in WRITES:
            for number in WRITES[event]:
                self.path(event, arguments[number])

    def path(self, event: str, path: object) -> None:
        if isinstance(path, int) or self.events is None:  # an open file
            return
        given = os.path.abspath(os.fsdecode(path))
        place = os.path.realpath(given)
        if event in ON_LINKS:
            place = os.path.join(os.path.realpath(os.path.dirname(given)), os.path.basename(given))
        cache = "__pycache__" in place or place.endswith((".nbi", ".nbc")) or place == os.devnull
        makes_way = event == "os.mkdir" and any(folder.startswith(place) for folder in self.free)
        if not cache and not makes_way and not place.startswith(self.free):
            self.events.append(f"{event} {place}")


_watch = _Watch()


@contextlib.contextmanager
def watched(*free: Path) -> Iterator[list[str]]:
    """Within the block what Python reports is collected: code that is started, and writes outside these folders."""
    if not _watch.is_set:
        sys.addaudithook(_watch.hook)
        _watch.is_set = True
    _watch.free = tuple(os.path.realpath(folder) for folder in free)
    _watch.events = found = []
    try:
        yield found
    finally:
        _watch.events = None


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[list[int]]:
    """Within the block `TookTooLong` is raised after so many seconds, and every second from then on, since the command
    line makes a line of every exception; gives a list that is not empty once it was."""
    raised: list[int] = []

    def stop(number: int, frame: object) -> None:
        raised.append(number)
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield raised
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _warned() -> Iterator[list[warnings.WarningMessage]]:
    """Within the block warnings are collected that a user would see."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        for unseen in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", unseen)
        yield caught


# The call ---------------------------------------------------------------------------------------


def attempt(case: Case, box: Box, seconds: float = SECONDS) -> Outcome:
    """Call the command line, and judge."""
    before, peak = box.listing(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace")]
    code, faults, late, started = None, [], [], time.monotonic()
    pairs = itertools.pairwise(case.arguments)
    named = [Path(value) for option, value in pairs if option in ("--out", "--to")]
    free = [path for path in named if "\0" not in str(path)]  # may be tried, even where it cannot be made
    with box.entered(), watched(box.out, box.root / "temporary", *free) as events, _warned() as caught:
        try:
            with (
                contextlib.redirect_stdout(streams[0]),
                contextlib.redirect_stderr(streams[1]),
                limited(seconds) as late,
            ):
                code = main(case.arguments)
        except TookTooLong:  # between two lines of the command line's own
            pass
        except BaseException as error:
            faults.append(f"raised {type(error).__name__}: {error!s:.300}")
    took = time.monotonic() - started
    if late:
        faults.append(f"took longer than {seconds:g} s")
    out, err = (_text(stream) for stream in streams)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
    if grown > MEMORY:
        faults.append(f"took {grown / 2**20:,.0f} MiB")
    faults += [f"did {event}" for event in events]
    faults += [f"warned: {str(each.message).splitlines()[0]:.200}" for each in caught]
    after = box.listing()
    faults += [f"wrote outside --out: {path}" for path in sorted(before.keys() ^ after.keys())]
    faults += [f"changed outside --out: {path}" for path in before.keys() & after.keys() if before[path] != after[path]]
    if box.marker.exists():
        faults.append("ran planted code")
    if code is not None:
        faults += _of_streams(case, code, out, err)
    return Outcome(code, out, err, took, faults)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode("utf-8", "replace")


def _of_streams(case: Case, code: int, out: str, err: str) -> list[str]:
    """What is wrong with an exit code and the texts beside it."""
    lines, faults = err.splitlines(), []
    errors = [line for line in lines if line.startswith("kdsim: error: ")]
    if code not in (0, 1, 2):
        faults.append(f"exit code {code}")
    if code == 1 and not lines and not out.strip():
        faults.append("exit code 1 without a reason")
    if code == 2 and not errors:
        faults.append("exit code 2 without an error")
    if code == 0 and errors:
        faults.append("exit code 0 with an error")
    if code == 0 and case.refused:
        faults.append("accepted nonsense")
    if code == 1 and INTERNAL in err and not case.own_code:
        faults.append("an error that was not expected")
    if "Traceback" in out + err:
        faults.append("a traceback")
    faults += [f"a line of another program: {line:.200}" for line in lines if not line.startswith("kdsim: ")]
    faults += [f"an error of {len(line):,} characters" for line in lines if len(line) > 20_000]
    if code == 0 and "--json" in case.arguments:
        try:
            json.loads(out, parse_constant=lambda name: faults.append(f"{name} in JSON"))
        except ValueError:
            faults.append("--json without JSON")
    return faults
