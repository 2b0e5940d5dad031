"""Progress is shown on terminals and in notebooks, and nowhere else."""

from __future__ import annotations

import io
import sys
import types

import pytest

from kdsim.api import progress
from kdsim.study.session import Progress

HALF = Progress(done=50, total=100, step=5, steps=10, replicas=10, share=0.5)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("wanted", "stream"), [(True, io.StringIO()), (False, _Terminal()), (True, None)])
def test_nothing_is_shown_where_nobody_looks(wanted: bool, stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.shown(wanted) as functions:
        assert functions == (None, None)
    assert stream is None or stream.getvalue() == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with progress.shown(True) as (tell, say):
        say("compiling")
        tell(HALF)
    assert "50%" in terminal.getvalue() and "compiling" in terminal.getvalue()


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    handle = types.SimpleNamespace(update=drawn.append)
    display = types.SimpleNamespace(HTML=str, display=lambda html, display_id: drawn.append(html) or handle)
    ipython = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel=object()), display=display)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with progress.shown(True) as (tell, say):
        say("<compiling>")
        tell(HALF)
    assert 'value="0.500"' in drawn[2] and "&lt;compiling&gt;" in drawn[1] and drawn[-1] == ""


def test_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    meter = progress.Meter()
    assert meter.text(Progress(0, 100, 0, 10, 10, 0.0)) == ""
    assert meter.text(HALF) == "5 replica-steps/s, 10 s left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (1.94, "1.9 s"), (2.0, "2 s"), (99.0, "99 s"), (100.0, "2 min"), (5990.0, "100 min"),
     (6000.0, "1.7 h"), (360_000.0, "100.0 h")],
)  # fmt: skip
def test_durations_are_in_the_unit_that_people_would_use(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text
