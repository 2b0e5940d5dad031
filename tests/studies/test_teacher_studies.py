"""Studies of teachers at a size of seconds: cells, rows, which differences are tested, correlations, reuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_network import TINY

from kdsim import config
from kdsim.cli import main
from kdsim.config import ConfigError, digest
from kdsim.data import Cifar10, Cifar10H, KnownImages
from kdsim.losses import BayesianKD
from kdsim.measure.comparison import differences, rank_correlation
from kdsim.problems import Images
from kdsim.results.store import StudyResults, read_study
from kdsim.studies import BayesianLosses, BNNAblation, FewShot, Guideline, PosteriorSamples, TeacherKinds, Temperature
from kdsim.studies.teacher_kinds import TeacherStudy
from kdsim.studies.teacher_sweeps import part_of
from kdsim.study import runner, teacher_report
from kdsim.study.packs import cells_of
from kdsim.study.settings import settings
from kdsim.teachers import TEACHERS
from kdsim.teachers.kinds import KINDS, teacher_of
from kdsim.trainer import ImageNetwork, StudentTrainer, Teacher

STUDIES = (TeacherKinds, Guideline, BayesianLosses, FewShot, Temperature, PosteriorSamples, BNNAblation)
KINDS_STORED = ("deterministic", "laplace", "temperature-scaled")
PROBLEM = Images(classes=3, samples=96, validation_samples=32, test_samples=40, clutter=0, dimension=2)


def small(study: type[TeacherStudy], **changes: object) -> TeacherStudy:
    """The study at a size of a second."""
    quick = replace(study().quick(), data=KnownImages(PROBLEM), pairs=(f"{TINY} to {TINY}",))
    return replace(quick, epochs=8.0, teacher_epochs=2.0, **changes)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """Three teachers and their students, two replicas."""
    study = small(TeacherKinds, kinds=KINDS_STORED, recipes=("crd",))
    return read_study(runner.run(study, tmp_path_factory.mktemp("teachers")).folder)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_cells_are_whole_and_can_be_stored(study: type[TeacherStudy]) -> None:
    for version in (study(), study().quick()):
        cells = cells_of(version)
        digests = [digest(cell) for cell in cells]
        assert len(set(digests)) == len(digests)
        teachers = {digest(cell) for cell in cells if isinstance(cell, Teacher)}
        students = [cell for cell in cells if isinstance(cell, StudentTrainer)]
        assert {digest(cell.teacher) for cell in students if cell.teacher} == teachers
        assert all(config.encode(cell) for cell in cells)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_teacher_on_the_base_training(kind: str) -> None:
    base = StudentTrainer(ImageNetwork(TINY), KnownImages(PROBLEM), replicas=3)
    teacher = teacher_of(kind, base, 2)
    assert type(teacher) in TEACHERS
    assert teacher.count == 3
    assert teacher.training.data == base.data
    assert teacher.training.recipe.epochs == base.recipe.epochs


def test_every_teacher_has_a_kind() -> None:
    base = StudentTrainer(ImageNetwork(TINY), KnownImages(PROBLEM), replicas=2)
    assert {type(teacher_of(kind, base, 2)) for kind in KINDS} == set(TEACHERS)


@pytest.mark.slow
def test_rows(stored: StudyResults) -> None:
    teachers = teacher_report.teachers_of(stored.records)
    assert [row["supervision"] for row in teachers] == ["deterministic", "laplace", "temperature-scaled"]
    for row in teachers:
        assert row["replicas"] == 2
        assert row["test_bcp_kl_low"] <= row["test_bcp_kl"] <= row["test_bcp_kl_high"]
        assert row["test_nu"] == 0  # one distribution, no samples
        assert row["test_gradient_noise"] == pytest.approx(row["test_bias_sq"])
    students = [row for row in stored.records if row["kind"] == "training"]
    assert [row["supervision"] for row in students] == [
        "one-hot", "deterministic", "laplace", "temperature-scaled", "exact"
    ]  # fmt: skip
    taught = [row for row in students if row["teacher"]]
    assert [row["teacher_cell"] for row in taught] == [row["cell"] for row in teachers]


@pytest.mark.slow
def test_differences_are_paired_by_replica(stored: StudyResults) -> None:
    compared = teacher_report.comparisons(stored.records, stored.replicas)
    found = [item for item in compared if item["metric"] == "test_accuracy"]
    assert [item["first"] for item in found] == ["one-hot", "exact", "laplace", "temperature-scaled"]
    cells = {row["supervision"]: row["cell"] for row in stored.records if row["kind"] == "training"}
    values = {
        name: torch.tensor(stored.replicas.loc[stored.replicas["cell"] == cell, "test_accuracy"].to_numpy())
        for name, cell in cells.items()
    }
    again = differences(values, [(item["first"], "deterministic") for item in found])
    assert all(item["second"] == "deterministic" for item in found)
    assert [item["difference"] for item in found] == pytest.approx([each.interval.mean for each in again])
    assert [item["p_holm"] for item in found] == pytest.approx([each.adjusted for each in again])


@pytest.mark.slow
def test_correlations_are_over_teachers_and_replicas(stored: StudyResults) -> None:
    found = teacher_report.correlations(stored.records, stored.replicas)
    (item,) = (each for each in found if (each["quality"], each["metric"]) == ("test_bcp_kl", "test_accuracy"))
    students = [row for row in stored.records if row.get("teacher_cell") and row["kind"] == "training"]
    table = stored.replicas.set_index("cell")
    x = torch.tensor([value for row in students for value in table.loc[row["teacher_cell"], "test_bcp_kl"]])
    y = torch.tensor([value for row in students for value in table.loc[row["cell"], "test_accuracy"]])
    expected = rank_correlation(x, y, torch.arange(3).repeat_interleave(2)).rho
    assert (item["points"], item["teachers"]) == (6, 3)
    assert item["rho"] == pytest.approx(expected, nan_ok=True)


@pytest.mark.slow
def test_another_study_reuses_the_teachers(stored: StudyResults) -> None:
    root = stored.folder.parent.parent
    study = small(Temperature, kinds=("deterministic",), temperatures=(1.0, 3.0))
    result = runner.run(study, root)
    assert not result.failures
    names = {row["loss_settings"] for row in result.rows if row["kind"] == "training"}
    assert len(names) == 2
    steps = next(row["steps"] for row in result.rows if row["kind"] == "training")
    assert result.replica_steps == 2 * steps  # one student: teacher, fit and the student at T = 1 are stored


@pytest.mark.slow
def test_from_the_command_line(stored: StudyResults, capsys: pytest.CaptureFixture[str]) -> None:
    """The study guideline on the same teachers and students: all of it is stored, and is printed and drawn."""
    sizes = [f"--set={each.key}={each.value}" for each in settings(PROBLEM, "data.problem.")]
    sizes += [f"--set=pairs={TINY} to {TINY}", "--set=epochs=8", f"--set=kinds={','.join(KINDS_STORED)}"]
    root = stored.folder.parent.parent
    assert main(["run-study", "guideline", "--quick", *sizes, f"--out={root}"]) == 0
    out = capsys.readouterr().out
    assert "nothing to simulate: all cells were stored" in out
    assert "Spearman" in out
    assert "Holm" in out
    assert out.count("figure") >= 2
    assert main(["results", "guideline", f"--out={root}", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {"comparisons", "correlations", "rows"} <= printed.keys()
    assert {item["quality"] for item in printed["correlations"]} >= {"test_bcp_kl", "test_accuracy"}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["kinds=determinstic"], ("determinstic", "deterministic")),
        (["pairs=tiny"], ("tiny", "TEACHER to STUDENT")),
        (["recipes=crb"], ("crb", "crd")),
        (["replicas=1"], ("replicas", "1", "2")),
        (["samples=0"], ("samples", "0")),
        (["kinds="], ("kinds", "empty")),
        (["epochs=-1"], ("epochs", "-1")),
    ],
)
def test_bad_settings_are_one_line(
    texts: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run-study", "teacher-kinds", *(f"--set={text}" for text in texts)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_parts_of_sources() -> None:
    assert part_of(Cifar10(), 0.25) == Cifar10(few_shot=0.25)
    assert len(part_of(KnownImages(PROBLEM), 0.25).pools(0).train.y) == 24
    with pytest.raises(ConfigError, match="few-shot"):
        part_of(Cifar10H(), 0.25)


@pytest.mark.slow
def test_variants_of_a_kind_are_told_apart(tmp_path: Path) -> None:
    """Labels name what differs; every variant is compared; correlations keep sizes of the training set apart."""
    ablation = small(BNNAblation, hess_inits=(0.1, 0.5), weight_decays=(2e-4,), structures=("kron", "diag"))
    rows = runner.run(replace(ablation, epochs=0.7, teacher_epochs=0.7), tmp_path).rows
    teachers = [row["label"] for row in rows if row["kind"] == "teacher"]
    assert teachers == [
        "laplace, structure kron", "laplace, structure diag", "variational, hess init 0.1", "variational, hess init 0.5"
    ]  # fmt: skip
    assert [row["label"] for row in rows if row["kind"] == "training"] == teachers
    shots = replace(
        small(FewShot, fractions=(0.5, 1.0)), epochs=0.7, teacher_epochs=0.7, kinds=("deterministic", "laplace")
    )
    stored = read_study(runner.run(shots, tmp_path).folder)
    found = teacher_report.comparisons(stored.records, stored.replicas)
    assert {(item["train_size"], item["first"]) for item in found} == {
        (size, name) for size in (48, 96) for name in ("one-hot", "laplace")
    }


def test_students_of_one_loss_are_compared_with_each_other() -> None:
    cells = [cell for cell in small(Temperature).cells() if isinstance(cell, StudentTrainer)]
    assert {cell.loss for cell in cells} == {BayesianKD(teacher_temperature=t) for t in (1.0, 2.0, 4.0)}
