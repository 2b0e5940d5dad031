"""The autograd engine: linear students walk the torch engine's path; networks are resumed, packed and recorded."""

from __future__ import annotations

import pytest
import torch

from kdsim.config import ConfigError
from kdsim.engines import ENGINES, SGD, Lane, Recording
from kdsim.engines.autograd import initial_parameters
from kdsim.problems import GaussianMixture, SimplexLinear
from kdsim.rng import Draws, Stream, uniform_index
from kdsim.students import LeastSquares, SoftmaxRegression, minimiser
from kdsim.students.factored import FactoredLeastSquares
from kdsim.students.mlp import MLP
from kdsim.supervision import SUPERVISIONS, Dirichlet, Exact, OneHot
from kdsim.supervision.base import Batch

POOL = GaussianMixture(classes=3, dimension=4, samples=50).population(1)
SIMPLEX = SimplexLinear(dimension=4, samples=50).population(1)
NETWORKS = [(FactoredLeastSquares(), SIMPLEX), (MLP((6,), ridge=0.01), POOL), (MLP((5, 4), "relu"), POOL)]


def run(engine, student, population, lanes, sgd, **more):
    linear = isinstance(student, (SoftmaxRegression, LeastSquares))
    reference = minimiser(student, population) if linear else student.reference(population)
    anchor = student.anchor(population) if linear else torch.zeros_like(reference)
    return ENGINES[engine].run(
        student, population, lanes, sgd, Recording(checkpoints=6), reference=reference, anchor=anchor, **more
    )


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(
    ("student", "population"),
    [(SoftmaxRegression(0.1, "centred"), POOL), (SoftmaxRegression(0.1, "ordinary"), POOL), (LeastSquares(), SIMPLEX)],
)
def test_linear_students_walk_the_same_path(student, population, batch_size):
    lanes = [Lane(cls(), 0.05, seed=5, replicas=2) for cls in SUPERVISIONS]
    sgd = SGD(200, batch_size, dtype="float64")
    ours, ours_state = run("autograd", student, population, lanes, sgd)
    theirs, theirs_state = run("torch", student, population, lanes, sgd)
    torch.testing.assert_close(ours_state.error, theirs_state.error, atol=1e-9, rtol=0)
    torch.testing.assert_close(ours.curves["excess_risk"], theirs.curves["excess_risk"], atol=1e-9, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("student", "population"), NETWORKS, ids=lambda value: getattr(value, "name", ""))
def test_networks_match_a_plain_loop(student, population):
    """One replica, one step after the other, gradient by torch.autograd."""
    lane, sgd = Lane(OneHot(), 0.05, 5, 2, first_replica=1), SGD(30, 2, dtype="float64")
    record, state = run("autograd", student, population, [lane], sgd)
    starts = initial_parameters(student, population, [lane], torch.device("cpu"))
    for row in range(2):
        parameters, key = starts[row].clone(), torch.tensor([[1 + row]])
        for step in range(30):
            visit = torch.arange(2 * step, 2 * step + 2)[None]
            seed = torch.tensor([[5]])
            index = uniform_index(Draws(seed, key, visit, Stream.INDEX, torch.float64).words(0), population.size)
            draws = Draws(seed, key, visit, Stream.LABEL, torch.float64)
            q = lane.supervision.sample(Batch(index=index, p=population.p[index]), draws).q[0]
            leaf = parameters.requires_grad_()
            (gradient,) = torch.autograd.grad(student.objective(leaf, population.x[index[0]], q), leaf)
            parameters = (leaf - 0.05 * gradient).detach()
        torch.testing.assert_close(state.error[row], parameters, atol=1e-10, rtol=1e-9)
        phi = student.head.probabilities(student.outputs(parameters, population.x))
        l2 = (phi - population.p).norm(dim=-1).mean()
        torch.testing.assert_close(record.curves["bcp_l2"][-1, row], l2)


@pytest.mark.slow
@pytest.mark.parametrize(("student", "population"), NETWORKS, ids=lambda value: getattr(value, "name", ""))
def test_networks_resume_bit_identically_in_any_packing(student, population, monkeypatch):
    monkeypatch.setattr("kdsim.engines.autograd.CHUNK_VISITS", {"cpu": 40})
    lanes = [Lane(OneHot(), 0.05, 7, 2), Lane(Dirichlet(2.0), 0.03, 7, 2)]
    sgd = SGD(60, dtype="float64")
    whole, end = run("autograd", student, population, lanes, sgd)
    record, state, calls = None, None, 0
    while record is None:
        record, state = run("autograd", student, population, lanes, sgd, state=state, stop=lambda step: True)
        calls += 1
    assert calls > 2
    assert torch.equal(state.error, end.error)
    for name in ("excess_risk", "accuracy", "bcp_l2"):
        assert torch.equal(record.curves[name], whole.curves[name])
    _, alone = run("autograd", student, population, [Lane(OneHot(), 0.05, 7, 1, first_replica=1)], sgd)
    torch.testing.assert_close(alone.error[0], end.error[1], atol=1e-12, rtol=1e-10)


def test_starts_depend_on_seed_and_replica_alone():
    student = MLP((4,))
    first = initial_parameters(student, POOL, [Lane(Exact(), 0.1, 3, 4)], torch.device("cpu"))
    later = initial_parameters(student, POOL, [Lane(OneHot(), 0.2, 3, 2, first_replica=2)], torch.device("cpu"))
    assert torch.equal(first[2:], later)
    assert not torch.equal(first[0], first[1])


@pytest.mark.slow
def test_the_factored_student_reaches_its_solution_under_exact_bcp():
    record, _ = run(
        "autograd", FactoredLeastSquares(), SIMPLEX, [Lane(Exact(), 0.3, 3, 8)], SGD(6_000, dtype="float64")
    )
    assert (record.curves["dist_sq"][-1] < 1e-3 * record.curves["dist_sq"][0]).all()
    student = FactoredLeastSquares()
    solution = student.solution(SIMPLEX)
    torch.testing.assert_close(student.linear_map(solution, SIMPLEX.features), minimiser(LeastSquares(), SIMPLEX))


def test_the_torch_engine_refuses_networks():
    with pytest.raises(ConfigError, match="autograd"):
        run("torch", MLP((4,)), POOL, [Lane(Exact(), 0.1, 3, 2)], SGD(10))
