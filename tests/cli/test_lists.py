"""`kdsim list`: what is read from the sources is what the classes are once they are imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdsim.claims import CLAIMS
from kdsim.cli import declared, main
from kdsim.cli.lists import KINDS
from kdsim.config import encode
from kdsim.losses import DISTILLATION_LOSSES
from kdsim.networks import NETWORKS, POINT_NETWORKS
from kdsim.problems import PROBLEMS
from kdsim.students import NETWORK_STUDENTS, STUDENTS
from kdsim.studies import STUDIES
from kdsim.study.settings import settings, settings_texts, summary_line
from kdsim.supervision import SUPERVISIONS
from kdsim.teachers import TEACHERS
from kdsim.training import RECIPES

CLASSES = {
    "studies": STUDIES,
    "problems": PROBLEMS,
    "supervisions": SUPERVISIONS,
    "students": STUDENTS + NETWORK_STUDENTS,
    "losses": DISTILLATION_LOSSES,
    "teachers": TEACHERS,
    "recipes": RECIPES,
}


@pytest.mark.parametrize("kind", CLASSES)
def test_what_is_read_is_what_is_imported(kind: str) -> None:
    entries = KINDS[kind].entries()
    assert [entry.name for entry in entries] == [cls.name for cls in CLASSES[kind]]
    for entry, cls in zip(entries, CLASSES[kind], strict=True):
        assert entry.summary == (getattr(cls, "summary", None) or summary_line(cls.__doc__))
        real = [item for item in settings(cls()) if kind != "teachers" or "." not in item.key]
        assert list(entry.settings()) == real, entry.name


def test_the_defaults_of_studies_are_those_that_are_stored() -> None:
    for entry, cls in zip(KINDS["studies"].entries(), STUDIES, strict=True):
        assert {item.key: item.value for item in entry.settings()} == settings_texts(encode(cls()))


def test_networks_and_claims() -> None:
    networks = [(name, make) for name, make in (NETWORKS | POINT_NETWORKS).items() if make.__module__[:5] == "kdsim"]
    summaries = [(name, summary_line(make.__doc__)) for name, make in networks]
    assert [(entry.name, entry.summary) for entry in KINDS["networks"].entries()] == summaries
    claims = [(claim.name, f"{claim.source}: {claim.statement}") for claim in CLAIMS]
    assert [(entry.name, entry.summary) for entry in KINDS["claims"].entries()] == claims


# The command ----------------------------------------------------------------------------------------


def test_list_alone_says_what_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{kind} " in out for kind in KINDS)
    assert main(["list", "--json"]) == 0
    assert [kind["name"] for kind in json.loads(capsys.readouterr().out)["kinds"]] == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_list_for_people_and_programs(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    entries = KINDS[kind].entries()
    assert main(["list", kind, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[kind]
    assert [(each["name"], each["summary"]) for each in found] == [(entry.name, entry.summary) for entry in entries]
    assert main(["list", kind]) == 0
    out = capsys.readouterr().out
    assert all(each["name"] in out and each["summary"] in out for each in found)
    if KINDS[kind].headers is None:
        assert all(item["key"] in out and item["meaning"] in out for each in found for item in each["settings"])


def test_older_names_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("studies", "problems", "supervisions"):
        assert main([f"list-{kind}"]) == 0 == main(["list", kind])
        out = capsys.readouterr().out
        assert out[: len(out) // 2] == out[len(out) // 2 :]


def test_what_cannot_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "lossses"]) == 2
    assert "unknown kind 'lossses' (nearest: losses); allowed: studies, problems, " in capsys.readouterr().err


# Reading --------------------------------------------------------------------------------------------

SOURCE = '''
"""A module."""
from dataclasses import dataclass, field
from typing import ClassVar
from kdsim.supervision import OneHot

BASE = 3
NAMES = ("a", *("b", "c"))

def part():
    return Part()

@dataclass(frozen=True)
class Base:
    """A base.

    Attributes:
        first: one.
    """

    first: float = 1
    later: int = BASE * 2

@dataclass(frozen=True)
class Part(Base):
    """A part."""

    name: ClassVar[str] = f"part-{BASE}"
    first: float = 0.5

@dataclass(frozen=True)
class Whole:
    """A whole.

    More of it.
    """

    part: Base = Part(2.0)
    other: Base = field(default_factory=lambda: Part(later=BASE))
    third: Part = field(default_factory=part)
    noise: object = OneHot()
    names: tuple[str, ...] = NAMES
    size: int = len(NAMES)
    none: int | None = None
    shares: tuple[float, ...] = (1 / 4, -1e-3)
'''


def test_what_is_read_of_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    place = declared._path
    monkeypatch.setattr(declared, "_path", lambda name: file if name == "kdsim.mine" else place(name))
    whole = declared.read("kdsim.mine").get("Whole")
    declared.read.cache_clear()
    assert (whole.name, whole.summary) == ("Whole", "A whole.")
    assert [(item.key, item.value, item.doc) for item in declared.Instance(whole).settings()] == [
        ("part", "part-3", ""),
        ("part.first", "2", "one."),
        ("part.later", "6", ""),
        ("other", "part-3", ""),
        ("other.first", "0.5", "one."),
        ("other.later", "3", ""),
        ("third", "part-3", ""),  # made by a function, which is not run
        ("noise", "one-hot", ""),
        ("names", "a,b,c", ""),
        ("size", "len(NAMES)", ""),
        ("none", "none", ""),
        ("shares", "0.25,-0.001", ""),
    ]
