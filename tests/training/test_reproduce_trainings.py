"""Trainings, teachers and their students run again, weights included."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tiny_training import tiny

from kdsim.cli import main
from kdsim.engines import GradientDescent
from kdsim.losses import KD
from kdsim.results.store import Store
from kdsim.study import runner
from kdsim.study.base import Study
from kdsim.teachers import Deterministic
from kdsim.trainer import StudentTrainer, Teacher
from kdsim.training import Recipe, TrainedNetwork

RECIPE = Recipe(step_size=0.02, optimiser=GradientDescent(0.9), precision="float32")
TEACHER = tiny(5, recipe=RECIPE, replicas=2)


@dataclass(frozen=True)
class Distilled(Study):
    """A teacher and its student; the teacher's training is no cell."""

    name: ClassVar[str] = "distilled"
    summary: ClassVar[str] = "a teacher and its student"
    figure: ClassVar[Any] = None

    def cells(self) -> tuple[StudentTrainer | Teacher, ...]:
        teacher = Deterministic(TEACHER)
        return teacher, replace(TEACHER, supervision=teacher, loss=KD())

    def quick(self) -> Distilled:
        return self


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trainings")
    runner.run(Distilled(), out)
    return out


def reproduce(capsys: pytest.CaptureFixture[str], out: Path, *options: str) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    code = main(["reproduce", str(out), "--json", *options])
    return code, json.loads(capsys.readouterr().out)["cells"]


@pytest.mark.slow
def test_a_teacher_and_its_student_are_identical(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, cells = reproduce(capsys, Store(stored).latest("distilled"))
    assert code == 0 and [cell["verdict"] for cell in cells] == ["identical"] * 2
    assert all(cell["promised"] for cell in cells)


@pytest.mark.slow
def test_other_weights_are_found(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One weight of one replica, with its checksum right, and nothing else."""
    from kdsim.config import digest

    student = digest(Distilled().cells()[1])
    file = stored / "cells" / student / "weights-001.safetensors"
    network, before = TrainedNetwork.load(file), file.read_bytes()
    name = next(iter(network.weights))
    changed = network.weights[name].clone()
    changed.view(-1)[0] += 1e-6
    replace(network, weights={**network.weights, name: changed}).save(file)
    try:
        code, cells = reproduce(capsys, stored, "--only", student)
    finally:
        file.write_bytes(before)
    assert code == 1 and cells[0]["verdict"] == "differs" and "weights of replica 1" in cells[0]["why"]
