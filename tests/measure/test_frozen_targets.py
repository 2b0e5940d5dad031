"""Frozen targets as a data set: Newton's minimisers, the targets they see, and first order in 1/N against both."""

from __future__ import annotations

import pytest
import torch
from simulating import simulate

from kdsim.config import ConfigError
from kdsim.engines import SGD, Lane, Recording
from kdsim.engines.samples import frozen_targets
from kdsim.measure import decompose, generalise
from kdsim.measure.generalisation import empirical_minimisers
from kdsim.population import Population
from kdsim.problems import GaussianMixture
from kdsim.students import SoftmaxRegression, minimiser
from kdsim.supervision import Annotators, Confusion, Dirichlet, Exact, OneHot
from kdsim.theory import frozen

POOL = GaussianMixture(classes=3, dimension=2, samples=600, variance=4.0).population(0)
STUDENT = SoftmaxRegression(0.1, "centred")


def _run(lane: Lane, sgd: SGD, recording: Recording | None = None):
    return simulate(
        STUDENT, POOL, [lane], sgd, recording or Recording(checkpoints=3),
        reference=POOL.optimum, anchor=STUDENT.anchor(POOL),
    )  # fmt: skip


@pytest.mark.parametrize("supervision", [OneHot(), Dirichlet(2.0), Annotators(3.5)], ids=lambda s: s.name)
def test_minimisers_are_those_of_one_data_set_each(supervision):
    """Batched Newton against `minimiser` on each replica's own pool."""
    sgd = SGD(10, targets="frozen", training_set=40, dtype="float64")
    index, q = frozen_targets(POOL, [Lane(supervision, 0.1, 3, 5)], sgd)
    anchor = STUDENT.anchor(POOL)
    found = empirical_minimisers(STUDENT, POOL.x[index], q, anchor)
    for replica in range(5):
        own = Population(x=POOL.x[index[replica]], p=POOL.p[index[replica]], optimum=POOL.optimum)
        torch.testing.assert_close(found[replica], minimiser(STUDENT, own, q[replica]), atol=1e-9, rtol=0)


@pytest.mark.slow
def test_sgd_sees_the_targets_of_the_data_set():
    """Full passes with a vanishing step end at the empirical minimiser of the replica's own targets."""
    sgd = SGD(6_000, batch_size=20, index="permutation", targets="frozen", training_set=20, dtype="float64")
    lane = Lane(OneHot(), 0.05, 3, 4)  # a batch is the whole data set: gradient descent
    _, state = _run(lane, sgd)
    index, q = frozen_targets(POOL, [lane], sgd)
    found = empirical_minimisers(STUDENT, POOL.x[index], q, STUDENT.anchor(POOL))
    torch.testing.assert_close(state.error + POOL.optimum, found, atol=1e-6, rtol=0)


def test_fresh_targets_are_no_data_set():
    with pytest.raises(ConfigError, match="frozen"):
        frozen_targets(POOL, [Lane(OneHot(), 0.1, 3, 2)], SGD(10))


def test_no_ridge_is_refused():
    x, q = POOL.x[None, :5], POOL.p[None, :5]
    with pytest.raises(ConfigError, match="ridge"):
        empirical_minimisers(SoftmaxRegression(), x, q, torch.zeros_like(POOL.optimum))


@pytest.mark.slow
@pytest.mark.parametrize("supervision", [OneHot(), Dirichlet(1.0)], ids=lambda s: s.name)
def test_first_order_in_one_over_n(supervision):
    """Sandwich, excess risk and gap: off by less than 5 standard errors and half of the expansion's parameter."""
    size, replicas = 300, 2_000
    sgd = SGD(1, targets="frozen", training_set=size, dtype="float64")
    lane = Lane(supervision, 1e-3, 5, replicas)
    record, state = _run(lane, sgd)
    measured = generalise(
        STUDENT, POOL, lane, sgd, record, state.error + POOL.optimum,
        reference=POOL.optimum, anchor=STUDENT.anchor(POOL),
    )  # fmt: skip
    first = frozen(STUDENT, POOL, supervision, POOL.optimum, size)
    assert first.valid
    for name, predicted in (
        ("empirical_dist_sq", first.dist_sq),
        ("empirical_excess_risk", first.excess_risk),
        ("empirical_gap", first.gap),
    ):
        value = getattr(measured, name)
        se = (getattr(measured, f"{name}_high") - value) / 1.96
        assert abs(value - predicted) < 5 * se + 0.5 * first.expansion * predicted, name
        assert se < 0.1 * predicted


def test_exact_targets_leave_no_gap():
    first = frozen(STUDENT, POOL, Exact(), POOL.optimum, 50)
    assert first.dist_sq == pytest.approx(0, abs=1e-20)
    assert first.gap == pytest.approx(0, abs=1e-20)


def test_decomposition_adds_up():
    """bias + cross + variance is the tail floor of each replica, and variance is the distance to theta_m."""
    supervision = Confusion(0.3, labels=True)
    aim = minimiser(STUDENT, POOL, supervision.mean(POOL.p))
    shift = aim - POOL.optimum
    recording = Recording(tail_fraction=0.5, tail_stride=1, mean_error=True)
    record, _ = _run(Lane(supervision, 0.05, 3, 6), SGD(8, dtype="float64"), recording)
    parts = decompose(record, shift)
    errors = [_run(Lane(supervision, 0.05, 3, 6), SGD(t, dtype="float64"))[1].error for t in (5, 6, 7, 8)]
    variance = torch.stack([(error - shift).square().sum((-2, -1)) for error in errors]).mean()
    cross = torch.stack([2 * ((error - shift) * shift).sum((-2, -1)) for error in errors]).mean()
    assert parts.measured_variance == pytest.approx(variance.item(), rel=1e-9)
    assert parts.measured_cross_term == pytest.approx(cross.item(), rel=1e-9)
