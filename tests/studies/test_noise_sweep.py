"""noise-sweep: what it declares, and at its defaults the agreement of simulation and theory that it promises."""

from __future__ import annotations

import numpy as np
import pytest

from kdsim.config import ConfigError
from kdsim.problems import Digits, GaussianMixture, SimplexLinear, SoftmaxLinear
from kdsim.results.store import read_study
from kdsim.studies import NoiseSweep
from kdsim.study.runner import run
from kdsim.theory import constants

SMALL = {"samples": 300}


def test_default_cells():
    """Exact, one-hot and four families at eight levels log-spaced in nu, all inside T1's condition."""
    study = NoiseSweep()
    cells = study.cells()
    names = [cell.supervision.name for cell in cells]
    assert names[:2] == ["exact", "one-hot"]
    assert all(names.count(family) == 8 for family in study.families)
    population = study.problem.population(study.seed)
    pool = constants(cells[0].student, population)
    assert cells[0].step_size <= 1 / (2 * pool.sample_smoothness)
    assert min(cell.replicas for cell in cells) >= 64
    for family in study.families:
        nus = [cell.supervision.nu(population.p) for cell in cells if cell.supervision.name == family]
        assert np.allclose(np.diff(np.log(nus)), np.diff(np.log(nus))[0])
    equal = [[c.supervision.nu(population.p) for c in cells if c.supervision.name == f] for f in study.families[:2]]
    assert equal[0] == pytest.approx(equal[1])


@pytest.mark.parametrize("problem", [SoftmaxLinear(**SMALL), Digits(**SMALL), SimplexLinear(**SMALL)])
def test_defaults_carry_over(problem):
    cells = NoiseSweep(problem=problem).cells()
    population = problem.population(0)
    student = cells[0].student
    assert student.name == problem.student
    assert cells[0].step_size < 1 / (2 * constants(student, population).sample_smoothness)
    assert student.ridge == pytest.approx(0.1 * constants(type(student)(), population).smoothness)


def test_absolute_settings():
    study = NoiseSweep(
        problem=GaussianMixture(**SMALL), step_size=1e-3, ridge=0.2, nu=(0.001, 0.002), families=("dirichlet",)
    )
    cells = study.cells()
    population = study.problem.population(0)
    assert [cell.supervision.nu(population.p) for cell in cells[2:]] == pytest.approx([0.001, 0.002])
    assert cells[0].step_size == 1e-3
    assert cells[0].student.ridge == 0.2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"families": ("dirichlt",)}, "nearest: dirichlet"),
        ({"families": ("temperature",)}, "unknown family"),
        ({"step_size": float("nan")}, "step_size"),
        ({"step_size": -0.1}, "step_size"),
        ({"levels": 0}, "levels"),
        ({"nu_low": 0.5, "nu_high": 0.1}, "nu_high"),
        ({"nu": (5.0,), "families": ("dirichlet",)}, "below"),
        ({"nu": (float("nan"),)}, "nu"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        NoiseSweep(problem=GaussianMixture(**SMALL), **settings).cells()


@pytest.fixture(scope="module")
def default_results(tmp_path_factory):
    return read_study(run(NoiseSweep(), tmp_path_factory.mktemp("results")).folder)


def _check_agreement(rows):
    """Every cell is stationary, floors within 10 % of first order, exact is zero, no valid bound is violated."""
    assert rows["stationary"].eq(True).all()
    assert (rows["diverged"] == 0).all()
    one_hot = rows.loc[rows["supervision"] == "one-hot", "floor"].item()
    zero = 1e-8 * one_hot
    noisy = rows[rows["supervision"] != "exact"]
    assert (abs(noisy["floor"] / noisy["first_order_floor"] - 1) < 0.1).all()
    assert rows.loc[rows["supervision"] == "exact", "floor"].item() < zero
    assert rows["bound_valid"].all()
    for bound in ("bound_tail", "sharp_bound_tail"):
        valid = rows[rows[bound].notna()]
        assert len(valid) > len(rows) / 2
        assert ((valid["floor"] <= valid[bound]) | (valid["floor"] < zero)).all()


@pytest.mark.slow
def test_defaults_agree_with_theory(default_results):
    _check_agreement(default_results.rows)
    assert (
        abs(default_results.rows["excess_risk_floor"] / default_results.rows["first_order_excess_risk"] - 1)[1:] < 0.1
    ).all()


@pytest.mark.slow
def test_dirichlet_and_annotators_agree_at_equal_nu(default_results):
    """Equal covariance, equal floor: paired over replicas, which visit the same points, within 4 standard errors."""
    rows, replicas = default_results.rows, default_results.replicas
    pairs = zip(
        rows[rows["supervision"] == "dirichlet"].itertuples(),
        rows[rows["supervision"] == "annotators"].itertuples(),
        strict=True,
    )
    for dirichlet, annotators in pairs:
        assert dirichlet.nu == pytest.approx(annotators.nu)
        floors = [
            replicas[replicas["cell"] == row.cell].sort_values("replica")["floor"].to_numpy()
            for row in (dirichlet, annotators)
        ]
        difference = floors[0] - floors[1]
        assert abs(difference.mean()) < 4 * difference.std(ddof=1) / len(difference) ** 0.5


@pytest.mark.slow
def test_real_digits_agree_with_theory(tmp_path):
    """Two families at the two ends of their levels."""
    study = NoiseSweep(problem=Digits(), families=("dirichlet", "two-point"), levels=2)
    _check_agreement(read_study(run(study, tmp_path).folder).rows)
