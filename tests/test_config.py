"""Overrides are parsed by type, digests cover everything, and encode and decode are inverse."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsim import config
from kdsim.config import ConfigError, by_name, decode, digest, encode, override
from kdsim.problems import PROBLEMS, GaussianMixture, Problem, SoftmaxLinear
from kdsim.students import LinearStudent, SoftmaxRegression
from kdsim.supervision import SUPERVISIONS, Confusion, Dirichlet, Exact, Supervision

KINDS = {Problem: by_name(PROBLEMS), Supervision: by_name(SUPERVISIONS), LinearStudent: by_name([SoftmaxRegression])}


@dataclass(frozen=True)
class Settings:
    name: ClassVar[str] = "settings"

    count: int = 3
    size: float = 0.5
    word: str = "x"
    flag: bool = False
    kind: Literal["one", "two"] = "one"
    limit: float | None = None
    levels: tuple[float, ...] = (0.1, 0.2)
    words: tuple[str, ...] = ()
    problem: Problem = field(default_factory=SoftmaxLinear)
    student: LinearStudent = field(default_factory=SoftmaxRegression)
    supervisions: tuple[Supervision, ...] = (Exact(),)
    pair: tuple[int, float] = (1, 0.5)
    place: Path = Path("here")

    def __post_init__(self) -> None:
        config.require_count("count", self.count)
        if self.limit is not None:
            config.require(self.limit >= self.size, "limit", self.limit, f"at least size = {self.size:g}")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("count", "7", 7),
        ("count", "1e4", 10_000),
        ("count", "2_000", 2000),
        ("size", "1e-3", 1e-3),
        ("size", "3", 3.0),
        ("word", "a b=c", "a b=c"),
        ("flag", "true", True),
        ("flag", "No", False),
        ("kind", "two", "two"),
        ("limit", "none", None),
        ("limit", "None", None),
        ("limit", "0.75", 0.75),
        ("levels", "1,2e-1", (1.0, 0.2)),
        ("levels", "(1, 0.5,)", (1.0, 0.5)),
        ("levels", "3", (3.0,)),
        ("levels", "", ()),
        ("words", "a,b", ("a", "b")),
        ("pair", "2,3", (2, 3.0)),
        ("problem", "gaussian-mixture", GaussianMixture()),
        ("supervisions", "exact,dirichlet", (Exact(), Dirichlet())),
    ],
)
def test_texts_are_parsed_by_type(key: str, text: str, value: object) -> None:
    got = getattr(override(Settings(), {key: text}, KINDS), key)
    assert got == value and type(got) is type(value)


def test_nested_keys_in_any_order() -> None:
    settings = {"problem.samples": "500", "problem": "gaussian-mixture", "student.ridge": "0.1"}
    got = override(Settings(), settings | {"student.ridge_kind": "centred"}, KINDS)
    assert got.problem == GaussianMixture(samples=500)
    assert got.student == SoftmaxRegression(0.1, "centred")  # neither of the two is allowed without the other


def test_settings_are_validated_together() -> None:
    for settings in ({"limit": "5", "size": "4"}, {"size": "4", "limit": "5"}):
        assert override(Settings(limit=1.0), settings, KINDS).limit == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cuont": "1"}, r"unknown key 'cuont' \(nearest: count\); allowed: count, size"),
        ({"problem.sampels": "1"}, r"unknown key 'problem.sampels' \(nearest: problem.samples\)"),
        ({"porblem.samples": "1"}, r"unknown key 'porblem.samples'"),
        ({"count.x": "1"}, r"key 'count.x': count = 3 has no parts"),
        ({"count": "1.5"}, "count = '1.5' is not allowed: must be an integer"),
        ({"count": "nan"}, "must be an integer"),
        ({"count": "inf"}, "must be an integer"),
        ({"count": "many"}, "must be an integer"),
        ({"count": "0"}, "count = 0 is not allowed: must be an integer >= 1"),
        ({"size": "big"}, "size = 'big' is not allowed: must be a number"),
        ({"flag": "perhaps"}, "allowed: true, false, yes, no"),
        ({"kind": "three"}, "allowed: one, two"),
        ({"limit": "0.1"}, "limit = 0.1 is not allowed: must be at least size"),
        ({"limit": "some"}, "must be a number"),
        ({"levels": "1,b"}, "levels = 'b' is not allowed"),
        ({"levels": "1,,2"}, "levels = '1,,2' is not allowed: must have a value before each comma"),
        ({"count": "1e-400"}, "count = '1e-400' is not allowed: must be an integer"),
        ({"size": "1e-400"}, "size = '1e-400' is not allowed: must be 0 or a number from 4.9e-324"),
        ({"limit": "nan"}, "limit = 'nan' is not allowed: must be a finite number"),
        ({"supervisions": "exact,,dirichlet"}, "must have a value before each comma"),
        ({"pair": "1"}, "pair = '1' is not allowed: must be 2 values"),
        ({"place": "a\nb"}, r"place = 'a\\nb' is not allowed: must be a path without control characters"),
        ({"problem": "gausian-mixture"}, r"nearest: gaussian-mixture"),
        ({"supervisions": "exact,dirichle"}, r"nearest: dirichlet"),
        ({"": "1"}, "unknown key"),
    ],
)
def test_bad_settings_are_one_line(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        override(Settings(), settings, KINDS)
    assert "\n" not in str(caught.value)


def test_encode_and_decode_are_inverse() -> None:
    settings = Settings(
        levels=(0.1,), problem=GaussianMixture(samples=100), supervisions=(Dirichlet(3.0), Confusion(0.3))
    )
    classes = [Settings, SoftmaxRegression, *PROBLEMS, *SUPERVISIONS]
    assert decode(encode(settings), classes) == settings
    form = encode(settings)
    assert form["problem"]["class"] == "gaussian-mixture" and form["word"] == "x"  # defaults are written out
    assert "source_sha256" in form and "source_sha256" not in form["problem"]
    with pytest.raises(ConfigError, match="unknown class"):
        decode(form, [Settings])
    with pytest.raises(ConfigError, match="unknown field of exact 'level'"):
        decode({"class": "exact", "level": 1}, [Exact])


@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.integers(1, 9), st.integers(1, 9))
def test_digests_differ_exactly_where_settings_do(a: float, b: float, m: int, n: int) -> None:
    first, second = Settings(size=a, count=m), Settings(size=b, count=n)
    same = repr(a) == repr(b) and m == n  # 0.0 and -0.0 are two settings
    assert (digest(first) == digest(second)) == same


def test_a_changed_default_and_a_changed_schema_change_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    def settings(default: int) -> object:
        return make_dataclass("Kdsim", [("n", int, default)], frozen=True, namespace={"__module__": "kdsim.x"})()

    before = digest(settings(1))
    assert before == digest(settings(1)) != digest(settings(2))
    monkeypatch.setattr("kdsim.config.encoding.SCHEMA_VERSION", config.SCHEMA_VERSION + 1)
    assert digest(settings(1)) != before


def test_what_is_no_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be part of a configuration"):
        encode(Settings(word=object()))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "1", None])
def test_require_positive(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^x = .* is not allowed: must be a finite number > 0$"):
        config.require_positive("x", value)  # type: ignore[arg-type]


@pytest.mark.parametrize(("ends", "inside"), [("[]", (0, 1)), ("()", (0.5,)), ("[)", (0,)), ("(]", (1,))])
def test_require_between(ends: str, inside: tuple[float, ...]) -> None:
    for value in inside:
        config.require_between("x", value, 0, 1, ends)
    for value in ({0, 1} - set(inside)) | {-0.1, 1.1, math.nan}:
        with pytest.raises(ConfigError, match="must be in"):
            config.require_between("x", value, 0, 1, ends)


def test_an_int_for_a_float_is_the_float() -> None:
    assert digest(Dirichlet(3)) == digest(Dirichlet(3.0))
    assert digest(GaussianMixture(mean_values=(4, 5, 6))) == digest(GaussianMixture(mean_values=(4.0, 5.0, 6.0)))
    assert digest(Settings(limit=2)) == digest(Settings(limit=2.0)) != digest(Settings(limit=None))
    form = encode(Settings(size=1, levels=(1, 0.5), supervisions=(Dirichlet(2),)))
    assert type(form["size"]) is float and [type(level) for level in form["levels"]] == [float, float]
    assert type(form["count"]) is int and form["flag"] is False
    assert type(form["supervisions"][0]["concentration"]) is float


def test_large_integers_are_exact() -> None:
    assert override(Settings(), {"count": str(2**53 + 1)}, KINDS).count == 2**53 + 1
    for text in ("1e30", str(2**63)):
        with pytest.raises(ConfigError, match="must be an integer <= 9223372036854775807"):
            override(Settings(), {"count": text}, KINDS)


def test_an_annotation_that_cannot_be_resolved_is_one_line() -> None:
    wrong = make_dataclass("Wrong", [("n", int, 1)], frozen=True)
    wrong.__annotations__["n"] = "NoSuchType"
    with pytest.raises(ConfigError, match="a field of Wrong has an annotation that cannot be resolved"):
        encode(wrong())
