"""Files of data that a configuration names are part of it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kdsim import config, data_files
from kdsim.config import ConfigError, decode, digest, encode
from kdsim.study.loading import import_study_file


@dataclass(frozen=True)
class Named:
    """Fields that are paths."""

    path: str = "a.bin"
    more: tuple[str, ...] = ()
    place: Path | None = None
    number: float = 1.0


@dataclass(frozen=True)
class Declared:
    """A file that is no field."""

    files: ClassVar[Any] = ("a.bin", Path("b.bin"))


@dataclass(frozen=True)
class ByMethod:
    """A file that depends on a field."""

    part: str = "a"

    def files(self) -> str:
        return f"{self.part}.bin"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.bin").write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("made", "read"),
    [
        (Named(), ["a.bin"]),
        (Named("no such file"), []),
        (Named("", ("a.bin", "x", "b.bin")), ["a.bin", "b.bin"]),
        (Named("text", (), Path("b.bin")), ["b.bin"]),
        (Named("text", (), Path("absent")), []),
        (Named("\0"), []),
        (Named("."), []),
        (Declared(), ["a.bin", "b.bin"]),
        (ByMethod(), ["a.bin"]),
        (ByMethod("b"), ["b.bin"]),
    ],
    ids=repr,
)
def test_what_is_read(folder: Path, made: Any, read: list[str]) -> None:
    form = encode(made)
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in read}
    assert form.get(config.FILES, {}) == sums
    assert decode(form, [type(made)]) == made and digest(decode(form, [type(made)])) == digest(made)
    before = digest(made)
    for name in "ab":
        (folder / f"{name}.bin").write_text(name.upper())  # of the same length, within one tick of the clock
        assert (digest(made) != before) == (f"{name}.bin" in read)
        (folder / f"{name}.bin").write_text(name)
        assert digest(made) == before


def test_a_folder_stands_for_all_files_below(folder: Path) -> None:
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "data" / "deep" / "c.bin").write_text("c")
    made = Named("x", (), Path("data"))
    before = digest(made)
    (folder / "data" / "deep" / "c.bin").write_text("d")
    changed = digest(made)
    (folder / "data" / "deep" / "c.bin").rename(folder / "data" / "deep" / "e.bin")
    assert len({before, changed, digest(made)}) == 3


def test_a_file_beside_its_class_has_a_name_that_moves_with_it(folder: Path) -> None:
    text = """
from dataclasses import dataclass
from pathlib import Path

@dataclass(frozen=True)
class Own:
    files = (Path(__file__).parent / "deep" / "noise.csv",)
"""
    digests = []
    for name in ("here", "there"):
        (folder / name / "deep").mkdir(parents=True)
        (folder / name / "study.py").write_text(text)
        (folder / name / "deep" / "noise.csv").write_text("1")
        own = import_study_file(folder / name / "study.py").Own()
        assert list(encode(own)[config.FILES]) == ["{beside}/deep/noise.csv"]
        digests.append(digest(own))
    (folder / "there" / "deep" / "noise.csv").write_text("2")
    assert digests[0] == digests[1] != digest(own)


def test_an_old_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(folder / "a.bin", (1e9, 1e9))
    monkeypatch.setattr(data_files, "SETTLED_SECONDS", -1e9)  # its inode has just been changed
    before = data_files.sha256_of(folder / "a.bin")
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert data_files.sha256_of(folder / "a.bin") == before
    os.utime(folder / "a.bin", (2e9, 2e9))
    with pytest.raises(TypeError):  # it would be read again
        data_files.sha256_of(folder / "a.bin")


def test_a_configuration_is_not_read_with_other_files(folder: Path) -> None:
    form = encode(Named())
    (folder / "a.bin").write_text("other")
    with pytest.raises(
        ConfigError, match=r"file 'a\.bin' of Named: it was stored with SHA-256 ca978112ca1b\.\.\., now"
    ):
        decode(form, [Named])
    (folder / "a.bin").unlink()
    with pytest.raises(ConfigError, match=r"now there is none"):
        decode(form, [Named])


@pytest.mark.parametrize("declared", [("missing.bin",), "missing.bin", staticmethod(lambda: ["missing.bin"])])
def test_a_declared_file_must_be_there(declared: Any) -> None:
    made = dataclass(frozen=True)(type("Made", (Named,), {"files": declared}))()
    with pytest.raises(ConfigError, match=r"files of Made: 'missing\.bin' cannot be read: No such file"):
        encode(made)


def test_a_pipe_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    for made in (Named("x", (), Path("pipe")), dataclass(frozen=True)(type("Made", (Named,), {"files": "pipe"}))()):
        with pytest.raises(ConfigError, match="'pipe' cannot be read: Not a regular file"):
            encode(made)


@pytest.mark.parametrize("declared", [3, (3,), None])
def test_what_is_no_file(declared: Any) -> None:
    with pytest.raises(ConfigError, match="files of Made: "):
        encode(dataclass(frozen=True)(type("Made", (Named,), {"files": declared}))())


def test_a_changed_file_is_noticed_before_a_result_is_stored(folder: Path) -> None:
    name = digest(Named())
    config.require_unchanged(Named(), name)
    (folder / "a.bin").write_text("other")
    with pytest.raises(ConfigError, match="not the one with which the run began"):
        config.require_unchanged(Named(), name)
