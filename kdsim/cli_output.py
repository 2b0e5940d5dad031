"""What the command line prints: tables, one JSON object, CSV, progress. Only this module and cli.py print."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from kdsim.study.base import Study
    from kdsim.study.report import Table
    from kdsim.study.runner import Progress
    from kdsim.study.store import StudyResults

WIDTH = 120
"""Columns where the output is no terminal and COLUMNS says nothing."""
LONGEST = 5000
"""Characters of a line."""
LINE_SECONDS = 15.0
"""Time between two progress lines where standard error is no terminal."""


def note(text: str) -> None:
    """A line for people, on standard error; of a text of a megabyte its beginning."""
    line = one_line(text)
    if len(line) > LONGEST:
        line = f"{line[:LONGEST]}... ({len(line):,} characters)"
    print(f"kdsim: {line}", file=sys.stderr)


def error(text: str) -> None:
    """An error in one line, on standard error."""
    note(f"error: {text}")


def one_line(text: str) -> str:
    """The text without line breaks, and with characters that would act on a terminal escaped."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def print_json(content: Mapping[str, Any]) -> None:
    """One strict JSON object on standard output."""
    from kdsim.study.rows import json_ready

    print(json.dumps(json_ready(content), indent=1, allow_nan=False))


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as CSV on standard output."""
    import pandas as pd

    print(pd.DataFrame(list(rows)).to_csv(index=False), end="")


def console() -> Console:
    """Standard output as a rich console."""
    from rich.console import Console

    fixed = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(file=sys.stdout, width=WIDTH if fixed else None, highlight=False, soft_wrap=False)


def print_table(table: Table) -> None:
    """A table, above it what all rows share, below it its notes."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    out = console()
    if table.common:
        out.print(Text(", ".join(f"{key} {value}" for key, value in table.common.items())))
    columns = dict(zip(table.headers, zip(*table.rows, strict=True), strict=True)) if table.rows else {}
    widths = {header: max(map(len, (header, *texts))) for header, texts in columns.items()}
    left_out = []
    for header in table.optional:
        if header in widths and sum(widths.values()) + len(widths) > out.width:
            left_out.append(header)
            del columns[header], widths[header]
    gap = 1 if sum(widths.values()) + 2 * len(widths) < out.width else 0
    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), show_edge=False)
    for header in columns:
        flush = "right" if header in table.numeric else "left"
        grid.add_column(Text(header), justify=flush, overflow="fold", min_width=min(widths[header], 16))
    for cells in zip(*columns.values(), strict=True):
        grid.add_row(*map(Text, cells))
    out.print("", grid, "")
    for line in table.notes:
        out.print(Text(line))
    if left_out:
        out.print(Text(f"The terminal is too narrow for {', '.join(left_out)}; --csv and --json have all columns."))


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 2 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def compilation_note() -> Iterator[None]:
    """Within the block a line says so if kernels have to be compiled, and one if they cannot be, or cannot be kept."""
    from kdsim.engines.fused.compilation import announced

    with announced(note):
        yield


@contextmanager
def progress_report() -> Iterator[Callable[[Progress], None]]:
    """A callback that shows progress on standard error: a bar on a terminal, else a line now and then."""
    meter = _Meter()
    if not sys.stderr.isatty():
        yield lambda progress: _line(meter, progress)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("simulating"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    with Bar(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("", total=None, rate="")

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.share, total=1.0, rate=meter.text(progress))

        yield show


class _Meter:
    """Speed and time left, from the progress made in this process."""

    def __init__(self) -> None:
        self.first: tuple[float, int, float] | None = None
        self.last_line = time.monotonic()

    def text(self, progress: Progress) -> str:
        """Replica-steps per second and time left, once there are two points to go by."""
        now = time.monotonic()
        if self.first is None:
            self.first = now, progress.done, progress.share
        elapsed, done, share = now - self.first[0], progress.done - self.first[1], progress.share - self.first[2]
        if elapsed <= 0 or done <= 0 or share <= 0:
            return ""
        left = (1 - progress.share) * elapsed / share
        return f"{done / elapsed:,.0f} replica-steps/s, {duration(left)} left"


def _line(meter: _Meter, progress: Progress) -> None:
    text = meter.text(progress)
    if text and time.monotonic() - meter.last_line >= LINE_SECONDS:
        meter.last_line = time.monotonic()
        note(f"{100 * progress.share:.0f} % of {progress.total:,} replica-steps, {text}")


# Figures: kdsim.figures is imported here only ---------------------------------------------------


def figure_function(figure: str | Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The function of a study's `figure`: a name in kdsim.figures, a function, or None for none."""
    from kdsim.config import choose, require

    if not isinstance(figure, str):
        require(figure is None or callable(figure), "figure", figure, "the name of a figure of kdsim or a function")
        return figure
    from kdsim.figures import FIGURES

    return choose("figure", figure, FIGURES)


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
    from kdsim.config import ConfigError

    if study is not None:
        if study.name != results.name:
            raise ConfigError(f"{results.folder} is a run of {results.name!r}; the study file defines {study.name!r}")
        function = figure_function(getattr(study, "figure", None))
    else:
        reference = results.info["figure"] or {}
        file = reference.get("file")
        if file is not None:
            raise ConfigError(
                f"the figure of {results.name!r} is a function of a study file, which runs only if you name it: "
                f"kdsim figure {results.folder} --study FILE.py; when it was stored, FILE.py was {file!s:.500}"
            )
        name = reference.get("name")
        function = None if name is None else figure_function(str(name))
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
