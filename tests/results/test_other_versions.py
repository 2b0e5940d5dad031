"""Rows of an older and of a newer kdsim are read, and what was altered is told from both."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_study
from stored_results import digests, rewrite

import kdsim as kd
from kdsim.cli import main
from kdsim.config import ConfigError
from kdsim.measure import floors
from kdsim.results import columns, runs
from kdsim.results.rows import COLUMNS_MARK, OWN_COLUMNS, columns_mark, own_columns, unknown_columns
from kdsim.results.schema import Column
from kdsim.results.store import Store, read_study
from kdsim.study import runner
from kdsim.study.checking import check
from kdsim.theory import prediction

STUDY = tiny_study.Tiny(supervisions=(tiny_study.Exact(),), steps=20)
NEW = (
    Column("mu_star", "float", "", "a new prediction", "theory", always=True, since=2),
    Column("wobble", "float", "", "a new measurement", "measurement", interval=True, always=True, since=2),
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder that is only read."""
    out = tmp_path_factory.mktemp("stored") / "results"
    runner.run(STUDY, out)
    return out


@pytest.fixture
def out(tmp_path: Path, stored: Path) -> Path:
    """A copy of it to be altered."""
    return Path(shutil.copytree(stored, tmp_path / "results"))


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A kdsim that predicts and measures one thing more."""
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, *NEW))
    fields = [("wobble", "float | None"), ("wobble_low", "float | None"), ("wobble_high", "float | None")]
    for module, name, more in (
        (floors, "Measurement", fields),
        (prediction, "Prediction", [("mu_star", "float | None")]),
    ):
        old = getattr(module, name)
        added = [(key, type_, dataclasses.field(default=0.5)) for key, type_ in more]
        new = dataclasses.make_dataclass(name, added, bases=(old,), frozen=True, kw_only=True)
        new.__annotations__ = {**old.__annotations__, **dict(more)}
        monkeypatch.setattr(module, name, new)
    yield


def folder(out: Path) -> Path:
    return Store(out).latest("tiny")


def test_older_rows_have_no_number_in_newer_columns(stored: Path, newer: None) -> None:
    results = read_study(folder(stored))
    (row,) = results.records
    assert [row[name] for name in ("mu_star", "wobble", "wobble_low", "wobble_high")] == [None] * 4
    assert results.rows[["mu_star", "wobble"]].isna().all().all() and results.rows["wobble"].dtype == float
    assert row["floor"] is not None and not list(runs.notes_on_rows(results.records))


def test_the_python_api_reads_older_rows(stored: Path, newer: None) -> None:
    found = kd.load(stored)
    assert found.frame[["mu_star", "wobble", "wobble_low"]].isna().all().all() and found.frame["wobble"].dtype == float
    assert found.frame["floor"].notna().all() and found.notes == ()


def test_the_python_api_says_what_another_source_computed(out: Path) -> None:
    (digest,) = digests(out)
    rewrite(out, digest, lambda info, tables: info["versions"].update(source_sha256="0" * 64))
    with pytest.warns(kd.KdsimWarning, match="computed by another source of kdsim") as caught:
        found = kd.load(out)
    assert caught[0].filename == __file__ and len(found.notes) == 1


@pytest.mark.parametrize(
    "command",
    [
        ["results"],
        ["results", "--json"],
        ["results", "--csv"],
        ["results", "--markdown"],
        pytest.param(["figure"], marks=pytest.mark.slow),
    ],
)
def test_commands_read_older_rows(
    stored: Path, newer: None, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    study = ["--study", str(Path(tiny_study.__file__))] if command[0] == "figure" else []
    assert main([command[0], "tiny", "--out", str(stored), *command[1:], *study]) == 0
    assert "error" not in capsys.readouterr().err


def test_older_results_are_whole_and_are_reused(out: Path, newer: None) -> None:
    assert check(out).damaged == []
    again = runner.run(STUDY, out)
    assert again.replica_steps == 0 and again.rows[0]["wobble"] is None
    more = runner.run(dataclasses.replace(STUDY, supervisions=(tiny_study.Exact(), tiny_study.OneHot())), out)
    assert [row["wobble"] for row in more.rows] == [None, 0.5] and more.rows[1]["mu_star"] == 0.5
    rows = read_study(folder(out)).rows
    assert rows["wobble"].isna().tolist() == [True, False]


def test_rows_of_before_there_were_marks_are_read(out: Path, newer: None) -> None:
    (digest,) = digests(out)
    rewrite(out, digest, lambda info, tables: info.pop(COLUMNS_MARK))
    assert read_study(folder(out)).records[0]["wobble"] is None
    assert check(out).damaged == []


def with_more(info: dict[str, Any], tables: object) -> None:
    """As a kdsim of tomorrow would write it."""
    info["measurement"]["zeal"] = 2.5
    info["prediction"]["zest"] = "much"
    info["later"] = {"key": [1]}
    info[COLUMNS_MARK] = columns_mark(info)


def test_columns_of_a_newer_row_stay_and_are_named_once(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (digest,) = digests(out)
    rewrite(out, digest, with_more)
    results = read_study(folder(out))
    assert (results.records[0]["zeal"], results.rows["zest"][0]) == (2.5, "much")
    assert unknown_columns(results.records) == ["zest", "zeal"]
    assert check(out).damaged == []
    assert main(["results", "tiny", "--out", str(out)]) == 0
    assert capsys.readouterr().err.count("columns that this kdsim does not know") == 1
    said: list[str] = []
    assert runner.run(STUDY, out, note=said.append).replica_steps == 0
    assert [line for line in said if "zest, zeal" in line and "kept as they are" in line]


def _drop(part: str, name: str) -> Any:
    return lambda info, tables: info[part].pop(name)


def _set(part: str, name: str, value: Any) -> Any:
    return lambda info, tables: info[part].__setitem__(name, value)


def _new(name: str, value: Any) -> Any:
    """A column more, as a newer kdsim may have."""

    def add(info: dict[str, Any], tables: Any) -> None:
        info["measurement"][name] = value
        info[COLUMNS_MARK] = columns_mark(info)

    return add


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop("measurement", "floor"), "measurement has no floor"),
        (_drop("prediction", "mu"), "prediction has no mu"),
        (_drop("summary", "seed"), "summary has no seed"),
        (_set("measurement", "floor", "0.5"), "measurement: floor = '0.5'"),
        (_set("measurement", "stationary", 1), "measurement: stationary = 1"),
        (_set("prediction", "mu", True), "prediction: mu = True"),
        (_set("prediction", "mu", [1.0]), r"prediction: mu = \[1.0\]"),
        (_set("measurement", "floor", 10**400), "measurement: floor"),
        (_set("summary", "steps", 2.5), "summary: steps = 2.5"),
        (_new("kind", "teacher"), "measurement: kind = 'teacher'"),
        (_new("cell", "another"), "measurement: cell = 'another'"),
        (_new("later", "\ud800"), r"measurement: 'later' = '\\ud800'"),
        (_new("\ud800", 1.5), r"measurement: '\\ud800' = '\\ud800'"),
    ],
)
def test_damage_is_found(out: Path, change: Any, words: str, marked: bool) -> None:
    def altered(info: dict[str, Any], tables: Any) -> None:
        change(info, tables)
        if not marked:
            del info[COLUMNS_MARK]

    (digest,) = digests(out)
    rewrite(out, digest, altered)
    with pytest.raises(ConfigError, match=words):
        read_study(folder(out))
    assert [finding.kind for finding in check(out).damaged] == ["damaged"]


def test_a_column_that_only_some_rows_have_is_missed_by_its_mark(out: Path) -> None:
    (digest,) = digests(out)
    rewrite(out, digest, _drop("summary", "problem.samples"))
    with pytest.raises(ConfigError, match="its columns are not those with which it was stored"):
        read_study(folder(out))


def test_a_changed_number_is_found(out: Path) -> None:
    (digest,) = digests(out)
    file = out / "cells" / digest / "cell.json"
    info = json.loads(file.read_text())
    info["measurement"]["floor"] *= 1.0001
    file.write_text(json.dumps(info))
    assert "its checksum is wrong" in check(out).damaged[0].what


def test_declarations_of_a_users_computation_are_read_back() -> None:
    mine = Column("gap", "float", "nats", "of mine", "computation", ("computation",), interval=True)
    others = {"odd": {"type": "float"}, "bad": 3, "no": {**mine.encoded(), "type": 1}}
    assert own_columns({OWN_COLUMNS: {"gap": mine.encoded(), **others}}) == (mine,)
    assert own_columns({}) == own_columns({OWN_COLUMNS: [1]}) == ()


@pytest.mark.slow
def test_reading_results_imports_no_torch(stored: Path) -> None:
    code = (
        "import sys; from kdsim.results import runs, store\n"
        "found = runs.run_folder('tiny', [], s := store.Store(sys.argv[1]))\n"
        "results = store.read_study(found); list(runs.notes(results))\n"
        "rows = {'torch', 'numba', 'scipy', 'pandas', 'pyarrow', 'matplotlib', 'kdsim.engines', 'kdsim.problems'}\n"
        "assert not rows & sys.modules.keys(), rows & sys.modules.keys()\n"
        "assert len(results.rows) == 1 and len(results.curves) and len(results.replicas) == 8\n"
        "assert not {'torch', 'numba', 'matplotlib', 'kdsim.engines', 'kdsim.problems'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(stored)], check=True)


@pytest.mark.slow
def test_the_command_results_imports_no_torch(stored: Path) -> None:
    code = (
        "import sys; from kdsim.cli import main; assert main(sys.argv[1:]) == 0\n"
        "found = {'torch', 'numba', 'scipy', 'pandas', 'pyarrow', 'matplotlib'} & sys.modules.keys()\n"
        "assert not found, found\n"
    )
    for arguments in (["results", "tiny", "--out", str(stored)], ["columns", "floor"]):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
