"""Progress of a run: a bar on a terminal or in a notebook, nothing in a pipe or a file."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdsim.study.session import Progress

REDRAW_SECONDS = 0.25
"""Time between two drawings in a notebook."""


class Meter:
    """Speed and time left, from the progress made in this process."""

    def __init__(self) -> None:
        self._first: tuple[float, int, float] | None = None

    def text(self, progress: Progress) -> str:
        """Replica-steps per second and time left, once there are two points to go by."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, progress.done, progress.share
        elapsed, done, share = now - self._first[0], progress.done - self._first[1], progress.share - self._first[2]
        if elapsed <= 0 or done <= 0 or share <= 0:
            return ""
        return f"{done / elapsed:,.0f} replica-steps/s, {duration((1 - progress.share) * elapsed / share)} left"


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use.

    Example:
        >>> duration(0.25), duration(90), duration(600), duration(7200)
        ('0.2 s', '90 s', '10 min', '2.0 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 2 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def shown(wanted: bool) -> Iterator[tuple[Callable[[Progress], None] | None, Callable[[str], None] | None]]:
    """Within the block a bar shows what the first function is told, and a line what the second is.

    Both are None if they are not wanted, or where nobody looks.
    """
    if wanted and _in_notebook():
        with _in_cell() as functions:
            yield functions
    elif wanted and sys.stderr is not None and sys.stderr.isatty():
        with on_terminal() as functions:
            yield functions
    else:
        yield None, None


def _in_notebook() -> bool:
    """Whether IPython shows what is displayed, as a kernel does and a terminal does not."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


@contextmanager
def on_terminal() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """Within the block a bar on standard error shows what the first function is told, and a line what the second is."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    meter = Meter()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    with Bar(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("running", total=None, rate="")

        def show(progress: Progress) -> None:
            bar.update(task, description="running", completed=progress.share, total=1.0, rate=meter.text(progress))

        yield show, lambda line: bar.update(task, description=line, refresh=True)


@contextmanager
def _in_cell() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """A bar of HTML below the cell, which goes when the block ends. It needs no widgets."""
    from IPython.display import HTML, display

    meter, drawn = Meter(), [0.0]
    handle: Any = display(HTML(_bar(0.0, "starting")), display_id=True)

    def show(progress: Progress) -> None:
        if time.monotonic() - drawn[0] > REDRAW_SECONDS:
            drawn[0] = time.monotonic()
            handle.update(HTML(_bar(progress.share, meter.text(progress))))

    try:
        yield show, lambda line: handle.update(HTML(_bar(0.0, line)))
    finally:
        handle.update(HTML(""))


def _bar(share: float, text: str) -> str:
    return f'<progress max="1" value="{share:.3f}"></progress> {100 * share:.0f} % {html.escape(text)}'
