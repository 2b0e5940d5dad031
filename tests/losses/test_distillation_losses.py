"""The contract of a distillation loss, over all of them: shapes, weights, posterior samples, errors, JSON, presets."""

from __future__ import annotations

import dataclasses
import json
import math

import naive_losses as naive
import numpy as np
import pytest
import torch
from loss_cases import CLASSES, LOSSES, label_of, random_case

from kdsim import config
from kdsim.config import ConfigError
from kdsim.losses import (
    ABKD,
    DIST,
    DISTILLATION_LOSSES,
    DKD,
    KD,
    LTKD,
    PRESETS,
    TTM,
    WTTM,
    BalancedSoftmax,
    BayesianKD,
    Brier,
    CrossEntropy,
    DistillationLoss,
    LabelCrossEntropy,
    LogitAdjustment,
    LogitMSE,
    OutputMSE,
    SoftmaxLoss,
    Switched,
    average_posterior,
    kd,
    preset,
    warmup_factor,
)

every_loss = pytest.mark.parametrize("loss", LOSSES, ids=label_of)
every_class = pytest.mark.parametrize("cls", DISTILLATION_LOSSES, ids=lambda cls: cls.name)


@every_loss
def test_replicas_are_an_axis(loss):
    cases = [random_case(seed) for seed in range(3)]
    together = loss(*(torch.stack(part) for part in zip(*cases, strict=True)), 7)
    alone = torch.stack([loss(*case, 7) for case in cases])
    assert together.shape == (3,)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-13)


@every_loss
def test_gradients_of_replicas_by_vmap(loss):
    """As an engine takes them: torch.func's grad under vmap, each replica with its own student."""
    student = torch.stack([random_case(seed)[0] for seed in range(3)])
    _, teacher, labels = random_case(30)
    together = torch.func.vmap(torch.func.grad(lambda z: loss(z, teacher, labels, 7)))(student)
    for mine, gradient in zip(student, together, strict=True):
        mine.requires_grad_()
        (expected,) = torch.autograd.grad(loss(mine, teacher, labels, 7), mine)
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-13)


@every_loss
def test_half_precision_is_raised(loss):
    student, teacher, labels = random_case(31, dtype=torch.float32)
    student, teacher = student.bfloat16(), teacher.bfloat16()
    value = loss(student.requires_grad_(), teacher, labels, 7)
    torch.testing.assert_close(value, loss(student.float(), teacher.float(), labels, 7), rtol=0, atol=0)
    assert value.dtype == torch.float32
    (gradient,) = torch.autograd.grad(value, student)
    assert gradient.dtype == torch.bfloat16


# Posterior samples ------------------------------------------------------------------------


def posterior(samples: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(32)
    return 3 * torch.randn(samples, 4, CLASSES, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
def test_both_orders_of_tempering_and_averaging(temperature):
    samples = posterior()
    first = np.mean([naive.softmax(z, temperature) for z in samples.numpy()], 0)
    power = np.mean([naive.softmax(z) for z in samples.numpy()], 0) ** (1 / temperature)
    last = power / power.sum(-1, keepdims=True)
    for order, expected in (("temper-then-average", first), ("average-then-temper", last)):
        logits = average_posterior(samples, temperature=temperature, order=order)
        np.testing.assert_allclose(torch.softmax(logits / temperature, -1).numpy(), expected, rtol=1e-10)
        sums = (logits / temperature).exp().sum(-1) if order == "temper-then-average" else logits.exp().sum(-1)
        np.testing.assert_allclose(sums.numpy(), 1.0, rtol=1e-12)  # log-probabilities, not only up to a constant
    assert (np.abs(first - last).max() < 1e-14) == (temperature == 1.0)


@pytest.mark.parametrize("order", ["temper-then-average", "average-then-temper"])
def test_the_order_reaches_the_loss(order):
    student = random_case(33)[0]
    samples = posterior()
    loss = BayesianKD(1.0, 4.0, 2.0, posterior_order=order)
    value = loss(student, samples, None, 1)
    if order == "temper-then-average":
        p = np.mean([naive.softmax(z, 4.0) for z in samples.numpy()], 0)
    else:
        p = naive.softmax(np.log(np.mean([naive.softmax(z) for z in samples.numpy()], 0)), 4.0)
    q = naive.softmax(student.numpy(), 2.0)
    expected = 8.0 * np.mean([naive.divergence(p[i], q[i]) for i in range(4)])
    assert value.item() == pytest.approx(expected, rel=1e-10)
    other = dataclasses.replace(loss, posterior_order="temper-then-average")
    assert (other(student, samples, None, 1) == value) == (order == "temper-then-average")


@pytest.mark.parametrize("cls", [TTM, WTTM])
def test_ttm_tempers_samples_at_its_own_temperature(cls):
    """The student is matched to mean_s softmax(gamma z_s), and the weight is 1 / |p~|_T of that."""
    student, gamma = random_case(44)[0], 0.25
    p = np.mean([naive.softmax(gamma * z) for z in posterior().numpy()], 0)
    q = naive.softmax(student.numpy())
    weight = (p ** (1 / gamma)).sum(-1) ** -gamma if cls is WTTM else np.ones(4)
    expected = np.mean([weight[i] * naive.divergence(p[i], q[i]) for i in range(4)])
    assert cls(0.0, 1.0, gamma)(student, posterior(), None, 1).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if hasattr(loss, "temperature")], ids=label_of)
def test_tempered_losses_temper_samples_at_their_temperature(loss):
    student, _, labels = random_case(45)
    samples = posterior()
    scaled = (samples - samples.mean(-1, keepdim=True)) / samples.std(-1, keepdim=True)
    seen = scaled if loss.standardised else samples
    p = np.mean([naive.softmax(z, loss.temperature) for z in seen.numpy()], 0)
    teacher = loss.temperature * torch.from_numpy(np.log(p))
    if loss.standardised:
        student = (student - student.mean(-1, keepdim=True)) / student.std(-1, keepdim=True)
    plain = dataclasses.replace(loss, standardised=False, label_weight=0.0)
    value = dataclasses.replace(loss, label_weight=0.0)(random_case(45)[0], samples, labels, 30)
    torch.testing.assert_close(value, plain(student, teacher, labels, 30), rtol=1e-6, atol=1e-12)


@every_loss
def test_one_sample_is_the_teacher(loss):
    """LogitMSE needs the logits themselves, which the mean of its samples keeps."""
    student, teacher, labels = random_case(34)
    orders = ("temper-then-average", "average-then-temper") if isinstance(loss, SoftmaxLoss) else (None,)
    for order in orders:
        same = loss if order is None else dataclasses.replace(loss, posterior_order=order)
        torch.testing.assert_close(same(student, teacher[None], labels, 7), same(student, teacher, labels, 7))


def test_standardised_samples_are_standardised_each():
    student, _, labels = random_case(35)
    samples = posterior()
    scaled = samples * torch.tensor([0.1, 1, 2, 5, 9, 20], dtype=torch.float64)[:, None, None]
    loss = KD(standardised=True)
    torch.testing.assert_close(loss(student, scaled, labels, 1), loss(student, samples, labels, 1), rtol=1e-6, atol=0)


def test_mean_logits_have_the_gradient_of_the_mean_loss():
    student, _, _ = random_case(36)
    samples, loss = posterior(), LogitMSE(0.0)
    student.requires_grad_()
    (of_mean,) = torch.autograd.grad(loss(student, samples, None, 1), student)
    (mean_of,) = torch.autograd.grad(sum(loss(student, z, None, 1) for z in samples) / len(samples), student)
    torch.testing.assert_close(of_mean, mean_of)


def test_brier_against_posterior_means():
    student, _, _ = random_case(37)
    samples = posterior()
    mean = np.mean([naive.softmax(z) for z in samples.numpy()], 0)
    assert Brier(0.0, 1.0)(student, samples, None, 1).item() == pytest.approx(naive.brier(student.numpy(), mean))


# Warm-up, labels and errors ---------------------------------------------------------------


def test_warmup():
    assert [warmup_factor(epoch) for epoch in (0, 1, 10, 20, 240)] == [0.0, 0.05, 0.5, 1.0, 1.0]
    assert warmup_factor(1, epochs=0) == 1.0
    student, teacher, labels = random_case(38)
    loss = DKD(label_weight=0.0)
    early, late = (loss(student, teacher, labels, epoch) for epoch in (5, 25))
    torch.testing.assert_close(early, late / 4)
    no_warmup = dataclasses.replace(loss, warmup_epochs=0.0)
    torch.testing.assert_close(no_warmup(student, teacher, labels, 1), late)


def test_the_warmup_is_a_share_of_the_training():
    """The published 20 of 240 epochs: in a run of 12 the teacher's term is whole after the first."""
    assert DKD().for_epochs(12.0) == DKD(warmup_epochs=1.0)
    assert DKD(warmup_epochs=20.0).for_epochs(12.0) == DKD(warmup_epochs=20.0)  # its own goes first
    assert DKD(warmup_epochs=0.0).for_epochs(12.0) == DKD(warmup_epochs=0.0)
    assert KD().for_epochs(12.0) == KD()
    both = Switched(KD(), DKD()).for_epochs(12.0)
    assert both == Switched(KD(), DKD(warmup_epochs=1.0))


def test_dkd_with_two_classes_is_refused():
    student, teacher, labels = random_case(39, classes=2)
    with pytest.raises(ConfigError, match=r"K = 2 .* at least 3"):
        DKD()(student, teacher, labels, 1)


@every_loss
def test_labels_and_teacher_are_asked_for_where_they_are_looked_at(loss):
    student, teacher, labels = random_case(40)
    label_weight, teacher_weight = loss.weights
    if label_weight > 0:
        with pytest.raises(ConfigError, match="labels = None is not allowed"):
            loss(student, teacher, None, 1)
    if teacher_weight > 0:
        with pytest.raises(ConfigError, match=f"teacher logits = None .* {loss.name}"):
            loss(student, None, labels, 1)
    else:
        loss(student, None, labels, 1)


def test_dkd_needs_labels_without_cross_entropy_too():
    student, teacher, _ = random_case(41)
    with pytest.raises(ConfigError, match="labels = None"):
        DKD(label_weight=0.0)(student, teacher, None, 30)


def test_wrong_shapes_are_refused():
    student, teacher, labels = random_case(42)
    for wrong in (teacher[:, :-1], teacher[:-1], teacher[0], teacher[None, None], teacher[None, :, :-1]):
        with pytest.raises(ConfigError, match=r"teacher logits of shape .* must be"):
            KD()(student, wrong, labels, 1)
    for wrong in (labels[:-1], labels[:, None], labels.double(), torch.nn.functional.one_hot(labels)):
        with pytest.raises(ConfigError, match=r"labels of shape .* must be int64"):
            KD()(student, teacher, wrong, 1)
    with pytest.raises(ConfigError, match=r"class_counts = '4 numbers' .* 5, one for each class"):
        LTKD(class_counts=(4, 3, 2, 1))(student, teacher, labels, 1)


NOT_POSITIVE = (0, -1.0, math.inf, math.nan, "4", None, True)
NOT_A_WEIGHT = (-0.1, math.inf, math.nan, "1", None, True)
REFUSED = {
    KD: {"temperature": NOT_POSITIVE, "label_weight": NOT_A_WEIGHT, "teacher_weight": NOT_A_WEIGHT,
         "posterior_order": ("mean", None), "standardised": (1, "yes")},
    BayesianKD: {"alpha": (*NOT_A_WEIGHT, 1.1), "teacher_temperature": NOT_POSITIVE,
                 "student_temperature": NOT_POSITIVE},
    LogitMSE: {"teacher_weight": NOT_A_WEIGHT, "centred": (1, "yes")},
    DKD: {"alpha": NOT_A_WEIGHT, "beta": NOT_A_WEIGHT, "temperature": NOT_POSITIVE,
          "warmup_epochs": tuple(value for value in NOT_A_WEIGHT if value is not None)},
    DIST: {"beta": NOT_A_WEIGHT, "gamma": NOT_A_WEIGHT, "temperature": NOT_POSITIVE},
    TTM: {"gamma": NOT_POSITIVE},
    WTTM: {"gamma": NOT_POSITIVE},
    LTKD: {"alpha": NOT_A_WEIGHT, "beta": NOT_A_WEIGHT, "class_counts": (7, "321", (3, 2, 0.5), (2, -1, 3), (1, 1)),
           "shares": ((0.5, 0.4), (1.5, -0.5), 1.0), "rebalance": (1, "no"), "equal_groups": (0, None)},
    ABKD: {"alpha": (*NOT_A_WEIGHT, 1e-4), "beta": (*NOT_A_WEIGHT, 1e-4)},
    Brier: {"label_weight": NOT_A_WEIGHT},
    OutputMSE: {"teacher_weight": NOT_A_WEIGHT},
    BalancedSoftmax: {"label_weight": NOT_A_WEIGHT, "class_counts": (7, "32", (3, 0), (3, math.nan))},
    LogitAdjustment: {"tau": NOT_A_WEIGHT},
    Switched: {"first": (None, "kd", KD), "second": (1.0,), "at_epoch": NOT_POSITIVE},
}  # fmt: skip


@pytest.mark.parametrize("cls", REFUSED, ids=lambda cls: cls.name)
def test_bad_settings_are_refused(cls):
    for field, values in REFUSED[cls].items():
        for value in values:
            with pytest.raises(ConfigError, match="is not allowed: must be"):
                cls(**{field: value})
    if "label_weight" in {field.name for field in dataclasses.fields(cls)}:
        with pytest.raises(ConfigError, match="> 0 where label_weight is 0"):
            cls(label_weight=0.0, teacher_weight=0.0)


def test_every_class_is_among_them():
    assert set(REFUSED) == set(DISTILLATION_LOSSES) - {CrossEntropy, LabelCrossEntropy}


# Configuration ----------------------------------------------------------------------------


@every_class
def test_class_attributes(cls):
    assert issubclass(cls, DistillationLoss) and cls.__dataclass_params__.frozen
    assert config.by_name(DISTILLATION_LOSSES)[cls.name] is cls
    documented = " ".join(base.__doc__ or "" for base in cls.__mro__)
    for field in dataclasses.fields(cls):
        assert any(mark in documented for mark in (f"{field.name}:", f"{field.name},", f", {field.name}:")), field.name


@every_loss
def test_json_form_round_trip(loss):
    assert config.decode(json.loads(json.dumps(config.encode(loss))), DISTILLATION_LOSSES) == loss


def test_digests_tell_all_apart():
    assert len({config.digest(loss) for loss in LOSSES}) == len(LOSSES)
    assert config.digest(KD()) != config.digest(KD(posterior_order="average-then-temper"))
    assert config.digest(KD(temperature=4)) == config.digest(KD(temperature=4.0))


def test_overrides_from_text():
    settings = {"temperature": "2", "standardised": "true", "posterior_order": "average-then-temper"}
    assert config.override(KD(), settings, {}) == KD(
        temperature=2.0, standardised=True, posterior_order="average-then-temper"
    )
    with pytest.raises(ConfigError, match="posterior_order"):
        config.override(KD(), {"posterior_order": "average"}, {})


def test_a_switched_loss_is_set_from_text():
    kinds = {DistillationLoss: config.by_name(DISTILLATION_LOSSES)}
    settings = {"first": "kd", "first.temperature": "2", "second": "label-cross-entropy", "at_epoch": "3"}
    assert config.override(Switched(), settings, kinds) == Switched(KD(temperature=2.0), LabelCrossEntropy(), 3.0)


# Class counts and switches ----------------------------------------------------------------


def test_shares_of_the_training_data_stand_in_for_missing_counts():
    shares = (0.5, 0.2, 0.1, 0.1, 0.1)
    student, teacher, labels = random_case(50)
    for loss in (BalancedSoftmax(0.5, 0.5), LogitAdjustment(tau=2.0)):
        told = loss.for_class_shares(shares)
        assert told == dataclasses.replace(loss, class_counts=shares)
        assert told.for_class_shares((1.0, 2.0)) is told  # its own go first
        thousand = dataclasses.replace(loss, class_counts=tuple(1000 * share for share in shares))
        torch.testing.assert_close(told(student, teacher, labels, 1), thousand(student, teacher, labels, 1))
        with pytest.raises(ConfigError, match=r"class_counts = '0 numbers' .* 5, one for each class"):
            loss(student, teacher, labels, 1)
    assert KD().for_class_shares(shares) == KD()
    both = Switched(BalancedSoftmax(), LogitAdjustment()).for_class_shares(shares)
    assert (both.first.class_counts, both.second.class_counts) == (shares, shares)


def test_a_loss_changes_at_its_epoch_both_ways():
    student, teacher, labels = random_case(51)
    alone, taught = LabelCrossEntropy(), KD()
    for first, second in ((alone, taught), (taught, alone)):
        loss = Switched(first, second, at_epoch=3.0)
        for epoch, active in ((1, first), (2.999, first), (3.0, second), (9, second)):
            assert loss(student, teacher, labels, epoch) == active(student, teacher, labels, epoch)
        for missing in ((None, labels), (teacher, None)):  # asked for in the first epoch, whichever loss it has
            with pytest.raises(ConfigError, match="= None is not allowed"):
                loss(student, *missing, 1)


# Presets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "beta", "gamma", "ttm", "wttm"),
    [
        ("wrn-40-2 to wrn-16-2", 6, 0.1, 101, 4),
        ("resnet32x4 to resnet8x4", 8, 0.1, 100, 3),
        ("resnet56 to resnet20", 2, 0.3, 7, 1.5),
    ],
)
def test_published_settings(pair, beta, gamma, ttm, wttm):
    assert preset(pair, "dkd") == DKD(1.0, 1.0, 4.0, alpha=1.0, beta=beta)
    assert preset(pair, "dkd").for_epochs(240.0).warmup_epochs == pytest.approx(20)
    assert preset(pair, "ttm") == TTM(1.0, ttm, gamma)
    assert preset(pair, "wttm") == WTTM(1.0, wttm, gamma)
    assert preset(pair, "kd") == KD(0.1, 0.9, 4.0, standardised=False)
    assert preset(pair, "kd-standardised") == KD(0.1, 9.0, 2.0, standardised=True)
    assert preset(pair, "dist") == DIST(1.0, 1.0, 4.0, beta=1.0, gamma=1.0)


def test_other_presets():
    assert preset("resnet56 to resnet20", "abkd") == ABKD(1.0, 32.0, 4.0, alpha=0.8, beta=0.3)
    with pytest.raises(ConfigError, match=r"preset for wrn-40-2 to wrn-16-2 'abkd'.*allowed: kd, "):
        preset("wrn-40-2 to wrn-16-2", "abkd")
    with pytest.raises(ConfigError, match=r"pair of networks 'wrn-40-2 to wrn-40-1' .nearest: wrn-40-2 to wrn-16-2"):
        preset("wrn-40-2 to wrn-40-1", "kd")
    assert all(type(loss) in DISTILLATION_LOSSES for named in PRESETS.values() for loss in named.values())


def test_the_plain_function_is_the_teacher_term():
    student, teacher, _ = random_case(43)
    assert KD(0.0, 1.0, 3.0)(student, teacher, None, 1) == kd(student, teacher, temperature=3.0)
