"""What commands print: whole tables at any width, and standard output that is kdsim's alone."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_study

from kdsim.cli import console, main
from kdsim.study import table_text
from kdsim.study.table_text import Table

TINY = Path(tiny_study.__file__)
ROOT = Path(__file__).parents[2]
WIDTHS = {"0": None, "1": 1, "20": 20, "80": 80, "200": 200, "garbage": None, "-5": None, "": None, "1e3": None,
          "²": None, " 90 ": 90, "9" * 5000: None}  # fmt: skip


@pytest.mark.parametrize(("columns", "width"), WIDTHS.items())
def test_width(columns: str, width: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no number of characters says nothing: a pipe has no width then."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert console.line_width() == width


def test_a_pipe_gets_whole_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    cells = [f"{place}.37 ± 0.17" for place in range(40)]
    console.print_table(Table([f"column {place}" for place in range(40)], [cells], {"column 3"}, ("column 1",)))
    shown = capsys.readouterr().out
    assert all(cell in shown for cell in cells) and "too narrow" not in shown


@pytest.mark.parametrize("columns", ["0", "1", "20", "80", "200", "garbage", "-5"])
def test_tables_of_commands_are_whole(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every word of every cell is there or its column is named; all tables go through `table_text.plain`."""
    printed: list[Table] = []
    plain = table_text.plain

    def recorded(table: Table, width: int | None) -> str:
        printed.append(table)
        return plain(table, width)

    monkeypatch.setattr(table_text, "plain", recorded)
    monkeypatch.setenv("COLUMNS", columns)
    for command in (["list-studies"], ["list-problems"], ["list-supervisions"]):
        printed.clear()
        assert main(command) == 0
        shown = capsys.readouterr().out
        assert printed
        for table in printed:
            words = {word for row in (table.headers, *table.rows) for cell in row for word in cell.split()}
            assert [word for word in words if word not in shown] == []


def test_no_other_module_makes_tables() -> None:
    assert not [path for path in (ROOT / "kdsim").rglob("*.py") if "rich.table" in path.read_text()]


def test_plus_minus_in_an_encoding_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    console.say("0.37 ± 0.17")
    stream.flush()
    assert stream.buffer.getvalue() == b"0.37 +- 0.17\n"


# Standard output is kdsim's -----------------------------------------------------------------------


def test_what_others_print_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    outer = sys.stdout
    with pytest.raises(RuntimeError), console.own_output():
        print("theirs")
        console.say("ours")
        with console.own_output():
            print("theirs")
            console.say("ours")
        raise RuntimeError
    assert sys.stdout is outer
    console.say("after")
    captured = capsys.readouterr()
    assert captured.out == "ours\nours\nafter\n" and captured.err == "theirs\ntheirs\n"


def loud(place: str) -> str:
    """A statement that prints in every way there is."""
    return (
        f"print('print {place}'); stdout.write('stdout {place}\\n'); os.write(1, b'write {place}\\n'); "
        f"subprocess.run(['echo', 'echo {place}'], check=True)"
    )


@pytest.mark.slow
def test_json_is_one_object_whatever_a_study_file_prints(tmp_path: Path) -> None:
    """At import, in cells(), in a noise model, in its figure: by print, a file descriptor, a process."""
    source = TINY.read_text()
    for before, place in (
        ("@dataclass(frozen=True)\nclass SmallPool", "at import"),
        ("        q = OneHot().sample(batch, draws).q", "in sample"),
        ("        first = Cell(", "in cells"),
        ("    figure = Figure()", "in the figure"),
    ):
        indent = " " * (len(before) - len(before.lstrip()))
        assert before in source
        source = source.replace(before, f"{indent}{loud(place)}\n{before}", 1)
    file = tmp_path / "loud.py"
    file.write_text(
        source.replace("from dataclasses", "import os, subprocess\nfrom sys import stdout\nfrom dataclasses", 1)
    )
    command = [sys.executable, "-m", "kdsim.cli", "run-study", str(file), "--quick", "--json", "--set=steps=20"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    assert len(content["rows"]) == 3
    for place in ("at import", "in sample", "in cells", "in the figure"):
        for way in ("print", "stdout", "write", "echo"):
            assert f"{way} {place}" in done.stderr


def test_help_and_version_are_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--version"], ["run-study", "--help"], []):
        assert main(arguments) == 0
        captured = capsys.readouterr()
        assert captured.out and not captured.err
