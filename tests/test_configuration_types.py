"""A value of another type than its field's is refused when a configuration is built, and a repr builds it again."""

from __future__ import annotations

import dataclasses
import enum
import re
import types
import typing
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, NewType, TypeVar

import numpy as np
import pandas as pd
import pytest
import torch
from all_configurations import CONFIGURATIONS, ROOTS
from tiny_study import Tiny

import kdsim.config
from kdsim.config import ConfigError, Configuration, decode, digest, encode, override
from kdsim.engines import SGD, Adam, Cosine, Recording
from kdsim.experiments import ListedExperiments
from kdsim.losses import KD
from kdsim.problems import Digits, GaussianMixture, Problem, SoftmaxLinear
from kdsim.students import MLP, SoftmaxRegression
from kdsim.studies import NoiseSweep
from kdsim.study.base import Cell
from kdsim.supervision import Confusion, Dirichlet, OneHot, Supervision
from kdsim.trainer import StudentTrainer
from kdsim.training import Recipe

if TYPE_CHECKING:
    from nowhere import Unknown


@dataclass(frozen=True)
class Other(Configuration):
    """Of no contract."""


WRONG: dict[Any, tuple[Any, ...]] = {
    int: ("3", 3.0, 2.5, True, None, (3,), 1j, Other()),
    float: ("0.5", True, None, (0.5,), 1j, 10**400, Other()),
    bool: (1, 0, 1.0, "true", None, Other()),
    str: (3, None, True, b"a", ("a",), Other()),
    type(None): (0, "", False, ()),
}
"""By a field's type, values of others."""
NO_TUPLES = ("text", 3, 0.5, True, None, {1: 2}, {1}, np.array("text"), Other())


def wrong(hint: Any) -> list[Any]:
    """Values that are not of a field's type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [value for value in wrong(args[0]) if value is not None or type(None) not in args]
    if origin is Literal:
        return ["no such", 3, None, True, Other()]
    if origin is tuple:
        return [*NO_TUPLES, *((value,) for value in wrong(args[0]))]
    if hint in WRONG:
        return list(WRONG[hint])
    return ["no such", 3, 0.5, None, Other, Other(), *CLASSES]


CLASSES = (SoftmaxLinear, OneHot, SGD)
"""In place of instances."""

CELL = Cell(Digits(), SoftmaxRegression(), OneHot(), 0.25)
GIVEN = {Cell: CELL, ListedExperiments: ListedExperiments((CELL,))}
"""Of classes that have no defaults."""
BASES = {cls: GIVEN[cls] if cls in GIVEN else cls() for cls in CONFIGURATIONS}


@pytest.mark.parametrize("cls", CONFIGURATIONS, ids=lambda cls: cls.__name__)
def test_every_field_refuses_other_types(cls: type) -> None:
    hints = typing.get_type_hints(cls)
    for each in dataclasses.fields(cls):
        values = wrong(hints[each.name])
        assert len(values) >= 3
        for value in values:
            with pytest.raises(ConfigError) as caught:
                replace(BASES[cls], **{each.name: value})
            text = str(caught.value)
            assert text.startswith(f"{cls.__name__}.{each.name}") and " is not allowed: must be " in text, text
            assert "\n" not in text


@pytest.mark.parametrize("cls", CONFIGURATIONS, ids=lambda cls: cls.__name__)
def test_right_values_stay_as_they_are(cls: type) -> None:
    again = replace(BASES[cls])
    assert again == BASES[cls] and hash(again) == hash(BASES[cls]) and digest(again) == digest(BASES[cls])


@pytest.mark.parametrize("cls", CONFIGURATIONS, ids=lambda cls: cls.__name__)
def test_a_repr_is_one_line_that_builds_it(cls: type) -> None:
    text = repr(BASES[cls])
    assert cls in GIVEN or text == f"{cls.__name__}()"
    assert eval(text, globals() | {cls.__name__: cls}) == BASES[cls]


@pytest.mark.slow
@pytest.mark.parametrize("cls", CONFIGURATIONS, ids=lambda cls: cls.__name__)
def test_stored_values_of_other_types_are_refused_in_the_same_words(cls: type) -> None:
    hints, base = typing.get_type_hints(cls), BASES[cls]
    form = encode(base)
    for each in dataclasses.fields(cls):
        for value in wrong(hints[each.name]):
            if value is not None and not isinstance(value, (bool, int, float, str)):
                continue
            with pytest.raises(ConfigError) as built:
                replace(base, **{each.name: value})
            with pytest.raises(ConfigError) as read:
                decode({**form, each.name: value}, ROOTS, cls)
            assert str(read.value) == str(built.value)


# What is said -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NoiseSweep(problem="softmax-linear"),
         "NoiseSweep.problem = 'softmax-linear' is not allowed: must be a Problem, as SoftmaxLinear()"),
        (lambda: NoiseSweep(problem="Digit"), "problem = 'Digit' is not allowed: must be a Problem, as Digits()"),
        (lambda: KD(temperature="4"), "KD.temperature = '4' is not allowed: must be a number"),
        (lambda: SGD(1e4), "SGD.steps = 10000.0 is not allowed: must be an integer, as 10000"),
        (lambda: SGD(True), "SGD.steps = True is not allowed: must be an integer"),
        (lambda: SGD(index="epochs"), "SGD.index = 'epochs' is not allowed: must be replacement or permutation"),
        (lambda: SGD(training_set="all"), "SGD.training_set = 'all' is not allowed: must be an integer or None"),
        (lambda: SGD(optimiser=Cosine()), "SGD.optimiser = Cosine() is not allowed: must be an Optimiser, as "),
        (lambda: Recording(mean_error=1), "Recording.mean_error = 1 is not allowed: must be True or False"),
        (lambda: NoiseSweep(families="dirichlet"),
         "NoiseSweep.families = 'dirichlet' is not allowed: must be a tuple of texts, as ('dirichlet',)"),
        (lambda: NoiseSweep(families=("dirichlet", 3)),
         "NoiseSweep.families[1] = 3 is not allowed: must be a text"),
        (lambda: NoiseSweep(nu=(0.1, "0.2")), "NoiseSweep.nu[1] = '0.2' is not allowed: must be a number"),
        (lambda: NoiseSweep(nu=0.1),
         "NoiseSweep.nu = 0.1 is not allowed: must be a tuple of numbers or None, as (0.1,)"),
        (lambda: Dirichlet(10**400), "is not allowed: must be a number, of at most 1.8e+308 in size"),
        (lambda: Recipe(augmentation=4), "Recipe.augmentation = 4 is not allowed: must be a CropFlip, as CropFlip()"),
        (lambda: replace(CELL, problem=Digits), "must be a Problem, as Digits()"),
        (lambda: replace(CELL, student=OneHot()),
         "Cell.student = OneHot() is not allowed: must be a LinearStudent or a NetworkStudent, as "),
        (lambda: StudentTrainer(supervision="detreministic"),
         "must be a Supervision or a Teacher, as Deterministic()"),
        (lambda: Tiny(problem=SoftmaxLinear), "as SoftmaxLinear()"),
    ],
)  # fmt: skip
def test_field_value_and_what_is_allowed_are_named(build, message):
    with pytest.raises(ConfigError) as caught:
        build()
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_settings_of_the_command_line_are_checked_by_the_same_rules():
    found = override(NoiseSweep(), {"nu": "1e-3,0.1", "ridge": "1", "steps": "1e4"}, {})
    assert found == NoiseSweep(nu=(1e-3, 0.1), ridge=1.0, steps=10_000)
    with pytest.raises(ConfigError, match=r"problem = None .* must be a Problem"):
        replace(found, problem=None)


# What is accepted -------------------------------------------------------------------------------


class Number(enum.IntEnum):
    """Ints that have a repr of their own."""

    THREE = 3


class Half(float):
    """A float of another class."""


SAME = [
    (lambda: Dirichlet(3), Dirichlet(3.0)),
    (lambda: MLP([3, 4]), MLP((3, 4))),
    (lambda: MLP(range(3, 5)), MLP((3, 4))),
    (lambda: MLP(np.array([3, 4])), MLP((3, 4))),
    (lambda: MLP(torch.tensor([3, 4])), MLP((3, 4))),
    (lambda: NoiseSweep(nu=pd.Series([0.25, 0.5])), NoiseSweep(nu=(0.25, 0.5))),
    (lambda: NoiseSweep(nu=np.array([0.25, 0.5], np.float32)), NoiseSweep(nu=(0.25, 0.5))),
    (lambda: NoiseSweep(nu=[np.float32(0.25), 1]), NoiseSweep(nu=(0.25, 1.0))),
    (lambda: NoiseSweep(families=np.array(["dirichlet"])), NoiseSweep(families=("dirichlet",))),
    (lambda: Confusion(pattern=np.str_("cyclic")), Confusion(pattern="cyclic")),
    (lambda: Dirichlet(Number.THREE), Dirichlet(3.0)),
    (lambda: SGD(Number.THREE), SGD(3)),
    (lambda: MLP([Number.THREE]), MLP((3,))),
    (lambda: Dirichlet(Half(0.5)), Dirichlet(0.5)),
]  # fmt: skip


@pytest.mark.parametrize(("build", "same"), SAME)
def test_what_stands_for_a_value_becomes_it(build, same):
    found = build()
    assert found == same and hash(found) == hash(same) and digest(found) == digest(same)
    assert repr(found) == repr(same)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.eye(2), "array([[1., 0.], [0., 1.]])"),
        (pd.Series([1.0]), "0    1.0 dtype: float64"),
        (torch.ones((), device="meta"), "tensor(..., device='meta', size=())"),
        (torch.ones(2, device="meta"), "tensor(..., device='meta', size=(2,))"),
        (torch.eye(2).to_sparse(), "tensor(indices=tensor([[0, 1], [0, 1]]), values"),
        (np.ma.masked, "masked"),
    ],
    ids=["array", "series", "meta scalar", "meta", "sparse", "masked"],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(value, shown):
    for build in (lambda: Dirichlet(value), lambda: MLP(value)):
        with pytest.raises(ConfigError) as caught:
            build()
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=rf"^Dirichlet.concentration = {re.escape(shown)}.* is not allowed: must be"):
        Dirichlet(value)


def test_an_int_that_no_float_is_stays_what_it_is():
    assert type(Dirichlet(3).concentration) is float
    large = 2**53 + 1
    assert Dirichlet(large).concentration == large and type(Dirichlet(large).concentration) is int


# Classes of study files -------------------------------------------------------------------------

Level = NewType("Level", float)


@dataclass(frozen=True)
class Part:
    """A part that is no `Configuration`."""

    size: int = 1


@dataclass(frozen=True)
class Own(Configuration):
    """Fields of all sorts, whose annotations are texts."""

    size: float = 0.5
    words: tuple[str, ...] = ()
    pair: tuple[int, float] = (1, 0.5)
    anything: tuple = ()
    either: int | float = 1
    place: Path = Path("here")
    part: Part = field(default_factory=Part)
    parts: tuple[Part, ...] = ()
    grid: tuple[tuple[float, ...], ...] = ()
    level: Level = 0.5
    free: Any = None
    listed: list[int] = ()
    array: np.ndarray = 0.0
    shared: ClassVar[int] = 3


def test_a_users_class_is_checked():
    found = Own(1, ["a"], [2, 3], [np.int64(1)], np.int64(2), "there", grid=np.eye(2), level=2, array=np.float64(1))
    grid = ((1.0, 0.0), (0.0, 1.0))
    assert found == Own(1.0, ("a",), (2, 3.0), (1,), 2, Path("there"), grid=grid, level=2, array=1.0)
    assert [type(value) for value in (found.size, found.pair[1], found.either, found.grid[0][0])] == [
        float, float, int, float
    ]  # fmt: skip
    for values, text in [
        ({"size": "1"}, "Own.size = '1' is not allowed: must be a number"),
        ({"pair": (1,)}, "Own.pair = (1,) is not allowed: must be a tuple of 2 values (an integer, a number)"),
        ({"pair": (1, "a")}, "Own.pair[1] = 'a'"),
        ({"either": "1"}, "must be an integer or a number"),
        ({"place": 3}, "must be a path"),
        ({"part": 3}, "Own.part = 3 is not allowed: must be a Part, as Part()"),
        ({"parts": Part()}, "must be a tuple, each of it a Part, as (Part(size=1),)"),
        ({"parts": "part"}, "must be a tuple, each of it a Part, as Part()"),
        ({"parts": (Part(), 1)}, "Own.parts[1] = 1 is not allowed: must be a Part"),
        ({"grid": (1.0,)}, "Own.grid[0] = 1.0 is not allowed: must be a tuple of numbers, as (1.0,)"),
        ({"grid": ((1.0, None),)}, "Own.grid[0][1] = None"),
        ({"anything": "text"}, "must be a tuple"),
    ]:
        with pytest.raises(ConfigError) as caught:
            Own(**values)
        assert text in str(caught.value)


@dataclass(frozen=True)
class Unresolved(Problem):
    """An annotation that nobody can resolve: numbers become Python's, and the digest says what is wrong."""

    size: int = 1
    other: Unknown = None

    name: ClassVar[str] = "unresolved"

    def population(self, seed):
        """Not used."""


def test_an_annotation_that_cannot_be_resolved_is_not_checked():
    found = Unresolved("x", (np.int64(1),))
    assert found.size == "x" and type(found.other[0]) is int
    with pytest.raises(ConfigError, match="a field of Unresolved has an annotation that cannot be resolved"):
        digest(found)


@dataclass(frozen=True)
class Base(Own):
    """It validates, and a value that only validation needs comes with it."""

    least: InitVar[float] = 0.0

    def __post_init__(self, least: float) -> None:
        kdsim.config.require(self.size >= least, "size", self.size, f">= {least}")


@dataclass(frozen=True)
class Derived(Base):
    """Calls its base."""

    count: int = 1

    def __post_init__(self, least: float) -> None:
        super().__post_init__(least)
        assert type(self.count) is int


class Mixed:
    """Validates, and is no configuration."""

    def __post_init__(self) -> None:
        assert type(self.size) is float


@dataclass(frozen=True)
class WithMixed(Mixed, Own):
    """What the mixed-in class looks at are values of the right types."""


def test_validation_sees_right_types_in_any_inheritance():
    assert Derived(2, least=1.0, count=np.int64(3)) == Derived(2.0, count=3)
    assert WithMixed(2).size == 2.0
    with pytest.raises(ConfigError, match=r"size = 2\.0 is not allowed: must be >= 3\.0"):
        Derived(2, least=3.0)
    for cls, name, value in [(Derived, "count", "1"), (Base, "size", ()), (WithMixed, "size", 1j)]:
        with pytest.raises(ConfigError, match=rf"^{cls.__name__}\.{name} = "):
            cls(**{name: value})


@dataclass(frozen=True)
class Least(Own):
    """A value that comes with it, and nobody looks at."""

    least: InitVar[float] = 0.0


def test_a_value_for_nothing_but_construction_needs_no_validation():
    assert Least(2, least=1.0) == Least(2.0)
    with pytest.raises(ConfigError, match=r"Least\.size = 'a'"):
        Least("a", least=1.0)


T = TypeVar("T")


@dataclass(frozen=True)
class Box(Configuration, Generic[T]):
    """A class of any type."""

    content: T | None = None


@dataclass(frozen=True)
class Boxes(Configuration):
    """Annotations that wrap others."""

    box: Box[int] = field(default_factory=Box)
    boxes: tuple[Box[int], ...] = ()
    size: Final[float] = 0.5
    pairs: tuple[tuple[str, float], ...] = ()


def test_annotations_that_wrap_others_are_checked():
    found = Boxes(Box(3), [Box("a")], 2)
    assert found == Boxes(Box(3), (Box("a"),), 2.0) and type(found.size) is float
    for values, text in [
        ({"box": 3}, "Boxes.box = 3 is not allowed: must be a Box"),
        ({"boxes": (Box(), OneHot())}, "Boxes.boxes[1] = OneHot() is not allowed: must be a Box"),
        ({"size": "a"}, "Boxes.size = 'a' is not allowed: must be a number"),
        ({"pairs": "a"}, "must be a tuple, each of it a tuple of 2 values (a text, a number)"),
    ]:
        with pytest.raises(ConfigError) as caught:
            Boxes(**values)
        assert text in str(caught.value) and "as ('a',)" not in str(caught.value)


class Undecorated(Configuration):
    """Its author forgot `@dataclass`."""

    size: int = 1


def test_a_class_that_is_no_dataclass_is_shown():
    assert repr(Undecorated()) == "Undecorated()"
    with pytest.raises(ConfigError, match=r"Dirichlet\.concentration = Undecorated\(\) is not allowed"):
        Dirichlet(Undecorated())
    with pytest.raises(ConfigError, match=r"an? Undecorated cannot be part of a configuration"):
        digest(Undecorated())


@dataclass(frozen=True)
class Named(Own):
    """With a repr of its own."""

    def __repr__(self) -> str:
        return "named"


@dataclass(frozen=True)
class NamedToo(Named):
    """Inherits it."""


def test_reprs():
    assert repr(SoftmaxLinear(entropy=1.0)) == "SoftmaxLinear(entropy=1.0)"
    assert repr(SoftmaxLinear(entropy=0.5)) == "SoftmaxLinear()"
    cell = Cell(Digits(samples=9), SoftmaxRegression(), Dirichlet(2), 0.25, SGD(10, optimiser=Adam(beta1=0.8)), seed=3)
    assert repr(cell) == (
        "Cell(problem=Digits(samples=9), student=SoftmaxRegression(), supervision=Dirichlet(concentration=2.0), "
        "step_size=0.25, sgd=SGD(steps=10, optimiser=Adam(beta1=0.8)), seed=3)"
    )
    assert eval(repr(cell)) == cell
    assert repr(NoiseSweep(nu=(0.1,), problem=GaussianMixture(priors=None))) == "NoiseSweep(nu=(0.1,))"
    assert repr(Own(either=1.0)) == "Own(either=1.0)" and repr(Own(size=-0.0)) == "Own(size=-0.0)"  # other digests
    assert repr(Named()) == repr(NamedToo()) == "named"


def test_a_supervision_whose_level_is_a_tensor_is_shown():
    stack = Supervision.stacked([Dirichlet(1.0), Dirichlet(2.0)], [1, 1], torch.device("cpu"))
    assert repr(stack).startswith("Dirichlet(concentration=tensor(")
