"""Networks of points: every replica is a row of one program, and a row walks the path of `Walk`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import pytest
import torch
from test_resume import after, aged, in_pieces
from tiny_training import Heard, same

from kdsim.config import ConfigError, digest
from kdsim.data import KnownImages, KnownPoints, PointSource
from kdsim.engines import IVON, Adam, GradientDescent, MeanField, StepDecay
from kdsim.engines.base import SGD, Lane
from kdsim.engines.samples import Samples
from kdsim.losses import DISTILLATION_LOSSES, KD, Brier, CrossEntropy, DistillationLoss, LabelCrossEntropy, OutputMSE
from kdsim.measure.convergence import summarise
from kdsim.networks import POINT_NETWORKS
from kdsim.population import Population
from kdsim.problems import GaussianMixture, Images, LongTail
from kdsim.results.store import Store
from kdsim.study import runner
from kdsim.study.base import Study
from kdsim.study.provenance import stamp
from kdsim.study.trainings import Training, estimate, planned_rows
from kdsim.study.weights import read_weights
from kdsim.supervision import Dirichlet, Exact, OneHot, Supervision
from kdsim.teachers import (
    MCMI,
    SWAG,
    TEACHERS,
    DeepEnsemble,
    Deterministic,
    Laplace,
    MCDropout,
    MSELogitsTeacher,
    MSETeacher,
    TemperatureScaled,
    Variational,
)  # fmt: skip
from kdsim.teachers.kinds import KINDS, teacher_of
from kdsim.trainer import ImageNetwork, PointNetwork, StudentTrainer, Teacher, fit_teacher
from kdsim.training import Recipe, TrainedNetwork, Walk
from kdsim.training.crowd import Crowd, fits
from kdsim.training.replicas import Replicas

BATCH, TRAIN = 16, 200
DATA = KnownPoints(GaussianMixture(dimension=4, samples=TRAIN + 90), 40, 50)
OPTIMISERS = {
    "plain": (GradientDescent(), 0.1),
    "momentum": (GradientDescent(0.9, weight_decay=5e-4), 0.05),
    "adam": (Adam(), 1e-3),
}


def training(steps: int = 12, network: str = "mlp", **changes: Any) -> StudentTrainer:
    """So many steps of 16 points, three replicas, seen four times; changes are fields, or the recipe's."""
    recipe = Recipe(epochs=steps * BATCH / TRAIN, batch_size=BATCH)
    inner = {name: changes.pop(name) for name in list(changes) if name in Recipe.__dataclass_fields__}
    plain = StudentTrainer(PointNetwork(network), DATA, recipe=replace(recipe, **inner), replicas=3, evaluations=4)
    return replace(plain, **{"seed": 3} | changes)


def task_of(trainer: StudentTrainer, teachers=(), **changes):
    found = trainer.task(trainer.pools())
    return replace(found, teachers=teachers, supervision=None if teachers else found.supervision, **changes)


def both(trainer: StudentTrainer, task=None) -> tuple[Crowd, list[Walk]]:
    """All rows and all replicas one by one, at their ends."""
    task = task or trainer.task(trainer.pools())
    crowd, walks = Crowd(task, trainer.replicas), [Walk(task, number) for number in range(trainer.replicas)]
    while not crowd.finished:
        crowd.advance()
    for walk in walks:
        while not walk.finished:
            walk.advance()
    return crowd, walks


def assert_same_paths(crowd: Crowd, walks: list[Walk], rounding: float = 2e-6) -> None:
    """Parameters, curves and optimiser's memory to rounding in float32; where each was best, exactly."""
    expected = torch.cat([walk.flat.parameters for walk in walks])
    torch.testing.assert_close(crowd.parameters, expected, rtol=1e-4, atol=rounding)
    for row, walk in enumerate(walks):
        torch.testing.assert_close(crowd.curves[..., row], walk.curves, rtol=1e-4, atol=5 * rounding, equal_nan=True)
        assert (crowd.best_step[row], crowd.diverged_at[row]) == (walk.best["step"], walk.diverged_at)
        for name, buffer in walk.buffers.items():
            torch.testing.assert_close(crowd.buffers[name][row], buffer[0], rtol=1e-4, atol=rounding)


# A row is a replica -------------------------------------------------------------------------------


@pytest.mark.parametrize("network", POINT_NETWORKS)
def test_first_weights_are_those_of_each_replica(network):
    task = task_of(training(network=network))
    before = torch.get_rng_state()
    crowd = Crowd(task, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(crowd.parameters, torch.cat([Walk(task, row).flat.parameters for row in range(3)]))
    assert not torch.equal(crowd.parameters[0], crowd.parameters[1])


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("network", POINT_NETWORKS)
@pytest.mark.parametrize("targets", ["frozen", "fresh"])
def test_a_row_walks_the_path_of_its_replica(network, optimiser, targets):
    """30 steps over more than two epochs and a falling schedule. Differences seen stay below 2e-7."""
    rule, step_size = OPTIMISERS[optimiser]
    trainer = training(
        30, network, optimiser=rule, step_size=step_size, schedule=StepDecay(), targets=targets,
        supervision=Dirichlet(2.0),
    )  # fmt: skip
    crowd, walks = both(trainer)
    assert_same_paths(crowd, walks)
    assert (crowd.parameters - Crowd(crowd.task, 3).parameters).abs().max() > 0.01


@pytest.mark.parametrize("kind", DISTILLATION_LOSSES, ids=lambda kind: kind.name)
def test_every_loss_keeps_replicas_apart(kind: type[DistillationLoss]):
    """Losses of whole batches (correlations, groups) as well: a row's loss is that of its own batch."""
    counts = {"class_counts": (50, 40, 30, 20, 10)} if "class_counts" in {item.name for item in fields(kind)} else {}
    crowd, walks = both(training(5, loss=kind(**counts), supervision=Exact(), step_size=0.02, evaluations=2))
    assert crowd.curves.isfinite().all()
    assert_same_paths(crowd, walks)


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["frozen", "fresh"])
def test_visits_and_targets_are_those_of_the_engines(targets, monkeypatch):
    """Drawn at once for all steps and a single replica, against chunks of five steps for all rows."""
    monkeypatch.setattr("kdsim.training.crowd.CHUNK_STEPS", 5)
    heard = Heard()
    trainer = training(18, loss=heard, targets=targets, supervision=Dirichlet(0.5))
    crowd = Crowd(trainer.task(trainer.pools()), 3)
    while not crowd.finished:
        crowd.advance()
    pool = trainer.pools().train
    sgd = SGD(18, BATCH, index="permutation", targets=targets)
    points = Population(torch.zeros(pool.size, 1), pool.p, pool.y)
    for row in range(3):
        lane = Lane(Dirichlet(0.5), 1.0, trainer.seed, 1, first_replica=row)
        index, q = Samples(points, [lane], sgd, torch.float32, torch.device("cpu")).chunk(0, 18)
        assert torch.equal(torch.cat([call[1][row] for call in heard.calls]), q[0].log())
        assert torch.equal(torch.cat([call[2][row] for call in heard.calls]), pool.y[index[0]])
    assert [call[3] for call in heard.calls] == pytest.approx([1 + step * BATCH / TRAIN for step in range(18)])


@pytest.mark.slow
def test_chunks_change_nothing(monkeypatch):
    trainer = training(12, supervision=Dirichlet(2.0), targets="fresh")
    expected = trainer.run()
    monkeypatch.setattr("kdsim.training.crowd.CHUNK_NUMBERS", 2 * 3 * BATCH * 5)  # two steps at a time
    assert Crowd(trainer.task(trainer.pools()), 3).chunk_steps == 2
    assert same(trainer.run(), expected)


@pytest.mark.parametrize("samples", [None, 2])
def test_a_row_hears_its_teacher(samples):
    """Row r hears teacher r modulo their number, of the points that it visits; with and without posterior samples."""

    def said(number, points):
        logits = torch.cat([points, points[:, :1]], 1) * (number + 1)  # (b, 5)
        return logits if samples is None else torch.stack([logits, -logits])

    teachers = tuple(lambda points, numbers, k=k: said(k, points) for k in range(2))
    heard = Heard()
    task = task_of(training(3, loss=heard), teachers)
    crowd = Crowd(task, 5)
    crowd.advance()
    index = torch.stack([Walk(task, row)._visits()[0] for row in range(5)])
    x = task.train.x[index]  # (R, b, d)
    expected = torch.stack([said(row % 2, x[row]) for row in range(5)], -3)
    assert torch.equal(heard.calls[0][1], expected)
    assert torch.equal(heard.calls[0][2], task.train.y[index])


@pytest.mark.slow
def test_a_taught_row_walks_the_path_of_its_replica():
    """Two teachers, three students; each teacher is asked once about each point."""
    base = training(14, "linear", replicas=2)
    teacher = Deterministic(base)
    pools = base.pools()
    fitted = [fit_teacher(teacher, base.run().networks, pools, number) for number in range(2)]
    student = replace(training(14, loss=KD()), supervision=teacher)
    crowd, walks = both(student, student.task(pools, fitted))
    assert_same_paths(crowd, walks)


@pytest.mark.slow
@pytest.mark.parametrize("network", POINT_NETWORKS)
def test_a_whole_training_is_that_of_replicas_one_by_one(network, monkeypatch):
    """Record and networks: curves, scores at the last and at the best evaluation, weights, what is said of the data."""
    trainer = training(20, network, step_size=0.2, optimiser=GradientDescent(0.9))
    together = trainer.run()
    monkeypatch.setattr("kdsim.trainer.fits", lambda task: False)
    calls = []
    monkeypatch.setattr(Replicas, "run", lambda self, run=Replicas.run: calls.append(self) or run(self))
    one_by_one = trainer.run()
    assert len(calls) == 1  # it did go the other way
    for name in ("curves", "test", "best_test"):
        found, expected = getattr(together.record, name), getattr(one_by_one.record, name)
        assert found.keys() == expected.keys() and found
        for key in found:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5)
    for name in ("steps", "best_step", "diverged_at", "pieces"):
        assert torch.equal(getattr(together.record, name), getattr(one_by_one.record, name))
    assert together.record.truth == ("bcp", "bcp") and together.provenance == one_by_one.provenance
    for found, expected in zip(together.networks, one_by_one.networks, strict=True):
        assert found.weights.keys() == expected.weights.keys()
        for key in found.weights:
            torch.testing.assert_close(found.weights[key], expected.weights[key], rtol=1e-4, atol=2e-6)
        names = ("network", "classes", "mean", "std", "training", "replica", "data", "dropout", "posterior")
        assert all(getattr(found, name) == getattr(expected, name) for name in names)
        assert found.scores == pytest.approx(expected.scores, rel=1e-4, abs=1e-5)


def test_a_long_tail_is_trained_and_seen_by_groups():
    """Balanced validation points, and the scores by group of `Walk`."""
    data = KnownPoints(LongTail(GaussianMixture(classes=6, dimension=4, samples=TRAIN), imbalance=10.0), 60, 60)
    crowd, walks = both(training(14, data=data, evaluations=2))
    assert crowd.curves.isfinite().all() and len(crowd.curves) == len(crowd.task.metrics)
    assert any("tail" in name for name in crowd.task.metrics)
    assert_same_paths(crowd, walks)


def test_a_replica_that_diverges_leaves_the_others_alone():
    """Replica 1 hears nonsense from its second epoch on; it ends where `Walk` ends it, and 0 and 2 go on."""

    def teacher(points, numbers):
        return torch.cat([points, points[:, :1]], 1)

    def broken(points, numbers):
        calls.append(1)
        return teacher(points, numbers) * (float("nan") if len(calls) > 6 else 1)

    trainer = training(16)
    ends = {}
    for with_broken in (True, False):
        calls: list[int] = []
        crowd = Crowd(task_of(trainer, (teacher, broken if with_broken else teacher, teacher)), 3)
        while not crowd.finished:
            crowd.advance()
        ends[with_broken] = crowd
    crowd, healthy = ends[True], ends[False]
    assert crowd.diverged_at.tolist() == [-1, 8, -1] and crowd.done == 16 + 8 + 16
    assert torch.equal(crowd.parameters[[0, 2]], healthy.parameters[[0, 2]])
    assert torch.equal(crowd.curves[..., [0, 2]], healthy.curves[..., [0, 2]])
    calls = []
    walk = Walk(task_of(trainer, (teacher, broken)), 1)
    while not walk.finished:
        walk.advance()
    torch.testing.assert_close(crowd.curves[..., 1], walk.curves, rtol=1e-4, atol=1e-5, equal_nan=True)
    pool = trainer.pools().test
    results = crowd.results(replace(pool, x=pool.x.float()), "bcp", "t", "d", 6.0)
    assert [result.seconds for result, _ in results] == [2.0] * 3
    lost, network = results[1]
    assert lost.diverged_at == 8 and all(value != value for value in lost.test.values()) and network.scores == {}
    assert not torch.stack([tensor.isfinite().all() for tensor in network.weights.values()]).any()
    assert all(0 < result.test["loss"] < 5 for result, _ in results[::2])


def test_a_divergence_of_all_ends_the_training():
    found = training(16, step_size=1e30).run()
    assert found.record.diverged_at.tolist() == [4, 4, 4] and found.record.curves["loss"][1:].isnan().all()
    assert all(network.scores == {} for network in found.networks)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_takes_the_same_steps(tmp_path):
    """To rounding: curves and scores, also stopped and resumed there."""
    trainer = training(14, optimiser=GradientDescent(0.9), supervision=Dirichlet(2.0))
    expected = trainer.run().record
    found = in_pieces(replace(trainer, device="cuda"), tmp_path, seed=5)[0].record
    for name in expected.curves:
        torch.testing.assert_close(found.curves[name], expected.curves[name], rtol=1e-2, atol=1e-3)


# Checkpoints --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("targets", ["frozen", "fresh"])
def test_stopped_at_random_steps_it_ends_bit_for_bit_alike(tmp_path, optimiser, targets):
    rule, step_size = OPTIMISERS[optimiser]
    trainer = training(15, optimiser=rule, step_size=step_size, targets=targets, schedule=StepDecay(), evaluations=3)
    found, calls = in_pieces(trainer, tmp_path, seed=2)
    assert calls > 2 and same(found, trainer.run())
    assert len(list(tmp_path.iterdir())) == 1
    seen: list[int] = []
    again = trainer.run(checkpoints=tmp_path, progress=lambda done, total: seen.append(done))
    assert same(again, found) and seen == [45]  # a finished one is not trained again
    trainer.delete_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_diverged_replica_is_resumed_as_diverged(tmp_path):
    trainer = training(8, step_size=1e30)
    expected = trainer.run()
    assert (expected.record.diverged_at > 0).all()
    assert same(in_pieces(trainer, tmp_path, 1)[0], expected)


def test_earlier_runs_count_in_the_time(tmp_path, monkeypatch):
    """Of replicas in one program each gets an equal share."""
    trainer, store = training(4), Store(tmp_path)
    store.prepare()
    assert trainer.run(checkpoints=store.unfinished.folder, stop=after(3)) is None
    aged(monkeypatch, 3e6)
    seconds = trainer.run(checkpoints=store.unfinished.folder).record.seconds
    assert ((seconds > 1e6) & (seconds < 2e6)).all()
    stored = Training(trainer).run(store, lambda done, total: None, lambda: False, stamp())
    assert 3e6 < stored["wall_seconds"] < 4e6
    assert 3e6 < stored["replica_seconds"] < 4e6


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_earlier_runs_count_in_the_time_of_each_replica(tmp_path, monkeypatch, threads):
    """One had ended and one had begun; each says what it took in all, and so does what is stored of it then."""
    monkeypatch.setattr("kdsim.trainer.fits", lambda task: False)
    trainer, store = training(4, replicas=2), Store(tmp_path)
    store.prepare()
    assert trainer.run(checkpoints=store.unfinished.folder, stop=after(7)) is None
    with monkeypatch.context() as patch:
        aged(patch, 1e6)
        seconds = trainer.run(checkpoints=store.unfinished.folder).record.seconds
    assert ((seconds > 1e6) & (seconds < 2e6)).all()
    assert trainer.run(checkpoints=store.unfinished.folder).record.seconds[1] > 1e6
    aged(monkeypatch, 1e6)
    torch.set_num_threads(threads)
    try:
        stored = Training(trainer).run(store, lambda done, total: None, lambda: False, stamp())
    finally:
        torch.set_num_threads(1)
    assert 2e6 < stored["replica_seconds"] < 3e6
    assert 2e6 / threads < stored["wall_seconds"] < 2e6 / threads + 1e6  # two threads train both at the same time


def test_progress_counts_replica_steps(tmp_path):
    trainer, whole, rest = training(4), [], []
    trainer.run(progress=lambda done, total: whole.append((done, total)))
    assert whole == [(done, 12) for done in range(0, 13, 3)]
    assert trainer.run(checkpoints=tmp_path, stop=after(2)) is None  # asked at the start and after each step
    trainer.run(checkpoints=tmp_path, progress=lambda done, total: rest.append(done))
    assert rest == [6, 9, 12]
    assert trainer.run(stop=lambda: True) is None


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    trainer = training(4)
    trainer.run(checkpoints=tmp_path)
    (file,) = tmp_path.iterdir()
    other = training(4, seed=4)
    file.rename(tmp_path / f"{digest(other)}-all.safetensors")
    with pytest.raises(ConfigError, match=r"is of training .* delete it to start over"):
        other.run(checkpoints=tmp_path)
    (tmp_path / f"{digest(trainer)}-all.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="delete it to start over"):
        trainer.run(checkpoints=tmp_path)
    task = task_of(trainer)
    with pytest.raises(ConfigError, match="stored state of 3 replicas is not one of a mlp in this training"):
        Crowd(task, 3, Crowd(task, 2).state())


# Networks on disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("network", POINT_NETWORKS)
def test_a_stored_network_says_what_it_said(network, tmp_path):
    """Rebuilt from its name, classes and weights, which tell the number of features."""
    trainer = training(6, network)
    trained = trainer.run().networks[1]
    trained.save(tmp_path / "weights.safetensors")
    found = TrainedNetwork.load(tmp_path / "weights.safetensors")
    assert found.inputs == 4 and (found.mean, found.std) == ((), ())
    pool = trainer.pools().validation
    log_probs = torch.log_softmax(found.module()(found.normalisation(pool.x)), -1)
    loss = -log_probs[torch.arange(pool.size), pool.y].double().mean().item()
    assert loss == pytest.approx(found.scores["loss"], rel=1e-6)
    for weights in ({}, {**found.weights, "head.weight": torch.zeros(4, 3)}, {"head.weight": torch.zeros(5, 0)}):
        with pytest.raises(ConfigError, match=f"the weights are not those of a {network} with 5 classes") as caught:
            replace(found, weights=weights).module()
        assert "\n" not in str(caught.value)


# Teachers -----------------------------------------------------------------------------------------


TEACHER_CASES: dict[str, tuple[Any, int]] = {
    "deterministic": (lambda: Deterministic(training(replicas=2)), 1),
    "temperature-scaled": (lambda: TemperatureScaled(training(replicas=2)), 1),
    "mse": (lambda: MSETeacher(training(replicas=2, loss=Brier(10.0))), 1),
    "mse-logits": (lambda: MSELogitsTeacher(training(replicas=2, loss=OutputMSE(2.0))), 1),
    "deep-ensemble": (lambda: DeepEnsemble(training(replicas=4), size=2), 2),
    "laplace": (lambda: Laplace(training(replicas=2), predictive="monte-carlo", samples=4), 4),
    "variational": (lambda: Variational(training(replicas=2, optimiser=IVON()), samples=3), 3),
    "mc-dropout": (lambda: MCDropout(training(replicas=2, student=PointNetwork("mlp", 0.3)), samples=4), 4),
    "swag": (lambda: SWAG(training(replicas=2), samples=3, epochs=0.5, collect_every=1 / 6, rank=2), 3),
    "mcmi": (lambda: MCMI(training(replicas=2), epochs=0.5, step_size=0.01), 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind.name for kind in TEACHERS])
def test_every_teacher_teaches_points(kind):
    """What the suite of teachers asks of each on images, once on points; then a student of two teachers."""
    make, samples = TEACHER_CASES[kind]
    teacher: Teacher = make()
    pools, networks = teacher.training.pools(), teacher.training.run().networks
    fitted = [fit_teacher(teacher, networks, pools, number) for number in range(2)]
    predict, points = teacher.predictor(fitted[0], torch.device("cpu"), True), pools.test.x  # True: no bfloat16 either
    said = predict(points)
    assert said.shape == (samples, len(points), 5) and said.isfinite().all()
    if samples > 1:
        assert said.logsumexp(-1).abs().max() < 1e-5 and (said[0] - said[1]).abs().max() > 1e-6
    torch.testing.assert_close(predict(points[3:5]), said[:, 3:5], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predict(points.flip(0)), said.flip(1), rtol=1e-4, atol=1e-5)
    again = fit_teacher(teacher, networks, pools, 0)
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in fitted[0].tensors.items())
    assert torch.equal(teacher.predictor(again, torch.device("cpu"), False)(points), said)
    assert not torch.equal(teacher.predictor(fitted[1], torch.device("cpu"), False)(points), said)
    student = replace(training(14, "linear", replicas=3), supervision=teacher)
    trained = student.run(teachers=fitted)
    assert torch.isfinite(trained.record.test["bcp_kl"]).all() and (trained.record.diverged_at == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_teacher_of_points(kind):
    teacher = teacher_of(kind, training())
    assert teacher.training.on_points and digest(teacher)


@pytest.mark.parametrize("changes", [{"optimiser": IVON()}, {"optimiser": MeanField()}, {"dropout": 0.2}])
def test_what_draws_at_a_step_is_walked_one_by_one(changes, monkeypatch):
    """Weights from a posterior, or dropout: these draws are a replica's own, and there is no row of them."""
    changes = {"student": PointNetwork("mlp", changes["dropout"])} if "dropout" in changes else changes
    trainer = training(4, **changes)
    task = trainer.task(trainer.pools())
    assert not fits(task) and fits(training().task(trainer.pools()))
    with pytest.raises(ConfigError, match="task = 'mlp' is not allowed: must be one on points, without dropout"):
        Crowd(task, 2)
    monkeypatch.setattr("kdsim.trainer.run_crowd", None)
    assert trainer.run().record.curves["loss"].isfinite().all()


@pytest.mark.slow
def test_the_known_bcp_is_learned():
    """Softmax regression on its own problem, exact targets: KL to the BCP falls far below that of the first weights."""
    found = training(600, "linear", supervision=Exact(), step_size=0.2).run()
    assert (found.record.curves["bcp_kl"][-1] < 0.005).all() and (found.record.test["bcp_kl"] < 0.005).all()
    one_hot = training(600, "linear", supervision=OneHot(), targets="fresh", step_size=0.2).run()
    floors = [summarise(each.record, 1 / 3)["floor"] for each in (found, one_hot)]
    assert floors[0] < floors[1] / 3


# Studies ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taught(Study):
    """Students of noisy targets and of a teacher, on points."""

    name: ClassVar[str] = "taught-on-points"
    summary: ClassVar[str] = "points"
    figure: ClassVar[Any] = None

    data: PointSource = DATA
    replicas: int = 3

    def cells(self) -> tuple[StudentTrainer | Teacher, ...]:
        base = training(5, data=self.data, replicas=self.replicas)
        teacher = Deterministic(replace(base, student=PointNetwork("linear"), replicas=2))
        return replace(base, supervision=Dirichlet(2.0)), replace(base, supervision=teacher, loss=KD()), teacher

    def quick(self) -> Taught:
        return self


@pytest.mark.slow
def test_a_study_of_points(tmp_path):
    """Planned, estimated, run, stored, read back, and not run again."""
    study = Taught()
    planned = planned_rows(study)
    assert [row["student"] for row in planned] == ["mlp", "mlp"] and planned[0]["data"] == "known-points"
    assert planned[0]["train_size"] == TRAIN and planned[0]["precision"] == "float32" and planned[0]["nu"] > 0
    assert 0 < planned[0]["bayes_loss"] < 2
    found = estimate(study)
    assert found.replica_steps == 5 * (3 + 3 + 2) and found.seconds > 0
    result = runner.run(study, tmp_path)
    assert result.failures == [] and len(result.rows) == 3
    student, taught, teacher = result.rows
    assert taught["teacher"] == "linear" and taught["supervision"] == teacher["supervision"] == "deterministic"
    for row in (student, taught):
        assert row["diverged"] == 0 and row["test_bcp_kl"] > 0 and row["images_per_replica_second"] > 0
        assert row["test_accuracy_low"] <= row["test_accuracy"] <= row["test_accuracy_high"]
    networks = read_weights(Store(tmp_path), digest(study.cells()[0]))
    assert [network.replica for network in networks] == [0, 1, 2] and networks[0].inputs == 4
    assert runner.run(study, tmp_path).replica_steps == 0 and list((tmp_path / "partial").iterdir()) == []


# Refusals -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LooksAtPoints(OneHot):
    """Asks for x, which the trainer does not hand on."""

    name: ClassVar[str] = "looks-at-points"
    uses_x: ClassVar[bool] = True


@dataclass(frozen=True)
class OneNumber(CrossEntropy):
    """A loss that mixes replicas."""

    name: ClassVar[str] = "one-number"

    def __call__(self, *arguments: Any) -> torch.Tensor:
        return super().__call__(*arguments).mean()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PointNetwork("mpl"), r"unknown network of points 'mpl' \(nearest: mlp"),
        (lambda: PointNetwork("resnet8"), r"unknown network of points 'resnet8'.*linear"),
        (lambda: ImageNetwork("mlp"), r"unknown network 'mlp'.*resnet8"),
        (lambda: PointNetwork(dropout=1.0), r"dropout = 1.0 is not allowed: must be in \[0, 1\)"),
        (
            lambda: StudentTrainer(ImageNetwork("resnet8"), DATA),
            r"data = KnownPoints\(.*\) is not allowed: must be ImageSource for ImageNetwork\(network='resnet8'",
        ),
        (
            lambda: StudentTrainer(PointNetwork(), KnownImages(Images())),
            r"data = KnownImages\(.*\) is not allowed: must be PointSource for PointNetwork\(\)",
        ),
        (lambda: StudentTrainer(PointNetwork(), GaussianMixture()), r"data = GaussianM.* must be PointSource for"),
        (lambda: training(supervision=LooksAtPoints()), "supervision = LooksAtPoints.* must be one that does not look"),
        (lambda: training(loss=OneNumber()).run(), r"shape of the loss = \(\) is not allowed: must be \(3,\)"),
        (
            lambda: training(loss=KD(standardised=True), supervision=OneHot()).run(),
            r"loss = kd is not allowed on targets of one-hot, which have classes of probability zero",
        ),
        (lambda: MCDropout(training()), r"training.student.dropout = 0.0 is not allowed: must be above 0"),
        (lambda: Laplace(training(loss=Brier())), r"training.loss = brier is not allowed"),
    ],
)
def test_refused_in_one_line(build, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_a_training_is_its_configuration():
    base = training(4)
    others = [
        training(4, "linear"), training(4, seed=4), training(4, replicas=2), training(4, targets="fresh"),
        training(4, loss=LabelCrossEntropy()), training(4, student=PointNetwork("mlp", 0.1)),
        training(4, data=replace(DATA, test_samples=40)),
    ]  # fmt: skip
    assert digest(base) == digest(training(4)) and len({digest(each) for each in [base, *others]}) == len(others) + 1
    assert isinstance(base.supervision, Supervision) and base.is_network and not base.on_images
