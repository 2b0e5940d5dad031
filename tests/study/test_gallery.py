"""The page of stored studies."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsim.cli import main

pytestmark = pytest.mark.slow  # they draw figures


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "results"
    assert main(["run-study", "step-size-sweep", "--out", str(folder), "--quick", "--replicas", "4"]) == 0
    return folder


def test_page_and_figure(out, tmp_path, capsys):
    assert main(["gallery", "--out", str(out), "--to", str(tmp_path / "page")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page" / "README.md")
    text = (tmp_path / "page" / "README.md").read_text()
    assert sorted(file.name for file in (tmp_path / "page").iterdir()) == ["README.md", "step-size-sweep.png"]
    assert (tmp_path / "page" / "step-size-sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "![step-size-sweep](step-size-sweep.png)" in text
    assert "--set 'replicas=4'" in text  # what differs from the defaults is part of the command
    assert "--set 'seed=" not in text
    assert "| supervision |" in text
    assert "nan" not in text


def test_nothing_is_computed_again(out, tmp_path):
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    assert main(["gallery", "step-size-sweep", "--out", str(out), "--to", str(tmp_path)]) == 0
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-study"], "unknown study 'no-study'"),
        (["noise-sweep"], "no results of 'noise-sweep'"),
        (["--out", "nowhere"], "/nowhere': run one with --out "),
    ],
)
def test_what_is_not_there_is_one_line(out, tmp_path, capsys, arguments, message):
    arguments = arguments if "--out" in arguments else [*arguments, "--out", str(out)]
    assert main(["gallery", *arguments, "--to", str(tmp_path / "page")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "page").exists()


def test_a_folder_that_is_a_file(out, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["gallery", "--out", str(out), "--to", str(tmp_path / "file")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_runs_of_study_files_are_left_out_by_name(tmp_path, capsys):
    file = Path(__file__).parent.parent / "tiny_study.py"
    assert main(["run-study", str(file), "--quick", "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(["gallery", "--out", str(tmp_path / "out"), "--to", str(tmp_path / "page")]) == 2
    error = capsys.readouterr().err
    assert f"no study of kdsim is stored in '{tmp_path / 'out'}' (but 'tiny', of study files): run one" in error
