"""nonconvex-sweep: what it declares, and whether exact BCP keeps the larger step sizes to itself."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.figure import Figure

from kdsim.config import ConfigError, digest
from kdsim.figures import FIGURES
from kdsim.figures.nonconvex_sweep import _floors
from kdsim.results.store import read_study
from kdsim.studies import NonconvexSweep
from kdsim.study.report import results_table
from kdsim.study.runner import run
from kdsim.supervision import Exact, OneHot


def test_cells_are_distinct_and_paired():
    """Each student at the same step sizes under each supervision, from the same starts."""
    for study in (NonconvexSweep(), NonconvexSweep().quick()):
        cells = study.cells()
        assert len({digest(cell) for cell in cells}) == len(cells)
        for student in {cell.student for cell in cells}:
            own = [cell for cell in cells if cell.student == student]
            grids = {s: [c.step_size for c in own if c.supervision == s] for s in {c.supervision for c in own}}
            assert {Exact(), OneHot()} < set(grids) and len(set(map(tuple, grids.values()))) == 1
            assert len({(cell.seed, cell.replicas, cell.sgd) for cell in own}) == 1
    assert {cell.student.name for cell in NonconvexSweep(students=("mlp",)).cells()} == {"mlp"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"students": ()}, "at least one"),
        ({"students": ("cnn",)}, "cnn"),
        ({"nu_fractions": (0.0,)}, "nu_fractions"),
        ({"mlp_largest": -1.0}, "mlp_largest"),
        ({"octaves": -1}, "octaves"),
        ({"per_octave": 0}, "per_octave"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        NonconvexSweep(**settings)


@pytest.mark.slow
def test_one_hot_diverges_before_exact_bcp(tmp_path):
    """Unlike for students that are linear in their parameters: by a factor of 1.4 at least.

    And where both are steady exact BCP has the lower excess risk; no bound is printed as valid.
    """
    study = NonconvexSweep(octaves=4, steps=2_000, nu_fractions=(0.4,))
    results = read_study(run(study, tmp_path).folder)
    rows = results.rows
    for _, own in rows.groupby("student"):
        largest = {
            name: part.loc[part["diverged"] == 0, "step_size"].max() for name, part in own.groupby("supervision")
        }
        assert largest["exact"] >= 1.4 * largest["one-hot"]
        pivot = own.pivot_table(index="step_size", columns="supervision", values="excess_risk_floor").dropna()
        assert len(pivot) >= 3 and (pivot["exact"] < pivot["one-hot"]).all()
    assert not rows["bound_valid"].any() and not rows["risk_bound_valid"].any()
    assert set(rows["bound_condition"]) == {"no closed form: constants are estimates"}
    table = results_table(results.records)
    assert "excess risk" in table.headers and "theory" not in table.headers
    assert FIGURES["nonconvex-sweep"](results).axes


def test_points_of_which_stationarity_is_not_known_are_hollow():
    """Filled: steady. None is not steady, and its point is drawn."""
    shared = {"label": "exact", "excess_risk_floor": 0.1, "excess_risk_floor_low": 0.05, "excess_risk_floor_high": 0.2}
    known = ((0.1, True), (0.2, False), (0.4, None))
    rows = pd.DataFrame([{**shared, "step_size": a, "stationary": s, "L_max_estimate": 3.0} for a, s in known])
    ax = Figure().subplots()
    _floors(ax, rows, {"exact": "black"})
    points = {line.get_markerfacecolor(): list(line.get_xdata()) for line in ax.lines if line.get_marker() == "o"}
    assert points == {"black": [0.1], "white": [0.2, 0.4]}
