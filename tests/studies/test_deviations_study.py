"""The study deviations at a size of seconds: cells, what is stored of each student, tables, figure."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tiny_network import TINY

from kdsim.config import ConfigError, digest
from kdsim.data import Cifar10, KnownImages
from kdsim.figures import FIGURES
from kdsim.losses import CrossEntropy, LabelCrossEntropy, Switched
from kdsim.measure.deviations import deviations
from kdsim.problems import Images
from kdsim.results.store import Store, StudyResults, read_study
from kdsim.studies import Deviations
from kdsim.studies.deviations import switches
from kdsim.study import deviation_report, runner, teacher_report
from kdsim.study.eigen_paths import EigenPaths
from kdsim.study.packs import cells_of
from kdsim.study.training_deviations import student_deviations
from kdsim.study.trainings import fitted_teachers
from kdsim.study.weights import read_weights
from kdsim.teachers import DeepEnsemble, Deterministic
from kdsim.teachers.other_start import OtherStart
from kdsim.trainer import StudentTrainer, Teacher, fit_teacher, teacher_log_probs
from kdsim.training.evaluation import log_probs_of


def small(**changes: object) -> Deviations:
    """Points and images at a size of seconds."""
    quick = Deviations().quick()
    return replace(quick, recipe=replace(quick.recipe, epochs=3.0), networks=("linear",), **changes)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """Exact paths and students of points."""
    study = small(parts=("paths", "points"), replicas=3)
    result = runner.run(study, tmp_path_factory.mktemp("deviations"))
    assert not result.failures
    return read_study(result.folder)


# Cells ----------------------------------------------------------------------------------------------


def test_parts_have_their_cells() -> None:
    whole = cells_of(Deviations())
    assert len({digest(cell) for cell in whole}) == len(whole)
    each = [cells_of(Deviations(parts=(part,))) for part in ("paths", "points", "images", "switch")]
    assert {digest(cell) for cells in each for cell in cells} == {digest(cell) for cell in whole}
    assert all(isinstance(cell, EigenPaths) for cell in each[0])
    assert {cell.loss for cell in each[3] if isinstance(cell, StudentTrainer) and cell.teacher} == {
        CrossEntropy(), *switches(40.0), *switches(12.0)
    }  # fmt: skip


def test_switches_are_halfway() -> None:
    first, second, never = switches(10.0)
    labels, teacher = LabelCrossEntropy(), CrossEntropy()
    assert (first, second, never) == (Switched(labels, teacher, 6.0), Switched(teacher, labels, 6.0), labels)
    assert [first.at(epoch) for epoch in (5.99, 6.0)] == [labels, teacher]


def test_every_teacher_is_the_one_that_its_student_hears() -> None:
    cells = cells_of(Deviations())
    teachers = {digest(cell) for cell in cells if isinstance(cell, Teacher)}
    assert {digest(cell.teacher) for cell in cells if isinstance(cell, StudentTrainer) and cell.teacher} == teachers


def test_real_images_are_a_setting() -> None:
    study = Deviations(data=Cifar10(), parts=("images",))
    assert all(cell.data == Cifar10() for cell in cells_of(study) if isinstance(cell, StudentTrainer))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": ("paths", "peaks")}, "unknown part 'peaks'"),
        ({"parts": ()}, "parts = "),
        ({"parts": ("paths", "paths")}, "parts = "),
        ({"descent_step_size": 1.0}, "step_size = 1.0 is not allowed"),
        ({"eigen": EigenPaths(step_size=0.5)}, "eigen.step_size = 0.5 is not allowed"),
        ({"teacher_epochs": (0.0,)}, "teacher_epochs = 0.0 is not allowed"),
        ({"image_teacher_epochs": ()}, "image_teacher_epochs must not be empty"),
        ({"replicas": 1}, "replicas = 1 is not allowed"),
        ({"networks": ("resnet8",)}, "unknown network of points 'resnet8'"),
        ({"pairs": ("resnet8",)}, "must be TEACHER to STUDENT"),
    ],
)
def test_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Deviations(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_size": 1.0}, "step_size = 1.0"),
        ({"condition": 1.0}, "condition = 1.0"),
        ({"directions": 1}, "directions = 1"),
        ({"teacher_times": ()}, "teacher_times must not be empty"),
        ({"teacher_times": (0.0,)}, "teacher_times = 0.0"),
    ],
)
def test_paths_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EigenPaths(**changes)


# Exact paths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_size", [None, 0.3, 0.95])
def test_paths_hold_the_statement(step_size: float | None) -> None:
    paths = EigenPaths(directions=4, times=15, step_size=step_size)
    found = paths.compute()
    assert found.measurement["violations"] == 0
    assert found.measurement["over_lower_bound_min"] > 1
    assert 0 < found.measurement["ratio_min"] < 0.5
    curves = found.curves
    top = curves[curves["direction"] == 1]
    np.testing.assert_allclose(top["student"], top["early_stopped"], atol=1e-12)
    others = curves[curves["direction"] > 1]
    assert (others["student"] <= others["early_stopped"] + 1e-12).all()
    assert (curves["student"] <= curves["teacher"] + 1e-15).all()
    steps = curves["time"] if step_size is None else curves["time"] / step_size
    assert step_size is None or np.allclose(steps, np.round(steps))


# What is stored of each student -----------------------------------------------------------------------


def recomputed(store: Store, student: StudentTrainer) -> list[dict[str, float]]:
    """Deviations of the stored networks from the stored teachers, replica by replica."""
    test = student.pools().test
    teachers = fitted_teachers(student.teacher, store)
    found = []
    for number, network in enumerate(read_weights(store, digest(student))):
        fitted = teachers[number % len(teachers)]
        said = teacher_log_probs(student.teacher, fitted, test).exp().mean(0).log()
        own = log_probs_of(network.module(), test.x, network.normalisation, mixed=False)
        found.append(deviations(said, torch.log_softmax(own.double(), -1), test.p))
    return found


@pytest.mark.slow
def test_replicas_have_the_deviation_from_their_own_teacher(stored: StudyResults) -> None:
    store = Store(stored.folder.parent.parent)
    students = [cell for cell in small(parts=("points",), replicas=3).cells() if isinstance(cell, StudentTrainer)]
    student = next(cell for cell in students if cell.teacher)
    own = stored.replicas[stored.replicas["cell"] == digest(student)].sort_values("replica")
    expected = recomputed(store, student)
    for name in ("slope", "slope_upper", "q1", "se_q3", "below_q1", "kl_change", "towards", "cosine"):
        assert own[f"deviation_{name}"].tolist() == pytest.approx([each[name] for each in expected], abs=1e-9)
    row = next(row for row in stored.records if row["cell"] == digest(student))
    assert row["deviation_slope"] == pytest.approx(np.mean([each["slope"] for each in expected]))
    assert row["deviation_slope_low"] < row["deviation_slope"] < row["deviation_slope_high"]
    plain = next(row for row in stored.records if row["kind"] == "training" and row["teacher_cell"] is None)
    assert "deviation_slope" not in plain  # on labels alone


@pytest.mark.slow
def test_samples_are_averaged_and_teachers_taken_in_turn(tmp_path: Path) -> None:
    """Two teachers of two members each, three students."""
    first = next(cell for cell in small(parts=("points",)).cells() if isinstance(cell, StudentTrainer))
    ensemble = DeepEnsemble(replace(first, replicas=4), 2)
    student = replace(first, supervision=ensemble, replicas=3)

    class Alone(Deviations):
        def cells(self):
            return (student,)

    result = runner.run(Alone(), tmp_path)
    assert not result.failures
    replicas = read_study(result.folder).replicas
    expected = recomputed(Store(tmp_path), student)
    assert replicas["deviation_slope"].tolist() == pytest.approx([each["slope"] for each in expected], abs=1e-9)
    assert replicas["deviation_q10"].tolist() == pytest.approx([each["q10"] for each in expected], abs=1e-9)


@pytest.mark.slow
def test_the_same_start_on_labels_alone_is_the_teacher(tmp_path: Path) -> None:
    """Why students start elsewhere: with its teacher's numbers a student of the labels is its teacher."""
    study = small(parts=("switch",), pairs=(f"{TINY} to {TINY}",), replicas=2)
    for same in (True, False):
        cells = [cell for cell in replace(study, same_start=same).cells() if isinstance(cell, StudentTrainer)]
        student = next(cell for cell in cells if cell.teacher and cell.on_points and cell.loss == LabelCrossEntropy())
        training = student.teacher.training
        student = replace(student, recipe=training.recipe)
        base = training.run()
        pools = student.pools()
        teachers = [fit_teacher(student.teacher, base.networks, pools, number) for number in range(2)]
        assert [teacher.networks[0].replica for teacher in teachers] == ([0, 1] if same else [1, 0])
        found = student_deviations(student, student.run(teachers=teachers), teachers, pools)
        slopes = [abs(each["slope"] - 1) for each in found]
        assert max(slopes) < 1e-5 if same else min(slopes) > 1e-3, slopes  # float32 leaves a few 1e-7


def test_other_start_is_a_permutation() -> None:
    training = StudentTrainer(replicas=4)
    teacher = OtherStart(training)
    assert sorted(number for place in range(4) for number in teacher.replicas_of(place)) == [0, 1, 2, 3]
    assert all(teacher.replicas_of(place) != tuple(Deterministic(training).replicas_of(place)) for place in range(4))


# Tables and figure --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tables_say_what_their_columns_are(stored: StudyResults) -> None:
    slopes, places = deviation_report.deviation_tables(stored.records)
    assert slopes.headers == ["teacher", "slope", "axis", "upper", ""]
    assert slopes.common == {"taught by": "other-start", "student of": "linear to linear", "learns from": "teacher"}
    assert [row[0] for row in slopes.rows][::2] == [
        "exact, epochs 2",
        "dirichlet, level 1, epochs 2",
        "one-hot, epochs 2",
    ]
    assert places.headers == ["teacher", "hardest", "below", "surest", "towards p", "change of KL"]
    words = " ".join(slopes.notes + places.notes)
    for header in (*slopes.headers[1:-1], *places.headers[1:]):
        assert f"{header}:" in words or f"{header}, " in words, header
    printed = teacher_report.tables(stored.records, stored.replicas)
    assert [table.headers for table in (slopes, places)] == [
        table.headers for table in printed if table.common.get("taught by")
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"deviation_slope_low": 1.01, "deviation_slope_upper_high": 1.4}, "exaggerates"),
        ({"deviation_slope_low": 0.7, "deviation_slope_upper_high": 0.99}, "moderates"),
        ({"deviation_slope_low": 0.7, "deviation_slope_upper_high": 1.2}, ""),
        ({"deviation_slope_low": None, "deviation_slope_upper_high": None}, ""),
    ],
)
def test_reading(row: dict[str, float | None], expected: str) -> None:
    assert deviation_report.reading(row) == expected


def outside(figure: Figure) -> list[str]:
    """Texts of a figure that do not lie on it, or are tick labels upon each other."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, found = canvas.get_renderer(), []
    for ax in figure.axes:
        if not ax.axison:
            continue
        y_ticks = [text for text, place in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)
                   if min(ax.get_ylim()) <= place <= max(ax.get_ylim())]  # fmt: skip
        texts = [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *y_ticks]
        for text in texts:
            if text.get_text():
                box = text.get_window_extent(renderer)
                inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
                found += [] if inside else [text.get_text()]
        shown = [text for text, place in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)
                 if ax.get_xlim()[0] <= place <= ax.get_xlim()[1]]  # fmt: skip
        boxes = [text.get_window_extent(renderer) for text in shown if text.get_text()]
        found += [f"ticks of {ax.get_xlabel()}" for a, b in pairwise(boxes) if a.x1 > b.x0 + 0.5]
    return found


@pytest.mark.slow
def test_figure_from_stored_results(stored: StudyResults) -> None:
    figure = FIGURES["deviations"](stored)
    titles = [ax._left_title.get_text() for ax in figure.axes]
    assert "gradient flow" in titles
    assert "linear, known-points: teachers (3 replicas)" in titles
    assert all(ax.has_data() for ax in figure.axes if ax.axison)  # no empty panel
    assert outside(figure) == []


@pytest.mark.slow
def test_figure_of_one_part(stored: StudyResults) -> None:
    computed = stored.rows["kind"] == "computation"
    alone, networks = copy(stored), copy(stored)
    alone.rows = stored.rows[computed].dropna(axis=1, how="all")
    assert len(FIGURES["deviations"](alone).axes) == 3
    networks.rows = stored.rows[~computed]
    assert len(FIGURES["deviations"](networks).axes) == 3


@pytest.mark.slow
def test_whole_study_at_its_quick_size(tmp_path: Path) -> None:
    images = KnownImages(Images(classes=3, samples=96, validation_samples=32, test_samples=40, clutter=0, dimension=2))
    result = runner.run(replace(Deviations().quick(), data=images, pairs=(f"{TINY} to {TINY}",)), tmp_path)
    assert not result.failures
    stored = read_study(result.folder)
    students = [row for row in stored.records if row["kind"] == "training" and row["teacher_cell"] is not None]
    assert {row["student"] for row in students} == {"linear", "mlp", TINY}
    assert all(math.isfinite(row["deviation_slope"]) for row in students)
    assert {row["loss_name"] for row in students} >= {"label-cross-entropy then cross-entropy"}
    figure = FIGURES["deviations"](stored)
    assert outside(figure) == []
    assert sum("losses" in ax._left_title.get_text() for ax in figure.axes) == 2
