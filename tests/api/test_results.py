"""A `Result`: its tables, its parts, how it looks and travels; and reading it again."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import matplotlib.figure
import pandas as pd
import pytest

import kdsim as kd
from kdsim.results.store import Store


def test_tables_have_labels_first(sweep: kd.Result) -> None:
    assert list(sweep.frame)[:4] == ["label", "supervision", "level", "batch_size"]
    assert list(sweep["label"][:2]) == ["exact, batch size 1", "exact, batch size 4"]
    assert sweep["label"].iloc[4] == "dirichlet 3, batch size 1" and sweep["label"].is_unique
    for table, rows in ((sweep.curves, None), (sweep.replicas, 36)):
        assert list(table)[:4] == ["label", "supervision", "level", "batch_size"]
        assert set(table["label"]) == set(sweep["label"]) and (rows is None or len(table) == rows)
    assert sweep.spectrum.empty


def test_a_result_is_a_sequence(sweep: kd.Result) -> None:
    assert len(sweep) == 6 and [len(part) for part in sweep] == [1] * 6
    assert sweep[-1]["label"].item() == "dirichlet 3, batch size 4"
    assert list(sweep[1:3]["label"]) == list(sweep["label"][1:3])
    assert set(sweep[sweep["batch_size"] == 4]["batch_size"]) == {4} and len(sweep[[0, 2]]) == 2 and len(sweep[[]]) == 0
    assert len(sweep[2].replicas) == 6 and set(sweep[2].curves["label"]) == {"one-hot, batch size 1"}
    with pytest.raises(IndexError, match="no experiment 6: the result has 6"):
        sweep[6]
    with pytest.raises(KeyError, match=r"no column 'flor' .nearest: floor. in .frame"):
        sweep["flor"]
    for key in (None, 1.5, {0}):
        with pytest.raises(TypeError, match=r"key = .* is not allowed: must be the name of a column"):
            sweep[key]


def test_a_part_may_be_empty(sweep: kd.Result) -> None:
    none = sweep[sweep["floor"] < 0]
    assert len(none) == 0 and "0 experiments" in repr(none) and len(repr(none).splitlines()) == 1
    for call in (none.plot, lambda: kd.compare(none, sweep)):
        with pytest.raises(kd.ConfigError, match=r"experiments.* = 0 is not allowed: must be at least one"):
            call()
    for own, whole in ((none.curves, sweep.curves), (none.replicas, sweep.replicas)):
        assert own.empty and list(own) == list(whole)


def test_it_is_shown_in_a_few_lines(sweep: kd.Result) -> None:
    text = repr(sweep)
    assert text.startswith("Result of sweep: 6 experiments, in ") and len(text.splitlines()) == 8
    assert max(map(len, text.splitlines())) < 200 and "dirichlet 3, batch size 1" in text
    assert "<table" in sweep._repr_html_() and repr(sweep[[]])


def test_html_is_escaped(sweep: kd.Result) -> None:
    copy = pickle.loads(pickle.dumps(sweep))
    copy.name, copy.failures = "<b>sweep</b>", ("<script>",)
    copy._labels = copy._labels.assign(label="<i>")
    shown = copy._repr_html_()
    assert not any(tag in shown for tag in ("<b>", "<script>", "<i>"))


@pytest.mark.slow
def test_learning_curves_are_drawn(sweep: kd.Result) -> None:
    figure = sweep.plot()
    assert isinstance(figure, matplotlib.figure.Figure) and len(figure.axes) == 2
    assert [len(ax.lines) for ax in figure.axes] == [6, 6]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(sweep["label"])
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert len(sweep[:2].plot().axes[0].lines) == 2


def test_it_is_read_as_it_was(sweep: kd.Result, experiments: list[kd.experiments.Cell], folder: Path) -> None:
    found = [kd.load(folder), kd.load(sweep.folder), kd.load(folder / "sweep"), kd.load(folder, "sweep"),
             kd.load("sweep", out=folder)]  # fmt: skip
    found.append(kd.load(kd.experiments.ListedExperiments(tuple(experiments), "sweep"), out=folder))
    for each in found:
        pd.testing.assert_frame_equal(each.frame, sweep.frame)
        pd.testing.assert_frame_equal(each.curves, sweep.curves)
    assert kd.runs(folder)[["study", "folder"]].values.tolist() == [["sweep", str(sweep.folder)]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no/such/folder",), "folder 'no/such/folder' is not there"),
        (("{folder}", "noise-sweep"), "no results of 'noise-sweep' in .*stored there: sweep/"),
        (("{folder}/sweep", "noise-sweep"), "the folder holds a run of 'sweep', the study is 'noise-sweep'"),
        (("{empty}",), "no results in"),
        (("{folder}", 3), "study = 3 is not allowed: must be a study"),
        (("reslts",), "'reslts' is neither a folder nor a study with results in .*stored there"),
        (("",), "what = '' is not allowed: must be the path of a folder"),
    ],
)
@pytest.mark.usefixtures("sweep")
def test_what_is_not_stored_is_said(arguments: tuple, said: str, folder: Path, tmp_path: Path) -> None:
    places = {"folder": folder, "empty": tmp_path}
    with pytest.raises(kd.ConfigError, match=said) as refused:
        kd.load(*(each.format(**places) if isinstance(each, str) else each for each in arguments))
    assert "\n" not in str(refused.value)


def test_several_studies_are_told_apart(sweep: kd.Result, experiments: list, tmp_path: Path) -> None:
    sweep.save(tmp_path)
    kd.run(experiments[:1], tmp_path, name="one")
    with pytest.raises(kd.ConfigError, match=r"several studies are stored .*one, sweep; choose one"):
        kd.load(tmp_path)
    assert len(kd.load(tmp_path, "one")) == 1


def test_a_saved_result_needs_its_folder_no_more(experiments: list, tmp_path: Path) -> None:
    first = kd.run(experiments[:2], tmp_path / "first")
    second = first.save(tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    assert second.frame.equals(kd.load(tmp_path / "second").frame) and second.folder.is_relative_to(tmp_path / "second")
    with pytest.raises(kd.ConfigError, match="folder"):
        first.save(tmp_path / "third")


def test_a_part_is_saved_with_its_study(sweep: kd.Result, tmp_path: Path) -> None:
    assert len(sweep[0].save(tmp_path)) == len(kd.load(tmp_path)) == len(sweep)
    assert len(kd.load(tmp_path)[0].save(tmp_path)) == len(sweep)  # where it lies already


def test_fitted_teachers_are_saved_too(experiments: list, tmp_path: Path) -> None:
    result = kd.run(experiments[:1], tmp_path / "first")
    first, second = Store(tmp_path / "first"), Store(tmp_path / "second")
    own = result.frame["cell"].item()
    for digest in (own, "0" * len(own)):  # the other one belongs to another study
        first.teacher_file(digest, 0).write_bytes(b"fitted")
    result.save(second.root)
    assert second.teacher_file(own, 0).read_bytes() == b"fitted"
    assert not second.teacher_file("0" * len(own), 0).exists()


def test_it_can_be_pickled(sweep: kd.Result) -> None:
    copy = pickle.loads(pickle.dumps(sweep[1:3]))
    assert copy.frame.equals(sweep[1:3].frame) and copy.replicas.equals(sweep[1:3].replicas)
    assert len(copy.plot().axes) == 2 and repr(copy) == repr(sweep[1:3])


@pytest.mark.parametrize("wrong", [3, b"results", ""])
def test_a_folder_is_a_path(wrong: object, sweep: kd.Result, experiments: list) -> None:
    calls = (
        lambda: kd.run(experiments[0], wrong),
        lambda: kd.run(experiments[0], data_dir=wrong),
        lambda: kd.load("sweep", out=wrong),
        lambda: kd.runs(wrong),
        lambda: sweep.save(wrong),
    )
    for call in calls:
        with pytest.raises(kd.ConfigError, match=r"(out|data_dir) = .* is not allowed: must be the path of a folder"):
            call()


def test_a_tilde_is_the_home_folder(sweep: kd.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sweep.save("~/results").folder.is_relative_to(tmp_path / "results")
    assert len(kd.load("~/results")) == len(kd.load("sweep", out="~/results")) == len(sweep)
    assert len(kd.runs("~/results")) == 1


def test_columns_without_numbers_are_nan(sweep: kd.Result) -> None:
    texts = {name for name in sweep.frame if sweep.frame[name].dtype == object}
    assert all(isinstance(value, (str, bool)) for name in texts for value in sweep[name].dropna())
    assert {"exact_floor", "exact_floor_low"}.isdisjoint(texts)
    predicted = kd.predict(kd.Experiment(kd.problems.SoftmaxLinear(dimension=3, samples=100)))
    assert predicted["exact_floor"].dtype == float and predicted["exact_floor"].isna().all()
