"""The entry point of the command line: whatever happens, at most one line says so, and the exit code is an `ExitCode`.

The commands are imported only when Ctrl-C and the standard streams are taken care of, and until then as little as can
be: of the time before, in which Ctrl-C is a traceback, Python's own start is the rest.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import contextmanager, suppress

from kdsim.cli.codes import ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType
    from typing import TextIO

COMPLETE = "_KDSIM_COMPLETE"
"""Environment variable with which a shell asks what may come next; typer answers."""
TRACEBACK = "KDSIM_TRACEBACK"
"""Environment variable: whether an error is Python's traceback instead of a line."""
_OF_SYSTEM = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENAMETOOLONG}
_OF_SYSTEM |= {errno.ELOOP, errno.ENOTDIR, errno.ESTALE, errno.EMFILE, errno.ENFILE}
"""What a system says of files that it does not give, and of disks that are full or fail: no fault of the program's."""
_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns an `ExitCode`.

    An error is one line on standard error; with KDSIM_TRACEBACK=1 in the environment it is Python's traceback.

    Args:
        arguments: those after the program's name; None for those of this process.
    """
    closed = _open_streams()
    stdout, stderr = sys.stdout, sys.stderr  # typer puts others in their place when a reader goes away
    with _interrupts(exits=arguments is None) as told, _environment():
        try:
            if "stdout" in closed:
                return _refused("standard output is closed: send it to a file, or to /dev/null")
            return _run(arguments, stdout, told)
        except KeyboardInterrupt:
            return _interrupted()
        finally:
            sys.stdout, sys.stderr = stdout, stderr
            _settle(stderr)


def _run(arguments: Sequence[str] | None, stdout: TextIO, told: list[int]) -> int:
    try:
        wants_traceback = _wants_traceback()
    except ValueError as error:
        return _refused(str(error))
    code, failure = None, None
    try:
        from kdsim.cli import console
        from kdsim.cli.app import app

        with console.windowless():  # figures go to files
            code = app(args=None if arguments is None else list(arguments), prog_name="kdsim", standalone_mode=False)
    except BaseException as error:  # a study file can raise anything
        failure = error
    if (fault := _settle(stdout)) is not None:
        if fault.errno == errno.EPIPE:
            return ExitCode.UNREAD
        return _refused(f"standard output cannot be written: {fault.strerror}")
    if isinstance(failure, SystemExit) and isinstance(failure.__context__, OSError):  # by typer or rich
        failure = failure.__context__
    if isinstance(failure, OSError) and failure.errno == errno.EPIPE:
        return ExitCode.UNREAD
    if isinstance(failure, KeyboardInterrupt) or (failure is not None and told):
        return _interrupted()
    if isinstance(failure, SystemExit) and _is_of_typer(failure):  # it answered a shell, or installed its completion
        code, failure = failure.code, None
    if failure is not None and os.environ.get(COMPLETE):  # a line would stand in the command that is being typed
        return ExitCode.FAILED
    if failure is not None:
        return _failed(failure, wants_traceback)
    if code == ExitCode.INTERRUPTED:  # what typer makes of a KeyboardInterrupt
        return _interrupted()
    return code if isinstance(code, int) else ExitCode.DONE


def _is_of_typer(error: BaseException) -> bool:
    """Whether typer itself raised it, rather than what a command calls."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] == "typer"


def _failed(error: BaseException, wants_traceback: bool) -> int:
    """What an error means; raises it again if its traceback is wanted."""
    from kdsim.cli import console
    from kdsim.cli.run import Stopped
    from kdsim.config import ConfigError, error_line, in_study_file, lacks_memory

    if isinstance(error, Stopped):
        console.note(str(error))
        return ExitCode.INTERRUPTED
    if wants_traceback:
        raise error
    if hasattr(error, "format_message"):  # a usage error of typer or of click, whichever this version uses
        return _refused(error.format_message())
    if type(error).__name__ == "Abort" and isinstance(error.__cause__, EOFError):  # typer's word for it
        error = error.__cause__
    if lacks_memory(error):
        return _refused(f"too large for the memory of this machine: {error_line(error)}")
    if isinstance(error, ConfigError):
        return _refused(error_line(error))
    of_study = in_study_file(error)
    if not of_study and isinstance(error, OSError) and error.errno in _OF_SYSTEM:
        place = "standard output, or a file," if error.filename is None else repr(os.fsdecode(error.filename))
        return _refused(f"{place} cannot be used: {error.strerror}")
    console.error(f"{error_line(error)}; {TRACEBACK}=1 shows the whole traceback")
    return ExitCode.REFUSED if of_study else ExitCode.FAILED


def _refused(line: str) -> int:
    from kdsim.cli import console

    console.error(line)
    return ExitCode.REFUSED


def _interrupted() -> int:
    from kdsim.cli import console

    console.note("interrupted")
    return ExitCode.INTERRUPTED


def _wants_traceback() -> bool:
    """What `KDSIM_TRACEBACK` says.

    Raises:
        ValueError: neither yes nor no.
    """
    text = os.environ.get(TRACEBACK, "")
    if text.strip().lower() not in _YES + _NO:
        allowed = f"one of {', '.join(_YES)}, or of {', '.join(_NO[1:])} and nothing"
        raise ValueError(f"{TRACEBACK} = {text!r:.100} is not allowed: must be {allowed}")
    return text.strip().lower() in _YES


# What surrounds a command -------------------------------------------------------------------------


@contextmanager
def _environment() -> Iterator[None]:
    """Within the block --data-dir, and where a study file goes, hold for this call."""
    data_dir, place = os.environ.get("KDSIM_DATA"), _place()
    try:
        yield
    finally:
        os.environ.pop("KDSIM_DATA", None)
        if data_dir is not None:
            os.environ["KDSIM_DATA"] = data_dir
        if place is not None and _place() != place:
            with suppress(OSError):  # it was removed
                os.chdir(place)


def _place() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


@contextmanager
def _interrupts(exits: bool) -> Iterator[list[int]]:
    """Within the block Ctrl-C is an exit code, not a traceback; gives a list that is not empty once it came.

    An exception that arises while a module is imported may come out as another one, or as a message of a library. So
    there, where nothing is under way yet, the process ends at once.

    Args:
        exits: whether this process is the command, and may end there.
    """
    told: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        told.append(number)
        if exits and _imports(frame):
            with suppress(OSError):
                os.write(2, b"kdsim: interrupted\n")
            os._exit(ExitCode.INTERRUPTED)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # somebody has other plans with it
        yield told
        return
    try:
        signal.signal(signal.SIGINT, handle)
    except ValueError:  # not in the main thread
        yield told
        return
    try:
        yield told
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


# Standard streams ---------------------------------------------------------------------------------


def _open_streams() -> set[str]:
    """Names of the standard streams that are closed; they lead to /dev/null now.

    The number of a closed one would be that of the next file that is opened: of a result, into which a library prints.
    """
    closed = {name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None}
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if name in closed:
            try:
                os.fstat(number)
            except OSError:
                null = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
                os.set_inheritable(null, True)
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a stored text may have what no encoding has
    return closed


def _settle(stream: TextIO) -> OSError | None:
    """Write what a standard stream still holds. If it cannot be written, it leads to /dev/null from now on.

    Python would try again when it ends, print what it thinks of that, and exit with 120.
    """
    try:
        stream.flush()
    except OSError as error:
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        return error
    except ValueError:  # somebody has closed it
        pass
    return None
