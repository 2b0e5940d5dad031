"""Results on disk are whole or absent, and what is not ours is refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_study
import torch

from kdsim.config import ConfigError
from kdsim.engines.base import State
from kdsim.engines.recorder import METRICS, Record
from kdsim.files import Damaged, StorageError, Unreadable, signed
from kdsim.results.cells import CELL_FILE, STORE_VERSION, UNSIGNED
from kdsim.results.json_files import json_ready, json_text
from kdsim.results.provenance import source_of
from kdsim.results.rows import flat_row, predicted_floor
from kdsim.results.store import STUDY_FILE, Store, read_study
from kdsim.results.tables import CURVES_FILE, REPLICAS_FILE, SPECTRUM_FILE
from kdsim.results.unfinished import NO_LOCKS, release
from kdsim.study import runner
from kdsim.study.checking import UNREAD, check
from kdsim.study.rows import bound_curve
from kdsim.study.states import read_state, write_state
from kdsim.study.tables import curves_table, replicas_table
from kdsim.untrusted import read_file

INFO = {"cell": {"class": "Cell"}, "summary": {}, "prediction": {"mu": 1.0}, "measurement": {"floor": math.inf}}
CURVES = pd.DataFrame({"step": [0, 5], "dist_sq_mean": [2.0, math.nan]})
REPLICAS = pd.DataFrame({"replica": [0, 1], "floor": [0.5, 0.25]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "out")
    store.prepare()
    store.write_cell("abc", INFO, CURVES, REPLICAS)
    return store


def test_a_cell_comes_back(store: Store) -> None:
    cell = store.read_cell("abc")
    assert cell.info["prediction"] == {"mu": 1.0}
    assert cell.info["measurement"] == {"floor": None}  # strict JSON knows no infinity
    pd.testing.assert_frame_equal(cell.curves, CURVES)
    pd.testing.assert_frame_equal(cell.replicas, REPLICAS)
    assert not store.has_cell("abd")


def test_the_first_of_two_writers_stays_and_nothing_is_left_over(store: Store) -> None:
    store.write_cell("abc", INFO | {"prediction": {"mu": 2.0}}, CURVES, REPLICAS)
    assert store.read_cell("abc").info["prediction"] == {"mu": 1.0}
    assert [path.name for path in store.cell_folder("abc").parent.iterdir()] == ["abc"]


def test_two_writers_that_replace_a_result_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has moved the old one aside when the other one is faster: nothing is lost, and neither fails."""
    move, others = Store.move_aside, [Store(store.root)]

    def slow(self: Store, path: Path, name: str) -> Path:
        target = move(self, path, name)
        if others:
            others.pop().write_cell("abc", INFO | {"versions": {"source_sha256": "other"}}, CURVES, REPLICAS)
        return target

    monkeypatch.setattr(Store, "move_aside", slow)
    store.write_cell("abc", INFO | {"versions": {"source_sha256": "own"}}, CURVES, REPLICAS)
    assert source_of(store.read_info("abc")) == "own"
    kept = [json.loads((store.root / "superseded" / f"abc.{number}" / CELL_FILE).read_text()) for number in range(2)]
    assert [source_of(info) for info in kept] == ["", "other"]
    assert [path.name for path in store.cell_folder("abc").parent.iterdir()] == ["abc"]


def test_a_failed_write_leaves_no_cell(store: Store) -> None:
    with pytest.raises(TypeError):
        store.write_cell("new", INFO | {"prediction": {"mu": object()}}, CURVES, REPLICAS)
    assert [path.name for path in store.cell_folder("abc").parent.iterdir()] == ["abc"]


@pytest.mark.parametrize("name", [CELL_FILE, CURVES_FILE])
@pytest.mark.parametrize("damage", ["truncated", "removed", "zeros"])
def test_a_damaged_cell_is_refused_with_advice(store: Store, name: str, damage: str) -> None:
    file = store.cell_folder("abc") / name
    content = file.read_bytes()
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "truncated" else bytes(len(content)))
    with pytest.raises(ConfigError, match=r"abc is damaged: delete it") as caught:
        store.read_cell("abc")
    assert name in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "{}", f'{{"schema": {STORE_VERSION}}}'])
def test_json_that_is_no_cell_is_damaged(store: Store, content: str) -> None:
    (store.cell_folder("abc") / CELL_FILE).write_text(content)
    with pytest.raises(ConfigError, match="is damaged"):
        store.read_cell("abc")


def test_another_schema_is_refused_by_name(store: Store) -> None:
    file = store.cell_folder("abc") / CELL_FILE
    file.write_text(file.read_text().replace(f'"schema": {STORE_VERSION}', '"schema": 99'))
    with pytest.raises(ConfigError) as caught:
        store.read_cell("abc")
    assert str(file) in str(caught.value)
    assert "99" in str(caught.value) and str(STORE_VERSION) in str(caught.value)


@pytest.mark.parametrize("blocked", ["", "cells", "partial"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, blocked: str) -> None:
    out = tmp_path / "out"
    (out / blocked).parent.mkdir(exist_ok=True)
    (out / blocked).write_text("a file in the way")
    with pytest.raises(ConfigError, match="cannot be written"):
        Store(out).prepare()


def test_partial_state_comes_back_bit_for_bit(store: Store) -> None:
    state = State(7, torch.rand(2, 3, 4), {"sum": torch.rand(2, dtype=torch.float64)})
    write_state(store.unfinished, "p", "torch", state, 1.5)
    read, seconds = read_state(store.unfinished, "p", "torch")
    assert read is not None and read.step == 7 and seconds == 1.5
    for name, value in vars(state).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(read, name), value)
    assert torch.equal(read.recorder["sum"], state.recorder["sum"])
    store.unfinished.forget("p", ["p"])
    assert read_state(store.unfinished, "p", "torch") == (None, 0.0)


def test_a_damaged_partial_state_is_refused_with_advice(store: Store) -> None:
    store.unfinished.state_file("p").write_bytes(b"PK")
    with pytest.raises(Damaged, match=r"p\.safetensors is not a file of kdsim.* delete it"):
        read_state(store.unfinished, "p", "torch")


def test_another_engine_does_not_go_on_with_a_state(store: Store) -> None:
    write_state(store.unfinished, "p", "torch", State(7, torch.rand(2, 3, 4), {}), 1.5)
    with pytest.raises(Damaged, match=r"p\.safetensors is of engine torch, not of autograd: delete it"):
        read_state(store.unfinished, "p", "autograd")


def test_a_state_without_a_step_is_refused(store: Store) -> None:
    write_state(store.unfinished, "p", "torch", State("x", torch.rand(2, 3, 4), {}), 1.5)
    with pytest.raises(Damaged, match="step is x"):
        read_state(store.unfinished, "p", "torch")


@pytest.mark.parametrize(
    "content", [{"cells": [], "block_replicas": 5}, {"cells": ["a"], "block_replicas": 0}, {"block_replicas": 5}]
)
def test_a_plan_of_nothing_is_refused(store: Store, content: dict) -> None:
    store.unfinished.plan_file("p").write_text(json.dumps(signed(content)))
    with pytest.raises(Damaged, match=r"p\.plan\.json has no cells, size of a block or points: delete it"):
        list(store.unfinished.plans())


@pytest.mark.parametrize("code", NO_LOCKS)
def test_a_file_system_without_locks_is_used_without(store: Store, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refused(file: int, operation: int) -> None:
        raise OSError(code, "no locks")

    monkeypatch.setattr("fcntl.flock", refused)
    locks = [store.unfinished.lock("p") for _ in range(2)]
    for lock in locks:
        assert lock is not None
        release(lock)
    assert not list(store.unfinished.folder.iterdir())


@pytest.mark.parametrize("name", [CURVES_FILE, REPLICAS_FILE, SPECTRUM_FILE])
def test_a_table_that_was_altered_is_refused_before_a_run(store: Store, name: str) -> None:
    """Another table of the same shape can be read, and only its checksum says that it is not this cell's."""
    spectrum = pd.DataFrame({"step": [0, 5], "square": [1.0, 0.5]})
    store.write_cell("whole", INFO, CURVES, REPLICAS, spectrum)
    assert store.check_cell("whole")["files"].keys() == {CURVES_FILE, REPLICAS_FILE, SPECTRUM_FILE}
    file = store.cell_folder("whole") / name
    (pd.read_parquet(file) * 1.5).to_parquet(file, index=False)
    for read in (store.check_cell, store.read_cell, lambda digest: store.read_table(digest, Path(name).stem)):
        with pytest.raises(Damaged, match=rf"whole is damaged.*{name}: its SHA-256 is"):
            read("whole")


def test_checksums_that_are_no_texts_are_refused(store: Store) -> None:
    folder = _bare_cell(store.root / "cells" / "c", schema=STORE_VERSION, files={CURVES_FILE: 5}, weights=0)
    text = json.loads((folder / CELL_FILE).read_text())
    (folder / CELL_FILE).write_text(json.dumps(signed(text)))
    with pytest.raises(Damaged, match=rf"files has {CURVES_FILE}"):
        store.check_cell("c")


def test_checksums_are_added_to_own_files_only(store: Store, tmp_path: Path) -> None:
    folder = _bare_cell(store.root / "cells" / "c", schema=UNSIGNED)
    (folder / "notes.parquet").write_bytes((folder / CURVES_FILE).read_bytes())
    store.check_cell("c")
    assert store.check_cell("c")["files"].keys() == {CURVES_FILE, REPLICAS_FILE}
    outside = _bare_cell(tmp_path / "c", schema=UNSIGNED)
    before = (outside / CELL_FILE).read_bytes()
    (store.root / "cells" / "linked").symlink_to(outside)
    (outside / CELL_FILE).write_bytes(before.replace(b'"c"', b'"linked"'))
    before = (outside / CELL_FILE).read_bytes()
    assert store.check_cell("linked")["schema"] == UNSIGNED
    assert (outside / CELL_FILE).read_bytes() == before


def test_a_number_that_strict_json_has_not_is_damage(store: Store) -> None:
    _bare_cell(store.root / "cells" / "c", schema=UNSIGNED, summary={"a": float("inf")})
    with pytest.raises(Damaged, match="ValueError"):
        store.check_cell("c")


def test_nothing_is_set_aside_through_a_link(store: Store, tmp_path: Path) -> None:
    folder = _bare_cell(store.root / "cells" / "c", schema=UNSIGNED)
    (tmp_path / "elsewhere").mkdir()
    (store.root / "damaged").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="is a link"):
        store.set_aside(Damaged("damaged", folder))
    assert folder.is_dir() and not list((tmp_path / "elsewhere").iterdir())


def _bare_cell(folder: Path, **content: object) -> Path:
    """A cell whose tables have one row, and of which cell.json says this."""
    folder.mkdir(parents=True)
    for name in (CURVES_FILE, REPLICAS_FILE):
        pd.DataFrame({"step": [1]}).to_parquet(folder / name)
    empty = {key: {} for key in ("cell", "summary", "prediction", "measurement")}
    (folder / CELL_FILE).write_text(json.dumps({"digest": folder.name, **empty, **content}))
    return folder


def test_a_folder_without_a_study_says_what_there_is(store: Store) -> None:
    with pytest.raises(ConfigError, match="nothing is stored there"):
        read_study(store.root)
    folder = store.root / "mine" / "0123"
    folder.mkdir(parents=True)
    (folder / STUDY_FILE).write_text("{")
    with pytest.raises(ConfigError, match=r"stored there: mine/0123"):
        read_study(store.root)
    with pytest.raises(ConfigError, match="mine/0123 is damaged"):
        read_study(folder)


def test_json_is_strict() -> None:
    content = {"a": math.nan, "b": [np.float64("inf"), np.int64(3)], "c": torch.tensor(2.5), 4: (True, None, "x")}
    assert json.loads(json_text(content)) == {"a": None, "b": [None, 3], "c": 2.5, "4": [True, None, "x"]}
    assert json_ready(np.bool_(True)) is True


# Tables -----------------------------------------------------------------------------------------


def _record(values: torch.Tensor) -> Record:
    """A record whose metrics all are `values` (C, R)."""
    replicas = values.shape[1]
    fields = {
        "steps": torch.arange(values.shape[0]),
        "curves": dict.fromkeys(METRICS, values),
        "tail_mean": values[-2:],
        "tail_std": torch.ones(replicas, dtype=torch.float64),
        "half_samples": (1, 1),
        "mean_error": None,
        "along": None,
        "tail_start": 0,
        "diverged_at": torch.full((replicas,), -1),
    }
    return Record(**{name: fields[name] for name in Record.__dataclass_fields__})


def test_curves_agree_with_numpy() -> None:
    values = torch.rand(3, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table = curves_table(_record(values))
    assert list(table["step"]) == [0, 1, 2]
    for metric in METRICS:
        np.testing.assert_allclose(table[f"{metric}_mean"], values.numpy().mean(1), rtol=1e-15)
        np.testing.assert_allclose(table[f"{metric}_se"], values.numpy().std(1, ddof=1) / 33**0.5, rtol=1e-13)
        for percent in (5, 25, 50, 75, 95):
            expected = np.percentile(values.numpy(), percent, axis=1)
            np.testing.assert_allclose(table[f"{metric}_q{percent:02d}"], expected, rtol=1e-14)


def test_diverged_replicas_count_as_worst() -> None:
    values = torch.arange(1.0, 22.0, dtype=torch.float64).repeat(2, 1)  # 21 replicas: quantiles are order statistics
    values[1, :6] = math.nan
    values[1, 6] = math.inf
    table = curves_table(_record(values))
    assert table["dist_sq_q50"].tolist() == [11.0, 18.0]  # seven of 21 are worse than all others
    assert table["dist_sq_q95"].tolist() == [20.0, math.inf]
    assert table["accuracy_q05"].tolist() == [2.0, -math.inf]
    assert not np.isfinite(table["dist_sq_mean"][1])
    replicas = replicas_table(_record(values))
    assert len(replicas) == 21 and list(replicas["replica"]) == list(range(21))
    for metric in METRICS:  # at the last checkpoint
        np.testing.assert_array_equal(replicas[f"final_{metric}"], values[1].numpy())


# Rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exact", "first_order", "floor", "ratio"),
    [
        (2.0, 4.0, 3.0, 1.5),
        (None, 4.0, 3.0, 0.75),
        (None, None, 3.0, None),
        (0.0, 4.0, 3.0, None),
        (2.0, 4.0, None, None),
    ],
)
def test_ratio_takes_the_sharpest_prediction(exact: float, first_order: float, floor: float, ratio: float) -> None:
    summary = {"step_size": 0.5, "tail_start": 30, "steps": 40, "replicas": 2, "seed": 0, "engine": "e", "device": "d"}
    prediction = {"mu": 0.2, "exact_floor": exact, "first_order_floor": first_order}
    row = flat_row("s", "abc", summary, prediction, {"floor": floor})
    assert row["ratio"] == ratio
    assert row["tail_relaxations"] == pytest.approx(3.0)
    assert list(row)[:2] == ["study", "cell"]
    assert "ratio" not in flat_row("s", "abc", summary, prediction)


@pytest.mark.parametrize(("step_size", "floor"), [(0.49, 2.0), (0.5, None), (0.6, None)])
@pytest.mark.parametrize("kind", ["exact", "linearised"])
def test_at_the_stability_limit_there_is_no_floor(step_size: float, floor: float | None, kind: str) -> None:
    row = {"exact_floor": 2.0, "stability_limit": 0.5, "stability_kind": kind, "step_size": step_size}
    assert predicted_floor(row) == floor


def test_a_folder_in_place_of_a_table_is_refused(store: Store) -> None:
    file = store.cell_folder("abc") / CURVES_FILE
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigError, match=r"is damaged: delete it.*IsADirectoryError"):
        store.read_cell("abc")


@pytest.mark.parametrize("part", ["summary", "prediction", "measurement"])
def test_a_cell_with_a_part_of_another_kind_is_damaged(store: Store, part: str) -> None:
    file = store.cell_folder("abc") / CELL_FILE
    file.write_text(json.dumps(signed(json.loads(file.read_text()) | {part: 5})))
    with pytest.raises(ConfigError, match=f"is damaged.*{part} = 5"):
        store.read_cell("abc")


def test_a_row_of_a_cell_that_lacks_keys_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"abc is damaged: delete it.*summary has no"):
        store.row("study", "abc", store.read_cell("abc").info)


STUDY = {"study": "s", "digest": "d", "settings": {}, "cells": [], "figure": None, "date": "2026"}


@pytest.mark.parametrize(
    "change", [{"cells": "abc"}, {"cells": [1]}, {"settings": []}, {"figure": 4}, {"date": 5}, {"study": None}]
)
def test_a_study_with_wrong_content_is_refused(store: Store, change: dict) -> None:
    folder = store.write_study(STUDY, [])
    assert read_study(folder).name == "s"
    (folder / "study.json").write_text(json.dumps(signed({"schema": STORE_VERSION, **STUDY, **change})))
    with pytest.raises(ConfigError, match=f"study folder .* is damaged.*{next(iter(change))}"):
        read_study(folder)


@pytest.mark.parametrize("blocked", ["s", "s/d/study.json", "s/d/table.csv"])
def test_a_study_folder_that_cannot_be_written_is_refused(store: Store, blocked: str) -> None:
    path = store.root / blocked
    if path.suffix:
        path.mkdir(parents=True)
    else:
        path.write_text("a file in the way")
    with pytest.raises(ConfigError, match=r"study folder .* cannot be written .*; stored: 0 cells"):
        store.write_study(STUDY, [])


def test_a_bound_that_overflowed_is_no_number() -> None:
    prediction = {"bound_valid": True, "bound_floor": None, "mu": 1e-320}
    assert np.isnan(bound_curve(prediction, 0.1, 1.0, np.array([0, 5]))).all()


@pytest.mark.parametrize("name", [CELL_FILE, CURVES_FILE])
def test_a_cell_that_cannot_be_read_is_left_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Permission or a bad disk: with --repair too, and check-results says so."""
    study = tiny_study.Tiny(supervisions=(tiny_study.Exact(),), steps=20)
    digest = runner.run(study, tmp_path).rows[0]["cell"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def denied(path: Path, *arguments: int) -> bytes:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return read_file(path, *arguments)

    for module in ("cells", "json_files"):
        monkeypatch.setattr(f"kdsim.results.{module}.read_file", denied)
    file = Store(tmp_path).cell_folder(digest) / name
    for repair in (False, True):
        with pytest.raises(Unreadable, match=rf"'{file}' cannot be read \(Permission denied\), which is no damage"):
            runner.run(study, tmp_path, repair=repair)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (finding,) = check(tmp_path).damaged
    assert finding.kind == UNREAD and str(file) in finding.what


def test_a_plan_that_cannot_be_read_is_no_damage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, *arguments: int) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("kdsim.results.unfinished.read_file", denied)
    with pytest.raises(Unreadable, match="which is no damage"):
        store.unfinished.read_plan(store.unfinished.plan_file("p"))


def test_a_results_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else libraries would make a home folder of `~`, and a study file could move it."""
    monkeypatch.chdir(tmp_path)
    assert Store("~/x").root == tmp_path / "~" / "x"
