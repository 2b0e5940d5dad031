"""kdsim train, kdsim distill and the studies of networks from the command line, at a size of seconds."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from tiny_network import TINY

from kdsim.cli import main, train
from kdsim.config import by_name
from kdsim.losses import ABKD
from kdsim.studies import STUDIES
from kdsim.study.base import Computation, Study
from kdsim.study.loading import load
from kdsim.study.packs import cells_of
from kdsim.trainer import StudentTrainer, Teacher

IMAGES = ("classes=3", "samples=96", "validation_samples=32", "test_samples=32", "clutter=0", "dimension=2")
SIZES = [*(f"--set=data.problem.{text}" for text in IMAGES), "--data=known-images", "--epochs=2"]
SHORT = ["--set=recipe.batch_size=32", "--out=results"]
NETWORK_STUDIES = [study for study in STUDIES if {"recipe", "recipes"} & {field.name for field in fields(study)}]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KDSIM_DATA", raising=False)


@pytest.mark.slow
def test_train_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "resnet8", *SIZES, *SHORT, "--supervision=exact", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    (row,) = out["rows"]
    assert (row["student"], row["supervision"], row["steps"], row["train_size"]) == ("resnet8", "exact", 6, 96)
    assert 0 <= row["test_accuracy"] <= 1
    assert row["test_accuracy_low"] is None  # one replica
    assert row["floor"] > 0
    assert row["nu"] == 0
    assert all(Path(file).stat().st_size > 10_000 for file in out["figures"])
    weights = list(Path("results/cells").glob("*/weights-000.safetensors"))
    assert len(weights) == 1
    assert not list(Path("results/partial").rglob("*.safetensors"))


@pytest.mark.slow
def test_distill_trains_its_teacher_once(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["distill", TINY, TINY, *SIZES, *SHORT, "--teacher-epochs=1", "--replicas=2"]
    assert main([*command, "--loss=kd"]) == 0
    first = capsys.readouterr().out
    assert "deterministic" in first
    assert "±" in first
    assert main([*command, "--loss=dist", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert [row["loss_name"] for row in out["rows"]] == ["label-cross-entropy", "dist"]
    assert out["replica_steps"] == 2 * 6  # the students alone
    assert main(["results", "distill", "--csv"]) == 0
    assert capsys.readouterr().out.count("\n") == 3
    assert main(["figure", "distill", "--format", "svg"]) == 0


def test_published_settings_are_those_of_the_pair(capsys: pytest.CaptureFixture[str]) -> None:
    settings = train.published_settings("resnet56", "resnet20", "abkd")
    loss = load("distill", by_name(STUDIES), settings).loss
    assert loss == ABKD(teacher_weight=32.0, alpha=0.8, beta=0.3)
    assert main(["distill", "resnet56", "resnet8", "--loss=abkd", "--published", *SIZES]) == 2
    assert "resnet56 to resnet8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["train", "resnet9"], ("resnet9", "resnet8")),
        (["train", "resnet8", "--data", "cifar12"], ("cifar12", "cifar10")),
        (["train", "resnet8"], ("data_dir", "KDSIM_DATA")),
        (["train", "resnet8", "--data-dir", "nowhere"], ("nowhere", "folder")),
        (["train", "resnet8", "--epochs", "0"], ("epochs", "0")),
        (["train", "resnet8", "--recipe", "crd2"], ("crd2", "crd")),
        (["train", "resnet8", *SIZES, "--replicas", "0"], ("replicas", "0")),
        (["train", "resnet8", *SIZES, "--device", "cuda:7"], ("cuda:7", "cpu")),
        (["distill", "resnet8", "vgg9"], ("vgg9", "vgg8")),
        (["distill", "resnet8", "resnet8", "--loss", "dk"], ("dk", "dkd")),
        (["run-study", "cifar-distillation", "--set", "pairs=resnet8"], ("resnet8", "TEACHER to STUDENT")),
        (["run-study", "cifar-distillation", "--set", "losses=kdd", "--set", "data=known-images"], ("kdd", "kd")),
        (["predict", "train"], ("train", "show-study")),
    ],
)
def test_bad_input_is_one_line(command: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("kdsim: error: ")
    assert all(word in captured.err for word in words), captured.err


@pytest.mark.slow
def test_show_study_says_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--set=data=known-images", *(f"--set=data.problem.{text}" for text in IMAGES)]
    assert main(["show-study", "distill", f"--set=teacher={TINY}", f"--set=student={TINY}", *sizes]) == 0
    out = capsys.readouterr().out
    assert "2 cells in 2 trainings" in out
    assert "deterministic" in out


@pytest.mark.parametrize("study", NETWORK_STUDIES, ids=lambda study: study.name)
def test_studies_of_networks_have_docs_and_a_quick_version(study: type[Study]) -> None:
    quick = study().quick()
    assert isinstance(quick, study)
    assert all(isinstance(cell, (StudentTrainer, Teacher, Computation)) for cell in cells_of(quick))


@pytest.mark.slow
def test_image_noise_sweep_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [*(f"--set=problem.{text}" for text in IMAGES), f"--set=network={TINY}"]
    assert main(["run-study", "image-noise-sweep", "--quick", *sizes, "--set=recipe.epochs=12", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["supervision"] for row in rows] == ["one-hot", "dirichlet", "exact"]
    assert rows[0]["nu"] > rows[1]["nu"] > rows[2]["nu"] == 0
    for row in rows:
        assert row["floor_low"] <= row["floor"] <= row["floor_high"]
        assert row["fluctuation_low"] <= row["fluctuation"] <= row["fluctuation_high"]


@pytest.mark.slow
def test_cifar_distillation_on_known_images(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--set=data=known-images", *(f"--set=data.problem.{text}" for text in IMAGES)]
    command = ["run-study", "cifar-distillation", "--quick", *sizes, "--set=losses=label-cross-entropy,dkd"]
    assert main([*command, f"--set=pairs={TINY} to {TINY}"]) == 0
    out = capsys.readouterr().out
    assert "dkd" in out
    assert "figure" in out
