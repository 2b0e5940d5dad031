"""What runs on the workers of a cluster is what runs here, bit for bit. Lost workers: tests/faults/test_kills.py."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from distributed import Client, Future, LocalCluster
from distributed.comm import CommClosedError
from given import Given
from tiny_study import Tiny

from kdsim import study_files
from kdsim.cli import main
from kdsim.config import ConfigError, digest
from kdsim.data import KnownPoints
from kdsim.problems import SoftmaxLinear
from kdsim.results.store import Store
from kdsim.results.tables import CURVES_FILE, REPLICAS_FILE
from kdsim.study import loading, on_dask, runner
from kdsim.study.dask_worker import Sent, choice_on_worker, packed, run_task
from kdsim.study.executors import ExecutorGone, Failed, Walk
from kdsim.study.loading import import_study_file
from kdsim.study.on_dask import OnDask
from kdsim.study.packs import packs
from kdsim.study.runner import Interrupted, Progress
from kdsim.teachers import Deterministic
from kdsim.trainer import PointNetwork, StudentTrainer
from kdsim.training import Recipe

TINY = Path(__file__).parent.parent / "tiny_study.py"
BLOCK = 7
"""Cells of eight replicas then run in two blocks."""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """One worker in a thread of this process."""
    with (
        LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster) as connected,
    ):
        yield connected


@pytest.fixture
def executor(client: Client) -> OnDask:
    return OnDask(client, False, lambda line: None)


def tables(out: Path, study: Tiny) -> list[bytes]:
    folders = [Store(out).cell_folder(digest(cell)) for cell in study.cells()]
    return [(folder / name).read_bytes() for folder in folders for name in (CURVES_FILE, REPLICAS_FILE)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "block"),
    [("cpu_fused", BLOCK), ("torch", BLOCK), ("torch", 10), ("torch", 1000), ("autograd", 1000)],
)
def test_results_are_those_of_a_local_run(tmp_path: Path, executor: OnDask, engine: str, block: int) -> None:
    """Several blocks a cell, a pack a cell, one pack; theory and measurement included."""
    study = Tiny(engine=engine, supervisions=Tiny().supervisions[: 2 if engine == "cpu_fused" else 3])
    here = runner.run(study, tmp_path / "here", block_replicas=block)
    seen: list[Progress] = []
    there = runner.run(study, tmp_path / "there", executor=executor, block_replicas=block, progress=seen.append)
    assert there.rows == here.rows and there.failures == []
    assert tables(tmp_path / "there", study) == tables(tmp_path / "here", study)
    assert there.replica_steps == here.replica_steps == len(study.cells()) * 8 * 400
    assert list((tmp_path / "there" / "partial").iterdir()) == []
    for name in ("pack", "block_replicas", "engine"):
        infos = [Store(tmp_path / out).read_info(digest(study.cells()[0]))[name] for out in ("here", "there")]
        assert infos[0] == infos[1]


@pytest.mark.slow
def test_slices_change_nothing(tmp_path: Path, executor: OnDask) -> None:
    """A state travels to the worker and back after every chunk of steps."""
    study = Tiny(steps=3000)
    seen: list[Progress] = []
    runner.run(study, tmp_path / "slices", executor=executor, slice_seconds=0, progress=seen.append)
    runner.run(study, tmp_path / "here", block_replicas=on_dask.BLOCK_REPLICAS)
    assert tables(tmp_path / "slices", study) == tables(tmp_path / "here", study)
    assert [state.done for state in seen] == sorted(state.done for state in seen) and len(seen) > 1


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_goes_on(tmp_path: Path, executor: OnDask) -> None:
    """By a signal once the worker has reported progress."""
    study = Tiny(steps=40_000, supervisions=Tiny().supervisions[:1])

    def stop(state: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"interrupted at step \d+ of 40000; 0 of 1 cells are stored"):
        runner.run(study, tmp_path / "out", executor=executor, progress=stop)
    assert len(list((tmp_path / "out" / "partial").rglob("*.safetensors"))) == 1
    result = runner.run(study, tmp_path / "out", executor=executor)
    assert 0 < result.replica_steps < 8 * 40_000
    runner.run(study, tmp_path / "here", block_replicas=on_dask.BLOCK_REPLICAS)
    assert tables(tmp_path / "out", study) == tables(tmp_path / "here", study)


@pytest.mark.slow
def test_trainings_and_their_teacher(tmp_path: Path, executor: OnDask) -> None:
    """The student waits for its teacher's training, though three tasks are taken at a time."""
    data = KnownPoints(SoftmaxLinear(classes=3, dimension=4, samples=128), validation_samples=32, test_samples=32)
    teacher = StudentTrainer(PointNetwork("linear"), data, recipe=Recipe(epochs=2, batch_size=8), replicas=2)
    student = replace(teacher, supervision=Deterministic(teacher))
    other = replace(teacher, seed=3)
    result = runner.run(Given((student, other, teacher)), tmp_path / "there", executor=executor)
    assert result.failures == [] and len(result.rows) == 3
    runner.run(Given((student, other, teacher)), tmp_path / "here")
    for cell in (student, other, teacher):
        here, there = (Store(tmp_path / out).read_cell(digest(cell)) for out in ("here", "there"))
        assert here.curves.equals(there.curves)


@pytest.mark.slow
def test_a_failing_pack_keeps_the_others(tmp_path: Path, executor: OnDask) -> None:
    from test_runner import Mixed

    result = runner.run(Mixed(), tmp_path, executor=executor)
    assert [row["problem"] for row in result.rows] == ["small-pool"] * 3
    assert len(result.failures) == 1 and "failed: RuntimeError: no pool" in result.failures[0]


def test_a_gpu_that_no_worker_has_is_refused(tmp_path: Path, executor: OnDask) -> None:
    with pytest.raises(ConfigError, match=r"device = 'cuda' is not available on any worker: start workers with"):
        runner.run(Tiny(device="cuda"), tmp_path / "out", executor=executor)
    assert not (tmp_path / "out").exists()


def test_a_worker_of_another_kdsim_is_refused(
    tmp_path: Path, executor: OnDask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the run, and for workers that come later with each task."""
    sources = iter(range(9))  # each that is asked has another
    monkeypatch.setattr(on_dask, "versions", lambda: {"source_sha256": next(sources)})
    with pytest.raises(ConfigError, match="has another kdsim than this process"):
        runner.run(Tiny(), tmp_path, executor=executor)
    monkeypatch.undo()
    monkeypatch.setattr(OnDask, "check", lambda self, cells: None)
    sent = Sent("token", 1, "other source", 1.0, False, None)
    found = pickle.loads(executor.client.submit(run_task, sent, packed(None), pure=False).result())
    assert isinstance(found.result, Failed) and "has another kdsim" in found.result.line and found.result.user_error


def test_a_lost_scheduler_is_one_line(monkeypatch: pytest.MonkeyPatch, executor: OnDask) -> None:
    """Wherever it is noticed first, which is a matter of chance."""

    def closed(*arguments: object, **options: object) -> None:
        raise CommClosedError("closed")

    (pack,) = packs(Tiny().cells()[:1])
    executor.begin(lambda number, done: None, lambda: True, 1.0)
    for name in ("nthreads", "run", "submit"):
        monkeypatch.setattr(executor.client, name, closed)
    for step in (lambda: executor.slots, lambda: executor.wait(1.0), lambda: executor.submit(1, Walk(pack, 0, None))):
        with pytest.raises(ExecutorGone, match=r"the scheduler at .* is gone"):
            step()


@pytest.mark.slow
@pytest.mark.parametrize("on_gpu", [False, True], ids=["none", "no-gpu"])
def test_a_run_without_workers_says_so_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Client, on_gpu: bool
) -> None:
    """Of tasks that nobody takes none ends, so that a run that is told to stop may not wait for them."""
    said: list[str] = []

    def note(line: str) -> None:
        said.append(line)
        if len(said) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    executor = OnDask(client, False, note)
    monkeypatch.setattr(on_dask, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(on_dask, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(OnDask, "check", lambda self, cells: None)
    if on_gpu:
        monkeypatch.setattr(Walk, "device", "cuda")
    else:
        monkeypatch.setattr(client, "nthreads", dict)
        monkeypatch.setattr(client, "submit", lambda *arguments, **options: Future("nobody", client))
    with pytest.raises(Interrupted, match=r"0 of 3 cells are stored in .*; the same command goes on from there"):
        runner.run(Tiny(), tmp_path, executor=executor)
    what = "no worker with a GPU is left" if on_gpu else "no worker is left"
    assert said[0] == f"{what}: waiting for one"


def test_only_the_part_of_a_tensor_travels_that_is_shown() -> None:
    whole = torch.zeros(100_000)
    assert len(packed(whole[:3]).data) < 2_000 < 400_000 < len(packed(whole).data)
    assert packed({"a": whole[:3]}).value()["a"].tolist() == [0, 0, 0]


def test_only_the_study_files_travel_that_a_value_needs(tmp_path: Path) -> None:
    """A process may have imported others, and those may be gone."""
    source = "class Thing: number = 3\n"
    needed, other = (tmp_path / name for name in ("needed.py", "other.py"))
    for file in (needed, other):
        file.write_text(source)
    things = [import_study_file(file).Thing for file in (needed, other)]
    other.unlink()
    assert packed(7).study_files == ()
    for value in (things[0], [{"a": things[0]()}], partial(things[0])):
        assert [file.path for file in packed(value).study_files] == [str(needed)]
    found = packed([things[0]()])
    needed.unlink()
    assert found.value()[0].number == 3


@pytest.mark.slow
@pytest.mark.parametrize("here", [True, False], ids=["locally", "on dask"])
def test_equally_named_neighbours_of_two_studies(tmp_path: Path, executor: OnDask, here: bool) -> None:
    """One process, one worker, one results folder; and the file beside the first study is edited."""
    text = TINY.read_text().replace("self.weight**2", "blend.WEIGHT**2")
    text = text.replace("from kdsim.engines import", "import blend\nfrom kdsim.engines import")
    noise = []
    for name, weight in (("a", 1.0), ("b", 0.1), ("a", 0.5)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "study.py").write_text(text)
        (tmp_path / name / "blend.py").write_text(f"WEIGHT = {weight}\n")
        study = loading.load(str(tmp_path / name / "study.py"), {})
        result = runner.run(replace(study, steps=40), tmp_path / "out", executor=None if here else executor)
        assert result.failures == []
        noise.append(result.rows[2]["nu"] / result.rows[1]["nu"])  # over that of one-hot labels
    assert noise == pytest.approx([1.0, 0.01, 0.25])


def test_a_worker_with_another_file_of_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or with a module that it imported before an edit: a task says what it is, and the worker looks."""
    pack = packs(Tiny(steps=40).cells())[0]
    vars(pack)["digests"] = ("0" * 20, *pack.digests[1:])
    with pytest.raises(ConfigError, match="not the one with which the run began"):
        Walk(pack, 0, None).run(lambda done: None, lambda: False, 1.0)


def test_a_worker_imports_the_study_file_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it has not seen it; so does the one that chooses the engine of a cell."""
    cell = packed(loading.load(str(TINY), {}).cells()[0])
    for name in [name for name in sys.modules if name.startswith(study_files.PREFIX)]:
        monkeypatch.delitem(sys.modules, name)
    assert choice_on_worker(cell).engine == "torch"
    assert any(name.startswith(study_files.PREFIX) for name in sys.modules)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--executor", "slurm"], "unknown --executor 'slurm'"),
        (["--workers", "2"], "--workers 2 is not allowed with --executor local"),
        (["--scheduler", "tcp://x:1"], "--scheduler tcp://x:1 is not allowed with --executor local"),
        (["--executor", "dask", "--workers", "0"], "workers = 0 is not allowed: must be an integer >= 1"),
        (["--executor", "dask", "--scheduler", "x", "--workers", "2"], "exclude each other"),
        (["--executor", "dask", "--scheduler", "none.json"], "there is no such file"),
        (["--executor", "dask", "--scheduler", "tcp://127.0.0.1:1"], "scheduler = 'tcp://127.0.0.1:1' does not answer"),
        (["--block-replicas", "0"], "block_replicas = 0 is not allowed: must be an integer >= 1"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(on_dask, "PATIENCE_SECONDS", 1.0)
    assert main(["run-study", str(TINY), "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and message in error and error.startswith("kdsim: error: ")
    assert not (tmp_path / "out").exists()


# Processes ---------------------------------------------------------------------------------------


def _start(out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kdsim.cli", "run-study", str(TINY), "--out", str(out), "--set", "steps=40000"]
    options = ["--executor", "dask", "--workers", "1", "--block-replicas", "8", *more]
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def _under_way(process: subprocess.Popen[str], out: Path) -> None:
    """Wait until states or cells are stored."""
    while not list((out / "partial").rglob("*.safetensors")) and not list((out / "cells").glob("[0-9a-f]*")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


@pytest.mark.slow
def test_a_signal_to_the_whole_group(tmp_path: Path) -> None:
    """As from a terminal or a batch system: workers leave it to the process that runs the study."""
    process = _start(tmp_path / "out", "--engine", "torch", "--replicas", "600")
    _under_way(process, tmp_path / "out")
    workers = _workers(process)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on from there" in error.splitlines()[-1], error
    assert "Traceback" not in error
    assert list((tmp_path / "out" / "partial").rglob("*.safetensors"))
    assert not any(worker.is_running() for worker in workers)
