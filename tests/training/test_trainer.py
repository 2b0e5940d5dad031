"""The student trainer: what it records, which evaluation is the best, divergence, teachers, students of the engines."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from tiny_training import BATCH, PROBLEM, LabelledImages, same, tiny

from kdsim.config import ConfigError, digest
from kdsim.data import KnownImages
from kdsim.engines import ENGINES, SGD, Adam, Cosine, GradientDescent, Lane, Recording, StepDecay
from kdsim.losses import DKD, KD, CrossEntropy, DistillationLoss, LogitMSE
from kdsim.measure.convergence import summarise
from kdsim.problems import GaussianMixture, Images, SimplexLinear
from kdsim.scores import expected_calibration_error
from kdsim.students import MLP, FactoredLeastSquares, LeastSquares, SoftmaxRegression, minimiser
from kdsim.supervision import Dirichlet, OneHot
from kdsim.teachers import Deterministic
from kdsim.trainer import ImageNetwork, StudentTrainer, fit_teacher
from kdsim.training import CRD, BayesianKDRecipe, Recipe, Walk, scores

POOL = GaussianMixture(classes=3, dimension=4, samples=60)
ENGINE_RECIPE = Recipe(epochs=4, batch_size=5, step_size=0.1, optimiser=GradientDescent(0.5), schedule=StepDecay())


# Evaluations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "evaluations", "looks"), [(1.0, None, 12), (12.4, None, 12), (40.0, None, 40), (40.0, 5, 5), (1.0, 1, 1)]
)
def test_number_of_evaluations(epochs, evaluations, looks):
    trainer = StudentTrainer(recipe=Recipe(epochs=epochs), evaluations=evaluations)
    assert trainer.looks == looks


@pytest.mark.parametrize("evaluations", [1, 3, 7, 20, 1000])
def test_evaluations_are_evenly_spaced_and_the_last_is_at_the_end(evaluations):
    trainer = tiny(20, evaluations=evaluations)
    schedule = trainer.task(trainer.pools()).schedule()
    assert len(schedule) == min(evaluations, 20) and schedule[-1] == 20 and schedule[0] > 0
    gaps = {after - before for before, after in zip([0, *schedule], schedule, strict=False)}
    assert max(gaps) - min(gaps) <= 1 and min(gaps) > 0


@pytest.mark.parametrize(
    ("epochs", "images", "batch", "steps"), [(1, 200, 16, 13), (2, 200, 20, 20), (0.01, 200, 16, 1), (0.5, 3, 64, 1)]
)
def test_steps(epochs, images, batch, steps):
    """Visits rounded up to whole batches."""
    assert Recipe(epochs=epochs, batch_size=batch).steps(images) == steps


@pytest.mark.parametrize("epochs", [1e308, 1e12])
def test_more_visits_than_random_numbers_are_refused(epochs):
    with pytest.raises(ConfigError, match=r"epochs = 1\S+ is not allowed: must be below 21990232555 on 200 images"):
        Recipe(epochs=epochs).steps(200)


def test_published_recipes():
    """240 epochs of CIFAR: tenths at 150, 180 and 210; 200 epochs: a tenth at 100."""
    crd, adam = CRD(), BayesianKDRecipe()
    steps = crd.steps(50_000)
    assert steps == 187_500 and adam.steps(50_000) == 100_000
    factors = [crd.schedule.factor(-(-epoch * steps // 240), steps) for epoch in (0, 149, 150, 180, 210, 239)]
    assert factors == pytest.approx([1, 1, 0.1, 0.01, 1e-3, 1e-3])
    assert [adam.schedule.factor(step, 100_000) for step in (49_999, 50_000)] == pytest.approx([1, 0.1])


def scripted(monkeypatch, accuracies: list[float], losses: list[float]) -> None:
    """Validation scores as given, one evaluation after the other; on the test images the first one is the best."""
    validation = iter([*zip(accuracies, losses, strict=True), (0.9, 9.0)])  # the last for the stored weights

    def given(walk: Walk, pool, truth: str) -> dict[str, float]:
        names = walk.task.metrics[1:]
        if pool.size == PROBLEM.validation_samples:
            accuracy, loss = next(validation)
            return dict.fromkeys(names, 0.0) | {"accuracy": accuracy, "loss": loss}
        signature = walk.flat.parameters.double().sum().item()  # says which parameters are tested
        return dict.fromkeys(names, signature) | {"accuracy": 1 / walk.step}

    monkeypatch.setattr(Walk, "scores", given)


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [
        ([0.5, 0.7, 0.7, 0.6], [1.0, 0.9, 0.9, 0.1], 4),  # the first of two equal ones
        ([0.5, 0.7, 0.7, 0.6], [1.0, 0.9, 0.8, 0.1], 6),  # the loss decides between equal accuracies
        ([0.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0], 2),
        ([0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0], 8),
    ],
)
def test_the_best_evaluation_is_chosen_on_the_validation_images(monkeypatch, accuracies, losses, best):
    """And test scores are of the last parameters; those of the best evaluation stand apart."""
    scripted(monkeypatch, accuracies, losses)
    trainer = tiny(8)
    record = trainer.run().record
    assert record.steps.tolist() == [2, 4, 6, 8] and record.best_step.tolist() == [best]
    assert record.curves["accuracy"][:, 0].tolist() == accuracies
    walk, signatures = Walk(trainer.task(trainer.pools()), 0), {}
    for step in range(1, 9):
        walk.advance() if step not in record.steps else advance_without_looking(walk)
        signatures[step] = walk.flat.parameters.double().sum().item()
    assert record.test["loss"].tolist() == [signatures[8]]
    assert record.best_test["loss"].tolist() == [signatures[best]]


def advance_without_looking(walk: Walk) -> None:
    schedule, walk.schedule = walk.schedule, []
    walk.advance()
    walk.schedule = schedule


def test_train_loss_is_the_mean_since_the_last_evaluation():
    trainer = tiny(9, evaluations=2)
    record = trainer.run().record
    assert record.steps.tolist() == [4, 9]
    every = replace(trainer, evaluations=9).run().record.curves["train_loss"][:, 0]
    expected = torch.stack([every[:4].mean(), every[4:].mean()])
    torch.testing.assert_close(record.curves["train_loss"][:, 0], expected, rtol=1e-6, atol=0)


def test_truth_decides_what_is_scored():
    known, labelled = tiny(2).run().record, tiny(2, labelled=True).run().record
    assert set(known.curves) - set(labelled.curves) == {"bcp_kl", "bcp_l2"} == set(known.test) - set(labelled.test)
    assert (known.truth, labelled.truth) == (("bcp", "bcp"), ("labels", "labels"))
    assert known.curves["bcp_kl"][-1] > 0


# Divergence ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_divergence_is_recorded(precision):
    """No exception; nothing but NaN afterwards, and no number in the row, whose columns stay."""
    well, ill = (tiny(8, recipe=Recipe(step_size=s, precision=precision), replicas=2).run() for s in (0.01, 1e30))
    assert ill.record.diverged_at.tolist() == [2, 2] and well.record.diverged_at.tolist() == [-1, -1]
    for curve in ill.record.curves.values():
        assert curve[1:].isnan().all()
    for name in ("test", "best_test"):
        assert getattr(ill.record, name).keys() == getattr(well.record, name).keys()
        assert all(values.isnan().all() for values in getattr(ill.record, name).values())
    found, whole = summarise(ill.record, 1.0), summarise(well.record, 1.0)
    assert found.keys() == whole.keys() and found["diverged"] == 2
    assert {name for name, value in found.items() if value is not None} == {"diverged", "best_step"}
    assert ill.networks[0].scores == {} and well.networks[0].scores


def test_scores_of_an_output_that_is_no_number():
    """No score is a number then; one row of 40 is enough. The calibration error used to fail on it."""
    pool = tiny(1).pools().test
    log_probs = torch.log_softmax(torch.randn(40, 3, generator=torch.Generator().manual_seed(1)), -1)
    good = scores(log_probs, pool, "bcp")
    log_probs[7, 1] = float("nan")
    bad = scores(log_probs, pool, "bcp")
    assert all(map(math.isfinite, good.values())) and all(map(math.isnan, bad.values())) and good.keys() == bad.keys()
    assert expected_calibration_error(log_probs.exp(), pool.y).isnan()


def test_divergence_between_two_evaluations_keeps_what_was_seen(monkeypatch):
    """One replica of two breaks down after its first evaluation."""
    advance = Walk.advance

    def breaking(walk: Walk) -> None:
        if walk.replica == 1 and walk.step == 3:
            walk.flat.parameters[0, 5] = float("inf")
        advance(walk)

    monkeypatch.setattr(Walk, "advance", breaking)
    record = tiny(8, replicas=2).run().record
    assert record.diverged_at.tolist() == [-1, 4] and record.best_step[1] == 2
    assert torch.isfinite(record.curves["loss"][0]).all() and torch.isfinite(record.curves["loss"][:, 0]).all()
    assert record.curves["loss"][2:, 1].isnan().all() and record.test["loss"].isnan().tolist() == [False, True]


# Teachers ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_student_of_a_teacher():
    """Two teachers, three students; the teacher's logits for the images of a visit are the targets."""
    training = tiny(4, replicas=2)
    networks, teacher = training.run().networks, Deterministic(training)
    student = replace(training, supervision=teacher, loss=KD(), replicas=3)
    teachers = [fit_teacher(teacher, networks, training.pools(), number) for number in range(teacher.count)]
    trained = student.run(teachers=teachers)
    assert (trained.record.diverged_at == -1).all()
    task = student.task(student.pools(), teachers)
    assert task.supervision is None and len(task.teachers) == 2
    images = student.pools().test.x[:9]
    for predictor, network, fitted in zip(task.teachers, networks, teachers, strict=True):
        expected = network.module()(network.normalisation(images))
        torch.testing.assert_close(predictor(images, torch.arange(9)), expected[None], rtol=1e-4, atol=1e-4)
        assert fitted.scores == pytest.approx(network.scores)
    assert digest(student) != digest(replace(student, supervision=Deterministic(replace(training, seed=4))))
    assert same(trained, student.run(teachers=teachers))
    assert not same(trained, replace(student, supervision=OneHot()).run())


def test_what_are_not_the_teachers_is_refused():
    training = tiny(2, replicas=2)
    networks, teacher, pools = training.run().networks, Deterministic(training), training.pools()
    own = digest(training)
    for given, message in (
        ((), r"number of trained networks = 0 is not allowed: must be 2, the replicas"),
        (networks[:1], r"number of trained networks = 1 is not allowed: must be 2"),
        (networks[::-1], rf"trained network 0 is replica 1 of training '{own}': must be replica 0 of '{own}'"),
        ((replace(networks[0], training="x"), networks[1]), r"trained network 0 is replica 0 of training 'x': must be"),
        (
            (networks[0], replace(networks[1], scores={})),
            r"replica 1 of the teacher's training diverged: no student can",
        ),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            fit_teacher(teacher, given, pools, 0)
        assert "\n" not in str(caught.value)
    student, teachers = (
        replace(training, supervision=teacher),
        [fit_teacher(teacher, networks, pools, n) for n in (0, 1)],
    )
    for subject, given, message in (
        (student, (), r"number of teachers = 0 is not allowed: must be 2, those of the configuration"),
        (student, teachers[::-1], rf"teacher 0 is '{digest(teacher)}' number 1: must be '{digest(teacher)}' number 0"),
        (
            replace(student, supervision=Deterministic(replace(training, seed=4))),
            teachers,
            r"teacher 0 is '\w+' number 0",
        ),
        (training, teachers, r"number of teachers = 2 is not allowed: must be 0"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            subject.run(teachers=given)
        assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Pair(Deterministic):
    """A teacher of two networks."""

    name: ClassVar[str] = "pair"
    members: ClassVar[int] = 2


def test_a_teacher_needs_as_many_replicas_as_it_has_members():
    """Without a teacher there would be no targets."""
    assert tiny(supervision=Pair(tiny(replicas=5))).teacher.count == 2
    with pytest.raises(ConfigError, match="replicas of the teacher = 1 is not allowed: must be at least 2"):
        tiny(supervision=Pair(tiny(replicas=1)))


# Students of the engines ---------------------------------------------------------------------------


def on_engine(student=None, **changes) -> StudentTrainer:
    fields = {"data": POOL, "supervision": Dirichlet(3.0), "recipe": ENGINE_RECIPE, "replicas": 64, "seed": 5}
    return StudentTrainer(student or MLP((8,)), **fields | changes)


def test_replicas_of_an_mlp_are_those_of_the_engine():
    """The last sixth of the pool is the validation set; four epochs of the rest."""
    trainer, seen = on_engine(), []
    trained = trainer.run(progress=lambda done, total: seen.append((done, total)))
    population = POOL.population(5)
    sgd = SGD(40, 5, "permutation", "frozen", held_out=10, optimiser=GradientDescent(0.5), schedule=StepDecay())
    record, _ = ENGINES["autograd"].run(
        MLP((8,)), population, [Lane(Dirichlet(3.0), 0.1, 5, 64)], sgd, Recording(12, 1 / 3),
        reference=MLP((8,)).reference(population), anchor=torch.zeros(3, population.features).double(),
    )  # fmt: skip
    after = record.steps > 0
    assert torch.equal(trained.record.steps, record.steps[after]) and trained.record.steps[-1] == 40
    names = {"loss": "loss", "accuracy": "label_accuracy", "ece": "ece", "bcp_kl": "excess_risk", "bcp_l2": "bcp_l2"}
    assert trained.record.curves.keys() == names.keys()
    for new, old in names.items():
        assert torch.equal(trained.record.curves[new], record.curves[old][after].double()), new
        assert trained.record.curves[new].shape[1] == 64
    assert trained.networks == () and trained.provenance["train_size"] == 50 == trainer.train_size()
    assert seen[0] == (0, 2560) and seen[-1] == (2560, 2560)
    found = summarise(trained.record, 1.0)
    assert found["noise_loss"] > 0 and found["floor"] > 0 and found["floor_low"] < found["floor"] < found["floor_high"]


def test_an_evaluation_at_a_milestone_ends_the_stretch_before_it():
    """The steps before it were of the old size, as for networks (`Task.pieces`)."""
    record = on_engine(replicas=2, window=0.5).run().record
    assert {20, 30} <= set(record.steps.tolist())
    assert record.pieces.tolist() == [(step > 20) + (step > 30) for step in record.steps.tolist()]


def test_softmax_regression_and_adam():
    """Seen on the whole pool; where the pool is exactly softmax-linear the excess risk is the mean of KL(p, q)."""
    recipe = Recipe(epochs=5, batch_size=4, step_size=0.01, optimiser=Adam(), schedule=Cosine())
    trainer = on_engine(SoftmaxRegression(), recipe=recipe, replicas=8, supervision=OneHot())
    record = trainer.run().record
    population = POOL.population(5)
    sgd = SGD(75, 4, "permutation", "frozen", optimiser=Adam(), schedule=Cosine())
    expected, state = ENGINES["autograd"].run(
        SoftmaxRegression(), population, [Lane(OneHot(), 0.01, 5, 8)], sgd, Recording(12, 1 / 3),
        reference=minimiser(SoftmaxRegression(), population), anchor=torch.zeros(3, population.features).double(),
    )  # fmt: skip
    assert torch.equal(record.curves["bcp_kl"][-1], expected.curves["excess_risk"][-1].double())
    theta = state.error.double() + minimiser(SoftmaxRegression(), population)
    log_q = torch.log_softmax(torch.einsum("rkd,nd->rnk", theta, population.x), -1)
    kl = (population.p * (population.p.log() - log_q)).sum(-1).mean(-1)
    torch.testing.assert_close(record.curves["bcp_kl"][-1], kl, rtol=1e-3, atol=1e-6)


@dataclass(frozen=True)
class Unrealisable(GaussianMixture):
    """Its BCP is not softmax-linear in what the student sees: the squares of the features are hidden."""

    name: ClassVar[str] = "unrealisable"

    def population(self, seed: int):
        population = super().population(seed)
        return replace(population, x=population.x.square(), optimum=None)


def test_excess_risk_above_the_best_student_is_not_called_a_divergence():
    trainer = on_engine(SoftmaxRegression(), data=Unrealisable(3, 4, samples=60), replicas=4)
    curves = trainer.run().record.curves
    assert "bcp_kl" not in curves and torch.isfinite(curves["excess_risk"]).all()


def test_divergence_of_replicas_in_an_engine():
    """As of networks: recorded, NaN afterwards, no number in the row."""
    record = on_engine(recipe=replace(ENGINE_RECIPE, step_size=1e25), replicas=4).run().record
    assert (record.diverged_at > 0).all()
    after = record.steps[:, None] >= record.diverged_at
    assert after.any() and all(curve[after].isnan().all() for curve in record.curves.values())
    found = summarise(record, 1 / 3)
    assert found["diverged"] == 4 and found["loss"] is None and found["noise_loss"] is None


@pytest.mark.slow
def test_an_engine_that_is_told_to_stop_gives_nothing():
    """It is asked between the chunks of its steps, about 400 here."""
    assert on_engine(recipe=replace(ENGINE_RECIPE, epochs=100.0)).run(stop=lambda: True) is None


# Refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: StudentTrainer(ImageNetwork("resnet9")), r"unknown network 'resnet9' \(nearest: resnet8"),
        (
            lambda: StudentTrainer("resnet8"),
            r"StudentTrainer.student = 'resnet8' is not allowed: must be an ImageNetwork, .* or a LinearStudent",
        ),
        (lambda: StudentTrainer(data=POOL), r"data = GaussianMixture\(.*\) is not allowed: must be ImageSource"),
        (lambda: StudentTrainer(data=Images()), r"data = Images\(.*: must be ImageSource"),
        (lambda: StudentTrainer(MLP((8,))), r"data = KnownImages\(.*\) is not allowed: must be Problem"),
        (lambda: StudentTrainer(loss="kd"), r"loss = 'kd' is not allowed: must be a DistillationLoss, as KD"),
        (
            lambda: on_engine(loss=KD()),
            r"loss = KD\(.*\) is not allowed: must be cross-entropy for a student of the eng",
        ),
        (
            lambda: on_engine(supervision=Deterministic()),
            r"supervision = Deterministic\(.*\) is not allowed: must be no t",
        ),
        (
            lambda: on_engine(LeastSquares(), data=SimplexLinear()),
            r"student = LeastSquares\(.*: must be one under cross",
        ),
        (
            lambda: on_engine(FactoredLeastSquares()),
            r"student = FactoredLeastSquares\(.*: must be one under cross-entropy",
        ),
        (
            lambda: StudentTrainer(supervision=CrossEntropy()),
            r"supervision = CrossEntropy\(\) .* a Supervision or a Teacher",
        ),
        (lambda: StudentTrainer(recipe="crd"), r"recipe = 'crd' is not allowed: must be a Recipe, as CRD"),
        (lambda: StudentTrainer(targets="once"), r"targets = 'once' is not allowed: must be frozen or fresh"),
        (lambda: StudentTrainer(evaluations=0), r"evaluations = 0 is not allowed: must be an integer >= 1"),
        (lambda: StudentTrainer(window=0.0), r"window = 0.0 is not allowed: must be in \(0, 1\]"),
        (lambda: StudentTrainer(replicas=0), r"replicas = 0 is not allowed"),
        (lambda: StudentTrainer(seed=-1), r"seed = -1 is not allowed"),
        (
            lambda: StudentTrainer(seed=2**63),
            r"seed = 9223372036854775808 is not allowed: must be an integer <= 9223372036854775807",
        ),
        (lambda: tiny(device="tpu").run(), r"device = 'tpu' is not available here; allowed: cpu"),
        (
            lambda: Recipe(precision="float16"),
            r"precision = 'float16' is not allowed: must be auto, float32 or bfloat16",
        ),
        (lambda: Recipe(epochs=float("nan")), r"epochs = nan is not allowed: must be a finite number > 0"),
        (lambda: Recipe(augmentation=4), r"augmentation = 4 is not allowed: must be a CropFlip"),
    ],
)
def test_refused_in_one_line(build, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class LooksAtInputs(OneHot):
    """Asks for x, which the trainer does not hand on."""

    name: ClassVar[str] = "looks-at-inputs"
    uses_x: ClassVar[bool] = True


def test_a_supervision_that_looks_at_the_inputs_is_refused_for_images():
    with pytest.raises(ConfigError, match=r"supervision = LooksAtInputs\(\) is not allowed: must be one that does not"):
        tiny(supervision=LooksAtInputs())
    assert on_engine(supervision=LooksAtInputs()).supervision.uses_x


def test_a_training_is_its_configuration():
    """Everything that changes the result changes the digest, and nothing else does."""
    base = tiny(4)
    assert digest(base) == digest(tiny(4))
    others = [
        tiny(5), tiny(4, seed=4), tiny(4, replicas=2), tiny(4, targets="fresh"), tiny(4, evaluations=3),
        tiny(4, labelled=True), tiny(4, supervision=Dirichlet(2.0)), tiny(4, loss=KD()), tiny(4, window=0.5),
        replace(base, student=ImageNetwork("resnet20")), tiny(4, recipe=Recipe(precision="bfloat16")),
    ]  # fmt: skip
    assert len({digest(trainer) for trainer in [base, *others]}) == len(others) + 1
    assert isinstance(base.data, KnownImages) and not isinstance(base.data, LabelledImages)
    assert base.recipe.batch_size == BATCH


@pytest.mark.parametrize("loss", [LogitMSE(), DKD(), KD(standardised=True)], ids=lambda loss: loss.name)
def test_losses_of_logits_refuse_targets_without_a_class(loss: DistillationLoss) -> None:
    with pytest.raises(ConfigError, match="on targets of one-hot, which have classes of probability zero"):
        tiny(2, loss=loss).run()
