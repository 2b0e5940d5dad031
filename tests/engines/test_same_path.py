"""Every engine on the CPU walks the torch engine's path in float64, whatever the packing, threads or offset."""

from __future__ import annotations

import pytest
import torch

from kdsim.engines import ENGINES, SGD, Lane, Recording
from kdsim.engines.fused.targets import FAMILIES
from kdsim.problems import Digits, GaussianMixture, SimplexLinear, SoftmaxLinear
from kdsim.students import LeastSquares, SoftmaxRegression, minimiser
from kdsim.supervision import Annotators, Dirichlet, Exact, Independent, OneHot, TwoPoint
from kdsim.theory import linearised_moments

POOL = GaussianMixture(classes=5, dimension=6, samples=200).population(1)
SIMPLEX = SimplexLinear(dimension=4, samples=150, classes=3).population(1)
FUSED = (
    Exact(), OneHot(), Annotators(1.0), Annotators(2.6), Annotators(7.0), Dirichlet(0.05), Dirichlet(3.0),
    Dirichlet(1e4), TwoPoint(0.7), Independent(0.02),
)  # fmt: skip
STUDENTS = {
    "softmax": (SoftmaxRegression(), POOL),
    "centred": (SoftmaxRegression(0.1, "centred"), POOL),
    "ordinary": (SoftmaxRegression(0.1, "ordinary"), POOL),
    "two classes": (SoftmaxRegression(0.1, "centred"), SoftmaxLinear(2, 3, samples=90).population(0)),
    "least squares": (LeastSquares(), SIMPLEX),
    "least squares, ridge": (LeastSquares(0.05, "centred"), SIMPLEX),
}
VISITS = [
    {},
    {"batch_size": 3},
    {"batch_size": 16},
    {"index": "permutation"},
    {"batch_size": 2, "index": "permutation", "targets": "frozen"},
    {"training_set": 37},
    {"training_set": 30, "index": "permutation", "targets": "frozen"},
]


def run(engine, student, population, lanes, sgd, recording=None, **more):
    reference, anchor = minimiser(student, population), student.anchor(population)
    recording = recording or Recording(checkpoints=6)
    return ENGINES[engine].run(student, population, lanes, sgd, recording, reference=reference, anchor=anchor, **more)


def limit(student, population) -> float:
    """Linearised stability limit at batch size 1."""
    return linearised_moments(student, population, minimiser(student, population), 1).stability_limit


def assert_same(ours, theirs):
    """Parameters to 1e-9, and records to what their formulas leave of it."""
    (record, state), (expected, end) = ours, theirs
    torch.testing.assert_close(state.error, end.error, atol=1e-9, rtol=0)
    for name in ("dist_sq", "excess_risk", "bcp_l2"):
        torch.testing.assert_close(record.curves[name], expected.curves[name], atol=1e-8, rtol=1e-8)
    # After few steps classes tie (those that were no label yet), and rounding of the reference's outputs decides.
    torch.testing.assert_close(record.curves["accuracy"][-2:], expected.curves["accuracy"][-2:], atol=1e-8, rtol=0)
    torch.testing.assert_close(record.tail_mean, expected.tail_mean, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(record.tail_std, expected.tail_std, atol=1e-8, rtol=1e-7)
    assert torch.equal(record.diverged_at, expected.diverged_at)


def test_families_are_those_that_are_tested():
    assert {s.name for s in FUSED} == set(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["cpu_fused", "autograd"])
@pytest.mark.parametrize("name", STUDENTS)
def test_two_thousand_steps(engine, name):
    """At half of the stability limit, every supervision in one pack."""
    student, population = STUDENTS[name]
    lanes = [Lane(s, 0.5 * limit(student, population), 11, 2, first_replica=5) for s in FUSED]
    sgd = SGD(2_000, dtype="float64")
    assert_same(run(engine, student, population, lanes, sgd), run("torch", student, population, lanes, sgd))


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("visits", VISITS, ids=lambda v: ", ".join(f"{k} {x}" for k, x in v.items()) or "one")
def test_cpu_fused(name, visits):
    student, population = STUDENTS[name]
    lanes = [Lane(s, 0.2 * limit(student, population), 11, 2, first_replica=5) for s in FUSED]
    sgd = SGD(150, dtype="float64", **visits)
    assert_same(run("cpu_fused", student, population, lanes, sgd), run("torch", student, population, lanes, sgd))


@pytest.mark.slow
def test_packing_and_threads_change_nothing(monkeypatch):
    """Bit for bit: alone, with others, in other shards, on one thread or more, with a long seed and a late start."""
    student, sgd = SoftmaxRegression(0.1, "centred"), SGD(300, 3, dtype="float32")
    seed = (5 << 40) + 12345
    lanes = [Lane(s, 0.02, seed, 21, first_replica=100) for s in FUSED]
    _, together = run("cpu_fused", student, POOL, lanes, sgd)
    for number, lane in enumerate(lanes):
        alone = Lane(lane.supervision, 0.02, seed, 3, first_replica=109)
        _, state = run("cpu_fused", student, POOL, [alone], sgd)
        assert torch.equal(state.error, together.error[21 * number + 9 : 21 * number + 12]), lane.supervision
    threads = torch.get_num_threads()
    monkeypatch.setattr("kdsim.engines.cpu_fused.SHARD_REPLICAS", 40)
    for count in (1, 3):
        torch.set_num_threads(count)
        try:
            record, state = run("cpu_fused", student, POOL, lanes, sgd)
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(state.error, together.error)
    whole, _ = run("cpu_fused", student, POOL, lanes, sgd)
    assert torch.equal(record.tail_mean, whole.tail_mean)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resume_is_bit_identical(dtype, monkeypatch):
    """Stopped after every chunk, with everything recorded."""
    monkeypatch.setattr("kdsim.engines.cpu_fused.CHUNK_VISITS", 1000)
    student = SoftmaxRegression(0.1, "ordinary")
    lanes = [Lane(OneHot(), 0.05, 7, 5), Lane(Dirichlet(2.0), 0.03, 7, 18)]
    sgd, recording = SGD(130, 3, "permutation", dtype=dtype), Recording(7, mean_error=True, directions=2)
    directions = torch.linalg.qr(torch.randn(POOL.optimum.numel(), 2, dtype=torch.float64)).Q.T
    directions = directions.reshape(2, *POOL.optimum.shape)
    whole, end = run("cpu_fused", student, POOL, lanes, sgd, recording, directions=directions)
    record, state, calls = None, None, 0
    while record is None:
        record, state = run(
            "cpu_fused", student, POOL, lanes, sgd, recording, directions=directions, state=state,
            stop=lambda step: True,
        )  # fmt: skip
        calls += 1
    assert calls > 5
    assert torch.equal(state.error, end.error)
    assert torch.equal(record.mean_error, whole.mean_error) and torch.equal(record.along, whole.along)
    for name in record.curves:
        assert torch.equal(record.curves[name], whole.curves[name])


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("cpu_fused", "torch"), ("torch", "cpu_fused")])
def test_one_engine_goes_on_where_another_stopped(first, second, monkeypatch):
    monkeypatch.setattr("kdsim.engines.cpu_fused.CHUNK_VISITS", 1 << 16)
    student, lanes, sgd = SoftmaxRegression(0.1, "centred"), [Lane(OneHot(), 0.05, 7, 5)], SGD(40_000, dtype="float64")
    half, state = run(first, student, POOL, lanes, sgd, stop=lambda step: True)
    assert half is None and 0 < state.step < 40_000
    assert_same(run(second, student, POOL, lanes, sgd, state=state), run("torch", student, POOL, lanes, sgd))


def test_diverging_replicas_are_found_at_the_same_step():
    """Far above the limit; a replica that overflows leaves its neighbours in the vector alone."""
    student = LeastSquares()
    lanes = [Lane(OneHot(), 8 * limit(student, SIMPLEX), 3, 4), Lane(OneHot(), 0.1, 3, 4)]
    sgd = SGD(800, dtype="float64")
    ours, theirs = (run(engine, student, SIMPLEX, lanes, sgd)[0] for engine in ("cpu_fused", "torch"))
    assert torch.equal(ours.diverged_at, theirs.diverged_at)
    assert (ours.diverged_at[:4] > 0).all() and (ours.diverged_at[4:] == -1).all()


def test_float32_floors_of_exact_bcp_reach_rounding():
    """Coordinates are those of the torch engine: the floor is 1e-14 of the start, not 1e-8."""
    student = SoftmaxRegression(0.1, "centred")
    record, _ = run("cpu_fused", student, POOL, [Lane(Exact(), 0.02, 1, 16)], SGD(20_000))
    assert (record.tail_mean < 1e-11 * record.curves["dist_sq"][0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("problem", [Digits(), GaussianMixture(classes=12, dimension=40, samples=5_000)])
def test_float32_paths_stay_close(problem):
    """Many classes, wide rows, a pool beyond the near cache: to float32's rounding over 200 steps."""
    population = problem.population(0)
    student = SoftmaxRegression(0.5, "centred")
    lanes = [Lane(s, 1e-3, 2, 3) for s in FUSED]
    ours, theirs = (run(engine, student, population, lanes, SGD(200))[1] for engine in ("cpu_fused", "torch"))
    assert (ours.error - theirs.error).abs().max() < 3e-6 * population.optimum.abs().max()
