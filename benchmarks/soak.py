"""A study is killed a hundred times at random moments, goes on each time, and ends as an undisturbed one.

    python -m benchmarks.soak [--kills 100] [--executor local|dask] [--workers 2] [--seed 0]

local: the process that runs the study is killed (SIGKILL) and started again. It is a fork of this one, so that it
starts within a tenth of a second and nearly all kills meet work. Delays are uniform on twice the time left over the
kills left, so that they are spread over the whole run.
dask: `kdsim run-study --executor dask` runs; one of its workers is killed at random, and every fifth time the process
that runs the study, which is then started again.

A study that ends before all kills are made is run again in a fresh folder. All tables are compared byte by byte with
those of an undisturbed local run, and the numbers of each cell but for times. The result goes to
benchmarks/results/soak-<executor>.json. Linux only.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.machine import hardware, versions
from kdsim.results.store import Store
from kdsim.results.unfinished import Unfinished
from kdsim.studies import NoiseSweep
from kdsim.study import runner, session
from kdsim.study.executors import Finish, Walk
from kdsim.study.local import Local
from kdsim.study.packs import cells_of
from kdsim.tensors import read_checked

RESULTS = Path(__file__).parent / "results"
SETTINGS = {"steps": 150_000, "replicas": 128}
"""Of noise-sweep: some hundred million replica-steps."""
BLOCK_REPLICAS = 256
SLICE_SECONDS = 0.2
GAP_SECONDS = 4.0
"""Longest time between two kills with dask, after both workers are there again."""
PHASES = ("starting", "simulating", "measuring", "storing", "storing the study")
PATIENCE_SECONDS = 60.0
"""Time in which workers must notice that the process is gone that started them."""
POLL_SECONDS = 0.05


def study_of() -> NoiseSweep:
    """The study that is killed."""
    return NoiseSweep(**SETTINGS)


@dataclass
class Found:
    """What came of it so far.

    Attributes:
        folder: of all rounds.
        expected: what an undisturbed run has stored, see `stored`.
        undisturbed_seconds: that it took.
        phases: kills, by what was going on, or by who was killed.
        lost_seconds: for each kill of a fork, the time since it had stored something, or since it had started.
        rounds: fresh folders.
        different: what two runs did not agree on.
        failed_runs: runs that ended with failures.
    """

    folder: Path
    expected: dict[str, Any]
    undisturbed_seconds: float
    phases: collections.Counter[str] = field(default_factory=collections.Counter)
    lost_seconds: list[float] = field(default_factory=list)
    rounds: int = 0
    different: list[str] = field(default_factory=list)
    failed_runs: int = 0

    @property
    def kills(self) -> int:
        """That met a running process."""
        return sum(self.phases.values())

    def next_round(self) -> Path:
        """A fresh folder."""
        self.rounds += 1
        return self.folder / f"round-{self.rounds}"

    def compare(self, out: Path) -> None:
        """Hold a finished folder against the undisturbed one; nothing may be left over in it."""
        found = stored(out)
        names = [name for name in self.expected.keys() | found.keys() if self.expected.get(name) != found.get(name)]
        rest = [str(path.relative_to(out)) for path in (*(out / "partial").iterdir(), *out.rglob(".*"))]
        self.different += [f"round {self.rounds}: {name}" for name in sorted(names + rest)]


# What is on disk --------------------------------------------------------------------------------


def stored(out: Path) -> dict[str, Any]:
    """Bytes of all tables, and the numbers of all cells."""
    tables = out.glob("cells/*/*.parquet")
    found: dict[str, Any] = {file.relative_to(out).as_posix(): file.read_bytes() for file in tables}
    for file in out.glob("cells/*/cell.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        found[file.parent.name] = [content[key] for key in ("cell", "summary", "prediction", "measurement")]
    return found


def _cell_steps(out: Path) -> dict[str, int]:
    """Replica-steps of each stored cell."""
    names = [name for name in os.listdir(out / "cells") if not name.startswith(".")]
    return {name: Store(out).read_info(name)["replica_steps"] for name in names}


def kept_steps(out: Path) -> int:
    """Replica-steps that the next run need not do again."""
    store, steps = Store(out), _cell_steps(out)
    total = sum(steps.values())
    for plan in store.unfinished.plans():
        done = 0
        for file in store.unfinished.folder.glob(f"{plan.pack}*.safetensors"):
            content = read_checked(file)
            if "state" in content:
                done += content["state"]["step"] * len(content["state"]["error"])
            else:
                record = content["record"]
                done += int(record["steps"][-1]) * len(record["diverged_at"])
        total += max(done - sum(steps.get(cell, 0) for cell in plan.cells), 0)
    return total


# Killing the process ----------------------------------------------------------------------------


class Board:
    """What a fork shares with this process: its phase, and when it last stored something, by the monotonic clock."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def write(self, phase: str) -> None:
        """A phase begins; what was stored in the one before is stored."""
        if phase == "starting" or self.phase.startswith("storing"):
            self._memory[:8] = struct.pack("d", time.monotonic())
        self._memory[8:] = struct.pack("q", PHASES.index(phase))

    @property
    def phase(self) -> str:
        """What it is doing."""
        return PHASES[struct.unpack("q", self._memory[8:])[0]]

    @property
    def stored(self) -> float:
        """When it last stored something, or started."""
        return struct.unpack("d", self._memory[:8])[0]


def _watch(board: Board) -> None:
    """From now on the board says in which phase this process is."""

    def within(phase: Callable[..., str], owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            before = board.phase
            board.write(phase(*arguments))
            try:
                return function(*arguments, **named)
            finally:
                board.write(before)

        setattr(owner, name, call)

    kinds = {Walk: "simulating", Finish: "measuring"}
    submit = Local.submit

    def submitted(self: Local, number: int, task: Any) -> None:
        self.soak_phase = kinds.get(type(task), "simulating")
        submit(self, number, task)

    Local.submit = submitted
    within(lambda self, seconds: self.soak_phase, Local, "wait")
    within(lambda *_: "storing the study", Store, "write_study")
    for owner, name in (
        (Unfinished, "write_plan"), (Unfinished, "forget"), (session, "write_state"), (session, "write_block"),
    ):  # fmt: skip
        within(lambda *_: "storing", owner, name)
    within(lambda *_: "storing", Store, "write_tables")


def _fork(study: NoiseSweep, out: Path, board: Board) -> int:
    """Run the study in a process of its own. Returns its id; it ends with 0."""
    board.write("starting")
    process = os.fork()
    if process:
        return process
    try:
        _watch(board)
        result = runner.run(study, out, slice_seconds=SLICE_SECONDS, block_replicas=BLOCK_REPLICAS)
        os._exit(1 if result.failures else 0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _ended(process: int) -> int:
    """Exit code of a fork; minus the signal's number of a killed one."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def soak_local(found: Found, kills: int, generator: random.Random) -> None:
    """Kill the process that runs the study."""
    board, study = Board(), study_of()
    total = sum(cell.replicas * cell.sgd.steps for cell in study.cells())
    while found.kills < kills:
        out, status = found.next_round(), None
        Store(out).prepare()
        while status != 0:
            kept, left = kept_steps(out), kills - found.kills
            process = _fork(study, out, board)
            if left:
                time.sleep(generator.uniform(0, 2 * found.undisturbed_seconds * (1 - kept / total) / left))
                killed = time.monotonic()
                os.kill(process, signal.SIGKILL)
            status = _ended(process)
            if status != 0:
                if status != -signal.SIGKILL:
                    sys.exit(f"a run ended with exit code {status}")
                found.phases[board.phase] += 1
                found.lost_seconds.append(killed - board.stored)
        found.compare(out)


# Killing workers --------------------------------------------------------------------------------


def _workers(process: int) -> list[psutil.Process]:
    """Worker processes of a local cluster."""
    found = []
    with suppress(psutil.Error):  # one has ended meanwhile
        for child in psutil.Process(process).children(recursive=True):
            if any("spawn_main" in text for text in child.cmdline()):
                found.append(child)
    return found


def soak_dask(found: Found, kills: int, workers: int, generator: random.Random) -> None:
    """Kill workers of a local cluster, and every fifth time the process that runs the study."""
    settings = [text for key, value in SETTINGS.items() for text in ("--set", f"{key}={value}")]
    options = ["--executor", "dask", "--workers", str(workers), "--block-replicas", str(BLOCK_REPLICAS), "--json"]
    while found.kills < kills:
        out, status = found.next_round(), None
        while status != 0:
            command = [sys.executable, "-m", "kdsim.cli", "run-study", NoiseSweep.name, "--out", str(out)]
            started = time.time()
            process = subprocess.Popen([*command, *settings, *options], stdout=subprocess.DEVNULL)
            while process.poll() is None and found.kills < kills:
                victims = _workers(process.pid)
                if len(victims) < workers or not _begun(out, started):
                    time.sleep(POLL_SECONDS)
                    continue
                time.sleep(generator.uniform(0, GAP_SECONDS))
                if process.poll() is not None:
                    break
                if found.kills % 5 == 4:
                    process.kill()
                    found.phases["client"] += 1
                    psutil.wait_procs(victims, PATIENCE_SECONDS)  # they end when they notice
                else:
                    with suppress(psutil.NoSuchProcess):
                        generator.choice(victims).kill()
                        found.phases["worker"] += 1
            status = process.wait()
            if status not in (0, 1, -signal.SIGKILL):
                sys.exit(f"a run ended with exit code {status}")
            found.failed_runs += status == 1  # a task whose workers died too often; the same command goes on
        found.compare(out)


def _begun(out: Path, started: float) -> bool:
    """Whether this run has begun to compute: it holds locks, or has stored something."""
    for path in (*out.glob("partial/*/*"), *out.glob("cells/*")):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime > started:
                return True
    return False


# Together ---------------------------------------------------------------------------------------


def soak(kills: int, executor: str, workers: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill, resume and compare, in a folder. Returns what is written."""
    torch.set_num_threads(1)  # of forks: another thread of torch would not be there
    started = time.monotonic()
    runner.run(study_of(), folder / "undisturbed", block_replicas=BLOCK_REPLICAS, slice_seconds=SLICE_SECONDS)
    found = Found(folder, stored(folder / "undisturbed"), time.monotonic() - started)
    generator = random.Random(seed)
    if executor == "local":
        soak_local(found, kills, generator)
    else:
        soak_dask(found, kills, workers, generator)
    return {
        "date": datetime.date.today().isoformat(),
        "command": f"python -m benchmarks.soak --kills {kills} --executor {executor} --seed {seed}"
        + (f" --workers {workers}" if executor == "dask" else ""),
        "hardware": hardware(),
        "versions": versions(),
        "study": NoiseSweep.name,
        "settings": SETTINGS,
        "block_replicas": BLOCK_REPLICAS,
        "cells": len(cells_of(study_of())),
        "undisturbed_seconds": found.undisturbed_seconds,
        "seconds": time.monotonic() - started,
        "kills": found.kills,
        "killed_while": dict(found.phases),
        "rounds": found.rounds,
        "failed_runs": found.failed_runs,
        "lost_seconds": {
            "mean": sum(found.lost_seconds) / max(len(found.lost_seconds), 1),
            "most": max(found.lost_seconds, default=None),
        },
        "replica_steps": sum(cell.replicas * cell.sgd.steps for cell in cells_of(study_of())),
        "different": found.different,
        "identical": not found.different,
    }


def main() -> None:
    """Soak, write, and say so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--executor", choices=("local", "dask"), default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(chosen.kills, chosen.executor, chosen.workers, chosen.seed, Path(folder))
    text = json.dumps(found, indent=1) + "\n"
    (RESULTS / f"soak-{chosen.executor}.json").write_text(text, encoding="utf-8")
    print(text)
    if found["different"]:
        sys.exit("the tables differ")


if __name__ == "__main__":
    main()
