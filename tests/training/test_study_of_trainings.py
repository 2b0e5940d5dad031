"""Studies whose cells are trainings: teachers first and once, rows, stored weights, interruption, failing data."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
from given import Given
from safetensors.torch import load_file
from tiny_training import PROBLEM, tiny

from kdsim.config import digest
from kdsim.data import Cifar10
from kdsim.engines import GradientDescent
from kdsim.losses import KD, DistillationLoss
from kdsim.problems import GaussianMixture
from kdsim.results.store import TABLE_FILE, Store, read_study
from kdsim.results.tables import CURVES_FILE, REPLICAS_FILE
from kdsim.students import MLP
from kdsim.study import runner
from kdsim.study.base import Study
from kdsim.study.runner import Interrupted, Progress
from kdsim.study.weights import read_weights
from kdsim.supervision import Dirichlet, OneHot
from kdsim.teachers import Deterministic
from kdsim.trainer import StudentTrainer
from kdsim.training import Recipe, TrainedNetwork

STEPS = 5
RECIPE = Recipe(step_size=0.02, optimiser=GradientDescent(0.9), precision="float32")
TEACHER = tiny(STEPS, recipe=RECIPE, replicas=2)


@dataclass(frozen=True)
class Distilled(Study):
    """A student of one teacher, which is no cell unless it is asked for."""

    name: ClassVar[str] = "distilled"
    summary: ClassVar[str] = "a student"
    figure: ClassVar[Any] = None

    loss: DistillationLoss = field(default_factory=KD)
    with_teacher: bool = False

    def cells(self) -> tuple[StudentTrainer, ...]:
        student = replace(TEACHER, supervision=Deterministic(TEACHER), loss=self.loss)
        return (student, TEACHER) if self.with_teacher else (student,)

    def quick(self) -> Distilled:
        return self


def files(out: Path, trainer: StudentTrainer) -> dict[str, Any]:
    """What is stored of a training, but for times: tables, and all weights."""
    folder = Store(out).cell_folder(digest(trainer))
    replicas = pd.read_parquet(folder / REPLICAS_FILE).drop(columns="seconds")
    return {
        "curves": (folder / CURVES_FILE).read_bytes(),
        "replicas": replicas.to_dict("list"),
        "weights": [file.read_bytes() for file in sorted(folder.glob("weights-*.safetensors"))],
    }


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with the student, its teacher, and nothing else."""
    folder = tmp_path_factory.mktemp("results")
    runner.run(Distilled(), folder)
    return folder


@pytest.mark.slow
def test_a_teacher_is_trained_once(tmp_path: Path) -> None:
    """Before its student, though it is no cell; a second study with the same teacher trains the student alone."""
    seen: list[Progress] = []
    first = runner.run(Distilled(), tmp_path, progress=seen.append)
    assert first.failures == [] and len(first.rows) == 1
    assert first.replica_steps == 2 * 2 * STEPS == seen[-1].done == seen[-1].total
    assert [state.done for state in seen] == sorted(state.done for state in seen)
    second = runner.run(Distilled(loss=KD(temperature=2.0)), tmp_path)
    assert second.replica_steps == 2 * STEPS
    third = runner.run(Distilled(with_teacher=True), tmp_path)
    assert third.replica_steps == 0 and [row["supervision"] for row in third.rows] == ["deterministic", "one-hot"]
    assert third.rows[0] == first.rows[0] | {"study": "distilled"}
    assert len(list((tmp_path / "cells").iterdir())) == 3 and list((tmp_path / "partial").iterdir()) == []


@pytest.mark.slow
def test_rows_and_tables(out: Path) -> None:
    result = runner.run(Distilled(with_teacher=True), out)
    student, teacher = result.rows
    assert student["teacher"] == "tiny" and teacher["teacher"] is None and student["loss_name"] == "kd"
    for row in result.rows:
        assert (row["student"], row["data"], row["truth"], row["steps"]) == ("tiny", "known-images", "bcp", STEPS)
        assert row["diverged"] == 0 and 0 <= row["test_accuracy"] <= 1 and row["floor"] > 0
        assert row["test_accuracy_low"] <= row["test_accuracy"] <= row["test_accuracy_high"]
        assert (
            row["bayes_test_loss"] > 0 and row["images_per_replica_second"] > 0 and row["train_size"] == PROBLEM.samples
        )
    assert teacher["nu"] > 0 and student["nu"] is None
    stored = read_study(result.folder)
    assert stored.records == json.loads(json.dumps(result.rows))
    assert len(stored.replicas) == 4 and set(stored.replicas["replica"]) == {0, 1}
    assert len(stored.curves) == 2 * 4 and stored.curves["step"].max() == STEPS
    assert len(pd.read_csv(result.folder / TABLE_FILE)) == 2
    info = Store(out).read_cell(digest(TEACHER)).info
    assert info["provenance"]["digest"] and info["versions"]["torch"] and info["replica_steps"] == 2 * STEPS


@pytest.mark.slow
def test_stored_weights_load_and_score_as_stored(out: Path) -> None:
    networks = read_weights(Store(out), digest(TEACHER))
    assert [network.replica for network in networks] == [0, 1]
    replicas = Store(out).read_cell(digest(TEACHER)).replicas
    pool = TEACHER.pools().test
    for network, accuracy in zip(networks, replicas["test_accuracy"], strict=True):
        predicted = network.module()(network.normalisation(pool.x)).argmax(-1)
        assert (predicted == pool.y).double().mean().item() == pytest.approx(accuracy)


def interrupt_at(done: int):
    def progress(state: Progress) -> None:
        if state.done == done:
            os.kill(os.getpid(), signal.SIGINT)

    return progress


@pytest.mark.slow
@pytest.mark.parametrize("done", [3, 8, 17])
def test_an_interrupted_study_goes_on_bit_for_bit(tmp_path: Path, out: Path, done: int) -> None:
    """In the teacher's first and second replica, and in the student."""
    study = Distilled(with_teacher=True)
    with pytest.raises(
        Interrupted, match=r"interrupted at step \d of 5; \d of 2 cells .* the same command goes on"
    ) as caught:
        runner.run(study, tmp_path, progress=interrupt_at(done))
    assert f"{1 if done > 10 else 0} of 2 cells" in str(caught.value)
    assert list((tmp_path / "partial").iterdir()) != []
    seen: list[Progress] = []
    result = runner.run(study, tmp_path, progress=seen.append)
    assert result.replica_steps == 4 * STEPS - done and seen[-1].done == seen[-1].total
    for trainer in study.cells():
        assert files(tmp_path, trainer) == files(out, trainer)
    assert list((tmp_path / "partial").iterdir()) == []


@pytest.mark.slow
def test_a_damaged_teacher_fails_its_student_alone(tmp_path: Path, out: Path) -> None:
    """One line for the student; another training of the same study is kept."""
    other = tiny(2, supervision=Dirichlet(2.0), recipe=RECIPE)
    runner.run(Given((TEACHER,)), tmp_path)
    folder = Store(tmp_path).cell_folder(digest(TEACHER))
    student = replace(TEACHER, supervision=Deterministic(TEACHER))
    file = folder / "weights-001.safetensors"
    whole = file.read_bytes()
    for damaged, message in (
        (whole[:-5], "weights-001.safetensors is truncated or altered"),
        (None, "weights-001.safetensors is missing"),
        ((folder / "weights-000.safetensors").read_bytes(), "weights-001.safetensors is replica 0 of"),
    ):
        file.write_bytes(damaged) if damaged is not None else file.unlink()
        result = runner.run(Given((student, other)), tmp_path)
        (failure,) = result.failures
        assert failure.startswith("training of tiny on known-images (deterministic) failed: ") and message in failure
        assert (
            "\n" not in failure and result.user_error and [row["supervision"] for row in result.rows] == ["dirichlet"]
        )
    file.write_bytes(whole)
    assert runner.run(Given((student, other)), tmp_path).failures == []


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    folder = Store(tmp_path).unfinished.folder
    folder.mkdir(parents=True)
    (folder / f"{digest(TEACHER)}-r001.safetensors").write_bytes(b"kdsim")
    result = runner.run(Given((TEACHER,)), tmp_path)
    (failure,) = result.failures
    assert "is not a file of kdsim" in failure and result.user_error and result.replica_steps == 0


def test_data_that_are_not_there_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either the run is refused or the training is listed as failed; nothing is stored of it."""
    monkeypatch.setenv("KDSIM_DATA", str(tmp_path / "nowhere"))
    trainer = replace(TEACHER, data=Cifar10())
    try:
        result = runner.run(Given((trainer,)), tmp_path / "out")
    except ValueError as error:
        lines = [str(error)]
    else:
        assert result.user_error and result.rows == []
        lines = result.failures
    assert len(lines) == 1 and "\n" not in lines[0] and "nowhere" in lines[0]
    assert not Store(tmp_path / "out").has_cell(digest(trainer))


@pytest.mark.slow
def test_a_diverged_training_has_a_row_without_numbers(tmp_path: Path) -> None:
    """And no student learns from it."""
    ill = replace(TEACHER, recipe=replace(RECIPE, step_size=1e30))
    result = runner.run(Given((ill, replace(TEACHER, supervision=Deterministic(ill)))), tmp_path)
    (row,), (failure,) = result.rows, result.failures
    assert row["diverged"] == 2 and row["test_accuracy"] is None and row["floor"] is None
    assert "replica 0 of the teacher's training diverged" in failure
    assert read_study(result.folder).records == json.loads(json.dumps(result.rows))


@pytest.mark.slow
def test_students_of_the_engines_stand_beside_networks(tmp_path: Path) -> None:
    recipe = Recipe(epochs=4, batch_size=5, step_size=0.1)
    problem = GaussianMixture(classes=3, dimension=4, samples=60)
    mlp = StudentTrainer(MLP((8,)), problem, OneHot(), recipe=recipe, replicas=16)
    seen: list[Progress] = []
    result = runner.run(Given((mlp, tiny(2))), tmp_path, progress=seen.append)
    assert result.failures == [] and [row["student"] for row in result.rows] == ["mlp", "tiny"]
    assert result.replica_steps == 16 * 40 + 2 == seen[-1].done == seen[-1].total
    assert result.rows[0]["steps"] == 40 and result.rows[0]["noise_loss"] > 0
    assert len(read_study(result.folder).replicas) == 17


def test_weights_do_not_carry_code(tmp_path: Path, out: Path) -> None:
    """They are numbers, in a format that has nothing else: any program reads them."""
    file = Store(out).cell_folder(digest(TEACHER)) / "weights-000.safetensors"
    found, own = load_file(file).values(), TrainedNetwork.load(file).weights.values()
    assert sum(each.numel() for each in found) == sum(each.numel() for each in own) > 0
