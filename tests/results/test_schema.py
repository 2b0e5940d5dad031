"""Every column of every row is declared, and theory's formulas have their place in docs/theory.md."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import types
import typing
from pathlib import Path

import pytest

from kdsim.claims.exact import GradientNoise, Propositions
from kdsim.config import ConfigError
from kdsim.engines.network_recorder import LABEL_METRICS
from kdsim.engines.recorder import METRICS
from kdsim.measure import bias_variance, deviations, spectrum, teacher_quality
from kdsim.measure.decomposition import Decomposition
from kdsim.measure.floors import Measurement
from kdsim.measure.generalisation import Generalisation
from kdsim.results import describe, schema
from kdsim.results.schema import Column, find
from kdsim.study.eigen_paths import EigenPaths
from kdsim.theory.nonconvex import ESTIMATES
from kdsim.theory.prediction import Prediction
from kdsim.training.evaluation import scored

ROOT = Path(__file__).parent.parent.parent
COLUMNS = schema.columns()


@pytest.mark.parametrize("cls", [Prediction, Measurement, Decomposition, Generalisation])
def test_every_field_of_a_row_is_declared_with_its_type(cls: type) -> None:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        column = find(field.name, "simulation")
        assert column is not None, f"declare {field.name} in kdsim/results/columns, with since=2 if it is always there"
        options = typing.get_args(hints[field.name]) or (hints[field.name],)
        kinds = {option.__name__ for option in options if option is not types.NoneType}
        assert kinds == {column.type}, field.name


def test_fields_that_each_row_has_are_told_so() -> None:
    always = {field.name for cls in (Prediction, Measurement) for field in dataclasses.fields(cls)}
    assert always <= set(schema.required("simulation"))


def test_the_columns_of_the_first_rows_stay_as_they_are() -> None:
    """A new column that all rows have must be declared with since=2: rows that are stored lack it and are whole."""
    names = sorted(schema.required("simulation", first=True))
    assert (len(names), hashlib.sha256(" ".join(names).encode()).hexdigest()[:12]) == FIRST


FIRST = (88, "ad32857e13c7")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (ESTIMATES, "simulation"),
        ([f"deviation_{name}" for name in deviations.NAMES if not name.startswith("se_")], "training"),
        (scored(10, "bcp", (0,)), "training"),
        ([f"test_{name}" for name in scored(10, "bcp", (0,))], "training"),
        ([f"test_{name}" for name in ("bias_between", "bias_within", "bias_head", "variance_tail")], "training"),
        ([prefix + name for prefix in ("", "test_") for name in teacher_quality.PREDICTIVE], "teacher"),
    ],
)
def test_names_that_are_made_up_are_declared(names: list[str], kind: schema.Kind) -> None:
    assert names and not schema.undeclared(dict.fromkeys(names), kind)
    assert bias_variance.GROUPS == ("head", "medium", "tail")


def test_columns_of_tables_are_declared() -> None:
    curves = [f"{name}_{end}" for name in (*METRICS, *LABEL_METRICS) for end in ("mean", "se", "q05", "q95")]
    assert not schema.undeclared(dict.fromkeys(curves), "simulation", "curves")
    assert not schema.undeclared(dict.fromkeys(spectrum.COLUMNS), "simulation", "spectrum")
    finals = [f"final_{name}" for name in (*METRICS, *LABEL_METRICS)]
    assert not schema.undeclared(dict.fromkeys(finals), "simulation", "replicas")


@pytest.mark.slow
@pytest.mark.parametrize("computation", [EigenPaths(times=2), Propositions(count=1), GradientNoise(count=1, visits=2)])
def test_computations_declare_what_they_measure(computation) -> None:
    found = computation.compute().measurement
    assert not schema.undeclared(found, "computation", own=computation.columns)
    assert {column.name for column in computation.columns} <= {*found, "hessian_error"}


def test_a_planted_column_is_caught() -> None:
    assert schema.undeclared({"floor": 1.0, "flour": 1.0, "floor_high": 2.0}, "simulation") == ["flour"]
    assert schema.undeclared({"mu_low": 1.0, "floor_lower": 1.0}, "simulation") == ["mu_low", "floor_lower"]
    with pytest.raises(ConfigError, match="columns of a simulation that no schema declares: flour"):
        schema.require_declared({"flour": 1.0}, "simulation")
    with pytest.raises(ConfigError, match="mu of a simulation = '1' is not allowed: must be float"):
        schema.require_declared({"mu": "1"}, "simulation")
    schema.require_declared({"mu": None, "bound_valid": True, "problem.mine": "x", "flour": 1}, "simulation", (OWN,))


OWN = Column("flour", "int", "g", "of a user's", "computation")


def test_no_column_is_declared_twice() -> None:
    names = [(column.name, column.table, kind) for column in COLUMNS for kind in column.kinds]
    assert len(names) == len(set(names))


def test_theory_has_its_place() -> None:
    sections = set(re.findall(r"^## (.*)$", (ROOT / "docs" / "theory.md").read_text(), re.MULTILINE))
    theory = [column for column in COLUMNS if column.source == "theory"]
    assert theory and {column.place for column in theory} <= sections
    assert not [column for column in COLUMNS if column.place and column.source != "theory"]


@pytest.mark.parametrize(("change", "words"), [({"type": "number"}, "one of float"), ({"meaning": ""}, "one line")])
def test_a_column_that_is_none_is_refused(change: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        dataclasses.replace(OWN, **change)


def test_a_family_has_a_column_of_its_own_before_it() -> None:
    assert find("teacher.epochs", "teacher").unit == "epochs" and find("teacher.rank", "teacher").type == "any"
    assert find("floor", "simulation").unit != find("floor", "training").unit
    assert find("floor_head_low", "training").meaning == "lower end of the 95 % interval over replicas of floor_head"


def test_a_name_finds_its_column() -> None:
    assert [column.name for column in schema.matching("sigma_star_sq")] == ["sigma_star_sq"]
    assert {column.table for column in schema.matching("floor")} == {"rows", "replicas"}
    assert schema.matching("excess_risk_floor_low")[0].unit == "nats"
    assert "frozen_gap" in {column.name for column in schema.matching("frozen")}
    with pytest.raises(ConfigError, match=r"unknown column 'sigma_star_s2' \(nearest: sigma_star_sq\)"):
        schema.matching("sigma_star_s2")
    with pytest.raises(ConfigError, match="unknown column ''"):
        schema.matching("")


def test_the_page_of_columns_is_up_to_date() -> None:
    assert (ROOT / "docs" / "columns.md").read_text() == describe.page(), describe.page.__module__
    assert all(f"`{column.name}`" in describe.page() for column in COLUMNS)
    assert len(describe.as_json(COLUMNS)) == len(COLUMNS)
