"""Teachers that train on, SWAG and MCMI: the path, the moments, the information."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from teacher_cases import training

from kdsim.config import ConfigError
from kdsim.engines import IVON, GradientDescent, StepDecay
from kdsim.problems import GaussianMixture
from kdsim.students import MLP
from kdsim.teachers import MCMI, SWAG, Deterministic, checks
from kdsim.teachers.continued import continued
from kdsim.teachers.mcmi import WEIGHTS, InformationLoss, information, log_class_means
from kdsim.teachers.swag import Moments
from kdsim.trainer import StudentTrainer, fit_teacher
from kdsim.training import Walk
from kdsim.training.evaluation import forward
from kdsim.training.flat_module import put_vector, vector_of

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def walked(walk: Walk) -> Walk:
    while not walk.finished:
        walk.advance()
    return walk


@pytest.mark.parametrize("replica", [0, 1])
def test_goes_on_with_the_visits_that_would_have_followed(replica):
    """8 steps and 7 more are 15, bit for bit, where there is no momentum and the schedule has not moved."""
    short, whole = training(8), training(15)
    pools = short.pools()
    network = short.run().networks[replica]
    more = continued(short, network, pools, 7 / 6, short.recipe.step_size, GradientDescent())
    assert (more.step, more.task.steps) == (8, 15)
    expected = walked(Walk(whole.task(pools), replica))
    assert torch.equal(walked(more).flat.parameters, expected.flat.parameters)
    assert all(torch.equal(more.flat.buffers()[name], value) for name, value in expected.flat.buffers().items())


def test_step_size_is_constant_whatever_the_schedule_was():
    trainer = training(8, schedule=StepDecay((0.5,), 1e-9))
    network = trainer.run().networks[0]
    walk = continued(trainer, network, trainer.pools(), 1.0, 0.03, GradientDescent())
    before = walk.flat.parameters.clone()
    walk.advance()
    assert trainer.recipe.step_size != 0.03
    torch.testing.assert_close(walk.flat.parameters, before - 0.03 * walk.flat.gradient, rtol=1e-6, atol=1e-8)
    assert walk.flat.gradient.abs().max() > 1e-3


# SWAG -------------------------------------------------------------------------------------------------


def test_moments_of_a_path():
    points = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = Moments(points[0], 3)
    for point in points[1:]:
        moments.add(point)
    torch.testing.assert_close(moments.mean, points.mean(0))
    torch.testing.assert_close(moments.square, points.square().mean(0))
    expected = [(points[i] - points[: i + 1].mean(0)).float() for i in (3, 4, 5)]
    torch.testing.assert_close(moments.deviations, expected)


def test_samples_have_the_covariance_of_the_paper():
    """diag(variance) / 2 + D D^T / (2 (columns - 1)); 6,000 draws, entries within 5 standard errors (at most)."""
    points = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points[:, 1] += points[:, 0]
    moments = Moments(points[0], 3)
    for point in points[1:]:
        moments.add(point)
    numbers, count = torch.Generator().manual_seed(1), 6000
    drawn = torch.stack([moments.sample(numbers) for _ in range(count)])
    deviations = torch.stack(moments.deviations, 1).double()  # (P, 3)
    expected = points.var(0, correction=0).diag() / 2 + deviations @ deviations.T / 4
    scale = expected.diagonal().sqrt()
    assert ((drawn.mean(0) - points.mean(0)).abs() < 4 * scale / math.sqrt(count)).all()
    assert ((drawn.T.cov() - expected).abs() / scale.outer(scale) < 5 * math.sqrt(2 / count)).all()


def swag(**changes) -> SWAG:
    settings = {"samples": 2, "epochs": 1.0, "collect_every": 1 / 3, "rank": 2, "statistics_images": 40}
    return SWAG(training(replicas=1), **settings | changes)


def test_collects_the_path_of_the_continued_training():
    teacher = swag()
    pools, (network,) = teacher.training.pools(), teacher.training.run().networks
    start = vector_of(network.module())
    walk = continued(teacher.training, network, pools, 1.0, teacher.step_size, teacher.optimiser)
    points = [start]
    while not walk.finished:
        walk.advance()
        if walk.step % 2 == 0:
            points.append(walk.flat.parameters[0].clone())
    moments = teacher._path(network, start, pools)
    assert moments.count == len(points) == 4
    torch.testing.assert_close(moments.mean, torch.stack(points).double().mean(0), rtol=1e-12, atol=1e-12)


def test_statistics_are_those_of_each_sample():
    """Of the first BatchNorm, by hand: mean and variance of what the first convolution gives on 40 images."""
    teacher = swag()
    pools, networks = teacher.training.pools(), teacher.training.run().networks
    fitted = fit_teacher(teacher, networks, pools, 0)
    for number, sample in enumerate(fitted.tensors["samples"]):
        module = networks[0].module()
        put_vector(sample, module)
        seen = forward(module.body.stem[0], pools.train.x[:40], networks[0].normalisation, False)
        found = {name: fitted.tensors[f"body.stem.1.running_{name}"][number] for name in ("mean", "var")}
        torch.testing.assert_close(found["mean"], seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["var"], seen.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
        for name, buffer in module.named_buffers():
            buffer.copy_(fitted.tensors[name][number])
        expected = torch.log_softmax(forward(module, pools.test.x, networks[0].normalisation, False), -1)
        torch.testing.assert_close(teacher.predictor(fitted, CPU, False)(pools.test.x)[number], expected)


def test_swag_refuses_what_does_not_fit_or_diverged(monkeypatch):
    teacher = swag(step_size=1e30)
    pools, networks = teacher.training.pools(), teacher.training.run().networks
    with pytest.raises(ConfigError, match=r"swag: replica 0 diverged .* step_size = 1e\+30"):
        fit_teacher(teacher, networks, pools, 0)
    monkeypatch.setattr(checks, "free_memory", lambda device: 1000)
    with pytest.raises(ConfigError, match=r"swag with rank 2 of a tiny needs about \S+e-05 GiB"):
        fit_teacher(swag(), networks, pools, 0)


# MCMI -------------------------------------------------------------------------------------------------


def test_class_means_and_information():
    """Against loops in probabilities; class 3 has no image, class 2 has one, which says nothing beside its class."""
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    log_probs = torch.log_softmax(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double(), -1)
    log_means = log_class_means(log_probs, labels, 4)
    p = log_probs.exp()
    total = 0.0
    for i, y in enumerate(labels.tolist()):
        own = p[labels == y].mean(0)
        torch.testing.assert_close(log_means[y].exp(), own)
        total += sum((p[i, k] * (p[i, k] / own[k]).log()).item() for k in range(4))
    assert information(log_probs, labels, log_means).item() == pytest.approx(total / 6)
    assert total > 0.01 and information(log_probs[5:], labels[5:], log_means).item() == pytest.approx(0, abs=1e-12)
    assert torch.equal(log_means[3].exp(), torch.full((4,), 0.25, dtype=torch.float64))


def test_information_stays_finite_where_probabilities_underflow():
    labels = torch.tensor([0, 0, 1])
    log_probs = torch.tensor([[0.0, -2000.0], [0.0, -3000.0], [-2000.0, 0.0]])
    found = information(
        torch.tensor([[-1.0, math.log(1 - math.exp(-1))]] * 3), labels, log_class_means(log_probs, labels, 2)
    )
    assert torch.isfinite(found)


def test_the_sign_of_the_information_is_minus():
    """Loss and gradient, Q held constant."""
    generator = torch.Generator().manual_seed(0)
    outputs, labels = torch.randn(5, 3, generator=generator).double().requires_grad_(), torch.tensor([0, 1, 1, 0, 2])
    means = torch.softmax(torch.randn(3, 3, generator=generator).double(), -1)
    loss = InformationLoss(lambda outputs, said, labels, epoch: outputs.square().sum(), 0.3, 3)
    loss.log_means = means.log()
    p = torch.softmax(outputs, -1)
    expected = (
        outputs.square().sum()
        - 0.3
        * torch.distributions.kl_divergence(
            torch.distributions.Categorical(p), torch.distributions.Categorical(means[labels])
        ).mean()
    )
    found = loss(outputs, outputs, labels, 1.0)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, outputs)[0] for value in (found, expected)))


@pytest.fixture(scope="module")
def finetuned():
    """Information by weight, after two epochs of fine-tuning; and what it was found with."""
    trainer = training(12, replicas=1)
    networks, pools = trainer.run().networks, trainer.pools()
    teachers = {weight: MCMI(trainer, weight, epochs=2.0, step_size=0.02) for weight in (0.0, 1.0)}
    return trainer, networks, pools, {w: fit_teacher(t, networks, pools, 0) for w, t in teachers.items()}


def test_information_grows_with_its_weight(finetuned):
    *_, fitted = finetuned
    seen = {weight: teacher.tensors["information"] for weight, teacher in fitted.items()}
    assert all(len(values) == 3 for values in seen.values())  # before both epochs, and at the end
    assert seen[0.0][0] == seen[1.0][0]
    assert seen[1.0][-1] > 1.1 * seen[0.0][-1]


def test_without_weight_it_is_plain_fine_tuning(finetuned):
    trainer, networks, pools, fitted = finetuned
    rule = GradientDescent(momentum=0.9, weight_decay=5e-4)
    expected = walked(continued(trainer, networks[0], pools, 2.0, 0.02, rule)).flat.state_dict()
    found = fitted[0.0].tensors
    assert all(torch.equal(found[WEIGHTS + name], tensor) for name, tensor in expected.items())


ON_ENGINES = StudentTrainer(MLP((4,)), GaussianMixture(samples=60))


@pytest.mark.parametrize("kind", [SWAG, MCMI])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0.0}, "epochs = 0.0"),
        ({"step_size": -1.0}, "step_size = -1.0"),
        ({"optimiser": IVON()}, "optimiser = IVON.* draws no weights"),
        ({"training": ON_ENGINES}, "training.student .* a network of images"),
        (
            {"training": replace(training(), supervision=Deterministic(training()))},
            "training.supervision .* no teacher",
        ),
    ],
)
def test_bad_values_are_refused(kind, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        kind(**change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SWAG(samples=0), "samples = 0"),
        (lambda: SWAG(rank=1), "rank = 1 .* >= 2"),
        (lambda: SWAG(epochs=1.0), "collect_every = 1.0 .* half of epochs"),
        (lambda: SWAG(collect_every=0.0), "collect_every = 0.0"),
        (lambda: SWAG(statistics_images=1), "statistics_images = 1"),
        (lambda: MCMI(weight=-0.1), "weight = -0.1"),
        (lambda: MCMI(weight=math.inf), "weight = inf"),
    ],
)
def test_bad_constants_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
