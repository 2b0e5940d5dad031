"""Several processes on one results folder: each leaves the others' work alone, and all end with the same tables."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from fault_simulations import FaultSimulations
from fault_trainings import FaultTrainings
from processes import Child, leftovers, save_often, stored

from kdsim.config import digest
from kdsim.results.unfinished import Unfinished
from kdsim.study import runner
from kdsim.study.base import Study
from kdsim.study.packs import packs

LONG = FaultSimulations("autograd", steps=10_000, replicas=20, seeds=(0, 1))
BLOCKS = 9


def finished(study: Study, out: Path, locks: bool = True) -> int:
    """Run a study to its end. Returns the replica-steps that it took."""
    save_often()
    if not locks:  # each process has its own
        lock = Unfinished.lock
        Unfinished.lock = lambda self, name: lock(self, f"{name}-{os.getpid()}")
    result = runner.run(study, out, block_replicas=BLOCKS if isinstance(study, FaultSimulations) else None)
    assert not result.failures, result.failures
    return result.replica_steps


def together(*runs: tuple[Any, ...]) -> list[int]:
    """Run several at once."""
    return [child.result() for child in [Child(finished, *run) for run in runs]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What one process stores, and its replica-steps."""
    out = tmp_path_factory.mktemp("alone")
    steps = Child(finished, LONG, out).result()
    return stored(out), steps


@pytest.mark.slow
def test_the_same_study_twice_at_once(tmp_path: Path, alone: tuple[dict[str, Any], int]) -> None:
    """Nothing is done twice."""
    expected, steps = alone
    assert sum(together((LONG, tmp_path), (LONG, tmp_path))) == steps
    assert stored(tmp_path) == expected and not leftovers(tmp_path)


@pytest.mark.slow
def test_trainings_twice_at_once(tmp_path: Path) -> None:
    alone = Child(finished, FaultTrainings(60), tmp_path / "alone").result()
    assert sum(together(*[(FaultTrainings(60), tmp_path / "out")] * 2)) == alone
    assert stored(tmp_path / "out") == stored(tmp_path / "alone") and not leftovers(tmp_path / "out")


@pytest.mark.slow
def test_studies_that_overlap(tmp_path: Path, alone: tuple[dict[str, Any], int]) -> None:
    """One has the seeds 0 and 1, the other 1 and 2; at worst each does the common one before it sees the other's."""
    expected, steps = alone
    other = FaultSimulations("autograd", steps=10_000, replicas=20, seeds=(1, 2))
    assert sum(together((LONG, tmp_path), (other, tmp_path))) == steps * 3 // 2
    found = stored(tmp_path)
    assert {name: found[name] for name in expected} == expected and not leftovers(tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == 9


@pytest.mark.slow
def test_one_is_killed_while_the_other_waits_for_it(tmp_path: Path, alone: tuple[dict[str, Any], int]) -> None:
    """The other goes on with what is saved."""
    study = FaultSimulations("autograd", steps=30_000, replicas=20, seeds=(0,))
    Child(finished, study, tmp_path / "alone").result()
    first = Child(finished, study, tmp_path / "out")
    pack = packs(study.cells(), BLOCKS)[0].digest
    while not list((tmp_path / "out" / "partial").rglob(f"{pack}*.safetensors")):
        assert first.process.is_alive()
        time.sleep(0.01)
    second = Child(finished, study, tmp_path / "out")
    time.sleep(0.1)
    first.signal(signal.SIGKILL)
    assert first.ended() == -signal.SIGKILL
    total = sum(cell.replicas * cell.sgd.steps for cell in study.cells())
    assert 0 < second.result() < total
    assert stored(tmp_path / "out") == stored(tmp_path / "alone") and not leftovers(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("study", [LONG, FaultTrainings(60)], ids=["simulations", "trainings"])
def test_without_locks_both_are_right(tmp_path: Path, study: Study) -> None:
    """On a file system that knows no locks work is done twice, and states and blocks may be another's."""
    Child(finished, study, tmp_path / "alone").result()
    expected = stored(tmp_path / "alone")
    together(*[(study, tmp_path / "out", False)] * 3)
    assert stored(tmp_path / "out") == expected


@pytest.mark.slow
def test_a_cell_that_another_process_has_stored_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process stores all cells, and forgets the blocks, while this one is at its last block."""
    from kdsim.study.local import Local

    study, wait, count = FaultSimulations(steps=40, replicas=6, seeds=(0,)), Local.wait, 0

    def watched(self: Local, seconds: float) -> Any:
        nonlocal count
        ended = wait(self, seconds)
        count += 1
        if count == 2:  # of three blocks of the first cell
            with monkeypatch.context() as patch:
                patch.setattr(Local, "wait", wait)
                patch.setattr(Unfinished, "lock", lambda self, name: lock(self, f"{name}-other"))
                runner.run(study, tmp_path, block_replicas=2)
        return ended

    lock = Unfinished.lock
    monkeypatch.setattr(Local, "wait", watched)
    result = runner.run(study, tmp_path, block_replicas=2)
    assert not result.failures and [row["cell"] for row in result.rows] == [digest(cell) for cell in study.cells()]
    assert not leftovers(tmp_path)
