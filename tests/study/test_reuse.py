"""Which stored results are reused: never those of other data or under a changed name; of another kdsim, and said."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch
from given import Given
from tiny_study import Halfway, SmallPool, Tiny

from kdsim import sources
from kdsim.cli import main
from kdsim.config import ConfigError, digest
from kdsim.data import KnownPoints
from kdsim.population import Population
from kdsim.problems import SoftmaxLinear
from kdsim.results.store import Store, read_study
from kdsim.results.tables import CURVES_FILE
from kdsim.results.unfinished import release
from kdsim.study import runner, work
from kdsim.study.base import Study
from kdsim.study.checking import check
from kdsim.study.weights import read_weights
from kdsim.supervision import Exact, OneHot
from kdsim.teachers import Deterministic
from kdsim.trainer import PointNetwork, StudentTrainer
from kdsim.training import Recipe
from kdsim.training.fitted import FittedTeacher
from kdsim.training.trained import TrainedNetwork

SCALE = Path("scale.txt")


@dataclass(frozen=True)
class Hidden(SmallPool):
    """Points that depend on a file of which the configuration says nothing."""

    name: ClassVar[str] = "hidden"

    def population(self, seed: int) -> Population:
        found = super().population(seed)
        scale = float(SCALE.read_text())
        return Population(x=found.x * scale, p=found.p, y=found.y, optimum=found.optimum / scale)


ONE = Tiny(supervisions=(OneHot(),), steps=200)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def other_source(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this process another kdsim, or the same again."""

    def become(digest: str | None) -> None:
        studies = (f"study.{name}" for name in ("provenance", "reuse", "checking", "trainings"))
        for module in ("results.provenance", "results.store", *studies):
            name = f"kdsim.{module}.kdsim_digest"
            monkeypatch.setattr(name, sources.kdsim_digest if digest is None else lambda: digest)

    return become


def run(study: Study, **options: Any) -> tuple[runner.RunResult, list[str]]:
    said: list[str] = []
    return runner.run(study, "results", note=said.append, **options), said


# Data ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_other_points_are_not_reused() -> None:
    """Also where no digest can know: the population itself is compared."""
    study = replace(ONE, problem=Hidden())
    SCALE.write_text("1.0")
    (first,) = run(study)[0].rows
    assert run(study)[0].replica_steps == 0
    SCALE.write_text("2.0")
    result, said = run(study)
    assert result.replica_steps == 200 * 8 and result.rows[0]["floor"] != first["floor"]
    assert said == ["1 stored result was on other data than the problem gives now: run again"]
    assert run(study)[1] == []
    (kept,) = Path("results/superseded").iterdir()
    assert kept.name == f"{digest(study.cells()[0])}.0"
    assert pd.read_parquet(kept / CURVES_FILE)["dist_sq_mean"].iloc[-1] != read_study(result.folder).curves[
        "dist_sq_mean"
    ].iloc[-1]  # fmt: skip


@pytest.mark.slow
def test_classes_that_a_function_makes_are_refused_if_there_are_several() -> None:
    """They have one name and one source, hence one digest."""

    def make(weight: float) -> Halfway:
        @dataclass(frozen=True)
        class Made(Halfway):
            name: ClassVar[str] = "made"

            def mean(self, p: torch.Tensor) -> torch.Tensor:
                return p * weight / weight

        return Made()

    one, other = make(0.5), make(1.0)
    with pytest.raises(ConfigError, match=r"there are several classes .*Made, which nobody can tell apart"):
        run(replace(ONE, supervisions=(one, other)))
    assert run(replace(ONE, supervisions=(one, replace(one, weight=0.25))))[0].failures == []


def test_points_that_rounding_tells_apart_are_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    run(ONE)
    exact = SmallPool.population

    def rounded(self: SmallPool, seed: int) -> Population:
        found = exact(self, seed)
        return Population(x=found.x * (1 + 2**-52), p=found.p, y=found.y, optimum=found.optimum)

    monkeypatch.setattr(SmallPool, "population", rounded)
    assert run(ONE)[0].replica_steps == 0


@pytest.mark.slow
def test_points_that_cannot_be_made_are_said() -> None:
    study = replace(ONE, problem=Hidden(), supervisions=(OneHot(), Exact()))
    SCALE.write_text("1.0")
    run(study)
    SCALE.unlink()
    result, (said,) = run(study)
    assert len(result.rows) == 2 and result.replica_steps == 0
    start = "whether 2 stored results were on the data that are there now could not be seen: FileNotFound"
    assert said.startswith(start)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "done", "kept"),
    [(128, 1, [".safetensors"]), (64, 64 * 3000 + 1, [".done.safetensors", ".safetensors"])],
    ids=["state", "blocks"],
)
def test_a_state_never_goes_on_with_other_points(block: int, done: int, kept: list[str]) -> None:
    study = replace(ONE, problem=Hidden(), steps=3000, replicas=128)
    SCALE.write_text("2.0")
    whole = runner.run(study, "whole", block_replicas=block)
    SCALE.write_text("1.0")
    with pytest.raises(runner.Interrupted):
        run(study, progress=lambda state: stop_at(state, done), slice_seconds=0, block_replicas=block)
    assert sorted("".join(path.suffixes) for path in Path("results/partial").rglob("*.safetensors")) == kept
    SCALE.write_text("2.0")
    result, (said,) = run(study, block_replicas=block)
    assert said.endswith("had been begun on other data than the problem gives now: it starts over")
    assert (result.rows, result.replica_steps) == (whole.rows, whole.replica_steps)


@pytest.mark.slow
def test_a_run_on_other_points_goes_on_where_it_was_interrupted() -> None:
    """Though a result on the first points is stored until it is replaced."""
    study = replace(ONE, problem=Hidden(), steps=3000, replicas=128)
    SCALE.write_text("1.0")
    run(study)
    SCALE.write_text("2.0")
    with pytest.raises(runner.Interrupted):
        run(study, progress=lambda state: stop_at(state, 1), slice_seconds=0)
    whole = runner.run(study, "whole")
    result = run(study)[0]
    assert 0 < result.replica_steps < whole.replica_steps and result.rows == whole.rows


@pytest.mark.slow
def test_what_another_process_is_at_work_on_is_not_swept(other_source: Any) -> None:
    """To replace a stored result: a process of another source that begins meanwhile leaves its state alone."""
    study = replace(ONE, steps=3000, replicas=128)
    run(study)
    other_source("f" * 64)
    with pytest.raises(runner.Interrupted):
        run(study, rerun=True, progress=lambda state: stop_at(state, 1), slice_seconds=0)
    unfinished = Store("results").unfinished
    (plan,) = unfinished.plans()
    lock = unfinished.lock(plan.pack)
    other_source(None)
    run(study)
    assert list(unfinished.plans()) == [plan] and list(unfinished.folder.glob("*.safetensors"))
    release(lock)
    run(study)
    assert list(unfinished.plans()) == []


@pytest.mark.slow
def test_a_state_without_its_plan_is_of_no_use() -> None:
    study = replace(ONE, problem=Hidden(), steps=3000, replicas=128)
    SCALE.write_text("2.0")
    whole = runner.run(study, "whole")
    SCALE.write_text("1.0")
    with pytest.raises(runner.Interrupted):
        run(study, progress=lambda state: stop_at(state, 1), slice_seconds=0)
    for plan in Path("results/partial").rglob("*.plan.json"):
        plan.unlink()
    SCALE.write_text("2.0")
    assert run(study)[0].rows == whole.rows


def stop_at(state: runner.Progress, done: int) -> None:
    if state.done >= done:
        os.kill(os.getpid(), signal.SIGINT)


def test_points_that_change_between_two_slices() -> None:
    """As on workers, each of which reads the files when its first task comes."""
    study = replace(ONE, problem=Hidden(), steps=3000, replicas=128)
    SCALE.write_text("1.0")

    def change(state: runner.Progress) -> None:
        SCALE.write_text("2.0")
        work.doubt_data()

    result, _ = run(study, progress=change, slice_seconds=0)
    assert result.rows == [] and "the points are others than when it began" in result.failures[0]
    assert list(Path("results/cells").iterdir()) == []


POINTS = KnownPoints(SoftmaxLinear(classes=3, dimension=4, samples=128), validation_samples=32, test_samples=32)
TRAINING = StudentTrainer(PointNetwork("linear"), POINTS, recipe=Recipe(epochs=40, batch_size=8), replicas=2)


@dataclass(frozen=True)
class Trainings(Study):
    """A teacher's training, and a student."""

    name: ClassVar[str] = "trainings-of-a-test"
    summary: ClassVar[str] = "two trainings"
    figure: ClassVar[None] = None

    def cells(self) -> tuple[StudentTrainer, ...]:
        return TRAINING, replace(TRAINING, supervision=Deterministic(TRAINING))

    def quick(self) -> Trainings:
        return self


@pytest.mark.slow
def test_other_data_of_trainings_are_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(Trainings())[0]
    assert first.failures == [] and run(Trainings())[0].replica_steps == 0
    exact = StudentTrainer.pools

    def shifted(self: StudentTrainer, *arguments: Any) -> Any:
        pools = exact(self, *arguments)
        train = Population(x=pools.train.x + 1, p=pools.train.p, y=pools.train.y)
        return replace(pools, train=train)

    monkeypatch.setattr(StudentTrainer, "pools", shifted)
    result, said = run(Trainings())
    assert "2 stored results were on other data than the problem gives now: run again" in said
    assert result.replica_steps == first.replica_steps
    store = Store("results")
    fitted = FittedTeacher.load(store.teacher_file(digest(Deterministic(TRAINING)), 0))
    assert same_networks(fitted.networks, read_weights(store, digest(TRAINING))[:1])
    assert run(Trainings())[1] == []


def same_networks(some: Sequence[TrainedNetwork], others: Sequence[TrainedNetwork]) -> bool:
    pairs = [
        (one.weights[name], other.weights[name])
        for one, other in zip(some, others, strict=True)
        for name in one.weights
    ]
    return all(torch.equal(*pair) for pair in pairs)


@dataclass(frozen=True)
class Shifted(SmallPool):
    """Points with a shift of which the configuration says nothing."""

    name: ClassVar[str] = "shifted"

    shift: ClassVar[float] = 0.0

    def population(self, seed: int) -> Population:
        found = super().population(seed)
        x = found.x.clone()
        x[:, 0] += self.shift
        return Population(x=x, p=found.p, y=found.y)


ELSEWHERE = replace(
    TRAINING, data=KnownPoints(Shifted(dimension=4, samples=128), validation_samples=32, test_samples=32)
)
STUDENT = replace(TRAINING, supervision=Deterministic(ELSEWHERE))
"""Its teacher has other data than it."""


@pytest.mark.slow
def test_a_student_is_not_reused_whose_teacher_had_other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(Given((STUDENT,)))[0]
    assert first.failures == []
    monkeypatch.setattr(Shifted, "shift", 1.0)
    result, (said,) = run(Given((STUDENT,)))
    assert said.startswith("2 stored results were on other data")
    assert result.failures == []
    assert result.replica_steps == first.replica_steps and result.rows != first.rows


@pytest.mark.slow
def test_a_student_of_a_teacher_of_another_source_is_run_again(other_source: Any) -> None:
    """It was run by this source, but learned from what the other had trained."""
    run(Given((ELSEWHERE,)))
    other_source("f" * 64)
    assert run(Given((STUDENT,)))[0].rows[0]["source"] == "f" * 12
    assert any(
        line.startswith("2 stored results were computed by another source") for line in run(Given((STUDENT,)))[1]
    )
    assert run(Given((STUDENT,)), rerun=True)[0].replica_steps == 2 * 640
    assert run(Given((STUDENT,)))[1] == []


@pytest.mark.slow
def test_a_student_does_not_learn_from_a_superseded_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its teacher's training, which was to be run again, fails."""
    run(Given((STUDENT,)))
    monkeypatch.setattr(Shifted, "shift", 1.0)
    whole = StudentTrainer.run

    def fail(self: StudentTrainer, **options: Any) -> Any:
        if self == ELSEWHERE:
            raise RuntimeError("of a test")
        return whole(self, **options)

    monkeypatch.setattr(StudentTrainer, "run", fail)
    result, _ = run(Given((STUDENT,)))
    assert result.rows == [] and [("of a test" in line, "failed before" in line) for line in result.failures] == [
        (True, False), (False, True),
    ]  # fmt: skip


# The source of kdsim ------------------------------------------------------------------------------


@pytest.mark.slow
def test_results_of_another_source_are_said_and_can_be_run_again(other_source: Any, capsys: Any) -> None:
    first = run(ONE)[0]
    assert first.rows[0]["source"] == sources.kdsim_digest()[:12]
    other_source("f" * 64)
    result, (said,) = run(ONE)
    assert result.replica_steps == 0 and result.rows == first.rows
    assert said.startswith("1 stored result was computed by another source of kdsim") and "--rerun" in said
    (finding,) = check(Path("results")).findings
    assert "1 were computed by another source of kdsim" in finding.what and finding.path == "cells"
    assert main(["results", "tiny"]) == 0
    assert "computed by another source of kdsim" in capsys.readouterr().err
    again, (said,) = run(ONE, rerun=True)
    assert again.replica_steps == 200 * 8 and said.endswith("computed by another source of kdsim: run again")
    assert again.rows == [{**first.rows[0], "source": "f" * 12}]
    assert run(ONE, rerun=True)[0].replica_steps == 0
    assert [path.name for path in Path("results/superseded").iterdir()] == [f"{digest(ONE.cells()[0])}.0"]
    assert check(Path("results")).damaged == []


def test_an_interrupted_rerun_loses_nothing(other_source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(ONE)[0]
    other_source("f" * 64)
    with pytest.raises(runner.Interrupted):
        run(ONE, rerun=True, progress=lambda state: os.kill(os.getpid(), signal.SIGINT))
    assert run(ONE)[0].rows == first.rows


@pytest.mark.slow
@pytest.mark.parametrize("study", [replace(ONE, steps=3000, replicas=24), Trainings()], ids=["simulation", "training"])
def test_a_state_never_goes_on_under_another_source(study: Study, other_source: Any, monkeypatch: Any) -> None:
    """Interrupted, it starts over; back at the first source it goes on."""
    monkeypatch.setattr("kdsim.study.packs.BLOCK_REPLICAS", 8)
    whole = runner.run(study, "whole")

    def stop(state: Any) -> None:
        if state.done > 0:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(runner.Interrupted):
        run(study, progress=stop, slice_seconds=0)
    assert list(Path("results/partial").rglob("*.safetensors"))
    other_source("f" * 64)
    names = {finding.advice for finding in check(Path("results")).findings if finding.path.startswith("partial")}
    assert any(advice.startswith("another source of kdsim began it") for advice in names)
    result, said = run(study)
    assert result.replica_steps == whole.replica_steps
    assert any("begun by another source of kdsim" in line and "starts over" in line for line in said)
    run(study)
    assert list(Path("results/partial").iterdir()) == []  # what the first source left is of no use any more


@pytest.mark.slow
def test_back_at_its_source_a_state_goes_on(other_source: Any) -> None:
    study = replace(ONE, steps=3000)
    whole = runner.run(study, "whole")
    with pytest.raises(runner.Interrupted):
        run(study, progress=lambda state: os.kill(os.getpid(), signal.SIGINT), slice_seconds=0)
    other_source("f" * 64)
    with pytest.raises(runner.Interrupted):
        run(study, progress=lambda state: os.kill(os.getpid(), signal.SIGINT), slice_seconds=0)
    other_source(None)
    result = run(study)[0]
    assert result.replica_steps < whole.replica_steps and result.rows == whole.rows


@pytest.mark.slow
def test_a_teacher_of_another_source_is_fitted_again(other_source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdsim.study import trainings

    run(Trainings())
    store, fits, teacher = Store("results"), [], Deterministic(TRAINING)
    fit = trainings.fit_teacher
    monkeypatch.setattr(trainings, "fit_teacher", lambda *a: fits.append(1) or fit(*a))
    trainings.fitted_teachers(teacher, store)
    assert fits == []
    other_source("f" * 64)
    trainings.fitted_teachers(teacher, store)
    assert len(fits) == teacher.count


# Said ---------------------------------------------------------------------------------------------


def test_a_changed_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By run-study once, and by check-results as long as results of it are there."""
    study = Path(__file__).parent.parent / "tiny_study.py"
    text = study.read_text().replace("    samples: int = 64\n", '    samples: int = 64\n    path: str = "pool.txt"\n')
    Path("own.py").write_text(text)
    command = ["run-study", "own.py", "--set", "steps=40"]
    Path("pool.txt").write_text("a")
    assert main(command) == 0
    capsys.readouterr()
    Path("pool.txt").write_text("b")
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "pool.txt changed since tiny/" in said and said.count("changed since") == 1
    assert main(command) == 0
    assert "changed since" not in capsys.readouterr().err
    assert main(["check-results"]) == 0
    assert "3 were computed from pool.txt with SHA-256" in capsys.readouterr().out
    Path("own.py").write_text(text + "\n# edited\n")
    assert main(command) == 0
    assert (
        "the source of tiny, the source of small-pool, the source of halfway changed since" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_changed_file_of_a_cell_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the study itself names no file, so that its digest stays as it is."""
    study = (Path(__file__).parent.parent / "tiny_study.py").read_text()
    study = study.replace("    samples: int = 64\n", '    samples: int = 64\n    path: str = "pool.txt"\n')
    study = study.replace("    problem: Problem = field(default_factory=SmallPool)\n", "")
    Path("own.py").write_text(study.replace("self.problem", "SmallPool()"))
    command = ["run-study", "own.py", "--set", "steps=40"]
    for content in "abb":
        Path("pool.txt").write_text(content)
        assert main(command) == 0
    said = capsys.readouterr()
    assert said.err.count("pool.txt changed since tiny/") == 1 == said.out.count("nothing to simulate")
    Path("pool.txt").write_text("c")
    Path("own.py").write_text(Path("own.py").read_text() + "# 0\n")
    for target, names in (("own.py", "the source of tiny, pool.txt"), ("results/tiny", "pool.txt")):
        assert main(["results", target]) == 0
        assert f"kdsim: {names} changed since: these results are of before\n" in capsys.readouterr().err
    assert main(["results", *command[1:]]) == 2
    assert "with these settings and the sources and files that are there now in" in capsys.readouterr().err
    for text in "12":  # of many earlier runs the last one is named
        Path("own.py").write_text(Path("own.py").read_text() + f"# {text}\n")
        assert main(command) == 0
        assert capsys.readouterr().err.count("changed since") == 1


def test_a_file_that_changes_while_it_runs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Nothing is stored under a name that stands for the file as it was."""

    @dataclass(frozen=True)
    class FromFile(SmallPool):
        path: str = "pool.txt"

        name: ClassVar[str] = "from-file"

        def population(self, seed: int) -> Population:
            assert Path(self.path).read_text() == "as it was"
            return super().population(seed)

    Path("pool.txt").write_text("as it was")
    result, _ = run(replace(ONE, problem=FromFile()), progress=lambda state: Path("pool.txt").write_text("changed"))
    assert result.rows == [] and "is not the one with which the run began" in result.failures[0] and result.user_error
    assert list(Path("results/cells").iterdir()) == []


@dataclass(frozen=True)
class Named(SmallPool):
    """Points that name a file of data."""

    path: str = "pool.txt"

    name: ClassVar[str] = "named"


@pytest.mark.slow
def test_a_file_that_changes_after_its_cells_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are what the run has given."""
    Path("pool.txt").write_text("as it was")
    whole = runner.Session.run

    def change(self: runner.Session) -> None:
        whole(self)
        Path("pool.txt").write_text("changed")

    monkeypatch.setattr(runner.Session, "run", change)
    result, _ = run(replace(ONE, problem=Named()))
    assert len(result.rows) == 1 and len(read_study(result.folder).records) == 1
    assert [path.name for path in Path("results/cells").iterdir()] == [result.rows[0]["cell"]]


def test_a_file_that_changes_as_the_run_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pool.txt").write_text("as it was")
    whole = runner.packs

    def change(*arguments: Any) -> Any:
        Path("pool.txt").write_text("changed")
        return whole(*arguments)

    monkeypatch.setattr(runner, "packs", change)
    with pytest.raises(ConfigError, match="a file of data has changed since the run began"):
        run(replace(ONE, problem=Named()))
