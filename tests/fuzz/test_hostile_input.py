"""A few hostile inputs of each surface; `python -m benchmarks.fuzz` makes a thousand of each."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hostile.harness import Box, Case, attempt, watched
from hostile.surfaces import SURFACES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdsim.data import cifar

QUICK, SLOW = 6, 5
"""Inputs of each surface."""
SLOWER = ("weights", "folders", "tables")
"""Surfaces that simulate or train something first: a part of the slow tests alone."""


@pytest.fixture(scope="module", params=SURFACES)
def surface(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ModuleType, Any]]:
    """A surface, and the valid files that it starts from."""
    before = dict(cifar.DATA_SETS)
    folder = tmp_path_factory.mktemp("valid")
    try:
        yield SURFACES[request.param], SURFACES[request.param].prepare(folder)
    finally:
        cifar.DATA_SETS.update(before)


def hold(surface: tuple[ModuleType, Any], random: Random) -> None:
    """One input of a surface does nothing that must not happen."""
    module, files = surface
    root = Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        box = Box(root / "box")
        box.make()
        case = module.case(random, files, box)
        outcome = attempt(case, box)
        assert outcome.faults == [], f"{case.what}: {outcome.faults}\n{case.arguments}\n{outcome.err}"
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("surface", [name for name in SURFACES if name not in SLOWER], indirect=True)
@settings(max_examples=QUICK, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_a_few_hostile_inputs(surface: tuple[ModuleType, Any], random: Random) -> None:
    hold(surface, random)


@pytest.mark.slow
@settings(max_examples=SLOW, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_hostile_inputs(surface: tuple[ModuleType, Any], random: Random) -> None:
    hold(surface, random)


# The harness itself: a fuzzer that sees nothing would pass -------------------------------------------


@pytest.fixture
def box(tmp_path: Path) -> Box:
    box = Box(tmp_path / "box")
    box.make()
    return box


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("open({marker!r}, 'w').close()", "ran planted code"),
        ("open({work!r} + '/x', 'w').close()", "wrote outside --out"),
        ("with open({work!r} + '/keep.txt', 'a') as file: file.write('x')", "changed outside --out"),
        ("import os; os.remove({work!r} + '/keep.txt')", "wrote outside --out"),
        ("import subprocess; subprocess.run(['true'])", "did subprocess.Popen"),
        ("import os; os.mkdir({work!r} + '/x'); os.rmdir({work!r} + '/x')", "did os.mkdir"),
        ("import time; time.sleep(5)", "took longer than"),
        ("import sys; print('Warning: x', file=sys.stderr)", "a line of another program"),
        ("import warnings; warnings.warn('x')", "warned: x"),
    ],
)
def test_the_harness_notices(box: Box, code: str, fault: str) -> None:
    study = box.data / "study.py"
    study.write_text(code.format(marker=str(box.marker), work=str(box.root / "work")))
    outcome = attempt(Case(["show-study", str(study)], "planted", own_code=True), box, seconds=1)
    assert any(found.startswith(fault) for found in outcome.faults), outcome.faults


def test_the_harness_notices_wrong_codes(box: Box) -> None:
    assert attempt(Case(["list-problems"], "fine"), box).faults == []
    assert attempt(Case(["list-problems"], "nonsense", refused=True), box).faults == ["accepted nonsense"]
    assert attempt(Case(["list-problems", "--json"], "refused"), box).code == 2


def test_the_watch_sleeps_outside(tmp_path: Path) -> None:
    with watched(tmp_path) as events:
        (tmp_path / "x").touch()
        Path("/nowhere").exists()
    Path(tmp_path / "y").touch()
    assert events == []
