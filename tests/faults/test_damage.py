"""Whatever happens to a file of a results folder, it is noticed and named; --repair makes it good."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_simulations import FaultSimulations
from fault_trainings import FaultTrainings, Squares
from processes import SIMULATIONS, kdsim, leftovers, run_study, save_often, stored

from kdsim.config import ConfigError, digest
from kdsim.files import signed
from kdsim.results.store import Store, read_study
from kdsim.study import executors, packs, runner
from kdsim.study.base import Computed, Study
from kdsim.study.runner import Interrupted, RunResult
from kdsim.study.trainings import Training
from kdsim.trainer import StudentTrainer

SIMULATED = FaultSimulations("autograd", steps=6000, replicas=20, seeds=(0,))
BLOCKS = 9
TRAINED = FaultTrainings()


def run(study: Study, out: Path, repair: bool = False) -> RunResult:
    limit = BLOCKS if study is SIMULATED else None
    return runner.run(study, out, repair=repair, block_replicas=limit, slice_seconds=0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[Study, Path]:
    """Finished results of each study."""
    found = {}
    for study in (SIMULATED, TRAINED):
        found[study] = tmp_path_factory.mktemp(study.name)
        assert not run(study, found[study]).failures
    return found


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[Study, Path]:
    """Results of each study that was told to stop: with a plan, a block and a state, or a checkpoint."""
    found = {}
    options, before = StudentTrainer.run.__kwdefaults__, runner.run.__kwdefaults__["slice_seconds"]
    seconds = options["checkpoint_seconds"]
    save_often()
    try:
        for study, at in ((SIMULATED, 8 * 6000), (TRAINED, 5)):
            found[study] = tmp_path_factory.mktemp(f"stopped-{study.name}")

            def stop(state: runner.Progress, at: int = at) -> None:
                if state.done >= at:
                    os.kill(os.getpid(), signal.SIGTERM)

            with pytest.raises(Interrupted):
                limit = BLOCKS if study is SIMULATED else None
                runner.run(study, found[study], progress=stop, block_replicas=limit, slice_seconds=0)
    finally:
        options["checkpoint_seconds"], runner.run.__kwdefaults__["slice_seconds"] = seconds, before
    return found


# What can happen to a file ----------------------------------------------------------------------


def damages(file: Path) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    """Ways to spoil a file, from its own content."""
    content = file.read_bytes()
    for length in (0, 1, len(content) // 3, len(content) - 2):
        yield f"cut to {length} bytes", lambda path, length=length: path.write_bytes(content[:length])
    for at in (0, len(content) // 2, len(content) - 5):
        flipped = bytearray(content)
        flipped[at] ^= 0x10
        yield f"bit of byte {at} flipped", lambda path, flipped=bytes(flipped): path.write_bytes(flipped)
    yield "zeros", lambda path: path.write_bytes(bytes(len(content)))
    yield "a folder", lambda path: (path.unlink(), path.mkdir())


def refused(study: Study, out: Path) -> str:
    """What a run says that refuses a results folder, or fails at it."""
    try:
        result = run(study, out)
    except ConfigError as error:
        return str(error)
    return "".join(result.failures)


def check(study: Study, origin: Path, expected: dict[str, Any], name: str, copy: Path, n: int) -> int:
    """Spoil a file of a copy of a results folder in each n-th way: refused by name, then repaired."""
    ways = list(damages(origin / name))[::n]
    for what, spoil in ways:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(origin, copy)
        spoil(copy / name)
        said = refused(study, copy)
        named = Path(name).parent.name if name.startswith("cells/") else Path(name).name
        assert named in said and "\n" not in said, (name, what, said)
        result = run(study, copy, repair=True)
        assert not result.failures, (name, what, result.failures)
        assert stored(copy) == expected and not leftovers(copy), (name, what)
        assert any(path.name.startswith(named) for path in (copy / "damaged").iterdir()), (name, what)
    return len(ways)


def files(out: Path, *patterns: str) -> list[str]:
    return sorted(str(file.relative_to(out)) for pattern in patterns for file in out.glob(pattern))


@pytest.mark.slow
@pytest.mark.parametrize("study", [SIMULATED, TRAINED], ids=["simulations", "trainings"])
def test_files_of_finished_cells(tmp_path: Path, undisturbed: dict[Study, Path], study: Study) -> None:
    """A cell's tables and numbers."""
    origin = undisturbed[study]
    names = [name for name in files(origin, f"cells/{digest(study.cells()[0])}/*") if "weights" not in name]
    assert len(names) == 3
    for name in names:
        assert check(study, origin, stored(origin), name, tmp_path / "copy", 2) >= 4


@pytest.mark.slow
def test_weights(tmp_path: Path, undisturbed: dict[Study, Path]) -> None:
    """They are read when a teacher is fitted to them: those of its training, and all that came after, were removed."""
    origin, expected = tmp_path / "origin", stored(undisturbed[TRAINED])
    shutil.copytree(undisturbed[TRAINED], origin)
    base, student = TRAINED.cells()[:2]
    shutil.rmtree(Store(origin).cell_folder(digest(student)))
    for file in (origin / "teachers").glob(f"{digest(student.teacher)}-*"):
        file.unlink()
    assert check(TRAINED, origin, expected, f"cells/{digest(base)}/weights-001.safetensors", tmp_path / "copy", 2) >= 4


@pytest.mark.slow
def test_fitted_teachers(tmp_path: Path, undisturbed: dict[Study, Path]) -> None:
    """They are read when a student needs them: its cell was removed."""
    origin, expected = tmp_path / "origin", stored(undisturbed[TRAINED])
    shutil.copytree(undisturbed[TRAINED], origin)
    student, teacher = TRAINED.cells()[1], digest(TRAINED.cells()[1].teacher)
    shutil.rmtree(Store(origin).cell_folder(digest(student)))
    assert check(TRAINED, origin, expected, f"teachers/{teacher}-000.safetensors", tmp_path / "copy", 2) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("study", [SIMULATED, TRAINED], ids=["simulations", "trainings"])
def test_work_under_way(
    tmp_path: Path, undisturbed: dict[Study, Path], stopped: dict[Study, Path], study: Study
) -> None:
    """Plans, states, finished blocks and checkpoints."""
    origin = stopped[study]
    names = files(origin, "partial/*/*")
    endings = {name.partition("-")[2] or Path(name).suffix for name in names}
    expected = {".json", "0.done.safetensors", "1.safetensors"} if study is SIMULATED else {"all.safetensors"}
    assert endings == expected, names
    for name in names:
        assert check(study, origin, stored(undisturbed[study]), name, tmp_path / "copy", 3) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("study", [SIMULATED, TRAINED], ids=["simulations", "trainings"])
def test_a_file_that_was_removed(
    tmp_path: Path, undisturbed: dict[Study, Path], stopped: dict[Study, Path], study: Study
) -> None:
    """Of work under way: it is done again. Of a cell: it is refused, and repaired."""
    expected = stored(undisturbed[study])
    for name in files(stopped[study], "partial/*/*"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(stopped[study], copy)
        (copy / name).unlink()
        assert not run(study, copy).failures
        assert stored(copy) == expected, name
    for name in files(undisturbed[study], f"cells/{digest(study.cells()[0])}/*"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(undisturbed[study], copy)
        (copy / name).unlink()
        assert Path(name).name in refused(study, copy)
        assert not run(study, copy, repair=True).failures
        assert stored(copy) == expected, name


@pytest.mark.slow
@pytest.mark.parametrize("study", [SIMULATED, TRAINED], ids=["simulations", "trainings"])
def test_files_of_another_cell(tmp_path: Path, undisturbed: dict[Study, Path], study: Study) -> None:
    """Each is sound by itself, but is not that of this cell; so for whole cells under another name."""
    expected, (first, second) = stored(undisturbed[study]), map(digest, study.cells()[:2])
    tables = [name for name in os.listdir(Store(undisturbed[study]).cell_folder(first)) if "weights" not in name]
    for name in (*sorted(tables), ""):
        copy = tmp_path / f"copy-{name}"
        shutil.copytree(undisturbed[study], copy)
        exchange(*(Store(copy).cell_folder(each) / name for each in (second, first)))
        assert first in refused(study, copy), name
        assert not run(study, copy, repair=True).failures
        assert stored(copy) == expected, name


def exchange(origin: Path, target: Path) -> None:
    """Put a file or folder in the place of another."""
    if origin.is_dir():
        shutil.rmtree(target)
        shutil.copytree(origin, target)
    else:
        shutil.copy(origin, target)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plan", "block", "state"])
def test_work_under_way_of_something_else(
    tmp_path: Path, undisturbed: dict[Study, Path], stopped: dict[Study, Path], kind: str
) -> None:
    """A state or block of another pack, of the same shape, would change results silently."""
    out = tmp_path / "copy"
    shutil.copytree(stopped[SIMULATED], out)
    unfinished, (first, second, _) = Store(out).unfinished, packs.packs(SIMULATED.cells(), BLOCKS)
    blocks, others = first.blocks(), second.blocks()
    origin, named = {
        "plan": (unfinished.plan_file(first.digest), unfinished.plan_file(second.digest)),
        "block": (unfinished.block_file(blocks[0].key), unfinished.block_file(others[0].key)),
        "state": (unfinished.state_file(blocks[1].key), unfinished.state_file(others[1].key)),
    }[kind]
    if kind != "plan":  # of a pack without one nothing is used
        plan = unfinished.read_plan(unfinished.plan_file(first.digest))
        unfinished.write_plan(replace(plan, pack=second.digest, cells=second.digests))
    shutil.copy(origin, named)
    assert named.name in refused(SIMULATED, out)
    assert not run(SIMULATED, out, repair=True).failures
    assert stored(out) == stored(undisturbed[SIMULATED]) and not leftovers(out)


@pytest.mark.slow
def test_weights_and_teachers_of_another(tmp_path: Path, undisturbed: dict[Study, Path]) -> None:
    out, expected, (base, student) = tmp_path / "out", stored(undisturbed[TRAINED]), TRAINED.cells()[:2]
    teacher = digest(student.teacher)
    for name, other in (("000", "001"), ("001", "000")):
        shutil.copytree(undisturbed[TRAINED], out)
        shutil.rmtree(Store(out).cell_folder(digest(student)))
        pair = (out / "teachers" / f"{teacher}-{each}.safetensors" for each in (other, name))
        exchange(*pair)
        assert f"{teacher}-{name}.safetensors" in refused(TRAINED, out)
        assert not run(TRAINED, out, repair=True).failures and stored(out) == expected
        shutil.rmtree(Store(out).cell_folder(digest(student)))
        (out / "teachers" / f"{teacher}-000.safetensors").unlink()
        weights = Store(out).cell_folder(digest(base))
        exchange(weights / f"weights-{other}.safetensors", weights / f"weights-{name}.safetensors")
        assert f"weights-{name}.safetensors is replica" in refused(TRAINED, out)
        assert not run(TRAINED, out, repair=True).failures and stored(out) == expected
        shutil.rmtree(out)


@pytest.mark.slow
def test_a_study_file_is_written_again(tmp_path: Path, undisturbed: dict[Study, Path]) -> None:
    """study.json and its table come from the cells."""
    shutil.copytree(undisturbed[SIMULATED], tmp_path / "copy")
    for name in files(tmp_path / "copy", "*/*/study.json", "*/*/table.csv"):
        for _, spoil in list(damages(tmp_path / "copy" / name))[:-1]:
            spoil(tmp_path / "copy" / name)
            if name.endswith(".json"):
                with pytest.raises(ConfigError, match=r"is damaged|has schema version"):
                    read_study((tmp_path / "copy" / name).parent)
            folder = run(SIMULATED, tmp_path / "copy").folder
            assert len(read_study(folder).records) == 3


@pytest.mark.slow
def test_the_command_line_names_and_repairs(tmp_path: Path) -> None:
    """Exit code 2 and one line; then a line for each file that was moved."""
    settings = ("--set", "seeds=0", "--set", "steps=40", "--replicas", "4")
    assert run_study(SIMULATIONS, tmp_path, *settings).code == 0
    expected, cell = stored(tmp_path), sorted((tmp_path / "cells").iterdir())[1]
    (cell / "curves.parquet").write_bytes(b"")
    for ended in (run_study(SIMULATIONS, tmp_path, *settings), kdsim("results", SIMULATIONS, "--out", str(tmp_path))):
        assert ended.code == 2 and cell.name in ended.error and "curves.parquet" in ended.error
    ended = run_study(SIMULATIONS, tmp_path, *settings, "--repair")
    assert ended.code == 0 and f"{cell} is damaged: moved to" in ended.err
    assert stored(tmp_path) == expected and (tmp_path / "damaged" / f"{cell.name}.0" / "cell.json").is_file()
    assert run_study(SIMULATIONS, tmp_path, *settings).code == 0


# Other versions ---------------------------------------------------------------------------------


def change_version(cell: Path, version: int, without: tuple[str, ...] = ()) -> None:
    file = cell / "cell.json"
    content = {key: value for key, value in json.loads(file.read_text()).items() if key not in without}
    file.write_text(json.dumps(signed(content | {"schema": version}) if not without else content | {"schema": version}))


@pytest.mark.slow
@pytest.mark.parametrize("study", [SIMULATED, TRAINED], ids=["simulations", "trainings"])
def test_cells_without_checksums_are_brought_up(tmp_path: Path, undisturbed: dict[Study, Path], study: Study) -> None:
    out, expected = tmp_path / "copy", stored(undisturbed[study])
    shutil.copytree(undisturbed[study], out)
    written = {cell.name: (cell / "cell.json").read_text() for cell in (out / "cells").iterdir()}
    for cell in (out / "cells").iterdir():
        change_version(cell, 2, ("files", "weights", "sha256"))
    assert len(read_study(next(out.glob("*/*/study.json")).parent).records) == len(study.cells())
    result = run(study, out)
    assert result.replica_steps == 0 and stored(out) == expected
    for cell in (out / "cells").iterdir():
        assert json.loads((cell / "cell.json").read_text()) == json.loads(written[cell.name])
    change_version(cell, 2, ("files", "weights", "sha256"))
    (cell / "curves.parquet").write_bytes(b"")
    assert cell.name in refused(study, out)


@pytest.mark.slow
def test_a_cell_of_a_later_version_is_refused_by_name(tmp_path: Path, undisturbed: dict[Study, Path]) -> None:
    out = tmp_path / "copy"
    shutil.copytree(undisturbed[SIMULATED], out)
    cell = Store(out).cell_folder(digest(SIMULATED.cells()[1]))
    change_version(cell, 99)
    said = refused(SIMULATED, out)
    assert str(cell / "cell.json") in said and "schema version 99" in said


# Memory -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_teacher_that_is_set_aside_and_fails_then_is_a_failure(
    tmp_path: Path, undisturbed: dict[Study, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counted as stored when the run began."""
    shutil.copytree(undisturbed[TRAINED], tmp_path / "out")
    base, student, *_ = TRAINED.cells()
    store, train = Store(tmp_path / "out"), Training.run
    shutil.rmtree(store.cell_folder(digest(student)))
    shutil.rmtree(store.root / "teachers")
    weights = store.cell_folder(digest(base)) / "weights-000.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])

    def fails(self: Training, *arguments: Any) -> Any:
        if self.trainer == base:
            raise ConfigError("no luck today")
        return train(self, *arguments)

    monkeypatch.setattr(Training, "run", fails)
    result = run(TRAINED, tmp_path / "out", repair=True)
    assert len(result.rows) == 2 and len(result.failures) == 2
    assert "no luck today" in result.failures[0] and "it failed before" in result.failures[1]


NO_MEMORY = {
    "numpy": MemoryError("Unable to allocate 3.00 TiB for an array with shape (9,) and data type float64"),
    "torch": RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
}


@pytest.mark.slow
@pytest.mark.parametrize("library", NO_MEMORY)
def test_a_pack_without_memory_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    study, prepare = FaultSimulations("torch", steps=40, replicas=4, seeds=(0, 1, 2)), packs.Pack.prepare

    def fails(self: packs.Pack) -> Any:
        if self.cells[0].seed == 1:
            raise NO_MEMORY[library]
        return prepare(self)

    monkeypatch.setattr(packs.Pack, "prepare", fails)
    monkeypatch.setattr("kdsim.study.work._kept", {})
    result = runner.run(study, tmp_path)
    assert len(result.rows) == 6 and len(result.failures) == 1
    line = result.failures[0]
    assert line.startswith("3 cells of gaussian-mixture") and "memory" in line and "--block-replicas" in line
    assert "\n" not in line
    monkeypatch.setattr(packs.Pack, "prepare", prepare)
    assert len(runner.run(study, tmp_path).rows) == 9


@pytest.mark.slow
def test_a_computation_without_memory_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Squares) -> Computed:
        raise MemoryError

    monkeypatch.setattr(Squares, "compute", fails)
    result = runner.run(FaultTrainings(2), tmp_path)
    assert len(result.rows) == 3 and len(result.failures) == 1
    assert result.failures[0].startswith("computation squares failed: ") and "memory" in result.failures[0]


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert "memory" not in executors.failed(RuntimeError("no pool today")).line
