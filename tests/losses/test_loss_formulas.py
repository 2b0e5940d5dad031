"""Every loss against its formula, evaluated naively."""

from __future__ import annotations

import naive_losses as naive
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from loss_cases import COUNTS, LOSSES, SEEDS, TEMPERATURES, WEIGHTS, cases, label_of, random_case

from kdsim import losses
from kdsim.losses import (
    ABKD,
    DIST,
    DKD,
    KD,
    LTKD,
    TTM,
    WTTM,
    BalancedSoftmax,
    BayesianKD,
    Brier,
    LogitAdjustment,
    LogitMSE,
    OutputMSE,
    Switched,
)

GAMMAS = st.floats(0.05, 2.0)
EXPONENTS = st.floats(0.1, 2.0) | st.floats(-0.6, -0.1)


def same(value: torch.Tensor, expected: float, rtol: float = 1e-9) -> None:
    assert value.dtype == torch.float64 and value.shape == ()
    assert value.item() == pytest.approx(expected, rel=rtol, abs=1e-11)


@given(cases(2), TEMPERATURES)
def test_kd(case, temperature):
    student, teacher, _ = case
    expected = naive.kd(student.numpy(), teacher.numpy(), temperature)
    same(losses.kd(student, teacher, temperature=temperature), expected)


@given(cases(2), TEMPERATURES, TEMPERATURES)
def test_bayesian_kd(case, hot, cool):
    student, teacher, _ = case
    value = losses.bayesian_kd(student, teacher, teacher_temperature=hot, student_temperature=cool)
    same(value, naive.bayesian_kd(student.numpy(), teacher.numpy(), hot, cool))


@given(cases(2), st.booleans())
def test_logit_mse(case, centred):
    student, teacher, _ = case
    same(
        losses.logit_mse(student, teacher, centred=centred), naive.logit_mse(student.numpy(), teacher.numpy(), centred)
    )


@given(cases(), TEMPERATURES, WEIGHTS, WEIGHTS, st.floats(0, 1))
def test_dkd(case, temperature, alpha, beta, factor):
    student, teacher, labels = case
    settings = {"temperature": temperature, "alpha": alpha, "beta": beta, "factor": factor}
    expected = naive.dkd(student.numpy(), teacher.numpy(), labels.numpy(), **settings)
    same(losses.dkd(student, teacher, labels, **settings), expected, rtol=1e-7)


CERTAIN = torch.tensor([[7.7, -1.4, -10.9], [2.8, -5.4, -7.0]], dtype=torch.float64)
"""Logits of a student whose probabilities of the last class vary by less than 1e-8 at temperature 0.5."""
UNCERTAIN = torch.tensor([[2.0, 4.2, -3.6], [-2.0, -3.0, 0.9]], dtype=torch.float64)


@given(cases(), TEMPERATURES, WEIGHTS, WEIGHTS)
@example((CERTAIN, UNCERTAIN, torch.tensor([2, 2])), 0.5, 0.0, 1.0)
def test_dist(case, temperature, beta, gamma):
    student, teacher, _ = case
    settings = {"temperature": temperature, "beta": beta, "gamma": gamma}
    same(losses.dist(student, teacher, **settings), naive.dist(student.numpy(), teacher.numpy(), **settings), rtol=1e-7)


@given(cases(2), GAMMAS)
def test_ttm(case, gamma):
    student, teacher, _ = case
    same(losses.ttm(student, teacher, gamma=gamma), naive.ttm(student.numpy(), teacher.numpy(), gamma))


@given(cases(2), GAMMAS)
def test_wttm(case, gamma):
    student, teacher, _ = case
    same(losses.wttm(student, teacher, gamma=gamma), naive.ttm(student.numpy(), teacher.numpy(), gamma, weighted=True))


@given(cases(2))
def test_standardise(case):
    logits = case[0]
    expected = naive.standardise(logits.numpy())
    np.testing.assert_allclose(losses.standardise(logits).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_standardised_logits_are_those_of_the_published_code():
    """Sun et al. 2024 take torch's standard deviation, over K - 1. By hand at K = 3: (-1, 0, 1), where K gives 1.22."""
    assert losses.standardise(torch.tensor([1.0, 3.0, 5.0])).tolist() == pytest.approx([-1, 0, 1], rel=1e-6)
    for classes in (3, 10, 100):
        logits = torch.randn(5, classes, generator=torch.Generator().manual_seed(classes), dtype=torch.float64)
        published = (logits - logits.mean(dim=-1, keepdim=True)) / (1e-7 + logits.std(dim=-1, keepdim=True))
        torch.testing.assert_close(losses.standardise(logits), published, rtol=1e-12, atol=1e-13)
    assert losses.standardise(torch.tensor([[2.0]])).tolist() == [[0.0]]


@given(cases(), TEMPERATURES, WEIGHTS, WEIGHTS, SEEDS)
def test_ltkd(case, temperature, alpha, beta, seed):
    student, teacher, _ = case
    classes = student.shape[-1]
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    groups = order[: classes // 3], order[classes // 3 : classes - 1], order[classes - 1 :]
    settings = {"temperature": temperature, "alpha": alpha, "beta": beta}
    expected = naive.ltkd(student.numpy(), teacher.numpy(), [group.numpy() for group in groups], **settings)
    same(losses.ltkd(student, teacher, groups, **settings), expected)


@given(cases(2), TEMPERATURES, EXPONENTS, EXPONENTS)
def test_abkd(case, temperature, alpha, beta):
    if abs(alpha + beta) < 0.05:  # the general formula loses its digits there; its limits have tests of their own
        beta += 0.2
    student, teacher, _ = case
    settings = {"temperature": temperature, "alpha": alpha, "beta": beta}
    same(losses.abkd(student, teacher, **settings), naive.abkd(student.numpy(), teacher.numpy(), **settings), rtol=1e-7)


@given(cases(2))
def test_brier(case):
    student, teacher, labels = case
    q = torch.softmax(teacher, -1)
    same(losses.brier(student, q), naive.brier(student.numpy(), q.numpy()))
    one_hot = np.eye(student.shape[-1])[labels.numpy()]
    same(Brier()(student, None, labels, 1), naive.brier(student.numpy(), one_hot))
    same(OutputMSE()(student, None, labels, 1), np.mean((student.numpy() - one_hot) ** 2))


@given(cases(2))
def test_label_cross_entropy(case):
    student, _, labels = case
    same(losses.label_cross_entropy(student, labels), naive.cross_entropy(student.numpy(), labels.numpy()))


# Configurations ---------------------------------------------------------------------------

EQUAL_THIRDS = [np.array([0, 1]), np.array([2]), np.array([3, 4])]  # 5 classes, 33/34/33 %
WHOLE = {
    losses.CrossEntropy(): lambda z, t, y: -(naive.softmax(t) * np.log(naive.softmax(z))).sum(-1).mean(),
    KD(0.3, 2.0, 3.0): lambda z, t, y: 0.3 * naive.cross_entropy(z, y) + 2.0 * naive.kd(z, t, 3.0),
    KD(0.1, 9.0, 2.0, standardised=True): lambda z, t, y: (
        0.1 * naive.cross_entropy(z, y) + 9.0 * naive.kd(naive.standardise(z), naive.standardise(t), 2.0)
    ),
    BayesianKD(0.7, 4.0, 2.0): lambda z, t, y: (
        0.3 * naive.cross_entropy(z, y) + 0.7 * naive.bayesian_kd(z, t, 4.0, 2.0)
    ),
    LogitMSE(1.0, 0.5): lambda z, t, y: naive.cross_entropy(z, y) + 0.5 * naive.logit_mse(z, t),
    DKD(beta=6.0): lambda z, t, y: naive.cross_entropy(z, y) + naive.dkd(z, t, y, 4.0, 1.0, 6.0, factor=5 / 20),
    DIST(1.0, 2.0, 1.0): lambda z, t, y: naive.cross_entropy(z, y) + 2.0 * naive.dist(z, t, 1.0, 1.0, 1.0),
    TTM(1.0, 7.0, 0.3): lambda z, t, y: naive.cross_entropy(z, y) + 7.0 * naive.ttm(z, t, 0.3),
    WTTM(1.0, 1.5, 0.3): lambda z, t, y: naive.cross_entropy(z, y) + 1.5 * naive.ttm(z, t, 0.3, weighted=True),
    LTKD(): lambda z, t, y: naive.cross_entropy(z, y) + naive.ltkd(z, t, EQUAL_THIRDS, 4.0, 1.0, 1.0),
    ABKD(teacher_weight=32.0, alpha=0.8, beta=0.3): lambda z, t, y: (
        naive.cross_entropy(z, y) + 32.0 * naive.abkd(z, t, 4.0, 0.8, 0.3)
    ),
    Brier(1.0, 2.0): lambda z, t, y: naive.brier(z, np.eye(5)[y]) + 2.0 * naive.brier(z, naive.softmax(t)),
    OutputMSE(0.0, 2.0): lambda z, t, y: 2.0 * np.mean((z - naive.softmax(t)) ** 2),
    LTKD(rebalance=False): lambda z, t, y: (
        naive.cross_entropy(z, y) + naive.ltkd(z, t, EQUAL_THIRDS, 4.0, 1.0, 1.0, rebalance=False)
    ),
    LTKD(alpha=0.7, equal_groups=False): lambda z, t, y: (
        naive.cross_entropy(z, y) + naive.ltkd(z, t, EQUAL_THIRDS, 4.0, 0.7, 1.0, equal_groups=False)
    ),
    BalancedSoftmax(0.3, 0.7, COUNTS): lambda z, t, y: (
        0.3 * naive.adjusted(z, np.eye(5)[y], COUNTS) + 0.7 * naive.adjusted(z, naive.softmax(t), COUNTS)
    ),
    LogitAdjustment(0.0, 2.0, COUNTS, tau=1.5): lambda z, t, y: 2.0 * naive.adjusted(z, naive.softmax(t), COUNTS, 1.5),
    Switched(LTKD(), KD(0.3, 2.0, 3.0), at_epoch=5.0): lambda z, t, y: (
        0.3 * naive.cross_entropy(z, y) + 2.0 * naive.kd(z, t, 3.0)
    ),
}


@pytest.mark.parametrize("loss", WHOLE, ids=label_of)
def test_configurations_put_the_terms_together(loss):
    student, teacher, labels = random_case(7)
    expected = WHOLE[loss](student.numpy(), teacher.numpy(), labels.numpy())
    same(loss(student, teacher, labels, 5), expected)


def test_every_teacher_term_is_among_them():
    assert {type(loss) for loss in WHOLE} == set(losses.DISTILLATION_LOSSES) - {losses.LabelCrossEntropy}
    assert {type(loss) for loss in LOSSES} == set(losses.DISTILLATION_LOSSES)
