"""Momentum, Adam and schedules in a study: set from text, interrupted bit for bit, and no theory that does not hold."""

from __future__ import annotations

import dataclasses
import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
from tiny_study import Tiny

from kdsim.config import ConfigError, digest, source_digest
from kdsim.engines import SGD, Adam, Cosine, GradientDescent, StepDecay
from kdsim.problems import SimplexLinear
from kdsim.results.rows import predicted_floor
from kdsim.results.store import Store, read_study
from kdsim.results.tables import CURVES_FILE, REPLICAS_FILE
from kdsim.students import MLP, LeastSquares, LinearStudent, NetworkStudent, SoftmaxRegression
from kdsim.study import runner
from kdsim.study.base import Cell
from kdsim.study.loading import load
from kdsim.study.rows import prediction
from kdsim.study.runner import Interrupted
from kdsim.study.states import read_state
from kdsim.supervision import Exact, OneHot
from kdsim.theory.prediction import Prediction

NOT_PLAIN = "needs plain SGD with a constant step size"
SETTINGS = [
    {"optimiser": GradientDescent(0.9)},
    {"optimiser": GradientDescent(weight_decay=0.1)},
    {"optimiser": Adam()},
    {"schedule": Cosine()},
]


EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own_student.py"
QUICK = {"sgd.steps": "200", "sgd.batch_size": "2", "replicas": "4", "student.width": "3", "problem.samples": "40"}


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("supervision", [Exact(), OneHot()])
@pytest.mark.parametrize("frozen", [False, True])
def test_theory_of_plain_sgd_is_not_applied(settings, supervision, frozen):
    """No floor and no valid bound; what is about the problem and the supervision stays as it is."""
    sampling = {"targets": "frozen", "training_set": 60} if frozen else {}
    problem = SimplexLinear(dimension=4, samples=80)
    cell = Cell(problem, LeastSquares(0.1, "centred"), supervision, 0.01, SGD(100, **sampling))
    other = replace(cell, sgd=replace(cell.sgd, **settings))
    population = problem.population(0)
    plain, row = prediction(cell, population), prediction(other, population)
    same = ("nu", "entropy", "sigma_star_sq", "mu", "L", "L_max", "mu_pl", "mu_pl_kind", "step_size_limit")
    same += ("risk_step_size_limit", "initial_excess")
    for key in same:
        assert row[key] == plain[key] and row[key] is not None
    for name in (item.name for item in dataclasses.fields(Prediction) if item.name not in same):
        if name.endswith("_valid"):
            assert row[name] is False
        elif name.endswith("_condition"):
            assert row[name] == NOT_PLAIN
        else:
            assert row[name] is None, name
    if not frozen:
        assert plain["exact_floor"] is not None and plain["bound_valid"]
    assert predicted_floor({**row, "step_size": 0.01}) is None


@pytest.mark.slow
def test_a_linear_student_with_momentum_is_run_and_stored_without_theory(tmp_path: Path) -> None:
    sgd = SGD(100, optimiser=GradientDescent(0.9))
    result = runner.run(Fixed(student=SoftmaxRegression(0.1, "centred"), sgd=sgd), tmp_path)
    assert result.failures == [] and {row["engine"] for row in result.rows} == {"autograd"}
    stored = read_study(result.folder)
    for row in stored.records:
        assert row["optimiser"] == "gradient-descent" and row["schedule"] == "constant"
        assert row["floor"] is not None and row["ratio"] is None and row["bound_condition"] == NOT_PLAIN
    assert stored.curves["bound"].isna().all() and stored.curves["linearised"].isna().all()
    assert stored.curves["exact_excess_risk"].isna().all()
    plain = runner.run(Tiny(steps=100), tmp_path)
    assert not {row["cell"] for row in plain.rows} & {row["cell"] for row in result.rows}


@dataclass(frozen=True)
class Fixed(Tiny):
    """Three supervisions of a student and a training that are given."""

    name: ClassVar[str] = "fixed"
    figure: ClassVar[None] = None

    student: LinearStudent | NetworkStudent = field(default_factory=MLP)
    sgd: SGD = field(default_factory=SGD)
    engine: str = "auto"

    def cells(self) -> tuple[Cell, ...]:
        return tuple(replace(cell, student=self.student, sgd=self.sgd) for cell in super().cells())


def test_settings_from_text() -> None:
    """A study that has SGD among its fields exposes all of it."""
    settings = {
        "sgd.optimiser": "adam",
        "sgd.optimiser.beta1": "0.8",
        "sgd.optimiser.decoupled": "true",
        "sgd.optimiser.weight_decay": "0.01",
        "sgd.schedule": "step-decay",
        "sgd.schedule.milestones": "0.25,0.5",
    }
    adam = Adam(0.8, weight_decay=0.01, decoupled=True)
    expected = SGD(3_000, 4, optimiser=adam, schedule=StepDecay((0.25, 0.5)))
    assert load(str(EXAMPLE), {}, settings).sgd == expected
    momentum = load(str(EXAMPLE), {}, {"sgd.optimiser.momentum": "0.9", "sgd.optimiser.nesterov": "yes"})
    assert momentum.sgd.optimiser == GradientDescent(0.9, True)
    tiny = str(Path(__file__).parents[1] / "tiny_study.py")
    for target, bad, message in (
        (EXAMPLE, {"sgd.optimiser": "adamw"}, "nearest: adam"),
        (EXAMPLE, {"sgd.optimiser.momentum": "1"}, r"momentum = 1.0 .* in \[0, 1\)"),
        (EXAMPLE, {"sgd.schedule": "linear"}, "allowed: constant, step-decay, cosine"),
        (EXAMPLE, {"sgd.optimiser.beta1": "0.5"}, "unknown key 'sgd.optimiser.beta1'"),
        (tiny, {"sgd.optimiser": "adam"}, "unknown key 'sgd.optimiser'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(str(target), {}, bad)


@pytest.mark.slow
def test_a_study_file_with_a_student_of_its_own(tmp_path: Path) -> None:
    """As in docs/extending.md, trained by Adam on a cosine; the stored cell names the file's digest."""
    study = load(str(EXAMPLE), {}, {**QUICK, "sgd.optimiser": "adam", "sgd.schedule": "cosine", "step_size": "0.01"})
    result = runner.run(study, tmp_path)
    assert result.failures == [] and len(result.rows) == 3
    assert {row["student"] for row in result.rows} == {"residual-net"}
    assert {(row["optimiser"], row["schedule"]) for row in result.rows} == {("adam", "cosine")}
    cell = Store(tmp_path).read_cell(result.rows[0]["cell"]).info["cell"]
    assert cell["student"]["source_sha256"] == source_digest(type(study.student))
    curves = read_study(result.folder).curves
    ends = curves.groupby("cell")["excess_risk_mean"].agg(["first", "last"])
    assert (ends["last"] < 0.7 * ends["first"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("student", [MLP((4,)), SoftmaxRegression()])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path, student) -> None:
    """Through the file of an interrupted run: parameters, Adam's moments, and the step that its corrections count."""
    sgd = SGD(600, optimiser=Adam(weight_decay=0.01), schedule=Cosine(0.1))
    study = Fixed(student=student, sgd=sgd, replicas=256)
    runner.run(study, tmp_path / "whole")

    def interrupt(progress: runner.Progress) -> None:
        if progress.step >= 200:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"at step [2-5]\d\d of 600"):
        runner.run(study, tmp_path / "cut", progress=interrupt)
    (partial,) = (tmp_path / "cut" / "partial").rglob("*.safetensors")
    state, _ = read_state(Store(tmp_path / "cut").unfinished, partial.stem, None)
    assert set(state.buffers) == {"first_moment", "second_moment"} and state.buffers["second_moment"].all()
    result = runner.run(study, tmp_path / "cut")
    assert 0 < result.replica_steps < 3 * 256 * 401
    for cell in study.cells():
        for name in (CURVES_FILE, REPLICAS_FILE):
            whole, cut = (Store(tmp_path / part).cell_folder(digest(cell)) / name for part in ("whole", "cut"))
            assert whole.read_bytes() == cut.read_bytes()
