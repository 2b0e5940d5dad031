"""`run`, `simulate`, `predict` and `Experiment`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from tiny_study import Tiny

import kdsim as kd
from kdsim.api import running
from kdsim.experiments import SGD, Cell, GradientDescent, ListedExperiments, Recipe, StudentTrainer

PROBLEM = kd.problems.SoftmaxLinear(dimension=3, samples=100)


@dataclass(frozen=True)
class Broken(kd.supervision.Supervision):
    """Raises when it is asked for targets of class 1.

    Mean p, covariance 0.
    """

    name: ClassVar[str] = "broken"
    unbiased: ClassVar[bool] = True

    def sample(self, batch, draws):
        raise ArithmeticError("no targets")

    def mean(self, p):
        return p

    def covariance(self, p):
        return 0 * p[..., :, None] * p[..., None, :]


def test_finished_experiments_are_not_run_again(experiments: list, tmp_path: Path) -> None:
    first = kd.run(experiments[:1], tmp_path)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "cells").rglob("*")}
    second = kd.run(experiments[:2], tmp_path)
    assert second["floor"].iloc[0] == first["floor"].item() and len(second) == 2
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_study_by_instance_class_name_and_file(tmp_path: Path) -> None:
    text = """
from dataclasses import dataclass
import kdsim as kd

@dataclass(frozen=True)
class Mine(kd.Study):
    name = "mine"
    summary = ""
    figure = None
    replicas: int = 2
    seed: int = 0

    def cells(self):
        problem = kd.problems.SoftmaxLinear(dimension=3, samples=100)
        return (kd.Experiment(problem, steps=20, replicas=self.replicas, seed=self.seed, engine="torch"),)

    def quick(self):
        return self
"""
    file = tmp_path / "mine.py"
    file.write_text(text)
    from_file = kd.run(str(file), tmp_path, replicas=3)
    assert from_file.name == "mine" and from_file["replicas"].item() == 3
    cls = running.study_of(str(file)).__class__
    assert running.study_of(cls) == running.study_of(cls()) == cls()
    assert kd.load(tmp_path, cls(replicas=3)).frame.equals(kd.load(tmp_path, cls).frame)
    assert kd.load(tmp_path, str(file)).frame.equals(from_file.frame) and len(from_file.plot().axes) == 2


def test_settings_replace_those_of_all_experiments(experiments: list) -> None:
    result = kd.run(experiments[:1], replicas=3, seed=7)
    assert set(result["replicas"]) == {3} and set(result["seed"]) == {7}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: kd.run(3), "study = 3 is not allowed: must be a study"),
        (lambda: kd.run([]), "experiments = .* is not allowed: must be at least one"),
        (lambda: kd.run([PROBLEM]), "study = SoftmaxLinear.* is not allowed"),
        (lambda: kd.run("noise-swep"), "unknown study 'noise-swep' .nearest: noise-sweep"),
        (lambda: kd.run(kd.Study), "Study"),
        (lambda: kd.run(kd.Experiment(PROBLEM), engine="warp"), "unknown engine 'warp'"),
        (lambda: kd.run(kd.Experiment(PROBLEM), quick=True), "quick = True is not allowed"),
        (lambda: kd.run(kd.studies.Train(), engine="torch"), "train has no setting 'engine'"),
        (lambda: kd.run(kd.studies.NoiseSweep(), name="mine"), "name = 'mine' is not allowed"),
        (lambda: kd.run(kd.Experiment(PROBLEM), name="a/b"), "name = 'a/b' is not allowed"),
        (lambda: kd.simulate([kd.Experiment(PROBLEM)]), "experiment = .* is not allowed: must be one experiment"),
        (lambda: kd.predict(kd.studies.Train()), "trains networks, of which theory predicts nothing"),
        (lambda: kd.run(kd.Experiment(PROBLEM), repair="no"), "repair = 'no' is not allowed: must be True or False"),
        (lambda: kd.run(kd.studies.NoiseSweep(), quick=1), "quick = 1 is not allowed: must be True or False"),
        (lambda: kd.run(kd.Experiment(PROBLEM), executor="dask"), "executor = 'dask' is not allowed: must be None or"),
        (lambda: kd.compare(1, 2), "a = 1 is not allowed: must be a Result"),
    ],
)
def test_bad_input_is_one_line(call, said: str) -> None:
    with pytest.raises(kd.ConfigError, match=said) as refused:
        call()
    assert "\n" not in str(refused.value)


def test_what_fails_is_named_and_the_others_are_there(experiments: list, tmp_path: Path) -> None:
    mixed = [experiments[0], replace(experiments[0], supervision=Broken())]
    with pytest.warns(kd.KdsimWarning, match=r"broken.* failed: ArithmeticError: no targets") as told:
        result = kd.run([mixed[0], replace(mixed[1], step_size=0.2, sgd=SGD(50))], tmp_path)
    assert len(result) == 1 and len(result.failures) == 1 and "1 failed" in repr(result)
    assert {warning.filename for warning in told} == {__file__}
    with pytest.warns(kd.KdsimWarning, match="no targets"):
        assert kd.load(tmp_path).failures == result.failures
    with pytest.raises(RuntimeError, match="no targets"):
        kd.simulate(mixed[1])


def test_a_class_that_is_not_frozen_is_refused() -> None:
    @dataclass
    class Loose(kd.supervision.Supervision):
        rate: float = 0.1
        name: ClassVar[str] = "loose"
        unbiased: ClassVar[bool] = True
        sample, mean, covariance = Broken.sample, Broken.mean, Broken.covariance

    with pytest.raises(kd.ConfigError, match=r"Loose must be a frozen dataclass"):
        kd.run(kd.Experiment(PROBLEM, supervision=Loose(), step_size=0.1))


def test_nothing_is_written_or_printed(
    experiments: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = kd.simulate(experiments[0])
    kd.predict(experiments)
    result.plot()
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")
    assert not result.folder.is_relative_to(tmp_path) and kd.simulate(experiments[0]).folder == result.folder


@pytest.mark.slow
def test_the_temporary_folder_goes_with_the_process() -> None:
    code = """
import kdsim as kd
problem = kd.problems.SoftmaxLinear(dimension=3, samples=100)
print(kd.simulate(kd.Experiment(problem, steps=20, replicas=2, engine="torch")).folder)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "kdsim-" in ran.stdout and not Path(ran.stdout.strip()).exists() and ran.stderr == ""


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(experiments: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pack is finished when the signal comes, the second is not begun."""
    calls = [experiments[0], replace(experiments[0], sgd=SGD(4_000), seed=1)]

    def interrupting(progress) -> None:
        if progress.steps > 60:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(running.progress_bar, "shown", _Shown(interrupting))
    with pytest.raises(KeyboardInterrupt, match=r"1 of 2 cells are stored in .*goes on from there") as stopped:
        kd.run(calls, tmp_path)
    assert isinstance(stopped.value, kd.Interrupted) and len(stopped.value.result) == 1
    assert stopped.value.result["label"].item() and len(stopped.value.result.replicas) == 6
    monkeypatch.undo()
    result = kd.run([calls[0], calls[1]], tmp_path)
    assert len(result) == 2


class _Shown:
    """In place of the bar: its function is told of the progress."""

    def __init__(self, tell) -> None:
        self.tell = tell

    def __call__(self, wanted: bool) -> _Shown:
        return self

    def __enter__(self):
        return self.tell, None

    def __exit__(self, *error) -> None:
        pass


def test_theory_alone_has_the_columns_of_a_result(experiments: list, sweep: kd.Result) -> None:
    table = kd.predict(experiments)
    assert list(table["label"]) == list(sweep["label"]) and set(table) <= set(sweep.frame)
    assert table["first_order_floor"].tolist() == sweep["first_order_floor"].tolist()


def test_theory_takes_the_settings_that_it_is_given(experiments: list) -> None:
    table = kd.predict(experiments[:1], replicas=3, seed=7)
    assert table[["replicas", "seed"]].values.tolist() == [[3, 7]]
    assert set(kd.predict(Tiny(supervisions=(kd.supervision.Exact(),)), quick=True)["steps"]) == {100}


def test_options_of_the_runner_arrive(monkeypatch: pytest.MonkeyPatch, experiments: list, tmp_path: Path) -> None:
    class Seen(Exception):
        pass

    def run(study, folder, **options):
        raise Seen(folder, options["repair"], options["rerun"])

    monkeypatch.setattr(running.runner, "run", run)
    for repair, rerun in ((True, False), (False, True)):
        with pytest.raises(Seen) as seen:
            kd.run(experiments[:1], tmp_path, repair=repair, rerun=rerun)
        assert seen.value.args == (tmp_path, repair, rerun)


# Experiment -------------------------------------------------------------------------------------


def test_an_experiment_of_a_problem() -> None:
    found = kd.Experiment(PROBLEM, "softmax-regression", kd.supervision.Exact(), steps=10, batch_size=2, step_size=0.1)
    assert found == Cell(PROBLEM, kd.students.SoftmaxRegression(), kd.supervision.Exact(), 0.1, SGD(10, 2))
    assert kd.Experiment(kd.problems.SimplexLinear()).student == kd.students.LeastSquares()
    recipe = SGD(100, dtype="float64")
    other = kd.Experiment(PROBLEM, recipe=recipe, optimiser=GradientDescent(0.9), targets="frozen")
    assert other.sgd == replace(recipe, optimiser=GradientDescent(0.9), targets="frozen")


def test_the_step_size_is_a_share_of_the_limit_of_t1() -> None:
    found = kd.Experiment(PROBLEM, kd.students.SoftmaxRegression(0.1, "centred"), batch_size=3)
    assert found.step_size == pytest.approx(0.6 * kd.predict(found)["step_size_limit"].item())


def test_an_experiment_of_a_network() -> None:
    images = kd.problems.Images(classes=3, samples=60, validation_samples=20, test_samples=20)
    found = kd.Experiment(images, "resnet8", epochs=2, batch_size=8, step_size=0.1, replicas=2)
    assert isinstance(found, StudentTrainer) and found.data == kd.data.KnownImages(images) and found.replicas == 2
    assert found.recipe == Recipe(epochs=2, batch_size=8, step_size=0.1)
    assert found.supervision == kd.supervision.OneHot()
    points = kd.Experiment(PROBLEM, kd.experiments.PointNetwork("mlp"), loss=kd.losses.KD())
    assert points.data == kd.data.KnownPoints(PROBLEM) and points.loss == kd.losses.KD()
    teacher = kd.teachers.Deterministic(points)
    assert kd.Experiment(kd.data.KnownPoints(PROBLEM), "linear", teacher).teacher == teacher


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: kd.Experiment("digits"), r"data = 'digits' is not allowed: must be a Problem.*, as Digits\(\)"),
        (
            lambda: kd.Experiment(kd.problems.LongTail),
            r"data = .* is not allowed: must be a Problem.*, as LongTail\(\)",
        ),
        (lambda: kd.Experiment(PROBLEM, "softmax"), "unknown student 'softmax'; allowed: softmax-regression"),
        (lambda: kd.Experiment(PROBLEM, kd.students.MLP()), "step_size = None is not allowed with the student mlp"),
        (lambda: kd.Experiment(kd.data.KnownImages()), "student = None is not allowed with known-images"),
        (lambda: kd.Experiment(kd.data.KnownImages(), "resnet8", steps=3), "steps = 3 is not allowed"),
        (lambda: kd.Experiment(kd.data.KnownImages(), "resnet8", recipe=SGD()), "recipe = SGD.* is not allowed"),
        (lambda: kd.Experiment(kd.data.KnownImages(), "resnet8", engine="torch"), "engine = 'torch' is not allowed"),
        (lambda: kd.Experiment(PROBLEM, recipe=3), "recipe = 3 is not allowed: must be an SGD or a Recipe"),
        (lambda: kd.Experiment(PROBLEM, supervision=3, step_size=1.0), "supervision = 3 is not allowed"),
    ],
)
def test_an_experiment_refuses_in_one_line(call, said: str) -> None:
    with pytest.raises(kd.ConfigError, match=said) as refused:
        call()
    assert "\n" not in str(refused.value)


def test_equal_experiments_are_numbered(experiments: list) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = kd.run([experiments[0], experiments[0]])
    assert list(result["label"]) == ["exact (1)", "exact (2)"]
    assert ListedExperiments((experiments[0],)).quick().cells() == (experiments[0],)


@pytest.mark.slow
def test_what_is_saved_has_teachers_and_networks(tmp_path: Path) -> None:
    points = kd.data.KnownPoints(PROBLEM, validation_samples=20, test_samples=20)
    alone = kd.Experiment(points, kd.experiments.PointNetwork("mlp"), epochs=1, batch_size=20)
    taught = replace(alone, supervision=kd.teachers.Deterministic(alone), loss=kd.losses.KD())
    saved = kd.run([taught], tmp_path / "first").save(tmp_path / "second")

    def kept(folder: str, kind: str) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (tmp_path / folder / kind).rglob("*") if file.is_file()}

    assert kept("second", "teachers") == kept("first", "teachers") != {}
    assert kept("second", "cells") == kept("first", "cells")
    assert len(saved[0].networks()) == len(kd.load(tmp_path / "first")[0].networks()) == 1
