"""Teachers without a posterior, and the ensemble: temperature scaling, squared error, several networks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from teacher_cases import training
from torch.nn import functional

from kdsim.config import ConfigError
from kdsim.losses import Brier, CrossEntropy, OutputMSE
from kdsim.problems import GaussianMixture
from kdsim.students import MLP
from kdsim.teachers import DeepEnsemble, Laplace, MSELogitsTeacher, MSETeacher, TemperatureScaled
from kdsim.teachers.mse import project
from kdsim.teachers.temperature_scaled import TEMPERATURES, best_temperature
from kdsim.trainer import StudentTrainer, fit_teacher, teacher_scores

CPU = torch.device("cpu")


def logits(count: int, classes: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(count, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Temperature --------------------------------------------------------------------------------------


def test_temperature_is_the_minimum_over_a_grid():
    z = logits(300, 5)
    labels = torch.multinomial(torch.softmax(z / 2.5, -1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
    grid = torch.logspace(-1, 1, 2001, dtype=torch.float64)
    losses = torch.stack([functional.cross_entropy(z / t, labels) for t in grid])
    assert best_temperature(z, labels) == pytest.approx(grid[losses.argmin()].item(), rel=2e-3)


def test_temperature_recovers_the_scale_of_the_logits():
    """Labels drawn from softmax(z / 2.5): the estimate's standard error with 40,000 labels is below 0.02."""
    z = logits(40_000, 5)
    labels = torch.multinomial(torch.softmax(z / 2.5, -1), 1, generator=torch.Generator().manual_seed(2))[:, 0]
    assert best_temperature(z, labels) == pytest.approx(2.5, abs=0.08)
    assert best_temperature(3 * z, labels) == pytest.approx(3 * best_temperature(z, labels), rel=1e-6)


def test_temperature_has_ends():
    z = logits(50, 3)
    assert best_temperature(z, z.argmax(-1)) == TEMPERATURES[0]
    assert best_temperature(z, z.argmin(-1)) == TEMPERATURES[1]
    assert best_temperature(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)) in TEMPERATURES


def test_temperature_scaling_lowers_validation_loss_and_keeps_the_classes():
    trainer = training(12, replicas=1)
    networks, pools = trainer.run().networks, trainer.pools()
    teacher = TemperatureScaled(trainer)
    fitted = fit_teacher(teacher, networks, pools, 0)
    temperature = fitted.tensors["temperature"].item()
    assert fitted.scores["loss"] < networks[0].scores["loss"]
    assert fitted.scores["accuracy"] == networks[0].scores["accuracy"]
    found = teacher.predictor(fitted, CPU, False)(pools.test.x)[0]
    z = networks[0].module()(networks[0].normalisation(pools.test.x))
    torch.testing.assert_close(found, torch.log_softmax(z / temperature, -1), rtol=1e-4, atol=1e-5)
    for factor in (0.8, 1.25):
        moved = replace(fitted, tensors={"temperature": fitted.tensors["temperature"] * factor})
        assert teacher_scores(teacher, moved, pools.validation)["loss"] > fitted.scores["loss"]


# Squared error ------------------------------------------------------------------------------------


def nearest(z: torch.Tensor) -> torch.Tensor:
    """The simplex' nearest point by bisection of the threshold."""
    low, high = z.min(-1, keepdim=True).values - 1, z.max(-1, keepdim=True).values
    for _ in range(100):
        middle = (low + high) / 2
        above = (z - middle).clamp_min(0).sum(-1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (z - low).clamp_min(0)


@pytest.mark.parametrize("classes", [2, 3, 100])
def test_projection_is_the_nearest_point_of_the_simplex(classes):
    z = logits(200, classes)
    found = project(z)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(-1), torch.ones(200, dtype=torch.float64))
    torch.testing.assert_close(found, nearest(z))
    inside = torch.softmax(z, -1)
    torch.testing.assert_close(project(inside), inside)
    torch.testing.assert_close(project(inside + 0.7), inside)
    # Never farther from a point of the simplex than the outputs are.
    assert ((found - inside).norm(dim=-1) <= (z - inside).norm(dim=-1)).all()


def test_outputs_are_read_out_on_the_simplex():
    """Not through a softmax, which is nearly flat where outputs are probabilities."""
    trainer = training(30, loss=OutputMSE(), replicas=1)
    networks, pools = trainer.run().networks, trainer.pools()
    teacher = MSELogitsTeacher(trainer, floor=1e-3)
    fitted = fit_teacher(teacher, networks, pools, 0)
    z = networks[0].module()(networks[0].normalisation(pools.test.x))
    found = teacher.predictor(fitted, CPU, False)(pools.test.x)[0].exp()
    torch.testing.assert_close(found, (1 - 3e-3) * nearest(z) + 1e-3, rtol=1e-4, atol=1e-6)
    assert found.min() >= 1e-3 * (1 - 1e-4)
    without = replace(teacher, floor=0.0).predictor(fitted, CPU, False)(pools.test.x)[0]
    torch.testing.assert_close(without.exp(), nearest(z), rtol=1e-4, atol=1e-6)


def test_the_loss_of_the_training_is_the_teachers_own():
    for kind, own, others in (
        (MSETeacher, Brier(), (CrossEntropy(), OutputMSE())),
        (MSELogitsTeacher, OutputMSE(), (CrossEntropy(), Brier())),
    ):
        assert kind(training(loss=own)).training.loss == own == kind().training.loss
        for loss in others:
            with pytest.raises(ConfigError, match=rf"training.loss = {loss.name} is not allowed: must be {own.name}$"):
                kind(training(loss=loss))
    for kind in (TemperatureScaled, DeepEnsemble):
        with pytest.raises(ConfigError, match=r"training.loss = output-mse is not allowed here: its outputs are no"):
            kind(training(loss=OutputMSE(), replicas=5))
    for floor in (-0.1, 1 / 3, math.nan):
        with pytest.raises(ConfigError, match="floor = "):
            MSELogitsTeacher(training(loss=OutputMSE()), floor=floor)


@pytest.mark.parametrize("kind", [TemperatureScaled, DeepEnsemble, Laplace])
def test_a_student_of_the_engines_is_no_teacher(kind):
    with pytest.raises(ConfigError, match=r"training.student = "):
        kind(StudentTrainer(MLP((8,)), GaussianMixture(), replicas=5))


# Ensemble -----------------------------------------------------------------------------------------


def test_an_ensemble_is_its_members():
    trainer = training(replicas=4)
    networks, pools = trainer.run().networks, trainer.pools()
    teacher = DeepEnsemble(trainer, size=2)
    assert (teacher.members, teacher.count) == (2, 2)
    for number in range(2):
        fitted = fit_teacher(teacher, networks, pools, number)
        assert [network.replica for network in fitted.networks] == [2 * number, 2 * number + 1]
        found = teacher.predictor(fitted, CPU, False)(pools.test.x)
        for sample, network in zip(found, fitted.networks, strict=True):
            expected = torch.log_softmax(network.module()(network.normalisation(pools.test.x)), -1)
            torch.testing.assert_close(sample, expected, rtol=1e-4, atol=1e-5)
        # By Jensen's inequality the mean is no worse than its members are on the average.
        assert fitted.scores["loss"] <= sum(network.scores["loss"] for network in fitted.networks) / 2


@pytest.mark.parametrize(("replicas", "size"), [(4, 3), (1, 2), (5, 10)])
def test_replicas_that_do_not_make_whole_ensembles_are_refused(replicas, size):
    message = rf"training.replicas = {replicas} is not allowed: must be a multiple of size = {size}, "
    with pytest.raises(ConfigError, match=message):
        DeepEnsemble(training(replicas=replicas), size=size)
