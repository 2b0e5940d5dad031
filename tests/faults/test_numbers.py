"""Numbers out of reach: refused in one line before anything runs, or run to the right answer."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from faulty_pools import CPU_ENGINES, ENGINE_CASES, POOLS, Table, cell, only_row, outcome, training
from hypothesis import given
from hypothesis import strategies as st

from kdsim.cli import main
from kdsim.config import ConfigError
from kdsim.engines import ENGINES, SGD, Recording
from kdsim.engines.base import Lane
from kdsim.engines.optimisers import Adam, GradientDescent
from kdsim.engines.schedules import StepDecay
from kdsim.engines.variational import IVON, MeanField
from kdsim.losses import DISTILLATION_LOSSES, KD, TTM, BayesianKD, LabelCrossEntropy
from kdsim.population import Population
from kdsim.students import MLP, LeastSquares, SoftmaxRegression
from kdsim.supervision import Annotators, Dirichlet, Exact, Independent, OneHot, Temperature, TwoPoint
from kdsim.theory.prediction import predict
from kdsim.training.recipe import Recipe

RIDGE = SoftmaxRegression(0.1, "ordinary")
CENTRED = SoftmaxRegression(0.1, "centred")

REFUSED = {
    "nan": "population: x has entries that are not finite, in float64",
    "infinite": "population: x has entries that are not finite, in float64",
    "too-large": "population: the largest entry of x is 2.18e+200 in size: must be at most 1e+50",
    "too-small": "population: the largest entry of x is 2.18e-200 in size: must be at most 1e+50 and, unless all are 0",
    "beyond-float32": "the largest entry of x is 2.18e+39 in size, not allowed in float32: must be from 1.18e-38",
    "below-float32": "the largest entry of x is 2.18e-46 in size, not allowed in float32: must be from 1.18e-38",
    "integers": "the problem's pool has x in int64: must be float64, whatever sgd.dtype is",
    "float32": "the problem's pool has x in float32: must be float64, whatever sgd.dtype is",
    "images": "the problem's pool has x of shape (6, 3, 1, 1): must be (N, d)",
    "no-points": "population: x is (0, 3) float64: must be (N, d)",
    "no-features": "population: x is (6, 0) float64: must be (N, d)",
    "an-array": "population: x is a ndarray: must be a torch.Tensor",
    "nothing": "the problem's pool is None: must be a Population",
    "negative-p": "population: p has negative entries (smallest -0.1)",
    "p-off-by-a-thousandth": "population: p has rows that do not sum to one (off by 0.001)",
    "nan-p": "population: p has entries that are not finite",
    "no-p": "the problem's pool has no p: a student of the engines needs class probabilities",
    "p-of-fewer-points": "population: x has 6 rows but p has 5",
    "p-in-one-dimension": "population: p is (6,) float64: must be (N, K) of floating point, K >= 1",
    "p-without-classes": "population: p is (6, 0) float64: must be (N, K) of floating point, K >= 1",
    "label-above": "the problem's pool has the label 7: must be from 0 to 2",
    "label-below": "the problem's pool has the label -1: must be from 0 to 2",
    "labels-as-numbers": "the problem's pool has y of form (6,) float64: must be (6,) int64, a class a point",
    "labels-of-fewer-points": "the problem's pool has y of form (5,) int64: must be (6,) int64, a class a point",
    "nan-optimum": "population: optimum has entries that are not finite numbers of size <= 1e+50",
    "infinite-optimum": "population: optimum has entries that are not finite numbers of size <= 1e+50",
    "optimum-of-another-shape": "population: optimum is (3, 2) float64: must be (3, 3), classes by features",
}
"""Kind of pool to what is said of it."""


def refusal(*cells) -> str:
    """The one line in which `run` refuses, whether it is raised or a failure of the cell."""
    try:
        result = outcome(*cells)
    except ConfigError as error:
        line = str(error)
    else:
        assert result.rows == []
        assert result.user_error
        (line,) = result.failures
    assert "\n" not in line
    return line


# Pools --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("engine", ["auto", *(pytest.param(name, marks=pytest.mark.slow) for name in CPU_ENGINES)])
def test_a_faulty_pool_is_refused(kind, engine):
    dtype = "float32" if "float32" in kind else "float64"
    assert REFUSED[kind] in refusal(cell(kind, engine=engine, sgd=SGD(40, dtype=dtype)))


@pytest.mark.parametrize("kind", REFUSED)
def test_a_faulty_pool_is_refused_by_networks(kind):
    dtype = "float32" if "float32" in kind else "float64"
    assert REFUSED[kind] in refusal(cell(kind, MLP((3,)), engine="autograd", sgd=SGD(40, dtype=dtype)))
    if kind not in ("nothing", "labels-of-fewer-points", "below-float32"):  # see KnownPoints; subnormals are small
        assert len(refusal(training(kind))) > 0


def test_the_gpu_engine_refuses_the_same():
    lanes = [Lane(OneHot(), 1e300, 0, 2)]
    for kind in ("nothing", "no-p", "float32", "images"):
        said = ENGINES["gpu_fused"].refusal(RIDGE, POOLS[kind](), lanes, SGD(5), Recording(), "cpu")
        assert said == f"engine = 'gpu_fused' is not allowed here: {said.partition(': ')[2]}"
        assert REFUSED[kind] in said


@pytest.mark.slow
@given(
    x=st.lists(st.lists(st.floats(), min_size=2, max_size=2).map(tuple), min_size=1, max_size=4).map(tuple),
    p=st.sampled_from([(1.0, 0.0), (0.5, 0.5), (0.2, 0.8), (1 + 1e-9, -1e-13), (1 - 5e-7, 0.0), (math.nan, 1.0)]),
    student=st.sampled_from([RIDGE, LeastSquares(), LeastSquares(0.1, "centred"), SoftmaxRegression()]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_any_pool_is_run_or_refused(x, p, student, dtype):
    """Never a traceback, and never a number that is none: what is stored is finite or nothing."""
    made = cell(Table(x, (p,) * len(x)), student, engine="torch", sgd=SGD(8, dtype=dtype))
    try:
        result = outcome(made)
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert result.failures == [] or result.user_error, result.failures
    for row in result.rows:
        json.dumps(row, allow_nan=False)
        assert row["diverged"] in (0, 2)
        assert (row["floor"] is None) == (row["diverged"] > 0)


# Step sizes, ridges, variances ----------------------------------------------------------------------


@pytest.mark.parametrize("step_size", [0.0, -1.0, math.inf, -math.inf, math.nan])
def test_step_sizes_that_are_none(step_size):
    with pytest.raises(ConfigError, match=r"step_size = .* is not allowed: must be a finite number > 0"):
        cell(step_size=step_size)
    with pytest.raises(ConfigError, match=r"step_size = .* is not allowed: must be a finite number > 0"):
        Recipe(step_size=step_size)


@pytest.mark.parametrize("engine", [*ENGINE_CASES, "auto"])
@pytest.mark.parametrize("step_size", [5e-324, 1e-300, 1e-151, 1e-39, 1e39, 1e151, 1e300])
def test_step_sizes_that_the_dtype_does_not_hold(engine, step_size):
    said = refusal(cell(step_size=step_size, engine=engine, sgd=SGD(5)))
    assert said == f"step_size = {step_size!r} is not allowed in float32: must be from 1.18e-38 to 3.4e+38; " + (
        "float64 holds more"
    )
    if not 1e-150 <= step_size <= 1e150:
        said = refusal(cell(step_size=step_size, engine=engine))
        assert said == f"step_size = {step_size!r} is not allowed in float64: must be from 1e-150 to 1e+150"


def test_theory_alone_refuses_a_step_size_as_well():
    for step_size in (1e-300, 1e300):
        with pytest.raises(ConfigError, match=r"step_size = .* is not allowed: must be in \[1e-150, 1e\+150\]"):
            predict(RIDGE, POOLS["sound"](), OneHot(), step_size, 1, [1])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINE_CASES)
@pytest.mark.parametrize("step_size", [1e-150, 1e-39, 1e-30])
def test_a_step_size_too_small_to_move(engine, step_size):
    """Distance and risk are those of the start, theta = 0, to rounding; first order in alpha is tiny and not zero."""
    row = only_row(cell(student=CENTRED, step_size=step_size, engine=engine))
    start = POOLS["sound"]().optimum.square().sum().item()
    assert row["floor"] == pytest.approx(start, rel=1e-12)
    assert row["fluctuation"] <= 1e-15
    assert row["stationary"] is None and row["drift_z"] == 0  # nothing drifts, but the run has not begun
    assert row["tail_relaxations"] < 1e-25
    assert row["first_order_floor"] == pytest.approx(only_row(cell(student=CENTRED))["first_order_floor"] *
                                                     step_size / 0.05, rel=1e-9)  # fmt: skip


SLOW = pytest.mark.slow
DIVERGING = [
    ("sound", RIDGE, OneHot(), {"step_size": 1e30}),
    pytest.param("sound", RIDGE, OneHot(), {"step_size": 1e150}, marks=SLOW),
    pytest.param("linear", LeastSquares(), Exact(), {"step_size": 1e30}, marks=SLOW),
    ("huge", RIDGE, OneHot(), {}),
    pytest.param("huge", LeastSquares(), Exact(), {}, marks=SLOW),
    pytest.param("sound", RIDGE, Independent(1e37), {}, marks=SLOW),
    ("sound", RIDGE, Independent(1e50), {}),
    pytest.param("linear", LeastSquares(), Independent(1e50), {}, marks=SLOW),
    ("sound", SoftmaxRegression(1e30, "ordinary"), OneHot(), {}),
    ("sound", SoftmaxRegression(1e50, "centred"), OneHot(), {}),
]


@pytest.mark.parametrize("engine", ENGINE_CASES)
@pytest.mark.parametrize(("kind", "student", "supervision", "settings"), DIVERGING)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_divergence_has_no_floor(kind, student, supervision, settings, engine, dtype):
    """Every replica is counted, no statistic is stated, and nothing that is stored is NaN or infinite."""
    held = 3.4e38
    if dtype == "float32" and max(settings.get("step_size", 0), student.ridge, supervision.level or 0) > held:
        said = refusal(cell(kind, student, supervision, engine=engine, sgd=SGD(40), **settings))
        assert "not allowed in float32: must be" in said
        assert said.endswith("; float64 holds more")
        return
    row = only_row(cell(kind, student, supervision, engine=engine, sgd=SGD(40, dtype=dtype), **settings))
    assert (row["diverged"], row["stationary"]) == (2, False)
    for name in ("floor", "floor_low", "excess_risk_floor", "fluctuation", "accuracy", "bcp_l2", "drift_z", "ratio"):
        assert row[name] is None
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("engine", ENGINE_CASES)
def test_a_huge_ridge_with_a_step_size_to_match(engine):
    """alpha ridge = 1/10: the error about theta*, to which the ridge pulls, shrinks by 0.9 a step, noise or not."""
    student = SoftmaxRegression(1e30, "centred")
    row = only_row(cell(student=student, step_size=1e-31, engine=engine, recording=Recording(6, 0.5, 1)))
    start = POOLS["sound"]().optimum.square().sum().item()
    tail = [0.81**step for step in range(21, 41)]
    assert row["floor"] == pytest.approx(start * sum(tail) / len(tail), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINE_CASES)
def test_a_tiny_ridge_is_none(engine):
    without, tiny = (only_row(cell(student=SoftmaxRegression(*r), engine=engine)) for r in ((), (1e-300, "centred")))
    assert tiny["floor"] == pytest.approx(without["floor"], rel=1e-12)
    assert (tiny["mu"], without["mu"]) == (1e-300, 0)


@pytest.mark.parametrize("make", [SoftmaxRegression, LeastSquares])
def test_ridges_out_of_reach(make):
    for ridge in (-1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match=r"ridge = .* must be a finite number >= 0"):
            make(ridge, "ordinary")
    with pytest.raises(ConfigError, match=r"ridge = 1e\+51 is not allowed: must be at most 1e\+50"):
        make(1e51, "ordinary")
    with pytest.raises(ConfigError, match="ridge = "):
        MLP(ridge=1e51)


def test_noise_and_starts_out_of_reach():
    for make in (lambda: Independent(1e51), lambda: MLP(initial_scale=1e51), lambda: Independent(math.inf)):
        with pytest.raises(ConfigError, match="is not allowed: must be"):
            make()


@pytest.mark.slow
def test_a_huge_start_diverges_and_has_no_estimates():
    """What theory cannot estimate it leaves out, with the reason, and the run is counted as it went."""
    row = only_row(cell(student=MLP((3,), "relu", initial_scale=1e30), engine="autograd"))
    assert (row["diverged"], row["excess_risk_floor"]) == (2, None)
    row = only_row(cell("huge", MLP((3,), "relu"), engine="autograd"))
    assert row["L_estimate"] is None
    assert row["bound_condition"].startswith("no closed form: constants are estimates, and there are none: ")


# Lengths and counts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SGD(0), "steps = 0 is not allowed: must be an integer >= 1"),
        (lambda: SGD(5, 0), "batch_size = 0 is not allowed: must be an integer >= 1"),
        (lambda: SGD(5, training_set=0), "training_set = 0 is not allowed: must be an integer >= 1"),
        (lambda: Recording(checkpoints=1), "checkpoints = 1 is not allowed: must be an integer >= 2"),
        (lambda: Recording(tail_fraction=math.nan), "tail_fraction = nan is not allowed: must be in (0, 1)"),
        (lambda: cell(replicas=1), "replicas = 1 is not allowed: must be an integer >= 2"),
        (lambda: GradientDescent(momentum=1.0), "momentum = 1.0 is not allowed: must be in [0, 1)"),
        (lambda: GradientDescent(weight_decay=1e300), "weight_decay = 1e+300 is not allowed: must be in [0, 3.4"),
        (lambda: Adam(epsilon=1e-300), "epsilon = 1e-300 is not allowed: must be in [1.17549e-38, 3.4"),
        (lambda: IVON(hess_init=1e300), "hess_init = 1e+300 is not allowed: must be in [1.17549e-38, 3.4"),
        (lambda: MeanField(std_init=100.0), "std_init = 100.0 is not allowed: must be at most 80"),
        (lambda: StepDecay((0.2, 0.4), 1e300), "decay = 1e+300 is not allowed: must be at most 1e+15 with 2 mile"),
        (lambda: KD(temperature=1e-300), "temperature = 1e-300 is not allowed: must be in [0.001, 10000]"),
        (lambda: KD(temperature=1e300), "temperature = 1e+300 is not allowed: must be in [0.001, 10000]"),
        (lambda: BayesianKD(student_temperature=1e30), "student_temperature = 1e+30 is not allowed: must be in [0.001"),
        (lambda: TTM(gamma=1e-300), "gamma = 1e-300 is not allowed: must be in [0.0001, 1000]"),
        (lambda: KD(teacher_weight=1e300), "teacher_weight = 1e+300 is not allowed: must be at most 1e+30"),
        (lambda: Recipe(step_size=1e300), "step_size = 1e+300 is not allowed: must be in [1.17549e-38, 3.4"),
    ],
)
def test_settings_out_of_reach(make, said):
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        make()


def test_more_visits_or_training_points_than_there_are():
    assert refusal(cell(sgd=SGD(2**62, 2**10))).startswith("steps * batch_size = 4722366482869645213696 is not allowed")
    assert refusal(cell(sgd=SGD(5, training_set=7))) == "training_set = 7 is not allowed: must be in [1, 6]"


@pytest.mark.parametrize("engine", ENGINE_CASES)
def test_one_step(engine):
    """theta_1 = -alpha gradient at 0, of one point and label: 18 are possible. One sample of the tail has no spread."""
    row = only_row(cell(student=SoftmaxRegression(), engine=engine, sgd=SGD(1, dtype="float64")))
    population = POOLS["sound"]()
    possible = [
        (0.05 * (torch.eye(3, dtype=torch.float64)[k] - 1 / 3)[:, None] * x - population.optimum).square().sum().item()
        for x in population.x
        for k in range(3)
    ]
    pairs = torch.tensor([[(a + b) / 2 for a in possible] for b in possible])
    assert (pairs - row["floor"]).abs().min() < 1e-9
    assert row["fluctuation"] is None
    assert (row["stationary"], row["drift_z"]) == (None, None)  # nothing is known of a drift


@pytest.mark.parametrize("engine", ENGINE_CASES)
def test_the_fewest_replicas_and_checkpoints(engine):
    row = only_row(cell(engine=engine, replicas=2, recording=Recording(checkpoints=2, tail_fraction=1e-300)))
    assert row["replicas"] == 2
    assert row["floor_low"] < row["floor"] < row["floor_high"]


@pytest.mark.slow
def test_replicas_that_never_move_do_not_drift():
    """Squares are added in another order at a checkpoint: the last bit is no drift."""
    rows = [only_row(cell(student=CENTRED, step_size=1e-100, engine=e)) for e in CPU_ENGINES]
    assert [(row["drift_z"], row["stationary"]) for row in rows] == [(0, None)] * 3


@pytest.mark.parametrize("optimiser", [GradientDescent(0.9), Adam(), Adam(epsilon=1.2e-38)], ids=str)
def test_optimisers_without_a_gradient(optimiser):
    """0 / (0 + epsilon) is 0: theta stays where it is, in float32 as well."""
    row = only_row(cell("one-class", CENTRED, engine="autograd", sgd=SGD(20, optimiser=optimiser)))
    assert (row["floor"], row["diverged"]) == (0, 0)


# Ends of the noise levels ---------------------------------------------------------------------------


def test_levels_at_the_ends_of_their_range():
    p = POOLS["sound"]().p
    most = OneHot().nu(p)
    assert Annotators().with_nu(most, p).count == pytest.approx(1, rel=1e-12)
    assert TwoPoint().with_nu(TwoPoint().largest_nu(p), p) == TwoPoint(1.0)
    assert TwoPoint().with_nu(0.0, p) == TwoPoint(0.0)
    nearly = Dirichlet().with_nu(math.nextafter(most, 0), p)
    assert nearly.nu(p) == pytest.approx(most, rel=1e-12)
    for family, nu in (
        (Dirichlet(), Dirichlet().largest_nu(p)),
        (Annotators(), most * 1.001),
        (TwoPoint(), math.nan),
        (Dirichlet(), -1.0),
    ):
        with pytest.raises(ConfigError, match="is not feasible for"):
            family.with_nu(nu, p)


@pytest.mark.parametrize("engine", ENGINE_CASES)
def test_the_noisiest_level_is_one_hot(engine):
    """One annotator is one-hot, label by label; so is Dirichlet as its concentration goes to 0, in its moments."""
    p = POOLS["sound"]().p
    most = OneHot().nu(p)
    annotators, one_hot = (
        only_row(cell(supervision=s, engine=engine)) for s in (Annotators().with_nu(most, p), OneHot())
    )
    assert annotators["floor"] == one_hot["floor"]
    assert annotators["first_order_floor"] == pytest.approx(one_hot["first_order_floor"], rel=1e-12)
    row = only_row(cell(supervision=Dirichlet().with_nu(math.nextafter(most, 0), p), engine=engine))
    assert row["first_order_floor"] == pytest.approx(one_hot["first_order_floor"], rel=1e-12)
    assert row["diverged"] == 0


@pytest.mark.parametrize(("temperature", "target"), [(1e-300, [0.0, 1.0, 0.0]), (1e300, [1 / 3, 1 / 3, 1 / 3])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_temperatures_at_their_ends(temperature, target, dtype):
    q = Temperature(temperature).mean(torch.tensor([0.3, 0.5, 0.2], dtype=dtype))
    assert q.tolist() == pytest.approx(target, abs=1e-6)
    certain = torch.tensor([0.0, 1.0, 0.0], dtype=dtype)
    assert torch.equal(Temperature(temperature).mean(certain), certain)


# Trainings ------------------------------------------------------------------------------------------


QUICK = ("cross-entropy", "logit-mse", "dkd")
"""Losses that are tried where the slow tests are left out."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss",
    [pytest.param(kind, marks=[] if kind.name in QUICK else pytest.mark.slow) for kind in DISTILLATION_LOSSES],
    ids=lambda kind: kind.name,
)
@pytest.mark.parametrize("kind", [pytest.param("sound", marks=pytest.mark.slow), "zero-class"])
def test_losses_at_classes_of_probability_zero(kind, loss):
    """Run to finite scores, or refused with the reason: no replica is said to diverge that did not."""
    for supervision in (Exact(), Dirichlet(1e-3)):
        result = outcome(training(kind, loss(), supervision))
        if result.failures:
            assert result.user_error
            (line,) = result.failures
            assert "which have classes of probability zero" in line or "class_counts = '0 numbers'" in line
        else:
            (row,) = result.rows
            assert row["diverged"] == 0
            json.dumps(row, allow_nan=False)
            assert row["test_loss"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize("variance", [1e-12, 0.1])
def test_targets_off_the_simplex_are_no_targets_of_a_network(variance):
    """Even where the first batch has none below zero: a later one would, and would look like divergence."""
    assert refusal(training(supervision=Independent(variance))).endswith(
        "loss = cross-entropy is not allowed on targets of independent, which leave the simplex: "
        "a network takes class probabilities"
    )
    assert only_row(training(loss=LabelCrossEntropy(), supervision=Independent(variance)))["diverged"] == 0


@pytest.mark.slow
def test_trainings_on_hardly_any_points():
    """A batch larger than the pool visits its points again and again."""
    for settings in ({"batch_size": 100}, {"held_out": (1, 4)}, {"replicas": 1}, {"evaluations": 1000}):
        row = only_row(training(**settings))
        assert row["diverged"] == 0
        assert row["test_loss"] > 0
    for kind in ("copies", "zero-inputs", "vertices"):
        assert only_row(training(kind))["diverged"] == 0
    assert "validation_samples + test_samples = 6 is not allowed" in refusal(training(held_out=(3, 3)))
    assert "must be below 1, the points of the problem" in refusal(training("one-point"))


def test_a_training_that_diverges_has_no_scores():
    row = only_row(training(step_size=1e30))
    assert row["diverged"] == 2
    assert row["test_accuracy"] is row["test_loss"] is row["floor"] is None
    json.dumps(row, allow_nan=False)


# What the user sees -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_line_says_one_line(tmp_path, capsys):
    file = str(Path(__file__).with_name("faulty_study.py"))
    for kind, said in (("nan", REFUSED["nan"]), ("nothing", REFUSED["nothing"]), ("no-p", REFUSED["no-p"])):
        assert main(["run-study", file, "--out", str(tmp_path), "--set", f"kind={kind}"]) == 2
        printed = capsys.readouterr()
        (line,) = [line for line in printed.err.splitlines() if "error" in line]
        assert line.startswith("kdsim: error: ")
        assert said in line
        assert "Traceback" not in printed.err + printed.out


@pytest.mark.slow
def test_the_command_line_shows_divergence(tmp_path, capsys):
    """Exit code 0; the table counts the replicas and has a dash where there is no number."""
    file = str(Path(__file__).with_name("faulty_study.py"))
    assert main(["run-study", file, "--out", str(tmp_path), "--set", "step_size=1e30"]) == 0
    printed = capsys.readouterr()
    (line,) = [line for line in printed.out.splitlines() if line.startswith("one-hot")]
    assert line.split()[2] == "-"
    assert line.rstrip().endswith("2 diverged")
    assert "nan" not in printed.out.lower()
    assert "inf" not in line.lower()


def test_populations_are_checked_wherever_they_are_made():
    """Parts and copies of a pool are pools."""
    sound = POOLS["sound"]()
    with pytest.raises(ConfigError, match="x is \\(0, 3\\) float64"):
        sound.points(slice(0, 0))
    with pytest.raises(ConfigError, match="not finite, in float32"):
        replace(POOLS["beyond-float32"](), x=POOLS["beyond-float32"]().x.float())
    assert Population(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)).size == 2  # images
