"""Temporary files of live writers stay, wherever they run; what cannot be read is not damage."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdsim import files, tensors
from kdsim.files import Damaged, Unreadable, sweep, temporary_beside
from kdsim.tensors import read_checked, write_checked

GONE = 2**22 + 1
"""A number that no process has: as that of a writer in another container."""


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    """A file that is being written, by a process whose number says nothing here."""
    with temporary_beside(tmp_path / "a.safetensors") as temporary:
        name = temporary.with_name(temporary.name.replace(f".{os.getpid()}-", f".{GONE}-"))
        name.write_text("half")
        yield name


def old(path: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_what_somebody_writes_stays(tmp_path: Path, foreign: Path) -> None:
    sweep(tmp_path)
    assert foreign.exists()
    sweep(tmp_path.parent)  # a lock is of one folder


def test_what_nobody_writes_goes(tmp_path: Path) -> None:
    """Also under the number of a process that lives: it may be another one's by now."""
    with temporary_beside(tmp_path / "a.safetensors") as temporary:
        names = [temporary, temporary.with_name(temporary.name.replace(f".{os.getpid()}-", f".{GONE}-"))]
    names[0].write_text("half")
    names[1].mkdir()
    (names[1] / "inner").write_text("half")
    link = temporary.with_name(temporary.name[:-1] + ("1" if temporary.name.endswith("0") else "0"))
    link.symlink_to(tmp_path.parent)
    (tmp_path / ".hidden").write_text("mine")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"] and tmp_path.parent.is_dir()


def test_two_may_write_at_a_time(tmp_path: Path, foreign: Path) -> None:
    with temporary_beside(tmp_path / "b.safetensors") as temporary:
        temporary.write_text("half")
        sweep(tmp_path)
        assert temporary.exists() and foreign.exists()


@pytest.mark.slow
def test_a_writer_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from kdsim.files import temporary_beside\n"
    code += "with temporary_beside(Path(sys.argv[1])) as file: file.write_text('half'); os.kill(os.getpid(), 9)"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a")], check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert len(list(tmp_path.iterdir())) == 1
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reason", ["no locks", "another writes", "another host"])
def test_without_a_lock_age_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    with temporary_beside(tmp_path / "a.safetensors") as temporary:
        pass
    if reason == "no locks":

        def none(handle: int, kind: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("fcntl.flock", none)
    elif reason == "another host":
        temporary = temporary.with_name(temporary.name.replace(files._HOST, "elsewhere"))
    older = temporary.with_name(temporary.name[:-2] + "00")
    for path in (temporary, older):
        path.write_text("half")
    old(temporary, files.STALE_SECONDS - 60)
    old(older, files.STALE_SECONDS + 60)
    if reason == "another writes":
        with temporary_beside(tmp_path / "b.safetensors"):
            sweep(tmp_path)
    else:
        sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [temporary]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    sweep(tmp_path / "absent")
    with temporary_beside(tmp_path / "absent" / "a") as temporary:
        assert temporary.parent == tmp_path / "absent"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT])
def test_what_cannot_be_read_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    write_checked(tmp_path / "a.safetensors", {"x": 1})

    def failing(path: Path, most: int = 0) -> bytes:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(tensors, "read_file", failing)
    with pytest.raises(Unreadable, match="which is no damage: it is left as it is") as caught:
        read_checked(tmp_path / "a.safetensors")
    assert str(tmp_path / "a.safetensors") in str(caught.value) and os.strerror(code) in str(caught.value)


def test_what_is_not_there_is_damage(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "loop", tmp_path / "pipe"):
        with pytest.raises(Damaged, match="cannot be read"):
            read_checked(path)
