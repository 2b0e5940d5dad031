"""Texts of the command line become exactly what is written, or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsim import setting_texts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("+7", 7),
        ("1_000", 1000),
        ("1e3", 1000),
        ("1.0", 1),
        ("1.", 1),
        ("250e-1", 25),
        ("9007199254740993", 2**53 + 1),
        ("9007199254740993.0", 2**53 + 1),
        ("1e23", 10**23),
        ("-0", 0),
    ],
)
def test_integers(text: str, value: int) -> None:
    assert setting_texts.integer(text) == value and type(setting_texts.integer(text)) is int


def test_what_is_no_integer() -> None:
    wrong = (
        "1.5 1e-1 1e-400 -1e-400 0x10 0b1 \uff11 \u0661 \u00bd 1__0 _1 1_ 1e999999 1e99999999999999999999 inf nan 1j"
    )
    for text in [*wrong.split(), "true", "--1", "1e", ".", "1,0", "", " ", "1 0", " 1", "1\n", "9" * 5000]:
        with pytest.raises(ValueError, match=r"^must be an integer$"):
            setting_texts.integer(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3.0),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("-1_0.5E+1", -105.0),
        ("0e-999", 0.0),
        ("-0.0", 0.0),
        ("1e-320", 1e-320),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("0.1", 0.1),
    ],
)
def test_numbers(text: str, value: float) -> None:
    assert setting_texts.number(text) == value and type(setting_texts.number(text)) is float


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["", "0x1p3", "\uff11.5", "1__0", "1 ", "big", "1e", "1,5", "1d3", "1e" + "9" * 30], r"must be a number$"),
        (["nan", "inf", "-Infinity", "NaN"], r"must be a finite number$"),
        (["1e-400", "-1e400", "1e309", "2e-324"], r"must be 0 or a number from 4\.9e-324 to 1\.8e308 in size"),
    ],
)
def test_what_is_no_number(wrong: list[str], message: str) -> None:
    for text in wrong:
        with pytest.raises(ValueError, match=message):
            setting_texts.number(text)


def test_items() -> None:
    for text in ("1,2", "(1, 2)", "[1,2,]"):
        assert setting_texts.items(text) == ["1", "2"]
    assert setting_texts.items("1,") == ["1"] and setting_texts.items("a") == ["a"]
    for text in ("", " ", "()", "[ ]"):
        assert setting_texts.items(text) == []
    for text in ("1,,2", ",1", ",", ",,", "1, ,2", "1,2,,", "(,)"):
        with pytest.raises(ValueError, match="must have a value before each comma"):
            setting_texts.items(text)
    for text in ("(1", "1)", "((1))", "(1]", "[1),(2]", "1,(2)"):
        with pytest.raises(ValueError, match="in one pair of brackets or in none"):
            setting_texts.items(text)


def test_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert setting_texts.path("~/x") == Path("/home/somebody/x") and setting_texts.path("~") == Path("/home/somebody")
    for text in ("a/~b", "./~b", " a", "/a b/\udcff"):
        assert setting_texts.path(text) == Path(text)
    for text, message in (
        ("", "must be a path"),
        ("  ", "must be a path"),
        ("a\0b", "without control characters"),
        ("a\nb", "without control characters"),
        ("\x1b[2J", "without control characters"),
        ("~nobody-of-this-name/x", "~NAME of a user"),
    ):
        with pytest.raises(ValueError, match=message):
            setting_texts.path(text)
