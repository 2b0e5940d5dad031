"""Studies by name and from files; every way in which a file can be wrong is one line."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_study

from kdsim.config import ConfigError, by_name, digest, encode
from kdsim.problems import SoftmaxLinear
from kdsim.results.store import Store, read_study
from kdsim.studies import STUDIES, NoiseSweep
from kdsim.study import runner
from kdsim.study.base import Study
from kdsim.study.loading import figure_reference, find, load, stored_run, study_of_file
from kdsim.study.packs import cells_of
from kdsim.study.settings import parse_settings

KNOWN = by_name(STUDIES)
TINY = Path(tiny_study.__file__)

HEAD = """
from dataclasses import dataclass
from typing import ClassVar
from kdsim.study.base import Study
"""
GOOD = (
    HEAD
    + """
@dataclass(frozen=True)
class Mine(Study):
    name: ClassVar[str] = "mine"
    summary: ClassVar[str] = "mine"
    figure: ClassVar[str] = "noise-sweep"
    def cells(self): return ()
    def quick(self): return self
"""
)


def write(folder: Path, text: str) -> Path:
    file = folder / "my_study.py"
    file.write_text(text)
    return file


def test_a_study_by_name_with_settings() -> None:
    study = load("noise-sweep", KNOWN, {"steps": "1e3", "problem": "softmax-linear", "problem.classes": "4"})
    assert study == NoiseSweep(steps=1000, problem=SoftmaxLinear(classes=4))


def test_settings_win_over_quick() -> None:
    quick = NoiseSweep().quick()
    assert load("noise-sweep", KNOWN, {"steps": "77"}, quick=True) == replace(quick, steps=77)


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown study 'noise-swep' \(nearest: noise-sweep\); allowed: noise-sweep"):
        find("noise-swep", KNOWN)


def test_a_file_brings_its_own_problem_and_supervision() -> None:
    study = load(
        str(TINY), KNOWN, {"problem": "small-pool", "problem.samples": "32", "supervisions": "halfway,one-hot"}
    )
    assert [type(s).__name__ for s in study.supervisions] == ["Halfway", "OneHot"]
    assert study.problem.samples == 32
    form = encode(study)
    own = form["problem"], form["supervisions"][0]
    assert all(len(part["source_sha256"]) == 64 for part in own) and "source_sha256" not in form["supervisions"][1]
    with pytest.raises(ConfigError, match=r"allowed: gaussian-mixture, .*small-pool"):
        load(str(TINY), KNOWN, {"problem": "smal-pool"})
    with pytest.raises(ConfigError, match="unknown"):
        load("noise-sweep", KNOWN, {"problem": "small-pool"})  # not another study's


def test_an_edit_is_seen_at_once_and_is_another_config(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    first = load(str(file), KNOWN)
    stamp = file.stat()
    file.write_text(GOOD.replace('summary: ClassVar[str] = "mine"', 'summary: ClassVar[str] = "ours"'))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    second = load(str(file), KNOWN)
    assert (first.summary, second.summary) == ("mine", "ours")
    assert not list(tmp_path.glob("__pycache__"))
    assert type(load(str(file), KNOWN)) is type(second)
    assert digest(second) == digest(load(str(file), KNOWN))


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_my_study.py").write_text("SUMMARY = 'from next door'\n")
    text = "import neighbour_of_my_study\n" + GOOD.replace(
        'summary: ClassVar[str] = "mine"', "summary: ClassVar[str] = neighbour_of_my_study.SUMMARY"
    )
    assert study_of_file(write(tmp_path, text)).summary == "from next door"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", r"my_study\.py, line 1: syntax error: '\(' was never closed"),
        ("\n\nimport no_such_module_at_all", r"my_study\.py, line 3: ModuleNotFoundError"),
        ("raise SystemExit('bye')", r"my_study\.py, line 1: SystemExit: bye"),
        ("from kdsim.config import require_count\nrequire_count('n', 0)", r"n = 0 is not allowed"),
        (b"\xff\xfe\x00", r"my_study\.py"),
        ("x = 1", "exactly one subclass .* it defines none"),
        ("from kdsim.studies import NoiseSweep", "it defines none"),
        (GOOD + GOOD.replace("Mine", "Other"), "it defines Mine, Other"),
        (GOOD.replace("def quick", "def quack"), "it defines none; Mine lacks quick"),
        (GOOD.replace("@dataclass(frozen=True)", ""), "Mine must be a frozen dataclass"),
        (GOOD.replace('= "mine"', '= "../mine"', 1), r"Mine\.name = '\.\./mine' is not allowed"),
        (GOOD.replace('= "mine"', '= "cells"', 1), r"Mine\.name = 'cells' is not allowed"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    file = tmp_path / "my_study.py"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message) as caught:
        study_of_file(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_setting_without_default(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        find(str(tmp_path / "absent.py"), KNOWN)
    file = write(tmp_path, GOOD.replace("    def cells", "    size: int\n    def cells"))
    with pytest.raises(ConfigError, match=r"every setting needs a default .*size"):
        load(str(file), KNOWN)


def test_parse_settings() -> None:
    assert parse_settings(["a=1", " b.c = x=y ", "d="]) == {"a": "1", "b.c": "x=y", "d": ""}
    for texts, message in ((["a"], "KEY=VALUE"), (["=1"], "KEY=VALUE"), (["a=1", "a=2"], "set twice")):
        with pytest.raises(ConfigError, match=message):
            parse_settings(texts)


def test_figure_reference() -> None:
    assert figure_reference(NoiseSweep()) == {"name": "noise-sweep"}
    reference = figure_reference(load(str(TINY), KNOWN))
    assert reference is not None and reference["file"] == str(TINY.absolute()) and len(reference["sha256"]) == 64


@pytest.mark.slow
def test_stored_runs_by_file_name_folder_and_settings(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = runner.run(load(str(TINY), KNOWN, {"steps": "50"}), tmp_path).folder
    last = runner.run(load(str(TINY), KNOWN, quick=True), tmp_path).folder
    for target in (str(TINY), "tiny", str(tmp_path / "tiny"), str(last)):
        assert stored_run(target, KNOWN, store).resolve() == last.resolve()
    assert stored_run(str(TINY), KNOWN, store, {"steps": "5e1"}) == first
    assert stored_run(str(TINY), KNOWN, store, quick=True) == last
    assert stored_run(str(first), KNOWN, store) == first
    assert read_study(first).records[0]["steps"] == 50
    with pytest.raises(ConfigError, match=r"no results of 'tiny' with these settings .*tiny/.*tiny/"):
        stored_run(str(TINY), KNOWN, store, {"steps": "51"})
    with pytest.raises(ConfigError, match=r"no results of 'noise-sweep' .*stored there: tiny/"):
        stored_run("noise-sweep", KNOWN, store)
    with pytest.raises(ConfigError, match=r"unknown study 'tyny' \(nearest: tiny\)"):
        stored_run("tyny", KNOWN, store)
    with pytest.raises(ConfigError, match="folder of one run"):
        stored_run(str(first), KNOWN, store, {"steps": "50"})
    with pytest.raises(ConfigError, match="not the folder of a stored study"):
        read_study(stored_run(str(tmp_path / "absent"), KNOWN, store))


def test_what_a_file_raises_is_one_line_that_says_where(tmp_path: Path) -> None:
    def study(body: str) -> Study:
        return load(str(write(tmp_path, body)), KNOWN)

    with pytest.raises(ConfigError, match=r"ValueError: no \(my_study\.py:\d+\)$"):
        study(GOOD + "    def __post_init__(self):\n        raise ValueError('no\\nway')\n")
    with pytest.raises(ConfigError, match=r"cells of study 'mine': KeyError: 'x' \(my_study\.py:\d+\)$"):
        cells_of(study(GOOD + "    def cells(self):\n        raise KeyError('x')\n"))
    with pytest.raises(ConfigError, match="objects, it returned 1"):
        cells_of(study(GOOD + "    def cells(self):\n        yield 1\n"))
    with pytest.raises(ConfigError, match=r"quick\(\) must return a Mine, it returned None"):
        load(str(write(tmp_path, GOOD + "    def quick(self):\n        return None\n")), KNOWN, quick=True)


def test_settings_of_a_stored_study_need_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "abc"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text("{}")
    assert stored_run("elsewhere", KNOWN, Store(tmp_path)) == folder
    with pytest.raises(ConfigError, match=r"give its study file \(\.py\); stored there: elsewhere/abc"):
        stored_run("elsewhere", KNOWN, Store(tmp_path), {"seed": "1"})
