"""Imports point one way. Theory and engines never meet; only figures draw; only the command line prints."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BOTTOM = {
    "untrusted",
    "config",
    "sources",
    "study_files",
    "notebook_sources",
    "data_files",
    "setting_texts",
    "plain_text",
}
BASE = BOTTOM | {"rng", "simplex", "population", "scores", "files", "threads", "fingerprint", "intervals"}
BASE |= {"conventions", "tensors", "pickled_tensors"}
CONTENT = {"problems", "supervision", "losses", "students", "data"}
TRAINED = {"engines", "networks", "training"}
ALLOWED: dict[str, set[str]] = {
    "sources": {"untrusted"},
    "data_files": set(),
    "study_files": {"sources"},
    "notebook_sources": {"sources"},
    "config": {"sources", "study_files", "notebook_sources", "data_files", "setting_texts"},
    "setting_texts": set(),
    "rng": set(),
    "simplex": set(),
    "population": {"config", "simplex"},
    "scores": {"config"},
    "fingerprint": {"population", "rng"},
    "conventions": set(),
    "untrusted": set(),
    "files": {"config", "untrusted"},
    "tensors": {"files", "untrusted", "pickled_tensors"},
    "pickled_tensors": set(),
    "plain_text": set(),
    "threads": set(),
    "problems": BASE,
    "supervision": BASE,
    "losses": BASE,
    "students": BASE | {"losses"},
    "data": {"config", "rng", "population", "problems", "untrusted"},
    "networks": {"config"},
    "theory": BASE | CONTENT,  # never engines: predictions do not look at simulations
    "engines": BASE | CONTENT,  # never theory: simulations do not look at predictions
    "training": BASE | CONTENT | {"engines", "networks"},
    "trainer": BASE | CONTENT | TRAINED,
    "teachers": BASE | CONTENT | TRAINED | {"trainer"},
    "results": BOTTOM | {"files", "untrusted", "conventions"},  # what is read of results needs no torch
    "measure": BASE | CONTENT | {"engines", "training"},
    "study": BASE | CONTENT | TRAINED | {"theory", "trainer", "teachers", "measure", "results"},
    "studies": BASE | CONTENT | TRAINED | {"theory", "trainer", "teachers", "measure", "results", "study"},
    "claims": BASE | CONTENT | TRAINED | {"theory", "trainer", "teachers", "measure", "results", "study", "studies"},
    "experiments": BASE | CONTENT | TRAINED | {"trainer", "study", "studies"},
    "api": BASE
    | CONTENT
    | TRAINED
    | {"theory", "trainer", "teachers", "measure", "results", "study", "studies", "figures", "experiments"},
    "intervals": set(),
    "figures": {"intervals"},
    "cli": BASE
    | CONTENT
    | TRAINED
    | {"theory", "trainer", "teachers", "measure", "results", "study", "studies", "claims", "figures", "api"},
}


def modules() -> list[tuple[str, Path]]:
    """(part of kdsim, file) of every module."""
    found = []
    for path in sorted((ROOT / "kdsim").rglob("*.py")):
        part = path.relative_to(ROOT / "kdsim").parts[0].removesuffix(".py")
        if part != "__init__":
            found.append((part, path))
    for part in ("studies", "figures"):
        found.extend((part, path) for path in sorted((ROOT / part).glob("*.py")))
    return found


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported_names(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, at any depth."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def violations(part: str, names: set[str]) -> list[str]:
    """Imports of kdsim parts that `part` may not use."""
    parts = {name.split(".")[1] for name in names if name.startswith("kdsim.")}
    return sorted(p for p in parts if p in ALLOWED and p not in ALLOWED[part] | {part})


MODULES = modules()
parts = pytest.mark.parametrize("part", sorted({part for part, _ in MODULES}))


@parts
def test_imports_point_one_way(part: str) -> None:
    assert part in ALLOWED, f"add {part} to ALLOWED, and say in docs/architecture.md where it stands"
    found = {str(path): violations(part, imported_names(path)) for own, path in MODULES if own == part}
    assert found and not any(found.values()), {path: names for path, names in found.items() if names}


def test_configurations_stand_on_the_standard_library_alone() -> None:
    """Whoever reads a stored configuration, or asks for help, waits for no library."""
    names = {name for part, path in MODULES if part in BOTTOM for name in imported_names(path)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"kdsim"}


@parts
def test_only_figures_draw(part: str) -> None:
    paths = [path for own, path in MODULES if own == part and part != "figures"]
    drawing = [path for path in paths if any(name.split(".")[0] == "matplotlib" for name in imported_names(path))]
    assert drawing == []


@parts
def test_only_the_command_line_prints(part: str) -> None:
    for path in (path for own, path in MODULES if own == part and part != "cli"):
        calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


def test_a_planted_import_is_caught() -> None:
    assert violations("theory", {"kdsim.engines.base"}) == ["engines"]
    assert violations("engines", {"kdsim.theory.bounds"}) == ["theory"]
    assert violations("supervision", {"kdsim.supervision.base", "kdsim.rng"}) == []
