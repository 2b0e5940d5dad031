"""Killed or told to stop at any moment, a study goes on with the same command and ends as an undisturbed one."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fault_simulations import FaultSimulations
from fault_trainings import FaultTrainings
from killing import killed_at, operations
from processes import (
    SIMULATIONS,
    TRAININGS,
    Child,
    Ended,
    finish_study,
    in_child,
    leftovers,
    run_study,
    save_often,
    stored,
)
from tiny_network import TINY

from kdsim.study import runner
from kdsim.study.base import Study
from kdsim.study.runner import Interrupted, Progress

BLOCKS = FaultSimulations("autograd", steps=1500, replicas=20, seeds=(0,))
CHUNKS = {"block_replicas": 9, "slice_seconds": 0.0}
"""Cells of three blocks, each of several chunks of the engine."""
KILLS = 3
"""Kills at each kind of operation on files, if there are so many of it."""


# At every operation -----------------------------------------------------------------------------


def killed_at_each(study: Study, folder: Path, options: dict[str, Any]) -> Counter[str]:
    """Kill a run of a study at the first and the last of its operations of each kind on files, and at some between
    them, and let it go on each time. Returns how many were killed at which."""
    save_often()
    lengths: list[int] = []  # of slices, in replica-steps
    last = 0

    def progress(state: Progress) -> None:
        nonlocal last
        lengths.append(state.done - last)
        last = state.done

    with operations(lambda name, number: None) as counts:
        undisturbed = runner.run(study, folder / "undisturbed", progress=progress, **options)
    expected, met = stored(folder / "undisturbed"), Counter()
    for name, count in counts.items():
        for number in sorted({1 + part * (count - 1) // (KILLS - 1) for part in range(KILLS)}):
            out = folder / f"killed-{name}-{number}"
            killed, done = killed_at(name, number, study, out, **options)
            result = runner.run(study, out, **options)
            assert not result.failures and stored(out) == expected, (name, number)
            assert not leftovers(out), (name, number)
            met[name] += killed  # chunks take their time, so that another run may have fewer of them
            assert not killed or done + result.replica_steps - undisturbed.replica_steps <= max(lengths), (name, number)
    return met


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "options"),
    [(FaultSimulations("cpu_fused", seeds=(0,)), {}), (BLOCKS, CHUNKS), (FaultTrainings(), {})],
    ids=["cells", "blocks", "trainings"],
)
def test_killed_at_any_operation_on_files(tmp_path: Path, study: Study, options: dict[str, Any]) -> None:
    """Amid a write, before a rename, between a cell and the end of its plan: all is found by going through them."""
    met = in_child(killed_at_each, study, tmp_path, options)
    assert {"write", "unlink", "rename", "replace", "mkdir"} <= met.keys() and min(met.values()) >= 1, met


# At random moments ------------------------------------------------------------------------------

TEACHERS = {
    "pairs": f"{TINY} to {TINY}",
    "kinds": "deterministic,laplace",
    "recipes": "crd",
    "epochs": "2",
    "teacher_epochs": "2",
    "samples": "2",
    "replicas": "2",
    "evaluations": "4",
    "data.problem.samples": "200",
    "data.problem.validation_samples": "60",
    "data.problem.test_samples": "60",
}
"""Of teacher-kinds: trainings of networks, and fits of teachers to them."""
RUNS = {
    "cpu_fused": (SIMULATIONS, "--set", "engine=cpu_fused", "--set", "steps=60000", "--set", "seeds=0,1,2"),
    "torch": (SIMULATIONS, "--set", "engine=torch", "--set", "steps=3000", "--replicas", "64"),
    "autograd": (SIMULATIONS, "--set", "engine=autograd", "--set", "steps=10000", "--block-replicas", "5"),
    "trainings": (TRAININGS, "--set", "steps=60"),
    "teachers": ("teacher-kinds", *(text for item in TEACHERS.items() for text in ("--set", "=".join(item)))),
}


def once(file: str, out: Path, *arguments: str) -> Ended:
    save_often()
    out.with_name("begun").touch()
    return run_study(file, out, *arguments)


def cpu_seconds_of(file: str, out: Path, *arguments: str) -> float:
    save_often()
    started = time.process_time()
    finish_study(file, out, *arguments)
    return time.process_time() - started


def compute(child: Child, seconds: float) -> None:
    """Let it have the processor for so long from now on, however long that takes."""
    end = child.cpu_seconds() + seconds
    while child.cpu_seconds() < end:
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_killed_at_random_moments(tmp_path: Path, name: str) -> None:
    command, generator, killed = RUNS[name], random.Random(name), 0
    seconds = in_child(cpu_seconds_of, command[0], tmp_path / "undisturbed", *command[1:])
    for _ in range(4):
        child = Child(once, command[0], tmp_path / "killed", *command[1:])
        compute(child, generator.uniform(0, seconds / 3))
        child.signal(signal.SIGKILL)
        killed += child.ended() == -signal.SIGKILL
    assert killed >= 2
    in_child(finish_study, command[0], tmp_path / "killed", *command[1:])
    assert stored(tmp_path / "killed") == stored(tmp_path / "undisturbed") and not leftovers(tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGTERM,) * 2])
def test_told_to_stop_at_random_moments(tmp_path: Path, signals: tuple[signal.Signals, ...]) -> None:
    """It says how to go on, if it was computing or storing; else it ends as any command does."""
    command, generator, told = RUNS["torch"], random.Random(len(signals)), 0
    seconds = in_child(cpu_seconds_of, command[0], tmp_path / "undisturbed", *command[1:])
    for trial in range(3):
        (tmp_path / "begun").unlink(missing_ok=True)
        child = Child(once, command[0], tmp_path / "stopped", *command[1:])
        sign = "begun" if trial else "stopped/partial/*/*.lock"  # once as soon as it computes
        while not any(tmp_path.glob(sign)) and child.process.is_alive():
            time.sleep(0.005)
        if trial:
            compute(child, generator.uniform(0.01, seconds / 2))
        for number in signals:
            child.signal(number)
        try:
            ended = child.result()
        except AssertionError as failure:
            # While it was reading the study file or drawing; or before the command began.
            outside = "KeyboardInterrupt" in str(failure) and "cli.py" not in str(failure)
            assert child.ended() == -signal.SIGTERM or outside, failure
            continue
        assert ended.code in (0, 130), ended
        if ended.code == 130:
            said = r"kdsim: interrupted.*; \d of 6 cells are stored in '.*'; the same command goes on from there\n"
            told += bool(re.fullmatch(said, ended.err))
            assert re.fullmatch(said, ended.err) or ended.err == "kdsim: interrupted\n", ended
    in_child(finish_study, command[0], tmp_path / "stopped", *command[1:])
    assert stored(tmp_path / "stopped") == stored(tmp_path / "undisturbed") and not leftovers(tmp_path / "stopped")
    assert told


# Without another process ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_each_step_in_turn(tmp_path: Path, number: signal.Signals) -> None:
    """Told to stop at its first sign of life, again and again, it still comes to its end, and does nothing twice."""
    study, done, runs = FaultSimulations("torch", steps=6000, replicas=64, seeds=(0,)), 0, 0
    undisturbed = runner.run(study, tmp_path / "undisturbed")

    def stop(state: Progress) -> None:
        nonlocal done
        done = state.done
        os.kill(os.getpid(), number)

    while True:
        try:
            result = runner.run(study, tmp_path / "out", progress=stop)
            break
        except Interrupted as told:
            runs, before = runs + 1, done
            assert "the same command goes on from there" in str(told) and runs < 50
    assert runs >= 2 and result.replica_steps == undisturbed.replica_steps - before
    assert stored(tmp_path / "out") == stored(tmp_path / "undisturbed") and not leftovers(tmp_path / "out")


@pytest.mark.slow
def test_two_interrupts_end_it_at_once(tmp_path: Path) -> None:
    study = FaultSimulations("torch", steps=2500, seeds=(0,))

    def twice(state: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        runner.run(study, tmp_path / "out", progress=twice)
    runner.run(study, tmp_path / "out")
    runner.run(study, tmp_path / "undisturbed")
    assert stored(tmp_path / "out") == stored(tmp_path / "undisturbed") and not leftovers(tmp_path / "out")


# The soak of benchmarks/ --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "kills", "steps"), [("local", 4, 20_000), ("dask", 1, 40_000)])
def test_a_short_soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str, kills: int, steps: int) -> None:
    """A small version of `python -m benchmarks.soak`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    if executor == "dask":
        pytest.importorskip("distributed")
    soak = pytest.importorskip("benchmarks.soak")
    monkeypatch.setattr(soak, "SETTINGS", {"steps": steps, "replicas": 64, "levels": 1})
    monkeypatch.setattr(soak, "GAP_SECONDS", 0.5)
    found = soak.soak(kills, executor, workers=2, seed=1, folder=tmp_path)
    assert found["identical"] and found["kills"] == kills and found["cells"] == 6, found
