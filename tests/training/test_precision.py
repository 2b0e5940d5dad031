"""Precisions: a function of the configuration, never of the processor, which may refuse one or be slow at it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_network import TINY
from tiny_training import PROBLEM, tiny

from kdsim.config import ConfigError, digest
from kdsim.data import KnownImages, KnownPoints
from kdsim.studies import STUDIES, BNNAblation, TeacherKinds, Train
from kdsim.study import runner
from kdsim.study.base import Study
from kdsim.study.packs import cells_of
from kdsim.study.settings import settings
from kdsim.study.stored_configs import on_device
from kdsim.study.trainings import Training, warn_of_emulation
from kdsim.teachers import Deterministic
from kdsim.trainer import ImageNetwork, PointNetwork, StudentTrainer, Teacher
from kdsim.training import CRD, BayesianKDRecipe, Recipe
from kdsim.training.precision import emulated, require_multiplied

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
NETWORK_STUDIES = [study for study in STUDIES if {"recipe", "recipes"} & {field.name for field in fields(study)}]


@pytest.fixture
def without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with AVX2 at most."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False}, raising=False)


@pytest.mark.parametrize("recipe", [Recipe, CRD, BayesianKDRecipe])
def test_the_default_follows_the_device(recipe: type[Recipe]) -> None:
    trainers = {device: StudentTrainer(recipe=recipe(), device=device) for device in ("cpu", "cuda", "cuda:1")}
    assert {device: trainer.precision for device, trainer in trainers.items()} == {
        "cpu": "float32", "cuda": "bfloat16", "cuda:1": "bfloat16"
    }  # fmt: skip
    points = StudentTrainer(PointNetwork("mlp"), KnownPoints(), recipe=recipe(), device="cuda")
    assert points.precision == "float32"


def test_a_training_on_a_cpu_computes_in_float32() -> None:
    trainer = tiny(1, recipe=Recipe())
    assert not trainer.task(trainer.pools()).mixed
    assert tiny(1, recipe=Recipe(precision="bfloat16")).task(trainer.pools()).mixed


def test_digests_know_no_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for capabilities in ({"avx512_bf16": True}, {}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda own=capabilities: own, raising=False)
        found.add(digest(StudentTrainer()))
    assert len(found) == 1 and digest(StudentTrainer(device="cuda")) not in found


@pytest.mark.parametrize("study", NETWORK_STUDIES, ids=lambda study: study.name)
def test_every_study_of_networks_has_keys_that_reach_all_its_trainings(study: type[Study]) -> None:
    keys = [setting.key for setting in settings(study()) if setting.key.split(".")[-1] == "precision"]
    assert keys and all(setting.doc for setting in settings(study()) if setting.key in keys)
    chosen = study().quick()
    for key in keys:
        owner, _, own = key.rpartition(".")
        part = replace(getattr(chosen, owner), precision="bfloat16") if owner else "bfloat16"
        chosen = replace(chosen, **{owner or own: part})
    for of, expected in ((study().quick(), "float32"), (chosen, "bfloat16")):
        found = {training.precision for cell in cells_of(of) for training in trainings_of(cell) if training.on_images}
        assert found == {expected}


def trainings_of(cell: object) -> list[StudentTrainer]:
    """A training, and those of its teachers."""
    if isinstance(cell, Teacher):
        return trainings_of(cell.training)
    if not isinstance(cell, StudentTrainer):
        return []
    return [cell, *(trainings_of(cell.teacher) if cell.teacher else [])]


@pytest.mark.parametrize("make", [Recipe, TeacherKinds, BNNAblation])
def test_others_are_refused(make: type) -> None:
    with pytest.raises(ConfigError, match=r"precision = 'half' is not allowed: must be auto, float32 or bfloat16"):
        make(precision="half")


@pytest.mark.parametrize(("precision", "major", "fine"), [
    ("auto", 7, False), ("bfloat16", 7, False), ("float32", 7, True), ("auto", 8, True), ("bfloat16", 9, True),
])  # fmt: skip
def test_gpus_that_emulate_it_are_refused(
    monkeypatch: pytest.MonkeyPatch, precision: str, major: int, fine: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=major))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    if fine:
        return require_multiplied(precision, CUDA)
    with pytest.raises(
        ConfigError, match=rf"^precision = '{precision}' is not allowed on cuda:0: its Tesla T4 .*float32$"
    ):
        require_multiplied(precision, CUDA)


def test_a_training_asks_its_gpu_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=7))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    for subject in (StudentTrainer(device="cuda").check_machine, tiny(1, device="cuda", recipe=Recipe()).run):
        with pytest.raises(ConfigError, match="precision = 'auto'"):
            subject()
    StudentTrainer(PointNetwork("mlp"), KnownPoints(), device="cuda").check_machine()  # float32 whatever it says


@pytest.mark.parametrize(
    ("precision", "capabilities", "expected"),
    [
        ("bfloat16", {"avx2": True, "avx512_f": True, "avx512_bf16": False}, True),
        ("bfloat16", {"avx512_bf16": True}, False),
        ("bfloat16", {"amx_bf16": True}, False),
        ("bfloat16", {"architecture": "arm64", "bf16": True}, False),
        ("auto", {}, False),
        ("float32", {}, False),
    ],
)
def test_which_processors_emulate_it(
    monkeypatch: pytest.MonkeyPatch, precision: str, capabilities: dict[str, object], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert emulated(precision, CPU) is expected
    assert not emulated(precision, CUDA)


def test_what_will_be_slow_is_said_in_one_line(without_bfloat16: None) -> None:
    slow = StudentTrainer(recipe=Recipe(precision="bfloat16"))
    points = StudentTrainer(PointNetwork("mlp"), KnownPoints(), recipe=Recipe(precision="bfloat16"))
    lines: list[str] = []
    warn_of_emulation([Training(StudentTrainer()), Training(points)], lines.append)
    assert lines == []
    warn_of_emulation([Training(slow), Training(replace(slow, seed=1))], lines.append)
    (line,) = lines
    assert "\n" not in line and "precision = bfloat16 of 2 trainings is emulated" in line


def test_a_run_says_it_before_it_starts(
    without_bfloat16: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def begin(*arguments: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(runner, "Session", begin)
    for precision, count in (("bfloat16", 1), ("auto", 0)):
        lines: list[str] = []
        with pytest.raises(InterruptedError):
            recipe = Recipe(precision=precision)
            runner.run(Train(TINY, KnownImages(PROBLEM), recipe=recipe), tmp_path, note=lines.append)
        assert len(lines) == count


def test_on_another_device_a_training_keeps_its_precision() -> None:
    """What is reproduced on a GPU is what a CPU computed."""
    trainer = StudentTrainer(ImageNetwork("resnet8"))
    moved = on_device(replace(trainer, supervision=Deterministic(trainer)), "cuda")
    assert moved.precision == moved.supervision.training.precision == "float32"
    assert on_device(replace(trainer, device="cuda"), "cpu").precision == "bfloat16"
    assert on_device(trainer, "cpu") == trainer
