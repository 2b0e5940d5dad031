"""What a study costs: totals, what is left, and how long workers take for it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_network import TINY
from tiny_study import Tiny

from kdsim.cli import main
from kdsim.config import digest
from kdsim.problems import SoftmaxLinear
from kdsim.results.store import Store
from kdsim.study import cost_table, runner
from kdsim.study.cost_table import Cost, StudyCost, study_cost
from kdsim.supervision import Exact, OneHot

STUDY = Tiny(problem=SoftmaxLinear(samples=32), supervisions=(Exact(), OneHot()), steps=20_000)
SMALL = ["noise-sweep", "--quick", "--set", "problem=softmax-linear", "--set", "problem.samples=64", "--replicas", "4"]
SMALL += ["--set", "problem.dimension=3", "--set", "families=dirichlet", "--set", "levels=2", "--set", "steps=200"]
TRAIN = ["distill", "--quick", "--set", "data.problem.samples=64", "--set", "data.problem.validation_samples=32"]
TRAIN += ["--set", "data.problem.test_samples=32"]


def cost(*seconds: float, **changes: object) -> Cost:
    fields = {"what": "x", "cells": 1, "replicas": 2, "steps": 3, "device": "cpu", "seconds": [*seconds], "threads": 1}
    return Cost(**fields | changes)


def whole(*costs: Cost) -> StudyCost:
    return StudyCost(list(costs), 0, len(costs), 0, 0.0)


def test_hours_of_cores_and_gpus_and_their_uncertainty() -> None:
    found = whole(
        cost(3600.0, 7200.0, threads=4, finish=1800.0, finish_spread=360.0, left=0.5),
        cost(7200.0, 7200.0, device="cuda", finish=3600.0, finish_spread=720.0),
        cost(),
    )
    assert found.costs[0].hours == pytest.approx(4 * 1.5 + 0.5) and found.costs[0].spread == pytest.approx(2.1)
    assert found.costs[0].rates == pytest.approx([6 / 3600, 6 / 7200])
    assert found.hours(on_gpu=False) == pytest.approx(
        (6.5 + 1.0, 2.1 + 0.2)
    )  # measurement of the GPU's cells is on a core
    assert found.hours(on_gpu=False, left=True) == pytest.approx((3.25 + 1.0, 1.05 + 0.2))
    assert found.hours(on_gpu=True) == pytest.approx((2.0, 0.0))


def test_workers_share_what_can_be_shared() -> None:
    blocks = whole(cost(8, blocks=4))
    assert [blocks.wall(workers) for workers in (1, 2, 4, 9)] == [8, 4, 2, 2]
    threads = whole(cost(8, threads=2))
    assert threads.wall(1) == threads.wall(2) == 16  # one worker of one core does it
    finished = whole(cost(8, blocks=2, finish=4, cells=16))
    assert finished.wall(1) == 12 and finished.wall(2) == 4 + 2
    chain = whole(cost(3), cost(1, needs=(0,)), cost(2, needs=(0, 1)), cost(6))
    assert chain.wall(1) == 12 and chain.wall(2) == chain.wall(3) == 6
    assert whole(cost(3, left=0.0), cost(1, needs=(0,))).wall(2) == 1
    assert whole(cost(3, left=0.5)).wall(1) == 1.5
    assert whole().wall(3) == 0
    # Nobody waits for the measurement of the first while the second can be begun.
    assert whole(cost(8, finish=1), cost(8, finish=1)).wall(2) == 9


@given(
    st.lists(
        st.tuples(st.floats(0.1, 9), st.integers(1, 5), st.floats(0, 5), st.integers(1, 30), st.booleans()), max_size=7
    ),
    st.integers(1, 6),
)
def test_durations_lie_between_their_bounds(parts: list[tuple[float, int, float, int, bool]], workers: int) -> None:
    """Not below the work over the workers, not above it alone, and not above Graham's bound with the longest chain."""
    costs, chain = [], [0.0]
    for number, (seconds, blocks, finish, cells, needs) in enumerate(parts):
        before = (number - 1,) if needs and number else ()
        costs.append(cost(seconds, blocks=blocks, finish=finish, cells=cells, needs=before))
        longest = max(piece.seconds for piece in costs[-1].pieces() if not piece.last)
        longest += max((piece.seconds for piece in costs[-1].pieces() if piece.last), default=0.0)
        chain.append(longest + (chain[number] if before else 0.0))
    found, work = whole(*costs), sum(seconds + finish for seconds, _, finish, _, _ in parts)
    assert found.wall(1) == pytest.approx(work)
    assert found.wall(workers) >= max(work / workers, max(chain)) * (1 - 1e-9)
    assert found.wall(workers) <= (work / workers + max(chain)) * (1 + 1e-9)


@pytest.mark.slow
def test_a_study_of_packs(tmp_path: Path) -> None:
    found = study_cost(STUDY, Store(tmp_path))
    (pack,) = found.costs
    assert (pack.cells, pack.replicas, pack.steps, pack.left, pack.problem) == (2, 16, 20_000, 1.0, "")
    assert len(pack.seconds) == cost_table.PROBES and all(seconds > 0 for seconds in pack.seconds)
    assert pack.finish > pack.finish_spread > 0
    assert pack.bytes > 2 * 1000 and found.stored == 0 and found.cells == 2
    assert not tmp_path.exists() or list(tmp_path.iterdir()) == []  # nothing is written


@pytest.mark.slow
def test_bytes_are_those_that_are_stored(tmp_path: Path) -> None:
    study = replace(STUDY, steps=1000)
    runner.run(study, tmp_path)
    (pack,) = study_cost(study, Store(tmp_path)).costs
    files = [file for file in (tmp_path / "cells").rglob("*") if file.is_file()]
    assert pack.bytes == pytest.approx(sum(file.stat().st_size for file in files), rel=0.1)


@pytest.mark.slow
def test_what_is_stored_is_not_left(tmp_path: Path) -> None:
    study = replace(STUDY, steps=200)
    runner.run(replace(study, supervisions=study.supervisions[:1]), tmp_path)
    found = study_cost(study, Store(tmp_path))
    assert found.stored == 1 and found.costs[0].left == 0.5
    assert found.hours(on_gpu=False, left=True)[0] == pytest.approx(found.hours(on_gpu=False)[0] / 2)
    runner.run(study, tmp_path)
    found = study_cost(study, Store(tmp_path))
    assert found.costs[0].left == 0 and found.wall(1) == 0


def test_what_is_left_counts_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of cells of 2 and of 6 replicas the small one is stored."""
    monkeypatch.setattr(cost_table, "probe", lambda *_: (1.0, 0.0))
    monkeypatch.setattr(cost_table, "_finish_cost", lambda pack: (0.0, 0.0, 1.0, ""))
    few, many = (replace(cell, replicas=n) for cell, n in zip(STUDY.cells(), (2, 6), strict=True))

    class Two(Tiny):
        def cells(self):
            return few, many

    store = Store(tmp_path)
    monkeypatch.setattr(store, "has_cell", lambda found: found == digest(few))
    (found,) = study_cost(Two(), store).costs
    assert found.left == 6 / 8


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["show-study", *SMALL, "--cost", "--out", str(tmp_path / "none"), "--workers", "3"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"4 cells of softmax-linear \(exact, .* 4 +16 +200 ", out) and "cpu_fused" in out
    assert "core hours" in out and "Measured now on" in out and "3 probes of each rate" in out
    assert re.search(r"duration +[\d.]+ (s|min) on 3 workers of one core\n", out) and "left" in out
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_command_for_trainings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["show-study", *TRAIN, "--cost", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "training of resnet8 on known-images (one-hot)" in " ".join(out.split())
    assert "core hours" in out and "not known" not in out and "Not measured" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "2"], "--workers 2 is not allowed without --cost"),
        (["--cost", "--workers", "0"], "--workers = 0 is not allowed: must be an integer >= 1"),
        (["--cost", "--device", "cuda:9"], "cuda:9"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show-study", *SMALL, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.slow
def test_fits_of_teachers_are_counted(tmp_path: Path) -> None:
    from kdsim.config import by_name
    from kdsim.studies import STUDIES
    from kdsim.study.loading import load

    settings = {"data.problem.samples": "128", "pairs": f"{TINY} to {TINY}"}
    study = load("teacher-kinds", by_name(STUDIES), settings, quick=True)
    found = study_cost(study, Store(tmp_path))
    fits = [each for each in found.costs if each.what.startswith("fit of")]
    assert fits and all(each.seconds[0] > 0 and not each.rates and each.needs for each in fits)
    students = [each for each in found.costs if "(laplace)" in each.what]
    assert all(len(each.needs) == 2 for each in students) and all(each.problem == "" for each in found.costs)
