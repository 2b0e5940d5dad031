"""What the command line prints: tables, one JSON object, CSV, progress. Only this package prints."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kdsim.api.progress import Meter, on_terminal
from kdsim.plain_text import one_line

if TYPE_CHECKING:
    from kdsim.results.store import StudyResults
    from kdsim.study.base import Study
    from kdsim.study.runner import Progress
    from kdsim.study.table_text import Table

LONGEST = 5000
"""Characters of a line."""
LINE_SECONDS = 15.0
"""Time between two progress lines where standard error is no terminal."""


_own: list[TextIO | None] = []
"""Standard output as it was before `own_output`."""


def _standard_output() -> TextIO | None:
    return _own[-1] if _own else sys.stdout


def say(*texts: object, sep: str = " ", end: str = "\n") -> None:
    """Like `print`, on the standard output that is kdsim's own, see `own_output`."""
    stream = _standard_output()
    if stream is None:  # closed when the process started
        return
    text = sep.join(map(str, texts))
    try:
        "±".encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        text = text.replace("±", "+-")
    print(text, end=end, file=stream)


@contextmanager
def own_output() -> Iterator[None]:
    """Within the block standard output is kdsim's: what a study file and its processes print goes to standard error.

    Both `sys.stdout` and, in a process whose standard output it is, file descriptor 1 are led there; `say` alone still
    writes to what standard output was.
    """
    outer = sys.stdout
    if not _is_descriptor(outer, 1):  # of a notebook or a test
        with _led_to_errors(_standard_output()):
            yield
        return
    outer.flush()
    with open(os.dup(1), "w", encoding=outer.encoding, errors=outer.errors) as own:
        with open(os.devnull, "wb") as nothing:
            os.dup2(2 if _is_descriptor(sys.stderr, 2) else nothing.fileno(), 1)
        try:
            with _led_to_errors(own):
                yield
        finally:
            outer.flush()
            os.dup2(own.fileno(), 1)


@contextmanager
def _led_to_errors(own: TextIO | None) -> Iterator[None]:
    """Within the block `sys.stdout` is standard error, and `say` writes to `own`."""
    outer = sys.stdout
    _own.append(own)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        _own.pop()
        sys.stdout = outer


def _is_descriptor(stream: TextIO | None, number: int) -> bool:
    """Whether a stream writes to this open file descriptor of the process."""
    try:
        os.fstat(number)
        return stream is not None and stream.fileno() == number
    except (OSError, ValueError, AttributeError):
        return False


def note(text: str) -> None:
    """A line for people, on standard error; of a text of a megabyte its beginning."""
    line = one_line(text)
    if len(line) > LONGEST:
        line = f"{line[:LONGEST]}... ({len(line):,} characters)"
    with suppress(OSError):  # nobody can read it: the exit code says what happened
        print(f"kdsim: {line}", file=sys.stderr)


def error(text: str) -> None:
    """An error in one line, on standard error."""
    note(f"error: {text}")


def print_json(content: Mapping[str, Any]) -> None:
    """One strict JSON object on standard output."""
    from kdsim.results.json_files import json_ready

    say(json.dumps(json_ready(content), indent=1, allow_nan=False))


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as CSV on standard output."""
    import pandas as pd

    say(pd.DataFrame(list(rows)).to_csv(index=False), end="")


def line_width() -> int | None:
    """Characters of a line: what COLUMNS says if it is a whole number above zero, else those of the terminal.

    None, no limit, where there is neither: what is read from a pipe or a file depends on no guess.
    """
    columns = os.environ.get("COLUMNS", "").strip()
    if columns.isdecimal() and 0 < len(columns) < 10 and int(columns) > 0:
        return int(columns)
    stream = _standard_output()
    try:
        return None if stream is None else os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError, AttributeError):  # no terminal, closed, or no file at all
        return None


def print_table(table: Table) -> None:
    """A table, above it what all rows share, below it its notes. No cell is cut: see `table_text.plain`."""
    from kdsim.study.table_text import plain

    say(plain(table, line_width()))


@contextmanager
def compilation_note() -> Iterator[None]:
    """Within the block a line says so if kernels have to be compiled, and one if they cannot be, or cannot be kept."""
    from kdsim.engines.fused.compilation import announced

    with announced(note):
        yield


@contextmanager
def progress_report() -> Iterator[Callable[[Progress], None]]:
    """A callback that shows progress on standard error: a bar on a terminal, else a line now and then."""
    if sys.stderr.isatty():
        with on_terminal() as (show, _):
            yield show
        return
    meter, last_line = Meter(), time.monotonic()

    def write(progress: Progress) -> None:
        nonlocal last_line
        text = meter.text(progress)
        if text and time.monotonic() - last_line >= LINE_SECONDS:
            last_line = time.monotonic()
            note(f"{100 * progress.share:.0f} % of {progress.total:,} replica-steps, {text}")

    yield write


@contextmanager
def windowless() -> Iterator[None]:
    """Within the block a matplotlib that is imported there opens no window; afterwards its backend is the user's."""
    chosen = os.environ.get("MPLBACKEND")
    imported = "matplotlib" in sys.modules
    os.environ["MPLBACKEND"] = "Agg"
    try:
        yield
    finally:
        del os.environ["MPLBACKEND"]
        if chosen is not None:
            os.environ["MPLBACKEND"] = chosen
        mpl = sys.modules.get("matplotlib")
        if not imported and mpl is not None:
            # Not by `mpl.use`, which takes no "decide when the first window opens", nor by reading, which decides.
            dict.__setitem__(mpl.rcParams, "backend", dict.__getitem__(mpl.rcParamsOrig, "backend"))
            if chosen:
                with suppress(ValueError):  # no backend of matplotlib's
                    mpl.rcParams["backend"] = chosen


# Figures ----------------------------------------------------------------------------------------


def figure_of(study: type[Study]) -> Callable[..., Any] | None:
    """The function of a study's figure; None for a study without one."""
    from kdsim.api.plotting import figure_function

    figure = getattr(study, "figure", None)
    return None if figure is None else figure_function(figure)


def stored_figure(results: StudyResults, study: type[Study] | None = None) -> Callable[..., Any]:
    """The figure function of a stored study.

    A results folder may come from anybody: what it says of its figure names one of kdsim's, or is a text for people. A
    study file is Python, and runs only if the user names it.

    Args:
        results: the stored study.
        study: that of the study file which the user named, if one was named.

    Raises:
        ConfigError: the study has no figure, or it is in a study file and that one was not named.
    """
    from kdsim.api.plotting import figure_function
    from kdsim.config import ConfigError

    if study is not None:
        if study.name != results.name:
            raise ConfigError(f"{results.folder} is a run of {results.name!r}; the study file defines {study.name!r}")
        function = figure_of(study)
    else:
        reference = results.info["figure"] or {}
        file = reference.get("file")
        if file is not None:
            raise ConfigError(
                f"the figure of {results.name!r} is a function of a study file, which runs only if you name it: "
                f"kdsim figure {results.folder} --study FILE.py; when it was stored, FILE.py was {file!s:.500}"
            )
        name = reference.get("name")
        function = None if name is None else figure_function(name)
    if function is None:
        raise ConfigError(f"study {results.name!r} has no figure")
    return function


def write_figures(
    draw: Callable[..., Any], results: StudyResults, formats: Sequence[str], folder: Path | None = None
) -> list[str]:
    """Draw the figure once and write it in each format, into the study's folder if no other. Returns the files."""
    from kdsim.files import temporary_beside
    from kdsim.study.loading import require_study_name

    require_study_name(f"{results.folder}: study", results.name)  # it becomes the name of a file
    figure = draw(results)
    files = []
    for extension in formats:
        file = (folder or results.folder) / f"{results.name}.{extension}"
        with temporary_beside(file) as temporary:
            figure.savefig(temporary, format=extension, dpi=200)
            temporary.replace(file)
        files.append(str(file))
    return files
