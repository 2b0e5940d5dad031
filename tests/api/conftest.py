"""What the tests of the Python API share: one small sweep, run once."""

from __future__ import annotations

from pathlib import Path

import pytest

import kdsim as kd


@pytest.fixture(scope="session")
def experiments() -> list[kd.experiments.Cell]:
    problem = kd.problems.SoftmaxLinear(dimension=3, samples=100)
    noises = (kd.supervision.Exact(), kd.supervision.OneHot(), kd.supervision.Dirichlet(3.0))
    return [
        kd.Experiment(problem, supervision=noise, steps=60, step_size=0.1, batch_size=size, replicas=6, engine="torch")
        for noise in noises
        for size in (1, 4)
    ]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api") / "results"


@pytest.fixture(scope="session")
def sweep(experiments: list[kd.experiments.Cell], folder: Path) -> kd.Result:
    return kd.run(experiments, folder, name="sweep")
