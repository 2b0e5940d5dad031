"""From an archive of CIFAR-100 in the official format to a table of teachers and students, in one command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny_network import TINY

from kdsim.cli import main

sys.path.append(str(Path(__file__).parent.parent / "data"))
import tiny_cifar


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a small archive, and readers that expect its size and digest."""
    monkeypatch.setattr(tiny_cifar, "SIZES", {**tiny_cifar.SIZES, "cifar100": (1000, 100)})
    tiny_cifar.expect_small(monkeypatch)
    archive = tiny_cifar.write_archive(tmp_path, "cifar100", "python")
    tiny_cifar.expect_digest(monkeypatch, "cifar100", archive)
    monkeypatch.setenv("KDSIM_DATA", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_teachers_and_students_on_cifar100(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--quick", "--set=data=cifar100", "--set=kinds=deterministic,laplace", "--set=epochs=0.5"]
    tiny += [f"--set=pairs={TINY} to {TINY}", "--set=teacher_epochs=0.5"]
    assert main(["run-study", "teacher-kinds", *tiny, f"--data-dir={folder}", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["supervision"] for row in rows if row["kind"] == "training"] == ["one-hot", "deterministic", "laplace"]
    assert {row["data"] for row in rows} == {"cifar100"}
    assert all(row["test_top5"] >= row["test_accuracy"] for row in rows if row["kind"] == "training")
    assert rows[0]["train_size"] == 900
