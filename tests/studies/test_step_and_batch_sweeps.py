"""step-size-sweep and batch-sweep: what they declare, and at small sizes that simulation and theory agree."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from kdsim.config import ConfigError
from kdsim.figures.step_size_sweep import _check
from kdsim.problems import GaussianMixture, SimplexLinear
from kdsim.results.store import read_study
from kdsim.students import LeastSquares, SoftmaxRegression
from kdsim.studies import BatchSweep, StepSizeSweep
from kdsim.studies.common import slowest_rate
from kdsim.study.runner import run
from kdsim.supervision import OneHot
from kdsim.theory import SecondMoments, constants

SMALL = GaussianMixture(samples=300, dimension=4)
LINEAR = SimplexLinear(samples=300, dimension=4)


@pytest.mark.slow
def test_step_sizes_span_the_marks_and_stay_below_the_limit():
    study = StepSizeSweep(problem=LINEAR, ridge=0.05, batch_size=2)
    population = LINEAR.population(0)
    smoothness = constants(LeastSquares(0.05, "centred"), population).expected_smoothness(2)
    limit = SecondMoments(population, 0.05, 2).stability_limit
    found = {cell.step_size for cell in study.cells() if cell.supervision == OneHot()}
    for mark in (1 / (2 * smoothness), 1 / smoothness, 0.8 * limit):
        assert min(abs(alpha / mark - 1) for alpha in found) < 1e-6
    assert min(found) == pytest.approx(0.25 / smoothness) and max(found) < limit


@pytest.mark.slow
def test_every_cell_is_as_long_as_its_step_size_needs():
    study = StepSizeSweep(problem=SMALL, ridge=0.2)
    student, population = SoftmaxRegression(0.2, "centred"), SMALL.population(0)
    rate = slowest_rate(student, population, population.optimum)
    assert 0.2 < rate < 0.3
    for cell in study.cells():
        settle = cell.recording.tail_start(cell.sgd.steps) * cell.step_size * rate
        assert settle >= 0.99 * study.settle or cell.sgd.steps < 500


@pytest.mark.slow
def test_tolerance_cells_hold_the_floor():
    study = StepSizeSweep(problem=LINEAR, ridge=0.05, tolerance=0.3, tolerance_levels=3, nu_low=0.1)
    held = study.cells()[-3:]
    moments = SecondMoments(LINEAR.population(0), 0.05, 1)
    for cell in held:
        assert moments.fixed_point(cell.supervision, cell.step_size).trace() == pytest.approx(0.3, rel=1e-5)
    assert np.all(np.diff([cell.step_size for cell in held]) < 0)
    assert len(StepSizeSweep(problem=LINEAR, ridge=0.05, tolerance_levels=0).cells()) == len(study.cells()) - 3


def test_batch_sweep_cells():
    """Each batch size at the fixed step size and at the fixed ratio, one-hot and Dirichlet."""
    study = BatchSweep(problem=SMALL, ridge=0.2, batch_sizes=(1, 2, 16))
    cells = study.cells()
    unit = 1 / (2 * constants(SoftmaxRegression(0.2, "centred"), SMALL.population(0)).sample_smoothness)
    found = sorted({(cell.sgd.batch_size, round(cell.step_size / unit, 9)) for cell in cells})
    assert found == [(1, 0.5), (1, 4.0), (2, 1.0), (2, 4.0), (16, 4.0), (16, 8.0)]
    assert len(cells) == 12
    assert all(cell.recording.directions == 8 for cell in cells)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"nu_fractions": (1.5,)}, "nu_fractions"),
        ({"highest": 1.0}, "highest"),
        ({"lowest": 1e6}, "lowest"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"ridge": -1.0}, "ridge"),
    ],
)
def test_bad_settings_of_step_size_sweep_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        StepSizeSweep(problem=LINEAR, **settings).cells()


@pytest.mark.parametrize("settings", [{"batch_sizes": ()}, {"batch_sizes": (2, 2)}, {"batch_sizes": (0,)}])
def test_bad_settings_of_batch_sweep_are_refused(settings):
    with pytest.raises(ConfigError, match="batch_sizes"):
        BatchSweep(problem=LINEAR, **settings)


@pytest.mark.slow
def test_quick_sizes_run_and_are_stored_with_their_spectrum(tmp_path):
    """Also the column `linearised`, and the figures' functions."""
    from kdsim.figures import FIGURES

    study = BatchSweep(problem=LINEAR, ridge=0.05, directions=3).quick()
    stored = read_study(run(study, tmp_path).folder)
    assert set(stored.spectrum.groupby("cell").size()) == {3}
    assert (stored.spectrum["time_low"] <= stored.spectrum["time_high"]).all()
    assert {"curvature", "variance_theory", "time_theory"} <= set(stored.spectrum)
    start = stored.curves[stored.curves["step"] == 0]
    assert start["linearised"].to_numpy() == pytest.approx(start["dist_sq_mean"].to_numpy(), rel=1e-4)
    assert stored.curves["linearised"].notna().all()
    assert len(FIGURES["batch-sweep"](stored).axes) == 5
    sweep = read_study(run(StepSizeSweep(problem=LINEAR, ridge=0.05).quick(), tmp_path).folder)
    assert sweep.spectrum.empty
    assert len(FIGURES["step-size-sweep"](sweep).axes) == 5


@pytest.mark.slow
def test_exact_floors_up_to_the_limit_of_stability(tmp_path):
    """Least squares at every step size of the sweep: measured floors within 4.5 standard errors of exact ones."""
    rows = read_study(run(StepSizeSweep(problem=LINEAR, highest=0.6), tmp_path).folder).rows
    noisy = rows[rows["nu"] > 0]
    assert (rows["diverged"] == 0).all()
    assert (abs(noisy["floor"] - noisy["exact_floor"]) < 4.5 * noisy["floor_se"]).all()
    assert (noisy["stability_kind"] == "exact").all()
    assert noisy["second_order_floor"].to_numpy() == pytest.approx(noisy["exact_floor"].to_numpy(), rel=1e-9)
    valid = noisy[noisy["sharp_bound_floor"].notna()]
    assert len(valid) > 8 and (valid["floor"] < valid["sharp_bound_floor"]).all()


@pytest.mark.slow
def test_autocorrelation_times_at_every_batch_size(tmp_path):
    """1/(alpha h) within 4.5 standard errors in nearly all of the directions of all cells, and on average."""
    stored = read_study(run(BatchSweep(problem=LINEAR, batch_sizes=(1, 8)), tmp_path).folder)
    spectrum = stored.spectrum
    se = (spectrum["time_high"] - spectrum["time_low"]) / 4
    z = (spectrum["time"] - spectrum["time_theory"]) / se
    assert abs(z).max() < 4.5
    noisy = stored.rows
    assert (abs(noisy["floor"] - noisy["exact_floor"]) < 4.5 * noisy["floor_se"]).all()


def test_the_floor_that_was_to_be_held_is_known_beyond_second_order():
    """Cells at small nu are beyond second order and have no such column: their floors are over the same tolerance."""
    held = pd.DataFrame(
        {"nu": [0.1, 0.2], "second_order_floor": [None, 0.25], "floor": [0.5, 0.25], "floor_low": [0.4, 0.2],
         "floor_high": [0.6, 0.3]}
    )  # fmt: skip
    ax = Figure().subplots()
    _check(ax, held)
    assert list(ax.lines[0].get_ydata()) == [2.0, 1.0]
