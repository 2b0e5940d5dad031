"""The digest of kdsim's source is remembered by the bytes of the files, and by nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdsim import sources

Source = Path


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A kdsim of two modules that compute and one that does not, and a cache folder of its own."""
    root = tmp_path / "kdsim"
    (root / "inner").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "inner" / "__init__.py").write_text("")
    (root / "inner" / "computes.py").write_text("from kdsim import other\nA = 1\n")
    (root / "other.py").write_text("B = 1\n")
    (root / "aside.py").write_text("C = 1\n")
    monkeypatch.setattr(sources, "_root", lambda: root)
    monkeypatch.setattr(sources, "COMPUTING", ("kdsim.inner.computes",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return root


def digest() -> str:
    """What a new process finds."""
    return sources.kdsim_digest.__wrapped__()


def never() -> str:
    raise AssertionError("it was parsed again")


def test_it_is_remembered(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest()
    monkeypatch.setattr(sources, "_parsed_digest", never)
    assert digest() == before and len(before) == 64


def test_an_edit_of_one_byte_under_the_same_times_is_seen(source: Source) -> None:
    before, file = digest(), source / "other.py"
    status = file.stat()
    file.write_text("B = 2\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_mtime_ns == status.st_mtime_ns and file.stat().st_size == status.st_size
    assert digest() != before
    file.write_text("B = 1\n")
    assert digest() == before


def test_what_does_not_compute_does_not_count(source: Source) -> None:
    before = digest()
    (source / "aside.py").write_text("C = 2\n")
    (source / "other.py").write_text('"""Said."""\nB = 1\n')
    assert digest() == before


@pytest.mark.parametrize(("name", "content"), [("computes.py", "A = 1\n"), ("new.py", "A = 1\n")])
def test_new_and_lost_files_are_seen(source: Source, name: str, content: str) -> None:
    (source / "inner" / "computes.py").write_text("from kdsim.inner import new\nA = 1\n")
    before = digest()
    (source / "inner" / name).write_text(content)
    assert digest() != before
    (source / "inner" / name).unlink()
    (source / "inner" / "computes.py").write_text("from kdsim.inner import new\nA = 1\n")
    assert digest() == before


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\xfe", b"a b c\n", b"\0" * 200])
def test_a_damaged_memory_is_made_anew(source: Source, tmp_path: Path, content: bytes) -> None:
    before = digest()
    (file,) = (tmp_path / "cache" / "kdsim" / "source").iterdir()
    for damaged in (content, file.read_bytes().replace(before.encode(), b"0" * 64)):
        file.write_bytes(damaged)
        assert digest() == before and before.encode() in file.read_bytes()


def test_a_memory_that_never_ends_is_not_read(source: Source, tmp_path: Path) -> None:
    before = digest()
    (file,) = (tmp_path / "cache" / "kdsim" / "source").iterdir()
    file.unlink()
    os.mkfifo(file)
    assert digest() == before and before.encode() in file.read_bytes()
    os.truncate(file, 1 << 40)
    assert digest() == before and file.stat().st_size < 1000


def test_without_a_cache_it_is_the_same(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest()
    (tmp_path / "taken").write_text("a file, no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    assert digest() == before


def test_what_changes_meanwhile_is_not_remembered(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = sources._parsed_digest

    def edited_meanwhile() -> str:
        found = parsed()
        (source / "other.py").write_text("B = 2\n")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(sources, "_parsed_digest", edited_meanwhile)
        before = digest()
    assert not (tmp_path / "cache").exists() and digest() != before
