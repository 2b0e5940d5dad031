"""paper-synthetic: what it declares; what the validation recorder sees; and the published ordering."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdsim.config import ConfigError
from kdsim.engines import ENGINES, SGD, GradientDescent, Lane, Recording
from kdsim.engines.samples import Samples
from kdsim.figures import FIGURES
from kdsim.population import Population
from kdsim.problems import GaussianMixture
from kdsim.results.store import read_study
from kdsim.scores import expected_calibration_error, negative_log_likelihood
from kdsim.students import MLP, FactoredLeastSquares, SoftmaxRegression
from kdsim.studies import PaperSynthetic
from kdsim.study.report import results_table
from kdsim.study.runner import run
from kdsim.supervision import Dirichlet, Exact, OneHot

POOL = GaussianMixture(classes=3, dimension=4, samples=90).population(1)
STUDENT = MLP((6,), "relu")


def _run(sgd: SGD, student=STUDENT, population: Population = POOL, engine: str = "autograd"):
    reference = student.reference(population)
    lanes = [Lane(OneHot(), 0.05, 3, 3)]
    return ENGINES[engine].run(
        student, population, lanes, sgd, Recording(6), reference=reference, anchor=torch.zeros_like(reference)
    )


def test_cells_are_the_published_experiment():
    cells = PaperSynthetic(targets=("frozen",)).cells()
    assert [cell.supervision for cell in cells] == [OneHot(), Dirichlet(0.5), Dirichlet(5.0), Exact()]
    sgd = cells[0].sgd
    assert (sgd.steps, sgd.batch_size, sgd.index, sgd.targets) == (45_000, 1, "permutation", "frozen")
    assert sgd.optimiser == GradientDescent(momentum=0.9) and cells[0].step_size == 5e-4
    assert sgd.held_out == 4_500 and cells[0].replicas == 32
    assert cells[0].student.shapes(31, 5)[1][0] == (128, 128)
    recording = cells[0].recording
    assert sum(step > recording.tail_start(45_000) for step in recording.schedule(45_000)) >= 20


def test_each_noisy_supervision_has_a_fresh_variant_beside_it():
    """Exact BCP are run once: there is nothing to draw."""
    cells = PaperSynthetic().cells()
    assert cells[:4] == PaperSynthetic(targets=("frozen",)).cells()
    assert cells[4:] == tuple(replace(cell, sgd=replace(cell.sgd, targets="fresh")) for cell in cells[:3])
    alone = PaperSynthetic(targets=("fresh",)).cells()
    assert alone[:3] == cells[4:] and alone[3].supervision == Exact() and len(alone) == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"validation": 27_000}, "validation"),
        ({"targets": ("frozen", "thawed")}, "targets"),
        ({"targets": "fresh"}, "targets"),
        ({"targets": ()}, "targets"),
        ({"targets": ("fresh", "fresh")}, "targets"),
        ({"momentum": 1.0}, "momentum"),
        ({"epochs": 0.0}, "epochs"),
        ({"concentrations": (0.0,)}, "concentrations"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        PaperSynthetic(**settings).cells()


@pytest.mark.parametrize("index", ["replacement", "permutation"])
def test_held_out_points_are_never_visited(index):
    """Changing them changes no path, and each of the others is visited once an epoch."""
    sgd = SGD(130, index=index, held_out=25, dtype="float64")
    _, state = _run(sgd)
    other = Population(POOL.x.clone(), POOL.p.clone(), POOL.y.clone(), POOL.optimum)
    other.x[-25:], other.p[-25:] = 7.0, 1 / 3
    _, moved = _run(sgd, population=other)
    assert torch.equal(state.error, moved.error)
    samples = Samples(POOL.points(slice(65)), [Lane(OneHot(), 0.1, 0, 1)], sgd, torch.float64, torch.device("cpu"))
    visited = samples.chunk(0, 65)[0]
    assert visited.max() < 65
    if index == "permutation":
        assert visited[0].unique().numel() == 65


def test_scores_are_those_of_the_held_out_labels():
    record, state = _run(SGD(200, held_out=40, dtype="float64"))
    x, y = POOL.x[-40:], POOL.y[-40:]
    for replica in range(3):
        log_probs = STUDENT.outputs(state.error[replica], x).log_softmax(-1)
        seen = {name: record.curves[name][-1, replica].item() for name in ("loss", "label_accuracy", "ece", "bcp_l2")}
        assert seen["loss"] == pytest.approx(negative_log_likelihood(log_probs, y).item())
        assert seen["label_accuracy"] == pytest.approx((log_probs.argmax(-1) == y).double().mean().item())
        assert seen["ece"] == pytest.approx(expected_calibration_error(log_probs.exp(), y).item())
        assert seen["bcp_l2"] == pytest.approx((log_probs.exp() - POOL.p[-40:]).norm(dim=-1).mean().item())


@pytest.mark.parametrize(
    ("student", "sgd", "words"),
    [
        (STUDENT, SGD(10, held_out=90), "held_out"),
        (STUDENT, SGD(10, held_out=30, training_set=61), "training_set"),
        (FactoredLeastSquares(), SGD(10, held_out=30), "held_out is only allowed for a network under cross-entropy"),
        (SoftmaxRegression(), SGD(10, held_out=30), "held_out"),
    ],
)
def test_what_has_no_validation_set_is_refused(student, sgd, words):
    for engine in ("autograd", "cpu_fused"):
        refused = ENGINES[engine].refusal(student, POOL, [Lane(OneHot(), 0.1, 0, 2)], sgd, Recording(), "cpu")
        assert refused is not None
        assert engine == "cpu_fused" or words in refused


@pytest.mark.slow
def test_the_published_ordering(tmp_path):
    """Less noise, lower loss and fluctuation, with eight replicas and a quarter of the published run."""
    study = PaperSynthetic(replicas=8, epochs=0.5, validation=1_500)
    results = read_study(run(study, tmp_path).folder)
    frozen = results.rows["targets"] == "frozen"
    rows = results.rows[frozen].set_index("nu").sort_index()
    assert list(rows["supervision"]) == ["exact", "dirichlet", "dirichlet", "one-hot"]
    for column in ("final_loss", "fluctuation", "bcp_l2"):
        assert (np.diff(rows[column]) > 0).all(), column
    # In half an epoch no point is seen twice: fresh targets are other draws of the same.
    fresh = results.rows[~frozen].set_index("nu").sort_index()
    assert list(fresh["supervision"]) == ["dirichlet", "dirichlet", "one-hot"]
    width = rows["bcp_l2_high"] - rows["bcp_l2_low"]
    assert ((fresh["bcp_l2"] - rows["bcp_l2"]).abs() < width)[fresh.index].all()
    assert (rows["excess_loss_low"] > 0).all()
    assert rows["fluctuation"].iloc[-1] > 4 * rows["fluctuation"].iloc[0]
    assert (rows["final_loss"] - rows["excess_loss"]).to_numpy() == pytest.approx(rows["bayes_loss"].to_numpy())
    table = results_table(results.records)
    assert table.headers[-6:] == ["loss", "above the BCP's", "fluct.", "|phi - p|", "accuracy", "ece"]
    assert "targets" in table.headers
    figure = FIGURES["paper-synthetic"](results)
    assert [text.get_text() for text in figure.legends[0].get_texts()][-2:] == ["frozen targets", "fresh targets"]
    lines = figure.axes[0].get_lines()
    assert sum(line.get_linestyle() == "--" for line in lines) == 3 and len(lines) == 7
