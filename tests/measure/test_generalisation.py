"""Data sets of frozen targets: what the engine visits is what is measured, and first order in 1/N at large N."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from simulating import simulate

from kdsim.engines import SGD, Lane, Recording
from kdsim.engines.samples import Samples, frozen_targets
from kdsim.measure import Generalisation, generalisation, generalise
from kdsim.population import Population
from kdsim.problems import GaussianMixture, SimplexLinear
from kdsim.students import LeastSquares, SoftmaxRegression
from kdsim.study.base import Cell
from kdsim.study.packs import packs
from kdsim.study.rows import measurement, prediction
from kdsim.supervision import Annotators, Confusion, Dirichlet, Independent, LogitGaussian, OneHot
from kdsim.theory import frozen

POOL = GaussianMixture(classes=3, dimension=2, samples=300).population(0)
STUDENT = SoftmaxRegression(0.1, "centred")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("index", ["replacement", "permutation"])
def test_every_visit_sees_the_target_of_the_data_set(dtype, index):
    """Bit for bit, for several families packed together, and every member of the data set is one that is visited."""
    lanes = [Lane(s, 0.1, 7, 3, first) for first, s in enumerate((OneHot(), Dirichlet(0.5), LogitGaussian(1.0)))]
    lanes += [
        Lane(Dirichlet(4.0), 0.1, 7, 3),
        Lane(Annotators(2.5), 0.1, 8, 2),
        Lane(Confusion(labels=True), 0.1, 7, 2),
    ]
    sgd = SGD(200, 2, index, "frozen", dtype, training_set=20)
    members, targets = frozen_targets(POOL, lanes, sgd)
    kind = getattr(torch, dtype)
    visited, seen = Samples(POOL, lanes, sgd, kind, torch.device("cpu")).chunk(0, 200)
    assert members.shape == (16, 20) and targets.dtype == kind
    for row in range(16):
        assert set(visited[row].tolist()) == set(members[row].tolist())
        assert len(set(members[row].tolist())) == 20
        place = (visited[row][:, None] == members[row][None, :]).int().argmax(1)
        assert torch.equal(seen[row], targets[row, place])


def test_without_a_training_set_the_pool_is_the_data_set():
    members, _ = frozen_targets(POOL, [Lane(OneHot(), 0.1, 7, 2)], SGD(5, targets="frozen"))
    assert torch.equal(members, torch.arange(300).expand(2, -1))


def _run(student, population: Population, lane: Lane, sgd: SGD) -> Generalisation:
    anchor = student.anchor(population)
    record, state = simulate(
        student, population, [lane], sgd, Recording(3), reference=population.optimum, anchor=anchor
    )
    final = state.error + population.optimum
    return generalise(student, population, lane, sgd, record, final, reference=population.optimum, anchor=anchor)


@pytest.mark.slow
def test_blocks_of_replicas_change_nothing(monkeypatch):
    sgd, lane = SGD(50, targets="frozen", training_set=30), Lane(OneHot(), 0.1, 7, 7)
    whole = _run(STUDENT, POOL, lane, sgd).row()
    monkeypatch.setattr(generalisation, "BLOCK_ELEMENTS", 1)
    assert _run(STUDENT, POOL, lane, sgd).row() == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("case", ["softmax", "least squares"])
def test_losses_by_hand(case):
    """Training loss, population loss with fresh targets (exact expectation over labels) and gap, replica by replica."""
    if case == "softmax":
        student, population = STUDENT, POOL
    else:
        student, population = LeastSquares(0.1, "centred"), SimplexLinear(samples=50, classes=3).population(0)
    sgd, lane = SGD(30, targets="frozen", dtype="float64", training_set=25), Lane(OneHot(), 0.05, 7, 4)
    found = _run(student, population, lane, sgd)
    _, state = simulate(
        student, population, [lane], sgd, Recording(3), reference=population.optimum, anchor=student.anchor(population)
    )
    index, q = frozen_targets(population, [lane], sgd)
    labels = torch.eye(population.classes, dtype=torch.float64)

    def losses(theta: torch.Tensor, replica: int) -> tuple[torch.Tensor, torch.Tensor]:
        train = student.loss(population.x[index[replica]] @ theta.T, q[replica]).mean()
        outputs = (population.x @ theta.T)[:, None, :].expand(-1, population.classes, -1)
        return train, (population.p * student.loss(outputs, labels)).sum(-1).mean()

    final = torch.stack([torch.stack(losses(state.error[r] + population.optimum, r)) for r in range(4)])
    start = torch.stack([torch.stack(losses(population.optimum, r)) for r in range(4)])
    assert found.train_loss == pytest.approx(final[:, 0].mean().item())
    assert found.population_loss == pytest.approx(final[:, 1].mean().item())
    gap = (final[:, 1] - final[:, 0]) - (start[:, 1] - start[:, 0])
    assert found.generalisation_gap == pytest.approx(gap.mean().item())


def test_what_has_no_minimiser_is_left_out():
    sgd = SGD(20, targets="frozen", training_set=30)
    nothing = {None}
    assert set(_run(STUDENT, POOL, Lane(Independent(0.1), 0.05, 7, 4), sgd).row().values()) == nothing
    assert set(_run(SoftmaxRegression(), POOL, Lane(OneHot(), 0.05, 7, 4), sgd).row().values()) == nothing


def test_rows_of_a_cell_have_the_columns():
    """Only a training set of frozen targets has them; the prediction stands beside the measurement."""
    cell = Cell(
        GaussianMixture(classes=3, dimension=2, samples=300), STUDENT, OneHot(), 0.02,
        SGD(40, targets="frozen", training_set=250), Recording(3), replicas=4,
    )  # fmt: skip

    def row(cell: Cell) -> dict:
        pack = packs([cell])[0]
        prepared = pack.prepare()
        record, state = prepared.run(pack.blocks()[0].lanes)
        keys = {"reference": prepared.reference, "anchor": prepared.anchor}
        found = measurement(cell, prepared.population, record, state.error, **keys)
        return {**prediction(cell, prepared.population), **found}

    found = row(cell)
    for name in ("empirical_dist_sq", "empirical_excess_risk", "empirical_gap", "train_loss", "generalisation_gap"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    assert found["frozen_gap"] > 0 and found["frozen_floor"] > found["frozen_dist_sq"]
    fresh = row(dataclasses.replace(cell, sgd=SGD(40)))
    assert "empirical_gap" not in fresh and fresh["frozen_gap"] is None
    assert "measured_variance" not in fresh
    parts = row(dataclasses.replace(cell, sgd=SGD(40), recording=Recording(3, mean_error=True)))
    assert parts["measured_variance"] == pytest.approx(parts["floor"])


@pytest.mark.slow
@pytest.mark.parametrize("supervision", [OneHot(), Dirichlet(3.0)], ids=lambda s: s.name)
def test_sandwich_at_large_n(supervision):
    """N = 2,000 of 4,000 points, 500 data sets: all three within 5 standard errors of first order."""
    population = GaussianMixture(classes=3, dimension=2, samples=4_000, variance=4.0).population(0)
    lane = Lane(supervision, 1e-3, 9, 500)
    found = _run(STUDENT, population, lane, SGD(1, targets="frozen", training_set=2_000, dtype="float64"))
    first = frozen(STUDENT, population, supervision, population.optimum, 2_000)
    assert first.expansion < 0.05
    for name, predicted in (("dist_sq", first.dist_sq), ("excess_risk", first.excess_risk), ("gap", first.gap)):
        value, high = getattr(found, f"empirical_{name}"), getattr(found, f"empirical_{name}_high")
        se = (high - value) / 1.96
        assert abs(value - predicted) < 5 * se, name
        assert se < 0.06 * predicted, name
