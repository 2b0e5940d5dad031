"""What every teacher keeps: one suite over all of `TEACHERS`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from teacher_cases import CASES, Case

from kdsim import config
from kdsim.data import CropFlip, Pools
from kdsim.population import Population
from kdsim.problems import Images
from kdsim.study.loading import CONTRACTS
from kdsim.teachers import TEACHERS, Deterministic
from kdsim.trainer import StudentTrainer, Teacher, fit_teacher, teacher_scores
from kdsim.training import TrainedNetwork
from kdsim.training.fitted import FittedTeacher

CPU = torch.device("cpu")
pytestmark = pytest.mark.slow


@pytest.fixture(params=TEACHERS, ids=lambda kind: kind.name)
def case(request) -> Case:
    assert request.param.name in CASES, f"add {request.param.name} to tests/teachers/teacher_cases.py"
    found = CASES[request.param.name]()
    assert type(found.teacher) is request.param and found.teacher.count >= 2
    return found


@cache
def networks_of(training: StudentTrainer) -> tuple[TrainedNetwork, ...]:
    """Trained once for all tests."""
    return training.run().networks


@cache
def fitted_of(teacher: Teacher, number: int = 0) -> FittedTeacher:
    return fit_teacher(teacher, networks_of(teacher.training), teacher.training.pools(), number)


def said(teacher: Teacher, fitted: FittedTeacher, images: torch.Tensor, device: torch.device = CPU) -> torch.Tensor:
    return teacher.predictor(fitted, device, False)(images.to(device)).cpu()


def test_every_case_is_of_a_teacher():
    assert set(CASES) == {kind.name for kind in TEACHERS}


def test_gives_normalised_log_probabilities(case):
    teacher = case.teacher
    images = teacher.training.pools().test.x
    found = said(teacher, fitted_of(teacher), images)
    assert found.shape == (case.samples, len(images), 3) and not found.isnan().any()
    if case.samples > 1:  # one without samples may give logits
        assert found.logsumexp(-1).abs().max() < 1e-5
        assert (found[0] - found[1]).abs().max() > 1e-6
    assert (torch.log_softmax(found, -1).logsumexp(-1).abs() < 1e-5).all()


def test_an_image_is_told_the_same_in_any_company(case):
    """Row by row and in any order; the tolerance is that of sums in another order."""
    teacher = case.teacher
    images, predict = teacher.training.pools().test.x, teacher.predictor(fitted_of(teacher), CPU, False)
    whole = predict(images)
    torch.testing.assert_close(predict(images[3:5]), whole[:, 3:5], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predict(images.flip(0)), whole.flip(1), rtol=1e-4, atol=1e-5)


def test_is_a_function_of_configuration_and_number(case):
    """Fitted again and asked again, bit for bit the same; torch's generator is neither used nor moved."""
    teacher = case.teacher
    images, pools = teacher.training.pools().test.x, teacher.training.pools()
    first = fitted_of(teacher)
    expected = said(teacher, first, images)
    torch.manual_seed(12345)
    before = torch.get_rng_state()
    again = fit_teacher(teacher, networks_of(teacher.training), pools, 0)
    found = said(teacher, again, images)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.tensors.keys() == first.tensors.keys() and again.scores == first.scores
    assert all(torch.equal(again.tensors[name], value) for name, value in first.tensors.items())
    assert torch.equal(found, expected)


def test_another_teacher_of_the_configuration_differs(case):
    """Other networks, and where it draws random numbers other numbers."""
    teacher = case.teacher
    images = teacher.training.pools().test.x
    first, second = (fitted_of(teacher, number) for number in range(2))
    assert (first.number, second.number) == (0, 1) and len(first.networks) == teacher.members
    assert not {network.replica for network in first.networks} & {network.replica for network in second.networks}
    assert not torch.equal(said(teacher, first, images), said(teacher, second, images))
    renumbered = said(teacher, replace(first, number=1), images)
    assert torch.equal(renumbered, said(teacher, first, images)) != case.random


def test_survives_its_file(case, tmp_path):
    teacher, pools = case.teacher, case.teacher.training.pools()
    fitted = fitted_of(teacher)
    fitted.save(tmp_path / "teacher.safetensors")
    found = FittedTeacher.load(tmp_path / "teacher.safetensors")
    assert (found.teacher, found.kind, found.number) == (config.digest(teacher), teacher.name, 0)
    assert found.scores == fitted.scores == teacher_scores(teacher, found, pools.validation)
    assert found.tensors.keys() == fitted.tensors.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in fitted.tensors.items())
    assert torch.equal(said(teacher, found, pools.test.x), said(teacher, fitted, pools.test.x))


def test_what_is_stored_lies_on_the_cpu(case):
    fitted = fitted_of(case.teacher)
    for network in fitted.networks:
        assert all(tensor.device == CPU for tensor in network.weights.values())
    assert all(tensor.device == CPU and not tensor.requires_grad for tensor in fitted.tensors.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_says_the_same_on_a_gpu(case):
    teacher = case.teacher
    images, fitted = teacher.training.pools().test.x, fitted_of(teacher)
    expected, found = (said(teacher, fitted, images, device) for device in (CPU, torch.device("cuda")))
    torch.testing.assert_close(found.exp(), expected.exp(), rtol=0, atol=5e-3)  # convolutions in TF32


def test_never_looks_at_the_test_images(case):
    """Whatever is tuned is tuned on validation images: other test images, the same teacher."""
    teacher, pools = case.teacher, case.teacher.training.pools()
    other = Population(255 - pools.test.x, pools.test.p.flip(1), (pools.test.y + 1) % 3)
    found = fit_teacher(teacher, networks_of(teacher.training), Pools(*parts(pools), other, pools.provenance), 0)
    expected = fitted_of(teacher)
    assert found.scores == expected.scores
    assert all(torch.equal(found.tensors[name], value) for name, value in expected.tensors.items())


def parts(pools: Pools) -> tuple[Population, Population]:
    return pools.train, pools.validation


def test_scores_are_of_the_mean_over_samples(case):
    """Recomputed from probabilities. Of one network as it is, they are the network's own."""
    teacher, pool = case.teacher, case.teacher.training.pools().validation
    fitted = fitted_of(teacher)
    mean = torch.softmax(said(teacher, fitted, pool.x).double(), -1).mean(0)
    loss = -mean[torch.arange(len(mean)), pool.y].log().mean().item()
    assert fitted.scores["loss"] == pytest.approx(loss, rel=1e-6)
    assert fitted.scores["accuracy"] == pytest.approx((mean.argmax(-1) == pool.y).double().mean().item())
    if type(teacher) is Deterministic:
        assert fitted.scores["loss"] == pytest.approx(fitted.networks[0].scores["loss"], rel=1e-6)


def test_teaches(case):
    """Student replicas 0 and 1 learn from teachers 0 and 1; a student of one teacher alone is another."""
    teacher = case.teacher
    student = replace(CASES["deterministic"]().teacher.training, supervision=teacher, evaluations=1)
    fitted = [fitted_of(teacher, number) for number in range(teacher.count)]
    trained = student.run(teachers=fitted)
    assert torch.isfinite(trained.record.curves["loss"]).all() and (trained.record.diverged_at < 0).all()
    with pytest.raises(config.ConfigError, match="teacher 0 is"):
        student.run(teachers=fitted[::-1])


def test_is_a_configuration(case):
    """It has defaults, as `--set supervision=NAME` needs, and comes back from its stored form."""
    kinds = {kind for contract in CONTRACTS.values() for kind in contract} | {type(case.teacher.training.student)}
    kinds |= {StudentTrainer, CropFlip, Images}
    for teacher in (case.teacher, type(case.teacher)()):
        assert config.decode(config.encode(teacher), kinds) == teacher
        assert teacher.training.replicas % teacher.members == 0
    assert config.digest(case.teacher) != config.digest(replace(case.teacher, training=replace(student(case), seed=5)))


def student(case: Case) -> StudentTrainer:
    return case.teacher.training
