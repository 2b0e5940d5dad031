"""Gradients by hand against automatic differentiation: one by one, and over a long walk."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from kdsim.engines import SGD, Lane, Recording
from kdsim.engines.autograd import Autograd, block_replicas, initial_parameters
from kdsim.engines.cuda_graph import graphed
from kdsim.problems import GaussianMixture, SimplexLinear
from kdsim.students import MLP, NETWORK_STUDENTS, FactoredLeastSquares, NetworkStudent
from kdsim.supervision import Dirichlet, Independent, OneHot

POOL = GaussianMixture(classes=3, dimension=4, samples=50).population(1)
SIMPLEX = SimplexLinear(dimension=4, samples=50).population(1)
STUDENTS = [
    (MLP((6,)), POOL),
    (MLP((5, 4), "relu", ridge=0.03), POOL),
    (MLP((4, 5, 6), initial_scale=2.0), POOL),
    (FactoredLeastSquares(), SIMPLEX),
    (FactoredLeastSquares(2, ridge=0.03), SIMPLEX),
]
NAMES = [f"{type(student).__name__}-{number}" for number, (student, _) in enumerate(STUDENTS)]


def batch(student, population, batch_size):
    """Random parameters (4, P), inputs, targets off the simplex, and rates of both signs."""
    generator = torch.Generator().manual_seed(0)
    features, classes = population.features, population.classes
    kind = {"generator": generator, "dtype": torch.float64}
    parameters = torch.randn(4, student.size(features, classes), **kind)
    x, q = torch.randn(4, batch_size, features, **kind), torch.rand(4, batch_size, classes, **kind)
    return parameters, x, q, torch.tensor([[1.0], [-0.1], [0.5], [-2.0]], dtype=torch.float64)


def test_every_network_of_kdsim_is_here():
    assert {type(student) for student, _ in STUDENTS} == set(NETWORK_STUDENTS)


@pytest.mark.parametrize("aliased", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(("student", "population"), STUDENTS, ids=NAMES)
def test_by_hand_is_by_autograd(student, population, batch_size, aliased):
    """One replica at a time by torch.autograd; added to another tensor or to the parameters themselves."""
    parameters, x, q, rate = batch(student, population, batch_size)
    expected = (parameters if aliased else torch.ones_like(parameters)).clone()
    for row in range(4):
        leaf = parameters[row].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(student.objective(leaf, x[row], q[row]), leaf)
        expected[row] += rate[row] * gradient
    into = parameters if aliased else torch.ones_like(parameters)
    before = parameters.clone()
    student.gradient_adder(parameters, into, population.features, population.classes)(x, q, rate)
    torch.testing.assert_close(into, expected, atol=1e-13, rtol=1e-12)
    assert aliased or torch.equal(parameters, before)


@dataclass(frozen=True)
class Doubled(MLP):
    """Outputs of its own: the gradient by hand of its parent is not its gradient."""

    def outputs(self, parameters: Tensor, x: Tensor) -> Tensor:
        return 2 * super().outputs(parameters, x)


@pytest.mark.slow
def test_a_class_with_outputs_of_its_own_does_not_inherit_a_gradient_by_hand():
    parameters, x, q, rate = batch(Doubled((6,)), POOL, 2)
    into = torch.zeros_like(parameters)
    Doubled((6,)).gradient_adder(parameters, into, POOL.features, POOL.classes)(x, q, rate)
    gradient = torch.func.vmap(torch.func.grad(Doubled((6,)).objective))(parameters, x, q)
    torch.testing.assert_close(into, rate * gradient)
    assert Doubled.gradient_adder is NetworkStudent.gradient_adder is not MLP.gradient_adder


@pytest.mark.parametrize(("student", "population"), STUDENTS, ids=NAMES)
def test_outputs_over_a_pool_are_those_of_each_replica(student, population, monkeypatch):
    """By hand, and two or three replicas at a time by vmap."""
    monkeypatch.setattr("kdsim.students.network.POOL_NUMBERS", 2 * population.size * 5)
    parameters = batch(student, population, 1)[0]
    expected = torch.stack([student.outputs(row, population.x) for row in parameters])
    for found in (student.pool_outputs, NetworkStudent.pool_outputs.__get__(student)):
        torch.testing.assert_close(found(parameters, population.x, population.classes), expected)


def test_a_class_with_outputs_of_its_own_does_not_inherit_outputs_over_a_pool():
    student, parameters = Doubled((6,)), batch(MLP((6,)), POOL, 1)[0]
    twice = 2 * MLP((6,)).pool_outputs(parameters, POOL.x, POOL.classes)
    torch.testing.assert_close(student.pool_outputs(parameters, POOL.x, POOL.classes), twice)


def run(student, population, lanes, sgd, **more):
    reference = student.reference(population)
    recording = Recording(checkpoints=6)
    anchor = torch.zeros_like(reference)
    return Autograd().run(student, population, lanes, sgd, recording, reference=reference, anchor=anchor, **more)


@pytest.mark.slow
@pytest.mark.parametrize(("student", "population"), [STUDENTS[1], STUDENTS[3]], ids=["MLP", "FactoredLeastSquares"])
def test_two_thousand_steps_by_hand_and_by_vmap(student, population, monkeypatch):
    lanes = [Lane(OneHot(), 0.05, 7, 3), Lane(Dirichlet(2.0), 0.1, 7, 3), Lane(Independent(0.1), 0.02, 8, 2)]
    sgd = SGD(2_000, dtype="float64")
    record, by_hand = run(student, population, lanes, sgd)
    monkeypatch.setattr(type(student), "gradient_adder", NetworkStudent.gradient_adder)
    slow_record, by_vmap = run(student, population, lanes, sgd)
    torch.testing.assert_close(by_hand.error, by_vmap.error, atol=1e-9, rtol=0)
    torch.testing.assert_close(record.curves["excess_risk"], slow_record.curves["excess_risk"], atol=1e-9, rtol=0)
    assert not torch.equal(by_hand.error, by_vmap.error)  # they are two ways


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("student", "population"), [STUDENTS[1], STUDENTS[3]], ids=["MLP", "FactoredLeastSquares"])
def test_packing_and_threads_change_nothing(student, population, threads, monkeypatch):
    """Cut into blocks of at most 3, a replica's path is the same to rounding; threads change not a bit."""
    lanes = [Lane(OneHot(), 0.05, 7, 4), Lane(Dirichlet(2.0), 0.1, 7, 4)]
    sgd = SGD(300, 2, dtype="float64")
    _, whole = run(student, population, lanes, sgd)
    monkeypatch.setattr("kdsim.engines.autograd.BLOCK_REPLICAS", (1, 3))
    blocks_record, blocks = run(student, population, lanes, sgd)
    torch.set_num_threads(threads)
    try:
        threaded_record, threaded = run(student, population, lanes, sgd)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(blocks.error, threaded.error)
    assert torch.equal(blocks_record.curves["excess_risk"], threaded_record.curves["excess_risk"])
    torch.testing.assert_close(blocks.error, whole.error, atol=1e-12, rtol=1e-10)
    _, alone = run(student, population, [Lane(Dirichlet(2.0), 0.1, 7, 1, first_replica=2)], sgd)
    torch.testing.assert_close(alone.error[0], whole.error[6], atol=1e-12, rtol=1e-10)


def test_blocks_depend_on_the_student_alone():
    assert block_replicas(MLP((16,)), POOL) == 640
    assert 8 < block_replicas(MLP((128, 128)), POOL) < 64
    assert block_replicas(MLP((1000, 1000)), POOL) == 8


def test_replay_copies_its_arguments_to_where_they_were_captured(monkeypatch):
    """All of `graphed` but the capture, which needs a GPU: here a captured step is the step itself."""
    captures = []

    def capture(step, into):
        captures.append(into)
        return step

    monkeypatch.setattr("kdsim.engines.cuda_graph._capture", capture)
    student = MLP((6,))
    parameters = initial_parameters(student, POOL, [Lane(OneHot(), 0.1, 3, 4)], torch.device("cpu"))
    plain = parameters.clone()
    replayed = graphed(student.gradient_adder(parameters, parameters, POOL.features, POOL.classes), parameters)
    direct = student.gradient_adder(plain, plain, POOL.features, POOL.classes)
    for step in range(5):
        x, q = POOL.x[4 * step : 4 * step + 4, None], POOL.p[4 * step : 4 * step + 4, None]
        rate = torch.full((4, 1), -0.1 / (step + 1), dtype=torch.float64)
        replayed(x, q, rate)
        direct(x, q, rate)
    assert torch.equal(parameters, plain)
    assert len(captures) == 1 and captures[0] is parameters
