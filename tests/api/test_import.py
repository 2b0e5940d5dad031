"""`import kdsim` is lazy, and everything of a contract is reachable from it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kdsim as kd
from kdsim import data, engines, figures, losses, networks, problems, students, studies, supervision, teachers
from kdsim.study.loading import CONTRACTS

HEAVY = {"torch", "numba", "pandas", "matplotlib", "pyarrow", "scipy", "numpy", "sklearn", "rich", "typer"}


@pytest.mark.parametrize("module", ["kdsim", "kdsim.figures", "kdsim.config"])
def test_nothing_heavy_is_imported(module: str) -> None:
    code = f"import {module}, sys; dir({module}); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & {name.partition(".")[0] for name in ran.stdout.split()}


def test_every_name_can_be_imported() -> None:
    assert set(kd.__all__) <= set(dir(kd)) and {"run", "simulate", "predict", "load", "compare"} <= set(kd.__all__)
    for name in kd.__all__:
        assert getattr(kd, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        kd.no_such_name  # noqa: B018


def test_every_class_of_a_contract_is_reachable() -> None:
    packages = (kd.data, kd.experiments, kd.losses, kd.problems, kd.students, kd.supervision, kd.teachers)
    for contract, classes in CONTRACTS.items():
        for cls in (contract, *classes):
            assert any(vars(package).get(cls.__name__) is cls for package in packages), cls


def test_studies_and_figures_by_name() -> None:
    assert all(getattr(kd.studies, study.__name__) is study for study in studies.STUDIES)
    assert all(callable(function) for function in figures.FIGURES.values())
    named = {study.figure for study in studies.STUDIES if isinstance(study.figure, str)}
    assert named <= set(figures.FIGURES) and len(figures.FIGURES) == len(list(figures.FIGURES))
    with pytest.raises(KeyError):
        figures.FIGURES["no-such-figure"]


def test_public_names_of_packages_exist() -> None:
    for package in (data, engines, losses, networks, problems, students, supervision, teachers, kd.experiments):
        assert all(hasattr(package, name) for name in package.__all__), package
