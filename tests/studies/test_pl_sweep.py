"""pl-sweep: what it declares, and at its defaults the agreement of simulation and theory that it promises."""

from __future__ import annotations

import numpy as np
import pytest

from kdsim.config import ConfigError
from kdsim.results.store import read_study
from kdsim.studies import PLSweep
from kdsim.study.runner import run
from kdsim.theory import constants

Z_LIMIT = 4.5
"""About 70 floors of least squares and 700 checkpoints are compared."""


@pytest.mark.slow
def test_default_cells():
    """Four students, T2's limit among the step sizes of least squares, every run of the length that it asks for."""
    study = PLSweep()
    cells = study.cells()
    assert {cell.problem for cell in cells} == {study.full, study.deficient, study.overparametrised, study.softmax}
    assert all(cell.student.ridge == 0 for cell in cells)
    for problem in (study.full, study.deficient, study.overparametrised):
        own = [cell for cell in cells if cell.problem == problem]
        known = constants(own[0].student, problem.population(0))
        limit = known.mu_pl / (2 * known.smoothness * known.sample_smoothness)
        assert min(cell.step_size for cell in own) == pytest.approx(limit)
        assert (known.mu > 0) == (problem == study.full)
        assert all(cell.sgd.steps >= study.relaxations / (cell.step_size * known.mu_pl) - 1 for cell in own)
        assert {cell.supervision.name for cell in own} == {"exact", "one-hot", "dirichlet", "annotators"}


@pytest.mark.slow
def test_step_sizes_out_of_reach_are_left_out():
    study = PLSweep(max_steps=5_000)
    cells = study.cells()
    assert max(cell.sgd.steps for cell in cells) <= 5_000
    assert len(cells) < len(PLSweep().cells())
    with pytest.raises(ConfigError, match="max_steps = 1 "):
        PLSweep(max_steps=1).cells()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"levels": 0}, "levels"),
        ({"nu_low": 0.5, "nu_high": 0.1}, "nu_high"),
        ({"t2_fractions": (0.0,)}, "t2_fractions"),
        ({"stability_fractions": (1.5,)}, "stability_fractions"),
        ({"relaxations": -1.0}, "relaxations"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        PLSweep(**settings)


@pytest.mark.slow
def test_defaults_agree_with_theory(tmp_path):
    """Exact curves and floors within z limits, no valid bound is violated, and no bound is valid for softmax."""
    results = read_study(run(PLSweep(), tmp_path).folder)
    rows = results.rows
    assert (rows["diverged"] == 0).all()
    softmax = rows[rows["student"] == "softmax-regression"]
    assert (softmax["mu_pl_kind"] == "estimate").all() and not softmax["risk_bound_valid"].any()
    noisy = rows[rows["supervision"] != "exact"]
    assert noisy["stationary"].eq(True).all()
    squares = noisy[noisy["student"] == "least-squares"]
    se = (squares["excess_risk_floor_high"] - squares["excess_risk_floor"]) / 1.998  # t quantile at 63 degrees
    assert (abs(squares["excess_risk_floor"] - squares["exact_excess_risk"]) / se).max() < Z_LIMIT
    for bound in ("risk_bound_tail", "sharp_risk_bound_tail"):
        valid = rows[rows[bound].notna()]
        assert len(valid) >= 30
        assert (valid["excess_risk_floor"] <= valid[bound]).all()
    for row in squares[squares["supervision"] == "one-hot"].itertuples():
        curve = results.curves[(results.curves["cell"] == row.cell) & (results.curves["step"] > 0)]
        z = (curve["excess_risk_mean"] - curve["exact_excess_risk"]) / curve["excess_risk_se"]
        assert np.abs(z).max() < Z_LIMIT, (row.step_size, np.abs(z).max())
