"""Pools that are sound but degenerate: the right answer is known in closed form, and every engine gives it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from faulty_pools import ENGINE_CASES, POOLS, cell, linear, only_row, outcome, training

from kdsim.engines import ENGINES, SGD, Recording
from kdsim.engines.base import Lane
from kdsim.students import MLP, FactoredLeastSquares, LeastSquares, SoftmaxRegression, minimiser
from kdsim.study import rows
from kdsim.supervision import SUPERVISIONS, Annotators, Confusion, Dirichlet, Exact, Independent, OneHot, TwoPoint

RIDGE = SoftmaxRegression(0.1, "ordinary")


def record_of(kind, student, supervision, engine, sgd, step_size=0.05):
    """The record of an engine on a pool, from a run of its own: curves replica by replica."""
    population = POOLS[kind]()
    record, _ = ENGINES[engine].run(
        student,
        population,
        [Lane(supervision, step_size, seed=0, replicas=2)],
        sgd,
        Recording(checkpoints=12, tail_stride=1),
        reference=minimiser(student, population),
        anchor=student.anchor(population),
    )
    return record


def prediction(kind, student, supervision, **settings):
    made = cell(kind, student, supervision, **settings)
    return rows.prediction(made, made.problem.population(0))


# One class ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINE_CASES)
@pytest.mark.parametrize("supervision", [kind() for kind in SUPERVISIONS], ids=lambda s: s.name)
def test_one_class_is_certain(supervision, engine):
    """Softmax of one class is 1 whatever theta is: every gradient is 0, theta stays at 0, and so does all else."""
    made = [cell("one-class", student, supervision, engine=engine) for student in (SoftmaxRegression(), RIDGE)]
    if ENGINES[engine].refusal(RIDGE, POOLS["one-class"](), [Lane(supervision, 0.1, 0, 2)], SGD(5), Recording()):
        pytest.skip("the compiled engine does not draw these targets")
    for student, row in ((each.student, only_row(each)) for each in made):
        assert row["floor"] == row["excess_risk_floor"] == row["bcp_l2"] == row["entropy"] == 0
        assert (row["accuracy"], row["diverged"], row["stationary"]) == (1, 0, True)
        assert row["sigma_star_sq"] == row["first_order_floor"] == 0
        assert row["nu"] == (0.01 if isinstance(supervision, Independent) else 0)
        assert row["mu_pl"] == student.ridge  # without a ridge nothing is curved
        assert row["mu_pl_kind"] == ("exact" if student.ridge else "unknown")


@pytest.mark.parametrize("supervision", [TwoPoint(1.0), Confusion(0.3), Confusion(1.0, labels=True)])
def test_one_class_has_no_other_class_to_be_taken_for(supervision):
    p = torch.ones(4, 1, dtype=torch.float64)
    assert torch.equal(supervision.mean(p), p)
    assert supervision.nu(p) == 0


@pytest.mark.slow
def test_one_class_of_a_network():
    row = only_row(cell("one-class", MLP((3,)), engine="autograd"))
    assert row["excess_risk_floor"] == row["L_estimate"] == row["sigma_star_sq_estimate"] == 0


def test_a_network_of_points_is_refused_one_class():
    (failure,) = outcome(training("one-class")).failures
    assert failure.endswith("classes = 1 is not allowed: must be an integer >= 2")


# One point, and copies of it --------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINE_CASES)
@pytest.mark.parametrize("kind", ["one-linear-point", "copies-of-one-linear-point"])
def test_one_point_of_least_squares(engine, kind):
    """|theta_t - theta*|^2 = (1 - alpha |x|^2)^(2t) |p|^2 / |x|^2 under exact targets, theta* of least norm."""
    x, p, _ = linear(1)
    square = x.square().sum().item()
    sgd = SGD(40, dtype="float64")
    record = record_of(kind, LeastSquares(), Exact(), engine, sgd, step_size=0.3)
    expected = (1 - 0.3 * square) ** (2 * record.steps.numpy()) * p.square().sum().item() / square
    assert record.curves["dist_sq"].numpy() == pytest.approx(expected[:, None].repeat(2, 1), rel=1e-9)


def test_one_point_of_least_squares_in_theory():
    """E|theta - theta*|^2 = alpha tr C / (2 - alpha |x|^2), of which alpha tr C / 2 is first order; mu = 0 but PL."""
    x, p, _ = linear(1)
    square, noise = x.square().sum().item(), (1 - p.square().sum()).item()
    for kind in ("one-linear-point", "copies-of-one-linear-point"):
        found = prediction(kind, LeastSquares(), OneHot(), step_size=0.3)
        assert found["exact_floor"] == pytest.approx(0.3 * noise / (2 - 0.3 * square), rel=1e-9)
        assert found["second_order_floor"] == pytest.approx(found["exact_floor"], rel=1e-9)
        assert found["first_order_floor"] == pytest.approx(0.3 * noise / 2, rel=1e-9)
        assert found["stability_limit"] == pytest.approx(2 / square, rel=1e-9)
        assert (found["mu"], found["mu_pl"]) == (0, pytest.approx(square))
        assert (found["bound_valid"], found["bound_floor"]) == (False, None)
        assert found["bound_condition"] == "not strongly convex (mu = 0)"


@pytest.mark.parametrize("engine", ENGINE_CASES)
@pytest.mark.parametrize("kind", ["one-point", "copies-of-one-point"])
def test_one_point_of_softmax_regression(engine, kind):
    """theta_t = u_t x' with u <- u - alpha (softmax(|x|^2 u) - p): a recursion in K numbers."""
    population = POOLS[kind]()
    x, p = population.x[0].numpy(), population.p[0].numpy()
    record = record_of(kind, SoftmaxRegression(), Exact(), engine, SGD(60, dtype="float64"))
    target = np.log(p) - np.log(p).mean()  # outputs at the optimum of least norm
    u, expected = np.zeros(3), {}
    for step in range(61):
        expected[step] = np.square(u * (x @ x) - target).sum() / (x @ x)
        weights = np.exp(u * (x @ x))
        u = u - 0.05 * (weights / weights.sum() - p)
    for step, distance in zip(record.steps.tolist(), record.curves["dist_sq"], strict=True):
        assert distance.tolist() == pytest.approx([expected[step]] * 2, rel=1e-9)


@pytest.mark.parametrize("engine", ENGINE_CASES)
@pytest.mark.parametrize("supervision", [OneHot(), Dirichlet(2.0)])
def test_copies_of_one_point_are_that_point(engine, supervision):
    """Fresh targets are keyed by the visit and not by the point: the paths agree, but for a mean over equal points."""
    paths = [
        record_of(kind, RIDGE, supervision, engine, SGD(30, dtype="float64")).curves["dist_sq"]
        for kind in ("one-point", "copies-of-one-point")
    ]
    assert torch.allclose(*paths, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("kind", "copies", "student"),
    [
        ("sound", "copies", RIDGE),
        ("sound", "copies", SoftmaxRegression()),
        ("linear", "linear-copies", LeastSquares()),
        ("linear", "linear-copies", LeastSquares(0.1, "centred")),
    ],
)
def test_copies_change_no_prediction(kind, copies, student):
    alone, twice = (prediction(each, student, OneHot()) for each in (kind, copies))
    assert alone.keys() == twice.keys()
    for name, value in alone.items():
        if isinstance(value, float):
            assert twice[name] == pytest.approx(value, rel=1e-8, abs=1e-14), name
        elif not name.endswith("_condition"):  # those have numbers in them
            assert twice[name] == value, name


def test_copies_are_weights():
    """Point 0 three times and point 1 once: sigma*^2 = 3/4 |x_0|^2 tr C_0 + 1/4 |x_1|^2 tr C_1."""
    x, p, _ = linear()
    each = x.square().sum(-1) * (1 - p.square().sum(-1))
    found = prediction("uneven-copies", LeastSquares(), OneHot())
    assert found["sigma_star_sq"] == pytest.approx((0.75 * each[0] + 0.25 * each[1]).item(), rel=1e-12)
    assert (found["mu"], found["bound_valid"]) == (0, False)  # two different points in three dimensions
    assert found["mu_pl"] > 0
    assert found["exact_floor"] > 0


# Features without information -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINE_CASES)
def test_a_feature_that_is_zero_changes_nothing(engine):
    """Its column of theta never moves: the floor, the risk and all predictions are those without it."""
    for student in (RIDGE, LeastSquares()):
        without, with_it = (only_row(cell(k, student, engine=engine)) for k in ("sound", "zero-feature"))
        for name in ("floor", "excess_risk_floor", "accuracy", "sigma_star_sq", "first_order_floor", "L", "L_max"):
            assert with_it[name] == pytest.approx(without[name], rel=1e-9), name
    found = prediction("zero-feature", LeastSquares(), OneHot())
    assert (found["mu"], found["bound_condition"]) == (0, "not strongly convex (mu = 0)")


def test_a_constant_feature_makes_the_covariance_singular():
    """Inputs sum to one, so that a constant is a combination of the others: mu = 0, and floors exist all the same."""
    row = only_row(cell("constant-feature", LeastSquares(), Dirichlet(9.0)))
    assert (row["mu"], row["bound_valid"], row["diverged"]) == (0, False, 0)
    assert 0 < row["mu_pl"] < row["L"]
    assert row["exact_floor"] == pytest.approx(row["second_order_floor"], rel=1e-9)


@pytest.mark.parametrize("engine", ENGINE_CASES)
@pytest.mark.parametrize("student", [SoftmaxRegression(), RIDGE, LeastSquares()], ids=lambda s: s.name)
def test_inputs_that_are_all_zero(student, engine):
    """No gradient moves theta; L is the ridge alone. Softmax regression says 1/3, which is p; least squares says 0."""
    row = only_row(cell("zero-inputs", student, engine=engine))
    assert row["floor"] == row["sigma_star_sq"] == row["first_order_floor"] == 0
    assert row["L"] == row["L_max"] == student.ridge
    assert row["excess_risk_floor"] == pytest.approx(0, abs=1e-15)
    assert row["bcp_l2"] == pytest.approx(0 if student.name == "softmax-regression" else 3**-0.5, abs=1e-15)
    assert row["diverged"] == 0


# Classes of probability zero ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINE_CASES)
def test_a_class_of_probability_zero_is_never_taught(engine):
    """Its row of theta stays 0 under least squares: the floor is that of the other classes."""
    for supervision in (Exact(), OneHot(), Dirichlet(0.5), TwoPoint(1.0)):
        row = only_row(cell("zero-class", LeastSquares(), supervision, engine=engine))
        assert row["diverged"] == 0
        assert row["accuracy"] <= 1
        two = POOLS["zero-class"]()
        pair = supervision.covariance(two.p[:, :2]).diagonal(dim1=-2, dim2=-1).sum(-1).mean().item() / 3
        assert row["nu"] == pytest.approx(pair, rel=1e-12)


def test_a_class_of_probability_zero_has_no_softmax_optimum_without_a_ridge():
    (failure,) = outcome(cell("zero-class", SoftmaxRegression())).failures
    assert failure.endswith(
        "the objective has no finite minimiser to working precision (separable targets): give the student a ridge"
    )
    assert only_row(cell("zero-class", RIDGE))["floor"] > 0


@pytest.mark.slow
def test_certain_classes_have_no_noise():
    for supervision in (OneHot(), Annotators(2.0), TwoPoint(1.0), Dirichlet(1.0)):
        assert only_row(cell("vertices", RIDGE, supervision))["nu"] == 0
    with pytest.raises(Exception, match="is not feasible for dirichlet, nor any other: every class probability"):
        Dirichlet().with_nu(0.01, POOLS["vertices"]().p)


# Rounding ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rounding_of_class_probabilities_is_accepted():
    """-1e-17 is zero; rows that sum to one to 6e-8 (float32) are as the user has them."""
    assert torch.equal(POOLS["negative-by-rounding"]().p, POOLS["with-a-zero"]().p)
    rounded, exact = (only_row(cell(k, RIDGE)) for k in ("negative-by-rounding", "with-a-zero"))
    assert rounded["floor"] == exact["floor"]
    assert only_row(cell("in-float32-and-back", RIDGE))["floor"] == pytest.approx(
        only_row(cell("sound", RIDGE))["floor"], rel=1e-6
    )


@pytest.mark.parametrize("engine", ENGINE_CASES)
def test_tiny_inputs_under_a_ridge(engine):
    """The minimiser is -gradient(0) / ridge to 1e-60 of itself: the reason for a failure must not be separability."""
    population = POOLS["tiny"]()
    best = minimiser(RIDGE, population)
    gradient = (torch.full_like(population.p, 1 / 3) - population.p).T @ population.x / population.size
    assert torch.allclose(best, -gradient / 0.1, rtol=1e-9, atol=0)
    assert only_row(cell("tiny", RIDGE, engine=engine))["diverged"] == 0


# More visits than points --------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINE_CASES)
def test_a_batch_of_two_epochs_is_gradient_descent(engine):
    """Without replacement 12 visits see each of 6 points twice: theta <- theta - alpha grad f, the same in replicas."""
    sgd = SGD(25, batch_size=12, index="permutation", dtype="float64")
    record = record_of("sound", RIDGE, Exact(), engine, sgd, step_size=0.5)
    population = POOLS["sound"]()
    best, theta, expected = minimiser(RIDGE, population), torch.zeros(3, 3, dtype=torch.float64), {}
    for step in range(26):
        expected[step] = (theta - best).square().sum().item()
        theta = theta - 0.5 * RIDGE.gradient(theta, population.x, population.p, torch.zeros_like(theta))
    for step, distance in zip(record.steps.tolist(), record.curves["dist_sq"], strict=True):
        assert distance.tolist() == pytest.approx([expected[step]] * 2, rel=1e-9)


@pytest.mark.parametrize("index", ["replacement", "permutation"])
def test_a_training_set_of_one_point(index):
    """However large the batch, each replica walks the path of its point alone: the batch size does not matter."""
    paths = [
        record_of("linear", LeastSquares(), Exact(), "torch", SGD(9, b, index, training_set=1, dtype="float64"))
        for b in (1, 50)
    ]
    assert torch.allclose(*(path.curves["dist_sq"] for path in paths), rtol=1e-12, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINE_CASES)
@pytest.mark.parametrize("sgd", [SGD(9, 100), SGD(9, 100, "permutation"), SGD(9, 100, targets="frozen"),
                                 SGD(9, 100, "permutation", "frozen", training_set=2)], ids=str)  # fmt: skip
def test_batches_larger_than_the_pool(engine, sgd):
    row = only_row(cell(engine=engine, sgd=sgd))
    assert math.isfinite(row["floor"])
    assert row["diverged"] == 0


@pytest.mark.slow
def test_all_but_one_point_held_out():
    """The student sees one point, and is looked at on the five others."""
    sgd = SGD(20, held_out=5)
    row = only_row(cell(student=MLP((3,)), engine="autograd", sgd=sgd))
    assert row["final_loss"] > 0
    assert 0 <= row["accuracy"] <= 1
    with pytest.raises(Exception, match=r"held_out = 6 is not allowed: must be in \[0, 5\]"):
        outcome(cell(student=MLP((3,)), engine="autograd", sgd=SGD(20, held_out=6)))


def test_factored_students_on_inputs_that_do_not_move_them():
    row = only_row(cell("zero-inputs", FactoredLeastSquares(3), engine="autograd"))
    assert (row["fluctuation"], row["diverged"], row["excess_risk_floor"]) == (0, 0, pytest.approx(1 / 6))
