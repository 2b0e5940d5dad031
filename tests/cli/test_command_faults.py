"""What goes wrong around a command: each fault is at most one line, and the exit code that docs/operations.md says."""

from __future__ import annotations

import ast
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import lazy_loader
import matplotlib.font_manager  # noqa: F401  makes folders in the home folder when it is first imported
import pytest
import tiny_study

from kdsim.cli import console, entry, main, paths
from kdsim.cli.codes import ExitCode
from kdsim.config import ConfigError
from kdsim.results.json_files import require_no_link

TINY = str(Path(tiny_study.__file__))
ROOT = Path(__file__).parents[2]
STUDY = """
from dataclasses import dataclass
from typing import ClassVar
from kdsim.study.base import Study

@dataclass(frozen=True)
class Mine(Study):
    name: ClassVar[str] = "mine"
    summary: ClassVar[str] = "mine"
    def cells(self):
        {body}
    def quick(self): return self
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path.with_name(f"{tmp_path.name}-home")))  # where caches are, if need be
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = ExitCode.REFUSED) -> str:
    """The one line of a command that ends with this code."""
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("kdsim: ") and captured.err.count("\n") == 1, captured.err
    return captured.err


def planned(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """`kdsim list-studies` raises this."""

    def raising(table: object) -> None:
        raise error

    monkeypatch.setattr(console, "print_table", raising)


# Exit codes -----------------------------------------------------------------------------------------


def test_the_documented_exit_codes_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "operations.md").read_text().split("## Exit codes\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE))
    assert rows == {str(code.value): code.name for code in ExitCode}


def test_commands_take_their_exit_codes_from_there() -> None:
    for path in (ROOT / "kdsim" / "cli").glob("*.py"):
        returned = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Return)]
        last = [node.elts[-1] if isinstance(node, ast.Tuple) else node for node in returned]
        assert not [node for node in last if isinstance(node, ast.Constant) and type(node.value) is int], path


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (GeneratorExit(), ExitCode.FAILED, "GeneratorExit"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
        (SystemExit(0), ExitCode.FAILED, "SystemExit: 0"),
        (EOFError("no more"), ExitCode.FAILED, "EOFError: no more"),
        (RecursionError("deep"), ExitCode.FAILED, "RecursionError: deep"),
        (MemoryError(), ExitCode.REFUSED, "too large for the memory"),
        (ImportError("x.so: failed to map segment from shared object"), ExitCode.REFUSED, "too large for the memory"),
        (OSError(12, "Cannot allocate memory"), ExitCode.REFUSED, "too large for the memory"),
        (PermissionError(13, "Permission denied", "a\nb"), ExitCode.REFUSED, r"'a\nb' cannot be used: Permission"),
        (OSError(5, "Input/output error", "f"), ExitCode.REFUSED, "'f' cannot be used: Input/output error"),
        (OSError(28, "No space left on device"), ExitCode.REFUSED, "cannot be used: No space left on device"),
        (FileNotFoundError(2, "No such file", "f"), ExitCode.FAILED, "FileNotFoundError"),
        (ConfigError("a\nb"), ExitCode.REFUSED, "error: a b"),
    ],
)
def test_whatever_is_raised_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: ExitCode,
    words: str,
) -> None:
    planned(monkeypatch, error)
    assert main(["list-studies"]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line]  # typer adds an empty one to an EOFError
    assert len(lines) == 1 and words in lines[0]


def test_a_library_that_was_not_found_for_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = OSError("Could not find/load shared object file")
    error.__context__ = OSError("libllvmlite.so: failed to map segment from shared object")
    planned(monkeypatch, error)
    assert "too large for the memory" in refused(capsys, "list-studies")


@pytest.mark.parametrize("text", ["0", "false", "No", "", " off "])
def test_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str) -> None:
    monkeypatch.setenv("KDSIM_TRACEBACK", text)
    assert "nearest: noise-sweep" in refused(capsys, "predict", "noise-swep")


def test_a_traceback_if_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("1", "TRUE", "yes", "on"):
        monkeypatch.setenv("KDSIM_TRACEBACK", text)
        with pytest.raises(ConfigError):
            main(["predict", "noise-swep"])
    monkeypatch.setenv("KDSIM_TRACEBACK", "perhaps")
    assert "KDSIM_TRACEBACK = 'perhaps' is not allowed: must be one of 1," in refused(capsys, "list-studies")


# Standard streams -----------------------------------------------------------------------------------


def test_a_full_standard_output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("--help", "list-studies"):
        with open("/dev/full", "w") as full, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", full)
            assert main([command]) == ExitCode.REFUSED
            full.flush()  # Python's own attempt at the end is quiet
        error = capsys.readouterr().err
        assert "standard output" in error and "No space left on device" in error and error.count("\n") == 1


def test_a_reader_that_went_away(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("--version", "--help", "list-studies"):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            assert main([command]) == ExitCode.UNREAD
            assert sys.stdout is stream  # typer has put another in its place
        assert capsys.readouterr().err == ""


def test_a_standard_error_that_takes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main(["predict", "noise-swep"]) == ExitCode.REFUSED
        full.flush()
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["predict", "noise-swep"]) == ExitCode.REFUSED
    assert capsys.readouterr().out == ""  # print(file=None) would have written it there


@pytest.mark.slow
def test_closed_streams() -> None:
    """Of a process: with them closed, the next files that it opens get their numbers."""
    code = "import os, sys; {}; os.execv(sys.executable, [sys.executable, '-m', 'kdsim.cli', {!r}])"
    for closed, argument, expected in (
        ("os.close(1)", "--version", (ExitCode.REFUSED, "")),
        ("os.close(0), os.close(1), os.close(2)", "--version", (ExitCode.REFUSED, "")),
        ("os.close(2)", "--versin", (ExitCode.REFUSED, "")),
        ("os.close(0), os.close(2)", "--version", (ExitCode.DONE, "kdsim")),
    ):
        ended = subprocess.run(
            [sys.executable, "-c", code.format(closed, argument)], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert (ended.returncode, ended.stdout[:5]) == expected, closed
        line = "kdsim: error: standard output is closed: send it to a file, or to /dev/null\n"
        assert ended.stderr == (line if closed == "os.close(1)" else "")


# Ctrl-C -----------------------------------------------------------------------------------------------


def test_ctrl_c_while_modules_are_imported_ends_the_process(tmp_path: Path) -> None:
    """Whatever the module makes of the exception; else it would be a traceback, or another error."""
    (tmp_path / "typer.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept: pass\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    ended = subprocess.run(
        [sys.executable, "-m", "kdsim.cli", "--version"], capture_output=True, text=True, check=False, env=environment
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (ExitCode.INTERRUPTED, "", "kdsim: interrupted\n")


def test_ctrl_c_in_a_process_that_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Called from Python it ends the call alone, also where a library makes another error of the exception."""

    def interrupted(table: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("of a library") from None

    monkeypatch.setattr(console, "print_table", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert main(["list-studies"]) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "kdsim: interrupted\n" and signal.getsignal(signal.SIGINT) is before


def test_little_is_imported_before_ctrl_c_is_taken_care_of() -> None:
    code = "import re, contextlib, importlib.util, sys; known = set(sys.modules); import kdsim.cli"
    code += "; print(*sorted(set(sys.modules) - known))"
    command, packages = [sys.executable, "-S", "-c", code], str(Path(lazy_loader.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": packages}
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    assert set(found.stdout.split()) <= {
        "lazy_loader",  # of kdsim's own, with what it reads the stub
        "ast",
        "_ast",
        "__future__",
        "kdsim",
        "kdsim.cli",
        "kdsim.cli.codes",
        "kdsim.cli.entry",
        "errno",
        "signal",
        "_signal",
    }


def test_imports_are_told_from_other_code() -> None:
    seen = []
    finder = types.SimpleNamespace(find_spec=lambda *arguments: seen.append(entry._imports(sys._getframe())))
    sys.meta_path.insert(0, finder)
    try:
        with pytest.raises(ImportError):
            __import__("no_such_module_at_all")
    finally:
        sys.meta_path.remove(finder)
    assert seen == [True] and not entry._imports(sys._getframe())


# Paths ------------------------------------------------------------------------------------------------


def test_paths_are_absolute_from_the_start(here: Path) -> None:
    assert paths.absolute("--out", "~/x") == f"{here}-home/x"
    assert paths.absolute("--out", "./~/x") == str(here / "~" / "x")
    assert paths.absolute("--out", "a/../b") == str(here / "a" / ".." / "b")  # a may be a link
    assert paths.target("noise-sweep") == "noise-sweep"
    assert paths.target("a.py") == str(here / "a.py")
    assert paths.scheduler("tcp://host:1") == "tcp://host:1"
    assert paths.scheduler("s.json") == str(here / "s.json")


PATHS = [
    *(["run-study", TINY, "--out"], ["run-study", TINY, "--data-dir"], ["results", "tiny", "--out"]),
    *(["figure", "tiny", "--study"], ["check-results", "--out"], ["reproduce"], ["reproduce", "x", "--study"]),
    *(["reproduce", "x", "--keep"], ["gallery", "--to"], ["export-problem", "digits", "--out"]),
    *(["data", "check", "--data-dir"], ["verify-claims", "--out"], ["show-study", TINY, "--out"]),
]


@pytest.mark.slow
@pytest.mark.parametrize("command", PATHS, ids=" ".join)
def test_paths_that_no_file_has(here: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    for path, words in (
        ("", "must be a path"),
        ("a\nb", "without control characters"),
        ("a\0b", "without control characters"),
        ("x" * 300, "must be shorter (File name too long)"),
        ("~nobody-of-this-name/x", "~NAME of a user"),
    ):
        assert words in refused(capsys, *command, path)
    assert list(here.iterdir()) == []


def test_a_working_directory_that_was_removed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = here / "place"
    place.mkdir()
    os.chdir(place)
    place.rmdir()
    assert "in the working directory, which was removed" in refused(capsys, "results", "tiny")


def test_kdsim_data_is_a_path_too(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDSIM_DATA", "~/images")
    assert f"'{here}-home/images' is not allowed" in refused(capsys, "data", "check")
    monkeypatch.setenv("KDSIM_DATA", "a\nb")
    assert "KDSIM_DATA = 'a\\nb' is not allowed" in refused(capsys, "run-study", TINY)


@pytest.mark.slow
def test_a_study_that_goes_elsewhere(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At its import and in its cells: results, figures and the caller stay where they were. In a folder of bytes."""
    folder = here / os.fsdecode(b"caf\xe9 ~")
    folder.mkdir()
    text = (
        Path(TINY)
        .read_text()
        .replace("        first = Cell(", "        __import__('os').chdir('/')\n        first = Cell(")
    )
    (folder / "mine.py").write_text(text + "\nimport os\nos.chdir('/')\n")
    arguments = ["--out", f"{folder.name}/results", "--set", "steps=50"]
    assert main(["run-study", f"{folder.name}/mine.py", *arguments, "--json"]) == 0
    assert Path.cwd() == here
    got = json.loads(capsys.readouterr().out)
    assert all(Path(file).stat().st_size > 1000 for file in got["figures"])
    assert main(["figure", f"{folder.name}/mine.py", *arguments, "--format", "svg"]) == 0
    assert main(["check-results", "--out", f"{folder.name}/results"]) == 0
    assert "nothing is damaged" in capsys.readouterr().out
    assert {path.name for path in here.iterdir()} == {folder.name}
    assert {path.name for path in folder.iterdir()} == {"mine.py", "results"}


@pytest.mark.slow
def test_links_in_a_results_folder_are_not_written_through(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run-study", TINY, "--set", "steps=50", "--json"]) == 0
    folder = Path(json.loads(capsys.readouterr().out)["results"])
    (here / "elsewhere").mkdir()
    (here / "results" / "claims").symlink_to(here / "elsewhere")
    assert "claims' is a link" in refused(capsys, "verify-claims", "--quick", "--only", "p2")
    for keep in ("results/again", "results", "link/again"):
        (here / "link").unlink(missing_ok=True)
        (here / "link").symlink_to(here / "results")
        assert "must lie outside of the results" in refused(capsys, "reproduce", "results", "--keep", keep)
        assert "must lie outside of the results" in refused(capsys, "reproduce", str(folder), "--keep", keep)
    folder.parent.rename(here / "elsewhere" / "tiny")
    folder.parent.symlink_to(here / "elsewhere" / "tiny")
    assert main(["figure", "tiny", "--study", TINY]) == ExitCode.REFUSED
    assert f"'{folder.parent}' is a link" in capsys.readouterr().err


def test_a_folder_without_permission(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_symlink", denied)
    with pytest.raises(ConfigError, match=r"'.*cells' cannot be written: Permission denied"):
        require_no_link(here / "cells")


# Study files --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_study_files_that_are_no_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.py")
    Path("folder.py").mkdir()
    with open("huge.py", "wb") as file:
        file.truncate(1 << 40)
    Path("null.py").symlink_to("/dev/null")
    Path("zero.py").symlink_to("/dev/zero")
    Path("loop.py").symlink_to("loop.py")
    for name, words in (
        ("pipe.py", "Not a regular file"),
        ("null.py", "Not a regular file"),
        ("zero.py", "Not a regular file"),
        ("folder.py", "Is a directory"),
        ("huge.py", "must have at most 10485760"),
        ("loop.py", "symbolic links"),
        ("absent.py", "No such file"),
    ):
        for command in (["run-study", name], ["results", name], ["figure", name]):
            error = refused(capsys, *command)
            assert f"study file '{here / name}' cannot be read: " in error and words in error
    (here / "cells").mkdir()
    (here / "cells" / "0123").mkdir()
    assert "'/dev/null' cannot be read: Not a regular file" in refused(capsys, "reproduce", ".", "--study", "/dev/null")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return 5", "cells() must return a tuple of cells, it returned 5"),
        ("return None", "it returned None"),
        ("return 'abc'", "it returned 'abc'"),
        ("return b'abc'", "it returned b'abc'"),
        ("return {'a': 1}", "it returned {'a': 1}"),
        ("return {1}", "it returned {1}"),
        ("return 'abc' * 1000", "characters"),
        ("return ()", "no cells with these settings"),
        ("return iter(())", "no cells with these settings"),
        ("return [1]", "it returned 1"),
        ("yield 'ab'", "it returned 'ab'"),
        ("yield; raise GeneratorExit('x')", "GeneratorExit: x (mine.py:11)"),
        ("yield; raise ValueError('x')", "ValueError: x (mine.py:11)"),
        ("yield; raise StopIteration", "StopIteration: (mine.py:11)"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise StopIteration", "StopIteration"),
        ("raise SystemExit(0)", "SystemExit: 0 (mine.py:11)"),
        ("return self.cells()", "RecursionError"),
        ("import numpy; return numpy.ones(2)", "1.0"),
    ],
)
def test_what_cells_returns_and_raises(here: Path, capsys: pytest.CaptureFixture[str], body: str, words: str) -> None:
    Path("mine.py").write_text(STUDY.format(body=body))
    assert words in refused(capsys, "run-study", "mine.py")
    assert [path.name for path in here.iterdir()] == ["mine.py"]


@pytest.mark.parametrize("code", ["raise GeneratorExit('x')", "class Odd(BaseException): pass\nraise Odd('x')"])
def test_a_study_file_that_raises_what_is_no_exception(
    here: Path, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    Path("mine.py").write_text(code)
    assert ": x (mine.py:" in refused(capsys, "run-study", "mine.py")


def test_a_study_file_that_interrupts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(STUDY.format(body="raise KeyboardInterrupt"))
    assert refused(capsys, "run-study", "mine.py", code=ExitCode.INTERRUPTED) == "kdsim: interrupted\n"


@pytest.mark.parametrize("error", ["GeneratorExit('x')", "StopIteration('x')", "RecursionError('x')"])
def test_a_noise_model_that_raises(here: Path, capsys: pytest.CaptureFixture[str], error: str) -> None:
    text = Path(TINY).read_text().replace("        q = OneHot()", f"        raise {error}\n        q = OneHot()")
    Path("mine.py").write_text(text)
    line = refused(capsys, "run-study", "mine.py", "--set", "supervisions=halfway", code=ExitCode.FAILED)
    assert f"failed: {error[: error.index('(')]}: x (mine.py:" in line


def test_a_study_without_a_file_says_what_to_do(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of a notebook: before anything is computed."""
    from kdsim.study import runner

    notebook = types.ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", notebook)
    exec(compile(STUDY.format(body="raise AssertionError"), "<cell 1>", "exec", dont_inherit=True), vars(notebook))
    with pytest.raises(ConfigError, match=r"write the class into a \.py file .* import it") as caught:
        runner.run(notebook.Mine(), here / "results")
    assert "\n" not in str(caught.value) and not (here / "results").exists()


def test_a_note_that_nobody_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Broken())
    console.note("a line")


def test_a_figure_that_the_disk_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Matplotlib stumbles over what it could not write: the disk is the reason, and is named."""

    def fill(*arguments: object) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "figure.pdf")
        finally:
            raise AttributeError("'Stream' object has no attribute 'pos'")

    monkeypatch.setattr(console, "write_figures", fill)
    main(["run-study", tiny_study.__file__, "--out", str(tmp_path), "--set", "steps=20"])
    assert "no figure, OSError: [Errno 28] No space left on device" in capsys.readouterr().err


def test_a_figure_that_fails_after_a_file_was_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a study's own function raises is said, not what it was handling."""

    def look(*arguments: object) -> None:
        try:
            Path("/no/such/style").read_text()
        except OSError:
            raise ValueError("no style") from None

    monkeypatch.setattr(console, "write_figures", look)
    main(["run-study", tiny_study.__file__, "--out", str(tmp_path), "--set", "steps=20"])
    assert "no figure, ValueError: no style" in capsys.readouterr().err
