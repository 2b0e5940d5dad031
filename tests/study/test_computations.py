"""Computations: run, stored, read back, planned and printed, alone and among trainings."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
from tiny_study import Tiny

from kdsim.cli import main
from kdsim.config import ConfigError, digest
from kdsim.files import signed
from kdsim.results.store import Store, read_study
from kdsim.study import computations, report, runner, teacher_report, trainings
from kdsim.study.base import Computation
from kdsim.study.packs import cells_of

FILE = """
from dataclasses import dataclass, field
from typing import ClassVar
import pandas as pd
from kdsim.files import signed
from kdsim.config import ConfigError
from kdsim.data import KnownImages
from kdsim.problems import Images
from kdsim.study.base import Computation, Computed, Study
from kdsim.teachers import Deterministic
from kdsim.trainer import ImageNetwork, StudentTrainer
from kdsim.training import Recipe

PROBLEM = Images(classes=3, samples=48, validation_samples=16, test_samples=20, clutter=0, dimension=2)


@dataclass(frozen=True)
class Squares(Computation):
    count: int = 4
    scale: float = 1.0

    name: ClassVar[str] = "squares"

    def compute(self):
        if self.count == 13:
            raise ConfigError("count = 13 is not allowed: must be another")
        values = [self.scale * number**2 for number in range(self.count)]
        return Computed(
            measurement={"total": sum(values), "total_low": sum(values) - 1, "total_high": sum(values) + 1,
                         "verdict": "holds", "nothing": float("nan")},
            curves=pd.DataFrame({"number": range(self.count), "square": values}),
            replicas=pd.DataFrame({"replica": [0], "last": values[-1:]}),
        )


@dataclass(frozen=True)
class Mixed(Study):
    counts: tuple[int, ...] = (3, 4)
    networks: bool = True
    first: bool = True

    name: ClassVar[str] = "mixed"
    summary: ClassVar[str] = "squares and networks"
    figure: ClassVar[None] = None

    def cells(self):
        squares = tuple(Squares(count) for count in self.counts)
        if not self.networks:
            return squares
        base = StudentTrainer(ImageNetwork("resnet8"), KnownImages(PROBLEM), recipe=Recipe(epochs=0.5, batch_size=16))
        teacher = Deterministic(base)
        networks = (base, teacher, StudentTrainer(**{**vars(base), "supervision": teacher}))
        return squares + networks if self.first else networks + squares

    def quick(self):
        return self
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.py"
    path.write_text(FILE)
    return path


def load(file: Path, **settings: object):
    from kdsim.study.loading import study_of_file

    return replace(study_of_file(file)(), **settings)


def test_stored_and_read_back(file: Path, tmp_path: Path) -> None:
    study = load(file, networks=False)
    result = runner.run(study, tmp_path / "out")
    assert not result.failures
    stored = read_study(result.folder)
    assert [(row["computation"], row["count"], row["total"]) for row in stored.records] == [
        ("squares", 3, 5.0),
        ("squares", 4, 14.0),
    ]
    assert stored.records[0]["nothing"] is None  # strict JSON
    first = stored.curves[stored.curves["cell"] == digest(study.cells()[0])]
    assert first["square"].tolist() == [0.0, 1.0, 4.0]
    assert stored.replicas["last"].tolist() == [4.0, 9.0]


def test_computed_once(file: Path, tmp_path: Path) -> None:
    study = load(file, networks=False)
    runner.run(study, tmp_path / "out")
    again = runner.run(study, tmp_path / "out")
    assert again.replica_steps == 0
    assert [row["total"] for row in again.rows] == [5.0, 14.0]


def test_one_that_fails_leaves_the_others(file: Path, tmp_path: Path) -> None:
    result = runner.run(load(file, networks=False, counts=(13, 3)), tmp_path / "out")
    assert result.failures == ["computation squares failed: count = 13 is not allowed: must be another"]
    assert result.user_error
    assert [row["total"] for row in result.rows] == [5.0]


def test_the_digest_is_the_configuration(file: Path) -> None:
    cells = load(file, networks=False, counts=(3, 4)).cells()
    assert digest(cells[0]) != digest(cells[1])
    assert digest(cells[0]) == digest(replace(cells[1], count=3))
    assert digest(cells[0]) != digest(replace(cells[0], scale=2.0))


@pytest.mark.slow
@pytest.mark.parametrize("order", [True, False], ids=["first", "last"])
def test_among_trainings(file: Path, tmp_path: Path, order: bool) -> None:
    study = load(file, first=order)
    result = runner.run(study, tmp_path / "out")
    assert not result.failures
    kinds = [row["kind"] for row in result.rows]
    assert sorted(kinds) == ["computation", "computation", "teacher", "training", "training"]
    assert (kinds[0] == "computation") == order
    stored = read_study(result.folder)
    found = teacher_report.tables(stored.records, stored.replicas)
    assert found[0].common["computation"] == "squares"
    assert found[0].common["verdict"] == "holds"
    assert ["3", "5 ± 1"] in found[0].rows
    assert len(found) > 2  # teachers, students


@pytest.mark.slow
def test_planned_and_estimated(file: Path) -> None:
    study = load(file)
    assert trainings.is_training(study)
    assert [row["student"] for row in trainings.planned_rows(study)] == ["resnet8", "resnet8"]
    assert [row["count"] for row in computations.planned_rows(study)] == [3, 4]
    cost = trainings.estimate(study)
    assert (cost.cells, cost.packs) == (5, 2)
    none = trainings.estimate(load(file, networks=False))
    assert (none.packs, none.replica_steps, none.seconds) == (0, 0, 0)


@pytest.mark.slow
def test_command_line(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, own = str(tmp_path / "out"), ["--set", "networks=false"]
    assert main(["show-study", str(file), *own]) == 0
    assert "not counting 2 computations" in capsys.readouterr().out
    assert main(["run-study", str(file), *own, "--out", out, "--json"]) == 0
    assert [row["total"] for row in json.loads(capsys.readouterr().out)["rows"]] == [5.0, 14.0]
    assert main(["results", str(file), "--out", out]) == 0
    assert "5 ± 1" in capsys.readouterr().out
    assert main(["run-study", str(file), *own, "--set", "counts=13", "--out", out]) == 2
    assert "count = 13 is not allowed" in capsys.readouterr().err


def test_simulations_do_not_mix(file: Path) -> None:
    square, simulation = load(file).cells()[0], Tiny().cells()[0]

    class Both(Tiny):
        def cells(self):
            return (simulation, square)

    with pytest.raises(ConfigError, match="all Cell, or all StudentTrainer, Teacher and Computation"):
        cells_of(Both())


@dataclass(frozen=True)
class Wrong(Computation):
    """Returns what it is given, or names a column that is taken."""

    what: str = "nothing"

    name = "wrong"

    def compute(self):
        from kdsim.study.base import Computed

        return {"nothing": None, "taken": Computed({"what": 1})}[self.what]


@pytest.mark.parametrize(("what", "message"), [("nothing", "must return a Computed"), ("taken", "what is a setting")])
def test_what_cannot_be_a_row_is_refused(tmp_path: Path, what: str, message: str) -> None:
    store = Store(tmp_path)
    store.prepare()
    with pytest.raises(ConfigError, match=message):
        computations.Computing(Wrong(what)).run(store, lambda *_: None, lambda: False, {})


@dataclass(frozen=True)
class Reserved(Computation):
    """A field with a name that every row has."""

    cell: int = 0

    name = "reserved"

    def compute(self):
        from kdsim.study.base import Computed

        return Computed({})


def test_a_field_with_a_reserved_name_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    with pytest.raises(ConfigError, match="no field may be called cell"):
        computations.Computing(Reserved()).run(store, lambda *_: None, lambda: False, {})


def test_tables_say_what_is_common_once() -> None:
    own = {"computation": "a", "words": "y: of x", "x": 1}
    rows = [{**own, "y": value, "y_low": value - 1} for value in (2.0, 3.0)]
    (table,) = report.computation_tables(rows)
    assert table.common == {"computation": "a", "x": "1"}
    assert table.rows == [["2 ± 1"], ["3 ± 1"]]
    assert table.notes == ["y: of x"]


def test_damaged(tmp_path: Path, file: Path) -> None:
    study = load(file, networks=False)
    result = runner.run(study, tmp_path / "out")
    cell = tmp_path / "out" / "cells" / digest(study.cells()[0]) / "cell.json"
    content = json.loads(cell.read_text())
    del content["summary"]["computation"]
    cell.write_text(json.dumps(signed(content)))
    with pytest.raises(ConfigError, match="summary has no computation"):
        read_study(result.folder)


def test_tables_of_stored_computations_are_tidy(file: Path, tmp_path: Path) -> None:
    result = runner.run(load(file, networks=False), tmp_path / "out")
    table = pd.read_csv(result.folder / "table.csv")
    assert table["count"].tolist() == [3, 4]
