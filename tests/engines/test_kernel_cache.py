"""Compiled kernels are those of the sources that are there now, and a cache that fails costs time, never a result."""

from __future__ import annotations

import errno
import importlib
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numba
import pytest
from numba.core import config

from kdsim.engines.fused import compilation, metrics, mlp_steps, walk
from kdsim.engines.fused.compilation import KEPT
from kdsim.study.loading import import_study_file

ROOT = Path(compilation.__file__).parents[2]
INNER = "from numba import njit\nfrom pair.numbers import SHIFT\n\n@njit\ndef inner(x):\n    return 2 * x + SHIFT\n"
OUTER = """
from kdsim.engines.fused.compilation import kernel
from pair.inner import inner

@kernel()
def outer(x):
    return inner(x) + 1
"""


class Pair:
    """A package of a kernel that inlines a function, which has a constant of a third module frozen into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "pair"
        self.folder.mkdir()
        for name, text in (("__init__", ""), ("numbers", "SHIFT = 100\n"), ("inner", INNER), ("outer", OUTER)):
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(text)

    def load(self):
        """The kernel as a new process would have it."""
        for name in [name for name in sys.modules if name.split(".")[0] == "pair"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return importlib.import_module("pair.outer").outer

    def files(self) -> list[Path]:
        return sorted(self.folder.rglob("*.nbc"))


@pytest.fixture
def pair(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits within a second look alike to Python
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    yield Pair(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "pair"]:
        del sys.modules[name]


def called(kernel) -> tuple[float, bool, list[str]]:
    """The kernel's value at 1, whether it came from the cache, and what was said."""
    said: list[str] = []
    with compilation.announced(said.append):
        value = kernel(1)
    return value, bool(sum(kernel.stats.cache_hits.values())), said


# The sources ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_kernel_is_kept_until_a_source_that_it_inlines_changes(pair):
    assert called(pair.load())[:2] == (103, False)
    assert called(pair.load())[:2] == (103, True)
    pair.write("inner", INNER.replace("2 * x", "3 * x"))
    assert called(pair.load())[:2] == (104, False)
    pair.write("numbers", "SHIFT = 200\n")
    assert called(pair.load())[:2] == (204, False)
    pair.write("inner", INNER)
    pair.write("numbers", "SHIFT = 100\n")
    assert called(pair.load())[:2] == (103, True)  # back to what was there: it is still kept


@pytest.mark.slow
def test_old_kernels_are_removed(pair):
    for number in range(KEPT + 3):
        pair.write("numbers", f"SHIFT = {number}\n")
        assert called(pair.load())[:2] == (3 + number, False)
    assert len(pair.files()) == KEPT
    assert called(pair.load())[1]


def test_another_version_of_the_compiler_is_another_kernel(pair, monkeypatch):
    first = pair.load()._cache.digest
    monkeypatch.setattr(numba, "__version__", "0.0.0")
    assert pair.load()._cache.digest != first


@pytest.mark.parametrize(
    ("kernel", "inlined"),
    [
        (walk.walk, {"walk", "draws", "mathematics", "simd", "targets", "rng"}),
        (metrics.pool_metrics, {"metrics", "mathematics", "simd", "cross_entropy"}),
        (mlp_steps.walk, {"mlp_steps"}),
    ],
)
def test_the_kernels_stand_on_what_they_inline_and_on_nothing_that_computes_elsewhere(kernel, inlined):
    found = compilation.sources_of(kernel.py_func)
    assert {name.split(".")[-1] for name in found} - {"kdsim"} == inlined
    assert kernel._cache.digest is not None and kernel._cache.trouble == ""
    taken = {getattr(value, "__module__", "") for value in kernel.py_func.__globals__.values()}
    own = {name for name in taken if str(name).startswith("kdsim.")} - {compilation.__name__}
    assert {name.split(".")[-1] for name in own} <= inlined


# Faults of the cache ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda data: data[: len(data) // 2], "truncated or altered"),
        (lambda data: data[:10], "truncated or altered"),
        (lambda data: b"", "truncated or altered"),
        (lambda data: b"garbage" * 1000, "truncated or altered"),
        (lambda data: data[:-900] + bytes([data[-900] ^ 1]) + data[-899:], "truncated or altered"),  # in machine code
        (lambda data: compilation.sha256(b"no pickle").encode() + b"no pickle", "compiled again"),
    ],
)
def test_a_spoiled_kernel_is_compiled_again_and_named(pair, fault, words):
    called(pair.load())
    (file,) = pair.files()
    file.write_bytes(fault(file.read_bytes()))
    value, hit, said = called(pair.load())
    assert (value, hit) == (103, False)
    (line,) = [line for line in said if str(file) in line]
    assert words in line and "\n" not in line
    assert called(pair.load()) == (103, True, [])  # it was replaced


@pytest.mark.slow
def test_a_kernel_that_cannot_be_read_is_compiled_again_and_named(pair):
    called(pair.load())
    (file,) = pair.files()
    file.unlink()
    file.mkdir()  # as unreadable as a file without permission, also to root
    value, _, said = called(pair.load())
    assert value == 103
    assert any(str(file) in line and "Is a directory" in line for line in said)
    assert called(pair.load())[:2] == (103, True)  # it is kept in the next place


def no_folder(monkeypatch, tmp_path, pair):
    (pair.folder / "__pycache__").write_text("no folder")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))


def no_cache_dir(monkeypatch, tmp_path, pair):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "file" / "cache"))


def full_disk(monkeypatch, tmp_path, pair):
    def write(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(compilation, "write_new", write)


def no_home(monkeypatch, tmp_path, pair):
    (pair.folder / "__pycache__").write_text("no folder")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda text: text)  # of a user without home and without entry


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (no_folder, ["__pycache__' cannot be written", "file/kdsim/pair-"]),
        (no_cache_dir, ["file/cache/pair-"]),
        (full_disk, ["No space left on device"]),
        (no_home, ["__pycache__' cannot be written"]),
    ],
)
def test_where_kernels_cannot_be_kept_they_are_compiled_and_one_line_says_so(pair, fault, why, monkeypatch, tmp_path):
    fault(monkeypatch, tmp_path, pair)
    for _ in range(2):
        value, hit, said = called(pair.load())
        assert (value, hit) == (103, False)
        (line,) = [line for line in said if "not kept" in line]
        assert all(part in line for part in why) and "\n" not in line
    assert pair.files() == []


def test_without_anybody_who_listens_it_is_a_warning(pair, monkeypatch, tmp_path):
    no_folder(monkeypatch, tmp_path, pair)
    compilation._told.clear()
    with pytest.warns(RuntimeWarning, match="not kept"):
        assert pair.load()(1) == 103
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert pair.load()(1.5) == 104


def test_sources_that_cannot_be_read_make_no_digest(pair):
    outer = pair.load()
    pair.folder.joinpath("inner.py").unlink()
    pair.folder.joinpath("inner.py").symlink_to(pair.folder / "inner.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compilation.sources, "in_folder", lambda root, name: pair.folder / "inner.py")
        cache = compilation.KernelCache(outer.py_func)
    assert cache.digest is None and cache.folders == [] and "sources cannot be read" in cache.trouble


@pytest.mark.slow
def test_edited_random_numbers_reach_a_kernel_of_the_package(tmp_path):
    """A copy of kdsim, and in it a kernel over its generator: fewer rounds of Philox give other words."""
    shutil.copytree(ROOT, tmp_path / "kdsim", ignore=shutil.ignore_patterns("__pycache__"))
    fused = tmp_path / "kdsim/engines/fused"
    (fused / "probe.py").write_text(
        "import numpy as np\n"
        "from kdsim.engines.fused.compilation import kernel\n"
        "from kdsim.engines.fused.draws import Replicas, block_words, store_block\n\n"
        "@kernel()\n"
        "def probe(numbers, out):\n"
        "    store_block(out, 0, block_words(Replicas(numbers, 0, np.uint32(1), np.uint32(2)), 3, 4, 5))\n"
    )
    script = (
        "import numpy as np; from kdsim.engines.fused.probe import probe\n"
        "out = np.empty(64, np.uint32); probe(np.arange(16, dtype=np.uint32), out)\n"
        "print(out[:3], sum(probe.stats.cache_hits.values()))"
    )

    def words() -> list[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", script]
        ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.rsplit(maxsplit=1)

    first, again = words(), words()
    assert first[0] == again[0] and (first[1], again[1]) == ("0", "1")
    rng = tmp_path / "kdsim/rng.py"
    rng.write_text(rng.read_text().replace("\nROUNDS = 10\n", "\nROUNDS = 9\n"))
    assert words()[0] != first[0]


def test_functions_of_study_files_are_not_kept(tmp_path):
    """What numba keeps would be found again after an edit of the neighbour that it inlines."""
    text = "import numba\n\n@numba.njit{0}\ndef one(x): return x\n\n@numba.vectorize{0}\ndef other(x): return x\n"
    for name in ("study.py", "ordinary_of_a_test.py"):
        (tmp_path / name).write_text(text.format("(cache=True)"))
    study = import_study_file(tmp_path / "study.py")
    spec = importlib.util.spec_from_file_location("ordinary_of_a_test", tmp_path / "ordinary_of_a_test.py")
    ordinary = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ordinary)
    found = [[each.one._cache, each.other._dispatcher.cache] for each in (study, ordinary)]
    assert [[type(cache).__name__ for cache in each] for each in found] == [["NullCache"] * 2, ["FunctionCache"] * 2]
    assert study.one(3) == 3
