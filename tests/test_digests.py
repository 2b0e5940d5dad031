"""A digest covers every field of every configuration, and tells every two values apart."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from all_configurations import CONFIGURATIONS
from tiny_study import Tiny

from kdsim.config import decode, digest, encode
from kdsim.supervision import Exact, OneHot
from kdsim.trainer import StudentTrainer


def bare(cls: type, **values: Any) -> Any:
    """An instance with these values, "same" for the others, unasked whether they are allowed."""
    made = object.__new__(cls)
    for item in dataclasses.fields(cls):
        object.__setattr__(made, item.name, values.get(item.name, "same"))
    return made


def test_all_configurations_are_known() -> None:
    names = {cls.__name__ for cls in CONFIGURATIONS}
    assert names >= {"Cell", "SGD", "Recording", "StudentTrainer", "Recipe", "NoiseSweep", "Dirichlet", "EigenPaths"}
    assert len(names) > 90


@pytest.mark.parametrize("cls", CONFIGURATIONS, ids=lambda cls: cls.__name__)
def test_every_field_enters_the_digest(cls: type) -> None:
    """One field is another at a time: else a result of other settings would be taken for this one's."""
    names = [item.name for item in dataclasses.fields(cls)]
    digests = [digest(bare(cls)), *(digest(bare(cls, **{name: "other"})) for name in names)]
    assert len(set(digests)) == len(names) + 1


def parts(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all fields of a configuration and of its parts."""
    for item in dataclasses.fields(config):
        yield (*path, item.name)
        if dataclasses.is_dataclass(part := getattr(config, item.name)):
            yield from parts(part, (*path, item.name))


def changed(config: Any, path: tuple[str, ...]) -> Any:
    """A copy in which the field at that path is another."""
    values = dict(vars(config))
    values[path[0]] = "other" if len(path) == 1 else changed(values[path[0]], path[1:])
    return bare(type(config), **values)


@pytest.mark.parametrize("config", [Tiny().cells()[0], StudentTrainer()], ids=lambda config: type(config).__name__)
def test_every_field_of_every_part_enters_the_digest(config: Any) -> None:
    paths = list(parts(config))
    assert len({digest(config), *(digest(changed(config, path)) for path in paths)}) == len(paths) + 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.1, math.nextafter(0.1, 1)),
        (1e-300, 0.0),
        (2**53, 2**53 + 1),
        (1, True),
        (0, None),
        ("1", 1),
        ("a", "A"),
        ((1, 2), (2, 1)),
        ((1, 2), ((1, 2),)),
        ((), None),
        (OneHot(), Exact()),
    ],
)
def test_values_that_are_nearly_alike_are_told_apart(one: Any, other: Any) -> None:
    assert digest(bare(OneField, field=one)) != digest(bare(OneField, field=other))


@dataclass(frozen=True)
class OneField:
    """One field of any type."""

    field: Any


@dataclass(frozen=True)
class Base(OneHot):
    name: typing.ClassVar[str] = "base"


@dataclass(frozen=True)
class Unnamed(Base):
    """It forgets to say how it is called."""


@dataclass(frozen=True)
class Copied(OneHot):
    """Likewise, as a copy."""

    name: typing.ClassVar[str] = "base"


def test_classes_of_one_name_and_one_file_are_told_apart() -> None:
    assert len({digest(cls()) for cls in (Base, Unnamed, Copied)}) == 3
    assert decode(encode(Unnamed()), (Base, Unnamed, Copied)) == Unnamed()
