"""A stored configuration is read back by the types of its fields, and by nothing that the data say."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_study import Halfway, SmallPool, Tiny

from kdsim import config
from kdsim.claims import CLAIMS, ledger
from kdsim.cli.reproduce import _further_classes
from kdsim.config import ConfigError, decode, digest, encode
from kdsim.data import SUBSETS, Subset
from kdsim.engines import SGD
from kdsim.problems import IMAGE_PROBLEMS, Images, Problem, SoftmaxLinear
from kdsim.students import SoftmaxRegression
from kdsim.studies import STUDIES
from kdsim.study import loading
from kdsim.study.base import Computation, Study
from kdsim.study.eigen_paths import EigenPaths
from kdsim.study.packs import cells_of
from kdsim.study.stored_configs import KNOWN, RERUN
from kdsim.supervision import Dirichlet, Exact, OneHot, Supervision
from kdsim.trainer import StudentTrainer


def again(value: Any, classes: Any = KNOWN, hint: Any = Any) -> Any:
    """Through the text of a JSON file and back."""
    return decode(json.loads(json.dumps(encode(value))), classes, hint)


CONTRACTS = {**loading.CONTRACTS, Subset: SUBSETS, Images: IMAGE_PROBLEMS, Computation: (EigenPaths,)}


def defaults() -> list[tuple[type, Any]]:
    """Contract and an instance of each implementation that needs nothing."""
    found = []
    for contract, classes in CONTRACTS.items():
        for cls in classes:
            with suppress(TypeError):  # it needs a student, a training, ...: the studies' cells have it
                found.append((contract, cls()))
    return found


@pytest.mark.parametrize(("contract", "value"), defaults(), ids=lambda value: config.kind_of(type(value)))
def test_every_implementation_comes_back(contract: type, value: Any) -> None:
    found = again(value, hint=contract)
    assert type(found) is type(value) and digest(found) == digest(value)


def test_registries_are_known() -> None:
    assert {cls for classes in CONTRACTS.values() for cls in classes} == set(KNOWN)
    for contract, classes in CONTRACTS.items():  # two of one name would be read as one
        assert len({config.kind_of(cls) for cls in classes}) == len(classes), contract


def all_come_back(studies: list[Study]) -> int:
    """Number of different cells of the studies."""
    cells = {digest(cell): cell for study in studies for cell in cells_of(study)}
    for key, cell in cells.items():
        found = again(cell, (*KNOWN, *_further_classes()), RERUN)
        assert type(found) is type(cell) and digest(found) == key
    return len(cells)


SLOW = ("step-size-sweep", "batch-sweep", "pl-sweep")
"""Studies whose cells are found by computing."""


@pytest.mark.parametrize(
    "study",
    [pytest.param(each, id=each.name, marks=[pytest.mark.slow] * (each.name in SLOW)) for each in STUDIES],
)
def test_cells_of_every_study_come_back(study: type[Study]) -> None:
    assert all_come_back([study().quick()]) > 0


@pytest.mark.slow
def test_cells_of_all_claims_come_back() -> None:
    assert all_come_back(list(ledger.studies_of(CLAIMS, True))) > 50


# Values that validation allows, of any implementation ---------------------------------------------


def values(hint: Any) -> st.SearchStrategy[Any] | None:
    """Values of a field's type; None where its part stays as it is."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.one_of(st.integers(1, 40), st.integers(2**53, 2**62))
    if hint is float:
        return st.one_of(st.floats(0.01, 0.99), st.floats(1, 50), st.integers(1, 5), st.floats(1e-300, 1e300))
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (typing.Union, types.UnionType):
        known = [found for arg in args if (found := values(arg)) is not None]
        return st.one_of(st.none(), *known) if type(None) in args and known else None
    if origin is tuple and args[-1] is ...:
        inner = values(args[0])
        return None if inner is None else st.lists(inner, max_size=4).map(tuple)
    return None


@pytest.mark.slow
@given(st.data())
def test_any_values_come_back(data: st.DataObject) -> None:
    contract, value = data.draw(st.sampled_from(defaults()))
    hints = typing.get_type_hints(type(value))
    for each in dataclasses.fields(value):
        drawn = values(hints[each.name])
        if drawn is not None and each.init:
            try:
                value = replace(value, **{each.name: data.draw(drawn)})
            except (ValueError, OverflowError):  # validation refuses it
                continue
    assert digest(again(value, hint=contract)) == digest(value)


# Study files ------------------------------------------------------------------------------------


def test_classes_of_a_study_file_come_back_where_they_are_given() -> None:
    cell = Tiny(problem=SmallPool(samples=32)).cells()[2]
    assert isinstance(cell.supervision, Halfway)
    assert again(cell, (*KNOWN, SmallPool, Halfway), RERUN) == cell
    with pytest.raises(ConfigError, match="unknown class 'small-pool'"):
        again(cell, KNOWN, RERUN)


@dataclass(frozen=True)
class Dirichlet2(Supervision):
    """Has the name of one of kdsim's."""

    concentration: float = 1.0

    name: ClassVar[str] = "dirichlet"
    level_field: ClassVar[str] = "concentration"
    unbiased: ClassVar[bool] = True
    sample = mean = covariance = Dirichlet.mean


def test_names_alike_are_told_apart_by_the_file() -> None:
    for classes in ((*KNOWN, Dirichlet2), (Dirichlet2, *KNOWN)):
        assert type(again(Dirichlet2(2.0), classes)) is Dirichlet2
        assert type(again(Dirichlet(2.0), classes)) is Dirichlet


# What is refused --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """Fields of all sorts."""

    count: int = 3
    size: float = 0.5
    word: str = "x"
    flag: bool = False
    kind: Literal["one", "two"] = "one"
    limit: float | None = None
    levels: tuple[float, ...] = (0.1, 0.2)
    pair: tuple[int, str] = (1, "a")
    sgd: SGD = field(default_factory=SGD)
    problem: Problem = field(default_factory=SoftmaxLinear)
    either: Problem | Supervision | None = field(default_factory=OneHot)
    supervisions: tuple[Supervision, ...] = (Exact(), OneHot())

    def __post_init__(self) -> None:
        if self.word == "bug":
            raise KeyError("bug")


def test_fields_of_all_sorts_come_back() -> None:
    for value in (Parts(), Parts(limit=2.0, either=SoftmaxLinear(), levels=()), Parts(either=None, size=3)):
        found = again(value, (*KNOWN, Parts), Parts)
        assert digest(found) == digest(value) and found == value
    assert type(again(Parts(size=3), (*KNOWN, Parts), Parts).size) is float
    large = Parts(size=2**60)
    assert digest(again(large, (*KNOWN, Parts), Parts)) == digest(large)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 1.0}, "Parts.count = 1.0 is not allowed: must be an integer, as 1"),
        ({"count": True}, "must be an integer"),
        ({"count": None}, "must be an integer"),
        ({"size": "1"}, "must be a number"),
        ({"size": False}, "must be a number"),
        ({"size": [1.0]}, "must be a number"),
        ({"flag": 1}, "must be True or False"),
        ({"word": 1}, "must be a text"),
        ({"word": "bug"}, "Parts in the configuration: KeyError"),
        ({"kind": "three"}, "must be one or two"),
        ({"limit": "none"}, "must be a number or None"),
        ({"levels": 1.0}, "must be a tuple of numbers"),
        ({"levels": ["a"]}, "Parts.levels = 'a' is not allowed: must be a number"),
        ({"pair": [1]}, r"Parts.pair = \(1,\) is not allowed: must be a tuple of 2 values \(an integer, a text\)"),
        ({"sgd": {"class": "SGD"}}, "SGD in Parts.sgd has no steps"),
        ({"sgd": None}, "must be an SGD, as SGD"),
        ({"sgd": {"class": "one-hot"}}, "unknown class 'one-hot'; allowed: SGD"),
        ({"problem": {"class": "one-hot"}}, "unknown class 'one-hot'"),
        ({"problem": {}}, "unknown class 'None'"),
        ({"problem": {"class": ["one-hot"]}}, "unknown class"),
        ({"either": {"class": "Cell"}}, "unknown class 'Cell'"),
        ({"supervisions": [{"class": "exact", "level": 1}]}, "unknown field of exact 'level'"),
        ({"supervisions": [{"class": "exact", "source_sha256": "0" * 64}]}, "unknown class 'exact'"),
        ({"other": 1}, "unknown field of Parts 'other'"),
        ({"class": "os.system"}, "unknown class 'os.system'; allowed: Parts"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        decode({**encode(Parts()), **change}, KNOWN, Parts)
    assert "\n" not in str(caught.value)


def test_a_field_that_is_missing_is_refused() -> None:
    form = encode(SoftmaxRegression())
    del form["ridge"]
    with pytest.raises(ConfigError, match="has no ridge"):
        decode(form, KNOWN)


def test_parts_within_parts_without_end_are_refused() -> None:
    form = encode(StudentTrainer())
    for _ in range(400):
        form = {**encode(StudentTrainer()), "supervision": {"class": "deterministic", "training": form}}
    with pytest.raises(ConfigError, match="depth = 40 is not allowed"):
        decode(form, KNOWN, RERUN)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


@given(st.data())
def test_any_part_replaced_by_anything_is_read_or_refused(data: st.DataObject) -> None:
    """Never another error than `ConfigError`."""
    form: Any = encode(data.draw(st.sampled_from([Tiny().cells()[0], StudentTrainer()])))
    parts = [form]
    while isinstance(parts[-1], dict):
        key = data.draw(st.sampled_from(sorted(parts[-1])))
        last = parts[-1]
        if not isinstance(last[key], dict) or data.draw(st.booleans()):
            last[key] = data.draw(JSON)
            break
        parts.append(last[key])
    try:
        found = decode(form, (*KNOWN, SmallPool), RERUN)
    except ConfigError:
        return
    assert digest(found)
