"""bias-sweep and frozen-labels: what they declare, and at reduced sizes that simulation and theory agree."""

from __future__ import annotations

import pytest

from kdsim.config import ConfigError, digest
from kdsim.figures import FIGURES
from kdsim.problems import GaussianMixture
from kdsim.results.store import read_study
from kdsim.studies.bias_sweep import BiasSweep
from kdsim.studies.frozen_labels import FrozenLabels
from kdsim.study.report import results_table
from kdsim.study.runner import run
from kdsim.supervision import Exact, OneHot
from kdsim.theory import constants

SMALL = GaussianMixture(classes=3, dimension=2, samples=200)


@pytest.mark.parametrize("study", [BiasSweep, FrozenLabels])
def test_cells_are_distinct(study):
    assert study.figure in FIGURES
    for cells in (study().cells(), study().quick().cells()):
        assert len({digest(cell) for cell in cells}) == len(cells)


def test_bias_sweep_cells():
    """Every family at its levels, sharper and flatter temperatures, inside T1's condition, with the mean error."""
    study = BiasSweep()
    cells = study.cells()
    names = [cell.supervision.name for cell in cells]
    counts = {name: names.count(name) for name in names}
    assert counts == {
        "exact": 1, "one-hot": 1, "temperature": 6, "label-smoothing": 5, "logit-gaussian": 4, "confusion": 10,
    }  # fmt: skip
    assert min(study.temperatures) < 1 < max(study.temperatures)
    assert sum(cell.supervision.nu(study.problem.population(0).p) > 0 for cell in cells[-10:]) == 5
    assert all(cell.recording.mean_error for cell in cells)
    pool = constants(cells[0].student, study.problem.population(study.seed))
    assert cells[0].step_size == pytest.approx(study.step_size_fraction / (2 * pool.sample_smoothness))


def test_frozen_labels_cells():
    """Each size and, last, fresh targets; each with exact BCP, Dirichlet levels and one-hot, all equally long."""
    study = FrozenLabels(problem=SMALL, sizes=(50, 100), nu_fractions=(0.1, 0.5))
    cells = study.cells()
    assert [cell.sgd.training_set for cell in cells] == [50] * 4 + [100] * 4 + [None] * 4
    assert {cell.sgd.targets for cell in cells[:8]} == {"frozen"} and {c.sgd.targets for c in cells[8:]} == {"fresh"}
    assert cells[0].supervision == Exact() and cells[3].supervision == OneHot()
    p = SMALL.population(0).p
    assert [c.supervision.nu(p) / OneHot().nu(p) for c in cells[1:3]] == pytest.approx([0.1, 0.5])
    mu = constants(cells[0].student, SMALL.population(0)).mu
    assert cells[0].sgd.steps * cells[0].step_size * mu == pytest.approx(study.relaxations, rel=1e-3)


@pytest.mark.parametrize(
    ("study", "settings", "words"),
    [
        (BiasSweep, {"step_size": -1.0}, "step_size"),
        (BiasSweep, {"batch_size": 0}, "batch_size"),
        (BiasSweep, {"temperatures": (0.0,)}, "temperature"),
        (BiasSweep, {"confusions": (1.5,)}, "rate"),
        (BiasSweep, {"temperatures": (), "smoothings": (), "scales": (), "confusions": ()}, "at least one level"),
        (FrozenLabels, {"sizes": ()}, "at least one size"),
        (FrozenLabels, {"sizes": (201,)}, "sizes"),
        (FrozenLabels, {"nu_fractions": (1.0,)}, "nu_fractions"),
        (FrozenLabels, {"relaxations": 0.0}, "relaxations"),
    ],
)
def test_bad_settings_are_refused(study, settings, words):
    with pytest.raises(ConfigError, match=words):
        study(problem=SMALL, **settings).cells()


@pytest.mark.slow
def test_bias_sweep_agrees_with_theory(tmp_path):
    """Floor within 2 %, variance within 5 %; beyond 4 standard errors, mean within 0.5 %, cross within 5 % of variance.

    The figure is drawn from the same results.
    """
    results = read_study(run(BiasSweep(replicas=20), tmp_path).folder)
    rows = results.rows[results.rows["supervision"] != "exact"]
    assert (abs(rows["floor"] / rows["first_order_floor"] - 1) < 0.02).all()
    assert (abs(rows["measured_variance"] / rows["variance"] - 1) < 0.05).all()
    half_width = rows["measured_cross_term_high"] - rows["measured_cross_term"]
    off = abs(rows["measured_cross_term"] - rows["cross_term"])
    assert (off < 0.05 * rows["variance"] + 2 * half_width).all()  # two half-widths are 4 standard errors
    biased = rows[rows["supervision"] != "one-hot"]
    off = abs(biased["mean_dist_sq"] - biased["predicted_mean_dist_sq"])
    half_width = biased["mean_dist_sq_high"] - biased["mean_dist_sq"]
    assert (off < 0.005 * biased["predicted_mean_dist_sq"] + 2 * half_width).all()
    parts = rows["bias_sq"] + rows["measured_cross_term"] + rows["measured_variance"]
    assert (abs(parts / rows["floor"] - 1) < 1e-9).all()
    assert rows["aim_bound_valid"].all() and (rows["measured_variance_high"] < rows["aim_bound_tail"]).all()
    assert not biased["bound_valid"].any()
    assert "level" in results_table(results.records).headers  # nu is 0 at every temperature
    assert FIGURES["bias-sweep"](results).axes


@pytest.mark.slow
def test_frozen_labels_agree_with_theory(tmp_path):
    """First order in 1/N within 4 standard errors and a third of the expansion's parameter; noise costs accuracy."""
    results = read_study(run(FrozenLabels(sizes=(128, 1024), nu_fractions=(0.2,), replicas=48), tmp_path).folder)
    rows = results.rows
    frozen = rows[(rows["targets"] == "frozen") & rows["frozen_dist_sq"].gt(0)]
    assert len(frozen) == 3  # one-hot at 128 points is beyond the expansion
    for measured, predicted in (
        ("empirical_dist_sq", "frozen_dist_sq"),
        ("empirical_excess_risk", "frozen_excess_risk"),
        ("empirical_gap", "frozen_gap"),
        ("generalisation_gap", "frozen_gap"),
        ("floor", "frozen_floor"),
        ("excess_risk_floor", "frozen_floor_excess_risk"),
    ):
        se = (frozen[f"{measured}_high"] - frozen[measured]) / 2
        off = abs(frozen[measured] - frozen[predicted])
        assert (off < 4 * se + frozen["frozen_expansion"] / 3 * frozen[predicted]).all(), measured
    exact = rows[(rows["targets"] == "frozen") & (rows["supervision"] == "exact")]
    assert (exact["empirical_dist_sq"] < 1e-12).all() and (exact["floor"] < 1e-10).all()
    for _, part in rows[rows["targets"] == "frozen"].groupby("training_set"):
        accuracy = part.sort_values("nu")["empirical_accuracy"].to_numpy()
        assert (accuracy[1:] < accuracy[:-1]).all()
    table = results_table(results.records)
    assert "training_set" in table.headers and "level" not in table.headers
    assert FIGURES["frozen-labels"](results).axes
