"""Runs skip what is finished, survive interruption bit for bit, and keep what a failing pack does not touch."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch
from tiny_study import SmallPool, Tiny

from kdsim.config import ConfigError, digest
from kdsim.engines import SGD, Choice, Recording
from kdsim.population import Population
from kdsim.results.store import STUDY_FILE, TABLE_FILE, Store, read_study
from kdsim.results.tables import CURVES_FILE, REPLICAS_FILE
from kdsim.results.unfinished import NO_LOCKS
from kdsim.students import SoftmaxRegression
from kdsim.study import packs, runner, work
from kdsim.study.base import Cell
from kdsim.study.executors import Outcome, Task, Walk
from kdsim.study.local import Local
from kdsim.study.report import results_table
from kdsim.study.runner import Interrupted, Progress
from kdsim.supervision import Exact, OneHot

LONG = Tiny(steps=3000, replicas=64)
"""Several chunks of the engine."""


@dataclass(frozen=True)
class Broken(SmallPool):
    """A problem with a bug."""

    name: ClassVar[str] = "broken"

    def population(self, seed: int) -> Population:
        raise RuntimeError("no pool\ntoday")


@dataclass(frozen=True)
class Mixed(Tiny):
    """Cells of two problems, one of which fails."""

    name: ClassVar[str] = "mixed"

    def cells(self) -> tuple[Cell, ...]:
        return tuple(c for cell in super().cells() for c in (replace(cell, problem=Broken()), cell))


def tables(out: Path, study: Tiny) -> list[bytes]:
    """The stored tables of the study's cells, as bytes."""
    folders = [Store(out).cell_folder(digest(cell)) for cell in study.cells()]
    return [(folder / name).read_bytes() for folder in folders for name in (CURVES_FILE, REPLICAS_FILE)]


def kill_self_at(step: int, number: signal.Signals = signal.SIGINT):
    def progress(state: Progress) -> None:
        if state.step >= step:
            os.kill(os.getpid(), number)

    return progress


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    runner.run(LONG, out)
    return out


def test_a_run_stores_what_it_returns(tmp_path: Path) -> None:
    seen: list[Progress] = []
    study = Tiny()
    result = runner.run(study, tmp_path, progress=seen.append)
    assert [row["supervision"] for row in result.rows] == ["exact", "one-hot", "halfway"]
    assert result.failures == [] and not result.user_error
    assert result.replica_steps == 3 * 8 * 400 == seen[-1].done == seen[-1].total
    assert 0 < result.engine_seconds <= result.wall_seconds
    stored = read_study(result.folder)
    assert stored.records == json.loads(json.dumps(result.rows))
    assert stored.settings == result.settings and stored.settings["problem"]["class"] == "small-pool"
    assert len(stored.settings["source_sha256"]) == 64  # the study file's
    assert set(stored.curves["cell"]) == set(stored.rows["cell"]) == {digest(cell) for cell in study.cells()}
    assert len(stored.replicas) == 3 * 8
    assert len(pd.read_csv(result.folder / TABLE_FILE)) == 3
    cell = Store(tmp_path).read_cell(digest(study.cells()[0])).info
    assert cell["versions"]["torch"] and cell["date"] and cell["replica_steps"] == 8 * 400
    assert cell["cell"]["sgd"]["dtype"] == "float32"  # defaults are stored
    assert list((tmp_path / "partial").iterdir()) == []
    table = results_table(result.rows)
    assert len(table.rows) == 3
    row, shown = result.rows[1], table.rows[1][table.headers.index("floor")]
    value, half = re.fullmatch(r"(\S+) ± (\S+) %", shown).groups()  # half the interval
    assert float(value) == pytest.approx(row["floor"], rel=1e-3)
    assert float(half) == pytest.approx(100 * (row["floor_high"] - row["floor"]) / row["floor"], rel=0.05)


def test_curves_carry_the_bound_with_its_transient(tmp_path: Path) -> None:
    stored = read_study(runner.run(Tiny(step_size=0.02), tmp_path).folder)
    for row in stored.records:
        curve = stored.curves[stored.curves["cell"] == row["cell"]]
        assert row["bound_valid"]
        assert curve["bound"].iloc[0] == pytest.approx(curve["dist_sq_mean"].iloc[0] + row["bound_floor"], rel=1e-5)
        assert curve["bound"].is_monotonic_decreasing and (curve["bound"] >= row["bound_floor"]).all()


@pytest.mark.slow
def test_finished_cells_are_not_run_again(tmp_path: Path) -> None:
    first = runner.run(Tiny(), tmp_path)
    again = runner.run(Tiny(), tmp_path)
    assert again.replica_steps == 0 and again.engine_seconds == 0
    assert again.rows == first.rows
    more = runner.run(Tiny(supervisions=(OneHot(), Exact())), tmp_path)  # stored cells in another order
    assert more.replica_steps == 0
    assert [row["supervision"] for row in more.rows] == ["one-hot", "exact"]
    Store(tmp_path).cell_folder(first.rows[1]["cell"]).rename(tmp_path / "moved")
    assert runner.run(Tiny(), tmp_path).replica_steps == 8 * 400


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path, undisturbed: Path, number: signal.Signals) -> None:
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"interrupted at step \d+ of 3000; 0 of 3 cells .* the same command goes on"):
        runner.run(LONG, tmp_path, progress=kill_self_at(1000, number))
    assert signal.getsignal(number) is handler
    kept = sorted(path.suffixes for path in (tmp_path / "partial").rglob("*.*"))
    assert kept == [[".plan", ".json"], [".safetensors"]] and list((tmp_path / "cells").iterdir()) == []
    seen: list[Progress] = []
    result = runner.run(LONG, tmp_path, progress=seen.append)
    assert seen[0].step > 1000 and seen[-1].done == seen[-1].total == 3 * 64 * 3000
    assert 0 < result.replica_steps < 3 * 64 * 2001
    assert tables(tmp_path, LONG) == tables(undisturbed, LONG)
    assert list((tmp_path / "partial").iterdir()) == []


@pytest.mark.slow
def test_slices_change_nothing(tmp_path: Path, undisturbed: Path) -> None:
    result = runner.run(LONG, tmp_path, slice_seconds=0)
    assert result.replica_steps == 3 * 64 * 3000
    assert tables(tmp_path, LONG) == tables(undisturbed, LONG)


class Clocked(Local):
    """Says of every slice that it took ten seconds, and counts them."""

    slices = 0

    def submit(self, number: int, task: Task) -> None:
        super().submit(number, task)
        self.slices += isinstance(task, Walk)

    def wait(self, seconds: float) -> tuple[int, Outcome]:
        number, outcome = super().wait(seconds)
        return number, Outcome(outcome.result, 10.0)


@pytest.mark.slow
@pytest.mark.parametrize("block_replicas", [None, 3], ids=["one block", "blocks"])
def test_a_cell_took_the_time_of_all_its_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_replicas: int | None
) -> None:
    """Of earlier runs too, which were interrupted; not that in which it is measured."""
    monkeypatch.setattr("kdsim.engines.torch_batched.CHUNK_VISITS", {"cpu": 8})
    study, ended = Tiny(steps=12, supervisions=(OneHot(),)), []
    for last_slice in (4, 3, 10**6):
        clock = Clocked()

        def stop(state: Progress, clock: Clocked = clock, last: int = last_slice) -> None:
            if clock.slices >= last:
                os.kill(os.getpid(), signal.SIGINT)

        options = {"executor": clock, "progress": stop, "slice_seconds": -1.0, "block_replicas": block_replicas}
        try:
            result = runner.run(study, tmp_path, **options)
        except Interrupted:
            assert last_slice < 10**6
        ended.append(clock.slices)
    assert len(ended) == 3 and min(ended) > 1
    assert result.engine_seconds == 10.0 * ended[-1]
    assert Store(tmp_path).read_info(result.rows[0]["cell"])["wall_seconds"] == pytest.approx(10.0 * sum(ended))


def test_cells_of_a_pack_share_its_time_by_their_replicas(tmp_path: Path) -> None:
    few, many = (replace(cell, replicas=n) for cell, n in zip(Tiny(steps=12).cells(), (2, 6), strict=False))

    class Two(Tiny):
        def cells(self) -> tuple[Cell, ...]:
            return few, many

    rows = runner.run(Two(steps=12), tmp_path, executor=Clocked()).rows
    assert [Store(tmp_path).read_info(row["cell"])["wall_seconds"] for row in rows] == [2.5, 7.5]


@pytest.mark.slow
@pytest.mark.parametrize("code", NO_LOCKS)
def test_a_run_without_locks_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refused(file: int, operation: int) -> None:
        raise OSError(code, "no locks")

    notes: list[str] = []
    monkeypatch.setattr("fcntl.flock", refused)
    result = runner.run(Tiny(steps=20), tmp_path, note=notes.append, block_replicas=8)
    assert len(result.rows) == 3
    assert notes == ["the results folder is on a file system without locks: processes that share it may work twice"]


@pytest.mark.slow
def test_a_failing_pack_keeps_the_others(tmp_path: Path) -> None:
    result = runner.run(Mixed(), tmp_path)
    assert [row["problem"] for row in result.rows] == ["small-pool"] * 3
    assert len(result.failures) == 1 and not result.user_error
    assert result.failures[0].startswith("3 cells of broken (exact, one-hot, halfway) failed: RuntimeError: no pool (")
    assert read_study(result.folder).info["failures"] == result.failures


def test_a_run_that_gives_nothing_is_not_stored(tmp_path: Path) -> None:
    result = runner.run(Tiny(problem=Broken()), tmp_path)
    assert result.rows == [] and len(result.failures) == 1
    assert not (result.folder / STUDY_FILE).exists()


def test_a_damaged_cell_stops_the_run_before_anything_is_computed(tmp_path: Path) -> None:
    result = runner.run(Tiny(), tmp_path)
    (Store(tmp_path).cell_folder(result.rows[0]["cell"]) / CURVES_FILE).write_bytes(b"")
    with pytest.raises(ConfigError, match="delete it, and run-study runs the cell again"):
        runner.run(Tiny(), tmp_path)


def test_engine_and_device_are_looked_up_before_the_folder_is_made(tmp_path: Path) -> None:
    for study, message in ((Tiny(engine="torhc"), "nearest: torch"), (Tiny(device="cuda:99"), "not available here")):
        with pytest.raises(ConfigError, match=message):
            runner.run(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_packs_share_everything_but_the_lane() -> None:
    cells = Tiny().cells()
    other_seed, other_alpha = replace(cells[0], seed=1), replace(cells[0], step_size=0.01, replicas=5)
    found = packs.packs([cells[0], other_seed, cells[1], other_alpha, cells[0]])
    assert [pack.cells for pack in found] == [(cells[0], cells[1], other_alpha), (other_seed,)]
    assert found[0].replicas == 8 + 8 + 5


LANE = ("supervision", "step_size", "replicas")
OTHERS = {
    "problem": SmallPool(samples=65),
    "student": SoftmaxRegression(0.2, "centred"),
    "sgd": SGD(400, dtype="float64"),
    "recording": Recording(checkpoints=8, tail_stride=5),
    "seed": 1,
    "engine": "autograd",
    "device": "cuda",
}
"""What the cells of a pack may differ in; and another value of every field that they share."""


@pytest.mark.parametrize("name", [item.name for item in fields(Cell) if item.name not in LANE])
def test_cells_that_differ_in_what_a_pack_shares_are_two_packs(name: str) -> None:
    cell = Tiny().cells()[0]
    pair = [cell, replace(cell, **{name: OTHERS[name]})]
    assert len(packs.packs(pair, choose=lambda cell: Choice(cell.engine, ""))) == 2


def test_pools_and_packs_that_are_kept_are_those_that_are_asked_for() -> None:
    """Of another problem or seed another pool, and of another engine, which the digest does not tell, another pack."""
    cell = Tiny().cells()[0]
    others = [cell, replace(cell, seed=1), replace(cell, problem=SmallPool(samples=65)), cell]
    for each in others:
        assert torch.equal(packs.pool(each).x, each.problem.population(each.seed).x)
    assert packs.pool(cell) is packs.pool(replace(cell, step_size=0.01))  # which is kept
    first, second = (packs.Pack((cell,), Choice(engine, "")) for engine in ("torch", "autograd"))
    assert first.digest == second.digest
    assert [work.prepared(pack).pack.choice.engine for pack in (first, second)] == ["torch", "autograd"]
    assert work.prepared(first) is work.prepared(first)


@pytest.mark.slow
def test_estimate_counts_and_times() -> None:
    started = time.monotonic()
    cost = packs.estimate(Tiny(steps=4_000_000))
    assert time.monotonic() - started < 20
    assert (cost.cells, cost.packs, cost.replica_steps) == (3, 1, 3 * 8 * 4_000_000)
    assert cost.seconds > 20


def test_predicted_rows_match_the_stored_predictions(tmp_path: Path) -> None:
    study = Tiny()
    for predicted, stored in zip(packs.predicted_rows(study), runner.run(study, tmp_path).rows, strict=True):
        assert predicted.items() <= stored.items()
        assert "floor" not in predicted
