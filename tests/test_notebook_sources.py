"""Classes that were typed into a notebook: what their digest stands for, and what is refused."""

from __future__ import annotations

import itertools
import linecache
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kdsim.config import ConfigError, digest, encode, source_digest

CLASS = """
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from kdsim.supervision import Supervision, Target


@dataclass(frozen=True)
class Own(Supervision):
    rate: float = 0.5

    name: ClassVar[str] = "own"
    unbiased: ClassVar[bool] = True

    def __post_init__(self):
        helper(self.rate)

    def sample(self, batch, draws):
        return Target(q=batch.p * torch.tensor(WEIGHTS[0]))

    def mean(self, p):
        return p

    def covariance(self, p):
        return 0 * torch.diag_embed(p)
"""
BEFORE = """
SCALE = 2.0
WEIGHTS = [1.0, {"a": (1, None)}]


def helper(value):
    result = value * SCALE
    return result
"""

Run = Callable[[str], dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a cell as IPython does: in `__main__`, which has no file, with its source in linecache."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    numbers = itertools.count()
    files = []

    def run(code: str) -> dict[str, Any]:
        file = f"/tmp/ipykernel_1/{next(numbers)}.py"
        files.append(file)
        linecache.cache[file] = len(code), None, code.splitlines(keepends=True), file
        exec(compile(code, file, "exec", dont_inherit=True), vars(main))
        return vars(main)

    yield run
    for file in files:
        linecache.cache.pop(file, None)


def test_the_same_cell_gives_the_same_digest(run: Run) -> None:
    run(BEFORE)
    first = run(CLASS)["Own"]
    assert encode(first())["source_sha256"] == source_digest(first)
    second = run("# the same below a comment\n" + CLASS)["Own"]
    assert second is not first and source_digest(second) == source_digest(first) and digest(second()) == digest(first())


@pytest.mark.parametrize(
    "edit",
    [
        "SCALE = 3.0",  # of the helper
        "WEIGHTS[1]['a'] = (1, 2)",
        "def helper(value):\n    return 2 * value",
        "Own.sample = lambda self, batch, draws: Target(q=batch.p)",
        "Own.constant = 3",
        "def helper(value, factor=SCALE):\n    return value * SCALE",
    ],
)
def test_what_it_stands_on_counts(run: Run, edit: str) -> None:
    run(BEFORE)
    own = run(CLASS)["Own"]
    before = source_digest(own)
    run(edit)
    assert source_digest(own) != before


@pytest.mark.parametrize("edit", ["OTHER = 1", "result = object()", "p = batch = object()", "def other(): pass"])
def test_what_it_does_not_use_does_not_count(run: Run, edit: str) -> None:
    run(BEFORE)
    own = run(CLASS)["Own"]
    before = source_digest(own)
    run(edit)
    assert source_digest(own) == before


def test_arrays_and_values_of_attributes_count(run: Run) -> None:
    digests = []
    arrays = ("np.arange(3)", "np.arange(4)", "torch.arange(4)", "torch.ones(4)")
    for value in (*arrays, "frozenset({1})", "torch.float64", "torch.float32", "np.exp", "torch.exp"):
        run(f"import numpy as np, torch\nSCALE = {value}\nWEIGHTS = 1\ndef helper(value):\n    return SCALE")
        digests.append(source_digest(run(CLASS)["Own"]))
    assert len(set(digests)) == len(digests)


def test_two_classes_of_one_name_both_count(run: Run) -> None:
    """The base is the class that was there when the subclass was made; its method uses the one that is there now."""
    run(BEFORE + CLASS)
    sub = "@dataclass(frozen=True)\nclass Sub(Own):\n    def mean(self, p):\n        return Own().mean(p)\n"
    own = run(sub)["Sub"]
    before = source_digest(own)
    run(CLASS.replace("return p\n", "return 1 * p\n"))
    assert source_digest(own) != before


def test_functions_that_are_remembered_count(run: Run) -> None:
    code = "from functools import cache\nWEIGHTS = 1\n@cache\ndef helper(value):\n    return {}"
    digests = []
    for number in (1, 2):
        run(code.format(number))
        digests.append(source_digest(run(CLASS)["Own"]))
    assert digests[0] != digests[1]


def test_a_subclass_without_methods(run: Run) -> None:
    """Its source is known from when it was made; its base counts."""
    code = "@dataclass(frozen=True)\nclass Sub(Own):\n    more: int = {}\n"
    run(BEFORE)
    run(CLASS)
    one, two = (run(code.format(number))["Sub"] for number in (1, 2))
    assert source_digest(one) != source_digest(two)
    before = source_digest(two)
    run(CLASS.replace("return p\n", "return 1 * p\n") + code.format(2))
    assert source_digest(vars(sys.modules["__main__"])["Sub"]) != before


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("SCALE = iter([])", "it uses SCALE, of type list_iterator, which is neither"),
        ("WEIGHTS = [object()]", "it uses WEIGHTS, of type object"),
        ("def helper(value):\n    return eval('value')", "it uses eval, which hides"),
        ("def make(n):\n    def inner(v):\n        return n\n    return inner\nhelper = make(2)", "uses n of"),
        ("exec('def helper(value): return 1')", "the source of helper, which it uses, is not known"),
    ],
)
def test_what_cannot_be_stood_for_is_refused_in_one_line(run: Run, edit: str, said: str) -> None:
    run(BEFORE)
    own = run(CLASS)["Own"]
    run(edit)
    with pytest.raises(ConfigError, match=said) as refused:
        source_digest(own)
    assert "\n" not in str(refused.value) and "%%writefile" in str(refused.value)


def test_a_class_that_a_function_makes_is_refused(run: Run) -> None:
    run(BEFORE)
    body = "\n".join(f"    {line}" for line in CLASS.strip().splitlines())
    own = run(f"def make():\n{body}\n    return Own\nMade = make()")["Made"]
    with pytest.raises(ConfigError, match="a function made it"):
        source_digest(own)
