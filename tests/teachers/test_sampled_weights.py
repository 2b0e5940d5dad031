"""Variational posteriors and MC-dropout: trained with noise, and sampled as they were trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from teacher_cases import BATCH, IMAGES, training
from tiny_network import TINY

from kdsim.config import ConfigError, by_name
from kdsim.data import Normalisation
from kdsim.engines import IVON, Adam, GradientDescent, MeanField
from kdsim.networks import build
from kdsim.problems import GaussianMixture
from kdsim.students import MLP
from kdsim.studies import STUDIES
from kdsim.study.loading import load
from kdsim.teachers import MCDropout, Variational, checks
from kdsim.trainer import ImageNetwork, StudentTrainer, fit_teacher
from kdsim.training import Walk
from kdsim.training.evaluation import forward
from kdsim.training.flat_module import FlatModule, put_vector, vector_of

CPU = torch.device("cpu")
MANY_WEIGHTS = ImageNetwork("resnet8")
"""78,000 of them: means over their noise are sharp."""


def test_vectors_lie_as_in_a_flat_module():
    flat = FlatModule(build(TINY, 3), CPU)
    vector = vector_of(flat.module)
    assert torch.equal(vector, flat.parameters[0])
    other = build(TINY, 3).to(memory_format=torch.channels_last)
    put_vector(vector, other)
    weights = flat.state_dict()
    assert all(torch.equal(other.state_dict()[name], weights[name]) for name, _ in other.named_parameters())


# The hook of the training ---------------------------------------------------------------------------


def final(optimiser, steps=6, **changes):
    trainer = training(steps, optimiser=optimiser, **changes)
    walk = Walk(trainer.task(trainer.pools()), 0)
    while not walk.finished:
        walk.advance()
    return walk


def test_without_noise_and_prior_it_is_the_plain_rule():
    plain = final(GradientDescent(0.5))
    rule = MeanField(std_init=1e-12, kl_weight=1e-12, rule=GradientDescent(0.5))
    noisy = final(rule)
    torch.testing.assert_close(noisy.flat.parameters, plain.flat.parameters, rtol=1e-5, atol=1e-6)


def test_gradient_is_that_at_the_drawn_weights_and_the_mean_is_what_moves():
    """One step by hand, with the noise that the walk leaves in its buffer."""
    trainer = training(student=MANY_WEIGHTS, optimiser=IVON(hess_init=0.01), step_size=0.3)
    task = trainer.task(trainer.pools())
    walk = Walk(task, 1)
    rule = walk.optimiser
    assert rule.ess == IMAGES.problem.samples
    before = walk.flat.parameters.clone()
    index, q, _ = walk._visits()
    walk.advance()
    noise = walk.buffers["noise"]
    ratio = noise / (96 * (0.01 + rule.weight_decay)) ** -0.5
    assert abs(ratio.std().item() - 1) < 0.02 and abs(ratio.mean().item()) < 0.02
    flat = FlatModule(build(MANY_WEIGHTS.network, 3), CPU)
    put_vector((before + noise)[0], flat.module)
    loss = -(q * torch.log_softmax(forward(flat.module.train(), task.train.x[index], task.normalise, False), -1))
    loss.sum(-1).mean().backward()
    buffers = rule.buffers(before) | {"noise": noise}
    rule.update(before, flat.gradient, buffers, torch.full((1, 1), 0.3), 0)
    torch.testing.assert_close(walk.flat.parameters, before, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(walk.buffers["hessian"], buffers["hessian"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimiser", [IVON(), MeanField()])
def test_a_stored_state_goes_on_bit_for_bit(optimiser):
    whole = final(optimiser)
    trainer = training(6, optimiser=optimiser)
    task = trainer.task(trainer.pools())
    walk = Walk(task, 0)
    for _ in range(3):
        walk.advance()
    again = Walk(task, 0, walk.state())
    while not again.finished:
        again.advance()
    assert torch.equal(again.flat.parameters, whole.flat.parameters)
    assert all(torch.equal(again.buffers[name], buffer) for name, buffer in whole.buffers.items())


def test_every_step_and_replica_draws_its_own_noise():
    trainer = training(student=MANY_WEIGHTS, optimiser=IVON())
    task = trainer.task(trainer.pools())
    seen = []
    for replica in (0, 1):
        walk = Walk(task, replica)
        for _ in range(2):
            walk.advance()
            seen.append(walk.buffers["noise"].clone() / walk.buffers["noise"].std())
    for i, first in enumerate(seen):
        for second in seen[:i]:
            assert abs((first * second).mean().item()) < 0.02  # 5 standard errors of 78,000 products


def test_settings_name_them():
    study = load(
        "train", by_name(STUDIES), {"recipe.optimiser": "mean-field", "recipe.optimiser.rule": "gradient-descent"}
    )
    assert study.cells()[0].recipe.optimiser == MeanField(rule=GradientDescent())
    study = load("train", by_name(STUDIES), {"recipe.optimiser": "ivon", "recipe.optimiser.ess": "50000"})
    assert study.cells()[0].recipe.optimiser == IVON(ess=50_000.0)


# The teacher ----------------------------------------------------------------------------------------


def fitted_with(std_of, **changes):
    """A variational teacher whose posterior has the std that `std_of` makes of zeros (P,)."""
    teacher = Variational(training(optimiser=IVON(), replicas=1), **changes)
    (network,) = teacher.training.run().networks
    assert network.posterior["std"].shape == (1, vector_of(network.module()).numel())
    std = std_of(torch.zeros_like(network.posterior["std"][0]))
    network = replace(network, posterior={"std": std[None]})
    return teacher, fit_teacher(teacher, [network], teacher.training.pools(), 0), network


def test_without_spread_every_sample_is_the_mean():
    teacher, fitted, network = fitted_with(lambda zero: zero, samples=2)
    images = teacher.training.pools().test.x
    expected = forward(network.module(), images, Normalisation(network.mean, network.std), False)
    found = teacher.predictor(fitted, CPU, False)(images)
    torch.testing.assert_close(found, torch.log_softmax(expected, -1).expand(2, -1, -1), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_samples_have_the_posterior_of_the_training():
    """With spread in the biases of the head alone, the last parameters, logits vary by exactly that."""
    spread = torch.tensor([0.5, 1.0, 2.0])

    def head_alone(zero):
        zero[-3:] = spread
        return zero

    teacher, fitted, network = fitted_with(head_alone, samples=120)
    images = teacher.training.pools().test.x[:2]
    mean = forward(network.module(), images, network.normalisation, False)
    found = teacher.predictor(fitted, CPU, False)(images)
    noise = (found - found.mean(-1, keepdim=True)) - (mean - mean.mean(-1, keepdim=True))  # (S, b, K), centred biases
    torch.testing.assert_close(noise[:, 0], noise[:, 1], rtol=1e-4, atol=1e-5)
    centring = torch.eye(3) - 1 / 3
    expected = centring @ spread.square().diag() @ centring
    torch.testing.assert_close(noise[:, 0].T @ noise[:, 0] / 120, expected, rtol=0.3, atol=0.15)


def test_mc_dropout_thins_as_the_training_does():
    """Mean and variance of the logits over masks, exactly known: f_j m_j / keep has variance f_j^2 rate / keep."""
    rate = 0.3
    teacher = MCDropout(training(student=ImageNetwork(TINY, dropout=rate), replicas=1), samples=20_000)
    (network,) = teacher.training.run().networks
    assert network.dropout == rate
    fitted = fit_teacher(teacher, [network], teacher.training.pools(), 0)
    images = teacher.training.pools().test.x[:3]
    found = teacher.predictor(fitted, CPU, False)(images).double()
    found = found - found.mean(-1, keepdim=True)  # centred logits, (S, b, K)
    module = network.module()
    features = forward(module.features, images, network.normalisation, False).double()  # (b, F)
    weight = module.head.weight.double() - module.head.weight.double().mean(0)  # (K, F)
    bias = module.head.bias.double() - module.head.bias.double().mean()
    variance = features.square() @ weight.square().T * rate / (1 - rate)
    error = (found.mean(0) - features @ weight.T - bias) / (variance / teacher.samples).sqrt()
    assert error.abs().max() < 4
    torch.testing.assert_close(found.var(0), variance, rtol=0.05, atol=0)


def test_dropout_in_training_thins_features():
    """The walk's outputs at a rate near 1 are mostly the bias of the head."""
    trainer = training(student=ImageNetwork(TINY, dropout=0.999))
    walk = Walk(trainer.task(trainer.pools()), 0)
    outputs = walk._outputs(walk.task.train.x[:BATCH])
    assert ((outputs - walk.module.head.bias).abs().amax(-1) < 1e-6).float().mean() > 0.8


def test_what_does_not_fit_is_refused_with_the_figure(monkeypatch):
    teacher, fitted, _ = fitted_with(lambda zero: zero, samples=2)
    monkeypatch.setattr(checks, "free_memory", lambda device: 5_000)
    with pytest.raises(ConfigError, match=r"variational with 2 samples of a tiny needs about \S+e-06 GiB"):
        teacher.predictor(fitted, CPU, False)


def test_a_network_without_posterior_is_refused():
    teacher, fitted, network = fitted_with(lambda zero: zero, samples=2)
    bare = replace(fitted, networks=(replace(network, posterior={}),))
    with pytest.raises(ConfigError, match="no posterior over its weights"):
        teacher.predictor(bare, CPU, False)


ON_ENGINES = StudentTrainer(MLP((4,)), GaussianMixture(samples=60))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Variational(training()), r"training.recipe.optimiser = 'gradient-descent' .* holds a posterior"),
        (lambda: Variational(training(optimiser=Adam())), "'adam'"),
        (lambda: Variational(training(optimiser=IVON()), samples=0), "samples = 0"),
        (lambda: Variational(ON_ENGINES), "training.student .* a network of images"),
        (lambda: MCDropout(training()), "training.student.dropout = 0.0 .* above 0"),
        (lambda: MCDropout(samples=0), "samples = 0"),
        (lambda: MCDropout(ON_ENGINES), "training.student .* a network of images"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
