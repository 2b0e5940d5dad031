"""Disks that are full, read-only or gone: one line says so, nothing is half-written, and the same command goes on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import processes
import pytest
from fault_simulations import FaultSimulations
from processes import DISK, SIMULATIONS, TRAININGS, Ended, finish_study, in_child, kdsim, leftovers, run_study, stored

from kdsim.files import StorageError
from kdsim.results.store import Store, read_study
from kdsim.study import runner
from kdsim.study.local import Local

PAGE = 4096
FULL = re.compile(r"kdsim: error: .* cannot be written.*No space left on device.*; the same command goes on from there")
AT_ONCE = re.compile(r"kdsim: error: results folder .* cannot be written: No space left on device")
NO_FIGURE = re.compile(r"kdsim: warning: no figure, OSError: .*No space left on device.*; the results are in .*")
PLACES = (
    "results folder",
    "study folder",
    "/cells/",
    "/teachers/",
    ".done.safetensors",
    "-all.safetensors",
    ".plan.json",
    ".safetensors",
    ".lock",
)
BLOCKS = (SIMULATIONS, "--set", "engine=autograd", "--set", "steps=6000", "--set", "seeds=0", "--replicas", "20",
          "--block-replicas", "9")  # fmt: skip
"""Cells of three blocks, each of several chunks of the engine."""
MANY = (SIMULATIONS, "--set", "engine=cpu_fused")
TRAINED = (TRAININGS,)


@pytest.fixture
def disks() -> None:
    """Small disks can be mounted."""
    if why := processes.why_no_disks():
        pytest.skip(f"no disks can be mounted here: {why}")


# A disk that fills ------------------------------------------------------------------------------


def undisturbed(command: tuple[str, ...]) -> tuple[dict[str, Any], int, int]:
    """What a run gives on a disk that is large enough, and the pages and files that it takes."""
    processes.mount(DISK)
    finish_study(command[0], DISK, *command[1:])
    expected, space = stored(DISK), os.statvfs(DISK)
    processes.unmount(DISK)
    return expected, space.f_blocks - space.f_bfree, space.f_files - space.f_ffree


def said(ended: Ended) -> str:
    """What a run that met the end of the disk was doing; fails if it says it badly. Empty if it met none."""
    if ended.code == 0:
        return ""
    if ended.code == 1:  # all is stored but the figure
        assert NO_FIGURE.fullmatch(ended.err.strip()), ended.err
        return "figure"
    assert ended.code == 2 and any(line.fullmatch(ended.err.strip()) for line in (FULL, AT_ONCE)), ended
    return next(place for place in PLACES if place in ended.err)


def fill(command: tuple[str, ...], by_files: bool = False, steps: int = 6) -> dict[str, int]:
    """Run a study on disks of many sizes, then give it room and run it again. Counts where the disk was full.

    Args:
        by_files: the disk is too small for the number of files, not for their bytes.
        steps: sizes between the smallest and the largest.
    """
    processes.unshare_mounts()
    processes.save_often()
    expected, pages, files = undisturbed(command)
    most, met = files if by_files else pages, {}
    sizes = {*range(1, most, -(-most // steps)), *range(1, 8, 2), *range(most - 9, most + 2, 2)}
    for number in sorted(sizes):
        size = {"files": number} if by_files else {"size": number * PAGE}
        processes.mount(DISK, **size)
        where = said(run_study(command[0], DISK, *command[1:]))
        met[where] = met.get(where, 0) + 1
        hidden = [name for name in leftovers(DISK) if Path(name).name.startswith(".") or name.endswith(".lock")]
        assert not hidden, (size, hidden)
        for cell in DISK.glob("cells/*"):
            Store(DISK).check_cell(cell.name)
        for file in DISK.glob("*/*/study.json"):
            read_study(file.parent)
        processes.remount(DISK)
        finish_study(command[0], DISK, *command[1:])
        assert stored(DISK) == expected, size
        assert not leftovers(DISK), size
        processes.unmount(DISK)
    return met


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "places"),
    [
        (BLOCKS, {".safetensors", ".done.safetensors", "/cells/"}),
        (MANY, {"/cells/", "study folder", "figure"}),
        (TRAINED, {"-all.safetensors", "/cells/", "/teachers/"}),
    ],
    ids=["blocks", "many-cells", "trainings"],
)
def test_a_disk_that_fills(disks: None, command: tuple[str, ...], places: set[str]) -> None:
    """From a page that is all to room for everything: each kind of file meets the end of some disk."""
    met = in_child(fill, command, False, 24 if command == TRAINED else 6)  # a teacher's file is small
    assert places <= met.keys() and met[""] >= 1, met


@pytest.mark.slow
def test_a_disk_that_has_no_room_for_more_files(disks: None) -> None:
    met = in_child(fill, MANY, True)
    # Not "study folder": that of work under way, which is gone by then, has left room for one.
    assert {"results folder", "/cells/", "figure", ""} <= met.keys(), met


def fill_ext4(image: Path) -> dict[str, int]:
    """The same on ext4, where ballast leaves so much room."""
    processes.unshare_mounts()
    subprocess.run(["mount", "-o", "loop", str(image), str(DISK)], check=True, capture_output=True)
    out, ballast, met = DISK / "results", DISK / "ballast", {}
    finish_study(SIMULATIONS, out)
    expected = stored(out)
    for kib in range(0, 400, 40):
        shutil.rmtree(out)
        with suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while file.write(bytes(1024)):
                pass
        os.truncate(ballast, max(ballast.stat().st_size - 1024 * kib, 0))
        where = said(run_study(SIMULATIONS, out))
        met[where] = met.get(where, 0) + 1
        ballast.unlink()
        finish_study(SIMULATIONS, out)
        assert stored(out) == expected and not leftovers(out)
    return met


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root mounts an image")
@pytest.mark.skipif(not (shutil.which("mkfs.ext4") and shutil.which("mount")), reason="there is no mkfs.ext4 or mount")
def test_ext4_that_fills(disks: None, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(2 << 20))
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    try:
        met = in_child(fill_ext4, image)
    except AssertionError as error:
        if "'mount', '-o', 'loop'" in str(error):
            pytest.skip("no loop device here")
        raise
    assert {"", "/cells/"} <= met.keys(), met


# Read-only --------------------------------------------------------------------------------------


@contextmanager
def before_cell(number: int, happens: Callable[[], Any]):
    """Something happens just before a run in this process stores its cell of this number, 0 the first."""
    mkdir, count = Path.mkdir, 0

    def watched(self: Path, *arguments: Any, **named: Any) -> None:
        nonlocal count
        if self.parent.name == "cells":  # under a temporary name
            count += 1
            if count == number + 1:
                happens()
        mkdir(self, *arguments, **named)

    Path.mkdir = watched
    try:
        yield
    finally:
        Path.mkdir = mkdir


def read_only_before_and_within() -> None:
    processes.unshare_mounts()
    expected = undisturbed(MANY)[0]
    processes.mount(DISK)
    with processes.read_only(DISK):
        ended = run_study(SIMULATIONS, DISK / "new")
        assert ended.code == 2 and "Read-only file system" in ended.error and not (DISK / "new").exists()
    protected = processes.read_only(DISK)
    with before_cell(2, protected.__enter__):
        ended = run_study(MANY[0], DISK, *MANY[1:])
    line = rf"kdsim: error: .*Read-only file system; 2 of 6 cells are stored in '{DISK}'; the same command goes on .*"
    assert ended.code == 2 and re.fullmatch(line, ended.error), ended
    again = run_study(MANY[0], DISK, *MANY[1:])
    assert again.code == 2 and "Read-only file system" in again.error
    protected.__exit__(None, None, None)
    finish_study(MANY[0], DISK, *MANY[1:])
    assert stored(DISK) == expected and not leftovers(DISK)


@pytest.mark.slow
def test_a_disk_that_is_read_only_before_the_start_or_from_the_middle_on(disks: None) -> None:
    in_child(read_only_before_and_within)


def reading_only() -> None:
    processes.unshare_mounts()
    processes.mount(DISK)
    finish_study(SIMULATIONS, DISK)
    for cell in sorted((DISK / "cells").iterdir())[:2]:  # as a former kdsim stored them, without checksums
        without_checksums(cell)
    with processes.read_only(DISK):
        for command in (("results", SIMULATIONS, "--json"), ("results", SIMULATIONS, "--csv")):
            ended = kdsim(*command, "--out", str(DISK))
            assert ended.code == 0 and "floor" in ended.out, ended
        for command in ("show-study", "predict"):
            assert kdsim(command, SIMULATIONS).code == 0
        ended = kdsim("figure", SIMULATIONS, "--out", str(DISK))
        assert ended.code == 1 and "no figure, OSError: [Errno 30] Read-only file system" in ended.err
        ended = run_study(SIMULATIONS, DISK)
        assert ended.code == 2 and "Read-only file system" in ended.error


def without_checksums(cell: Path) -> None:
    """Make a stored cell one of schema version 2."""
    import json

    file = cell / "cell.json"
    content = json.loads(file.read_text())
    for key in ("files", "weights", "sha256"):
        del content[key]
    file.write_text(json.dumps(content | {"schema": 2}))


@pytest.mark.slow
def test_what_only_reads_works_on_a_read_only_folder(disks: None) -> None:
    in_child(reading_only)


def without_rights() -> None:
    processes.unshare_mounts()
    processes.mount(DISK)
    file = shutil.copy(SIMULATIONS, DISK)
    out = DISK / "results"
    finish_study(file, out, "--set", "seeds=0")
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    else:
        for folder, _, _ in os.walk(out):
            os.chmod(folder, 0o500)
    assert kdsim("results", file, "--out", str(out)).code == 0
    ended = run_study(file, out)
    assert ended.code == 2 and "cannot be written: Permission denied" in ended.error


@pytest.mark.slow
def test_a_folder_without_permission_is_refused(disks: None) -> None:
    in_child(without_rights)


# Folders that are gone --------------------------------------------------------------------------

QUICK = FaultSimulations(replicas=4, steps=40)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("undisturbed")
    runner.run(QUICK, out)
    return stored(out)


def _replace_by_a_file(out: Path) -> None:
    shutil.rmtree(out)
    out.write_text("in the way")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("happens", "why"),
    [
        (shutil.rmtree, "No such file or directory"),
        (_replace_by_a_file, "Not a directory"),
        (lambda out: shutil.rmtree(out / "cells"), "No such file or directory"),
    ],
    ids=["removed", "replaced", "cells-removed"],
)
@pytest.mark.parametrize("task", [1, 2])
def test_a_folder_that_is_gone_in_the_middle(
    tmp_path: Path,
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[Path], Any],
    why: str,
    task: int,
) -> None:
    """After so many tasks; the first two are a pack's steps and its measurement."""
    out, wait, count = tmp_path / "out", Local.wait, 0

    def watched(self: Local, seconds: float) -> Any:
        nonlocal count
        ended = wait(self, seconds)
        count += 1
        if count == task:
            happens(out)
        return ended

    with monkeypatch.context() as patch:
        patch.setattr(Local, "wait", watched)
        with pytest.raises(
            StorageError, match=rf"cannot be written: {why}; \d of 6 cells .*; the same command goes on"
        ):
            runner.run(QUICK, out, slice_seconds=0)
    if out.is_file():
        with pytest.raises(StorageError, match=r"results folder .* cannot be written: Not a directory"):
            runner.run(QUICK, out)
        out.unlink()
    runner.run(QUICK, out)
    assert stored(out) == expected and not leftovers(out)
