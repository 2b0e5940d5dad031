"""The torch engine: against a plain loop, whatever the packing; resumed; frozen; by permutation; diverging."""

from __future__ import annotations

import pytest
import torch

from kdsim.config import ConfigError
from kdsim.engines import ENGINES, SGD, Lane, Recording
from kdsim.engines.recorder import Recorder
from kdsim.engines.samples import Samples
from kdsim.engines.shards import split
from kdsim.problems import Digits, GaussianMixture, SimplexLinear
from kdsim.rng import Draws, Stream, permuted_index, uniform_index
from kdsim.students import LeastSquares, SoftmaxRegression, minimiser
from kdsim.supervision import SUPERVISIONS, Annotators, Confusion, Dirichlet, Exact, Independent, OneHot
from kdsim.supervision.base import Batch

ENGINE = ENGINES["torch"]
POOL = GaussianMixture(classes=3, dimension=4, samples=50).population(1)
SIMPLEX = SimplexLinear(dimension=4, samples=50).population(1)


def run(lanes, sgd, student=None, population=POOL, recording=None, **more):
    student = student or SoftmaxRegression(0.1, "centred")
    reference = minimiser(student, population)
    anchor = student.anchor(population)
    recording = recording or Recording(checkpoints=8)
    return ENGINE.run(student, population, lanes, sgd, recording, reference=reference, anchor=anchor, **more)


def plain_loop(student, population, lane: Lane, sgd: SGD) -> torch.Tensor:
    """One replica after the other, one step after the other, theta itself: (replicas, K, d)."""
    anchor = student.anchor(population)
    seed = torch.tensor([[lane.seed]])
    thetas = []
    for number in range(lane.first_replica, lane.first_replica + lane.replicas):
        replica = torch.tensor([[number]])
        theta = torch.zeros_like(population.optimum)
        for step in range(sgd.steps):
            visit = torch.arange(step * sgd.batch_size, (step + 1) * sgd.batch_size)[None]
            if sgd.index == "permutation":
                index = permuted_index(seed, replica, visit, population.size)
            else:
                words = Draws(seed, replica, visit, Stream.INDEX, torch.float64).words(0)
                index = uniform_index(words, population.size)
            keyed_by = index if sgd.targets == "frozen" else visit
            draws = Draws(seed, replica, keyed_by, Stream.LABEL, torch.float64)
            q = lane.supervision.sample(Batch(index=index, p=population.p[index]), draws).q[0]
            theta = theta - lane.step_size * student.gradient(theta, population.x[index[0]], q, anchor)
        thetas.append(theta)
    return torch.stack(thetas)


@pytest.mark.slow
@pytest.mark.parametrize("index", ["replacement", "permutation"])
@pytest.mark.parametrize("targets", ["fresh", "frozen"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_matches_a_plain_loop(index, targets, batch_size):
    """Every supervision and both ridges in one packed run, each against its own loop, to rounding."""
    sgd = SGD(20, batch_size, index, targets, "float64")
    lanes = [Lane(cls(), 0.05, seed=5, replicas=1, first_replica=3) for cls in SUPERVISIONS]
    lanes.append(Lane(Dirichlet(0.01), 0.1, seed=6, replicas=1))
    for student, population in [
        (SoftmaxRegression(0.1, "centred"), POOL),
        (SoftmaxRegression(0.1, "ordinary"), POOL),
        (LeastSquares(), SIMPLEX),
    ]:
        _, state = run(lanes, sgd, student, population)
        theta = state.error + minimiser(student, population)
        first = 0
        for lane in lanes:
            block = theta[first : first + lane.replicas]
            first += lane.replicas
            torch.testing.assert_close(block, plain_loop(student, population, lane, sgd), atol=1e-11, rtol=1e-9)


def test_packing_does_not_change_a_path():
    """Alone, packed with others, and as a later block of replicas: the same path to rounding."""
    sgd = SGD(200, dtype="float64")
    lanes = [Lane(OneHot(), 0.05, 7, 4), Lane(Dirichlet(2.0), 0.05, 7, 4), Lane(Dirichlet(5.0), 0.02, 7, 4)]
    packed, state = run(lanes, sgd)
    for number, lane in enumerate(lanes):
        alone, own = run([lane], sgd)
        block = slice(4 * number, 4 * number + 4)
        torch.testing.assert_close(own.error, state.error[block], atol=1e-12, rtol=1e-10)
        torch.testing.assert_close(alone.curves["dist_sq"], packed.replicas(block).curves["dist_sq"])
    _, late = run([Lane(OneHot(), 0.05, 7, 2, first_replica=2)], sgd)
    torch.testing.assert_close(late.error, state.error[2:4], atol=1e-12, rtol=1e-10)


def test_paired_streams():
    """Supervisions of one seed visit the same points: one annotator is one-hot, draw by draw."""
    _, state = run([Lane(OneHot(), 0.05, 7, 4), Lane(Annotators(1.0), 0.05, 7, 4)], SGD(100, dtype="float64"))
    torch.testing.assert_close(state.error[:4], state.error[4:], atol=1e-12, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("targets", ["fresh", "frozen"])
def test_resume_is_bit_identical(threads, targets):
    """Stopped at every chunk and continued from a copied state; on any number of threads, shards included."""
    lanes = [Lane(OneHot(), 0.05, 7, 500), Lane(Dirichlet(2.0), 0.05, 7, 500)]  # two shards
    sgd = SGD(700, targets=targets)
    whole, end = run(lanes, sgd)
    torch.set_num_threads(threads)
    try:
        record, state, calls = None, None, 0
        while record is None:
            record, state = run(lanes, sgd, state=state, stop=lambda step: True)
            calls += 1
    finally:
        torch.set_num_threads(1)
    assert calls > 2
    assert torch.equal(state.error, end.error)
    for name, curve in whole.curves.items():
        assert torch.equal(record.curves[name], curve)
    assert torch.equal(record.tail_mean, whole.tail_mean)
    assert torch.equal(record.tail_std, whole.tail_std)


def test_tail_statistics_match_the_curve():
    """With a checkpoint at every step the tail's mean and spread can be computed from the curve."""
    sgd = SGD(40, dtype="float64")
    recording = Recording(checkpoints=400, tail_fraction=0.5, tail_stride=1)
    record, _ = run([Lane(OneHot(), 0.05, 7, 3)], sgd, recording=recording)
    tail = record.curves["dist_sq"][record.steps > 20]
    assert len(tail) == record.tail_samples == 20
    torch.testing.assert_close(record.tail_mean, torch.stack([tail[:10].mean(0), tail[10:].mean(0)]))
    torch.testing.assert_close(record.tail_std, tail.std(0))


def test_metrics_match_their_definitions():
    student = SoftmaxRegression()
    record, state = run([Lane(OneHot(), 0.05, 7, 3)], SGD(100, dtype="float64"), student)
    theta = state.error + POOL.optimum
    phi = torch.softmax(torch.einsum("nd,rkd->rnk", POOL.x, theta), -1)
    risk = (POOL.p * (POOL.p.log() - phi.log())).sum(-1).mean(-1)
    accuracy = POOL.p.expand_as(phi).gather(-1, phi.argmax(-1, keepdim=True))[..., 0].mean(-1)
    torch.testing.assert_close(record.curves["excess_risk"][-1], risk)
    torch.testing.assert_close(record.curves["accuracy"][-1], accuracy)
    torch.testing.assert_close(record.curves["bcp_l2"][-1], (phi - POOL.p).norm(dim=-1).mean(-1))
    torch.testing.assert_close(record.curves["dist_sq"][-1], (theta - POOL.optimum).square().sum((-1, -2)))


def test_float32_agrees_with_float64_early():
    """Until a rounded uniform picks another label, the two precisions walk together."""
    lanes = [Lane(Dirichlet(2.0), 0.02, 7, 4), Lane(Independent(0.01), 0.02, 7, 4)]
    _, single = run(lanes, SGD(100))
    _, double = run(lanes, SGD(100, dtype="float64"))
    torch.testing.assert_close(single.error.double(), double.error, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_float32_reaches_far_below_its_own_resolution_of_theta():
    """Exact BCP goes on falling where theta itself would stop at rounding."""
    record, _ = run([Lane(Exact(), 0.1, 7, 4)], SGD(4_000))
    assert record.curves["dist_sq"][-1].max() < 1e-12


def test_divergence_is_recorded_and_stays_with_its_replica():
    record, _ = run([Lane(OneHot(), 50.0, 7, 2), Lane(OneHot(), 0.05, 7, 2)], SGD(400), LeastSquares(), SIMPLEX)
    assert (record.diverged_at[:2] > 0).all()
    assert (record.diverged_at[2:] == -1).all()
    assert torch.isfinite(record.curves["dist_sq"][:, 2:]).all()


def test_only_what_is_far_off_has_diverged():
    """Where the optimum is zero too: the limit is a multiple of 1 + |reference|^2, and NaN is beyond it."""
    zero = torch.zeros_like(POOL.optimum)
    cpu = torch.device("cpu")
    recorder = Recorder(Recording(), SoftmaxRegression(0.1, "ordinary"), POOL, zero, 4, 10, torch.float64, cpu)
    error = zero.repeat(4, 1, 1)
    error[:, 0, 0] = torch.tensor([0.0, 0.9e6, 1.1e6, float("nan")])
    recorder.observe(0, error)
    assert recorder.record().diverged_at.tolist() == [-1, -1, 0, 0]


@pytest.mark.parametrize(
    "supervisions",
    [
        (Confusion(0.3), Confusion(0.3, "cyclic"), Confusion(0.3, labels=True)),
        (Annotators(1.5), Annotators(4.0), OneHot()),
    ],
)
def test_supervisions_that_differ_in_more_than_the_level_are_drawn_apart(supervisions):
    def targets(*which):
        samples = Samples(POOL, [Lane(each, 0.05, 7, 2) for each in which], SGD(4), torch.float64, torch.device("cpu"))
        return samples.chunk(0, 4)[1]

    packed = targets(*supervisions).split(2)
    assert all(torch.equal(q, targets(alone)) for q, alone in zip(packed, supervisions, strict=True))


def test_digits_run():
    population = Digits(samples=60).population(0)
    record, _ = run([Lane(OneHot(), 0.005, 7, 2)], SGD(50), population=population)
    assert torch.isfinite(record.curves["excess_risk"]).all()


@pytest.mark.parametrize("limit", [1, 7, 640, None])
def test_split_keeps_every_replica_once(limit):
    lanes = [Lane(Exact(), 0.1, 0, 5, 2), Lane(OneHot(), 0.1, 0, 11), Lane(Exact(), 0.2, 0, 3)]
    parts = split(lanes, limit)
    seen = [
        (lane.supervision, lane.step_size, lane.first_replica + r)
        for p in parts
        for lane in p
        for r in range(lane.replicas)
    ]
    expected = [
        (lane.supervision, lane.step_size, lane.first_replica + r) for lane in lanes for r in range(lane.replicas)
    ]
    assert seen == expected
    sizes = [sum(lane.replicas for lane in part) for part in parts]
    assert max(sizes) <= (limit or 19)
    assert max(sizes) - min(sizes) <= 1


def test_bad_device_is_refused():
    with pytest.raises(ConfigError, match="allowed: cpu"):
        run([Lane(Exact(), 0.1, 0, 2)], SGD(10), device="tpu")


@pytest.mark.parametrize(
    "arguments", [{"steps": 0}, {"batch_size": 0}, {"index": "shuffle"}, {"targets": "cold"}, {"dtype": "float16"}]
)
def test_bad_sgd_is_refused(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        SGD(**arguments)


def test_training_sets():
    """Each replica visits its own subset, without replacement, by both kinds of index, and frozen targets stay."""
    for index in ("replacement", "permutation"):
        sgd = SGD(30, index=index, targets="frozen", dtype="float64", training_set=5)
        samples = Samples(POOL, [Lane(OneHot(), 0.05, 7, 3)], sgd, torch.float64, torch.device("cpu"))
        visited, q = samples.chunk(0, 30)
        sets = [set(row.tolist()) for row in visited]
        assert all(len(members) <= 5 for members in sets)
        assert len(set(map(frozenset, sets))) == 3
        whole = samples.members(torch.arange(POOL.size)[None])
        assert all(sorted(row.tolist()) == list(range(POOL.size)) for row in whole)
        for replica, members in enumerate(sets):
            assert members <= set(whole[replica, :5].tolist())
            for member in members:
                drawn = q[replica][visited[replica] == member]
                assert (drawn == drawn[0]).all()


@pytest.mark.slow
def test_mean_error_and_directions():
    """Tail averages of the whole error vector and of its projections, against a run recorded step by step."""
    directions = torch.linalg.qr(torch.randn(15, 2, dtype=torch.float64)).Q.T.reshape(2, 3, 5)
    recording = Recording(tail_fraction=0.5, tail_stride=1, mean_error=True, directions=2)
    lanes = [Lane(OneHot(), 0.05, 7, 400), Lane(Dirichlet(1.0), 0.05, 7, 400)]  # two shards
    record, _ = run(lanes, SGD(6, dtype="float64"), recording=recording, directions=directions)
    errors = []
    for steps in (4, 5, 6):
        _, state = run(lanes, SGD(steps, dtype="float64"))
        errors.append(state.error)
    along = torch.einsum("mkd,trkd->mtr", directions, torch.stack(errors))
    torch.testing.assert_close(record.along, along)
    torch.testing.assert_close(record.mean_error, torch.stack(errors).mean(0))


@pytest.mark.parametrize(("replicas", "checkpoints"), [(3, 8), (2, 20)])
def test_a_state_of_another_run_is_refused(replicas, checkpoints):
    _, state = run([Lane(OneHot(), 0.05, 7, 2)], SGD(300), stop=lambda step: True)
    with pytest.raises(ConfigError, match="another run"):
        run([Lane(OneHot(), 0.05, 7, replicas)], SGD(300), recording=Recording(checkpoints), state=state)
