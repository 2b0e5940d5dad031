"""Identities of the losses: decompositions, limits, invariances, zeros."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import CLASSES, LOSSES, TEMPERATURES, WEIGHTS, cases, label_of, random_case

from kdsim import losses
from kdsim.config import ConfigError
from kdsim.losses import (
    ABKD,
    DIST,
    DKD,
    KD,
    LTKD,
    TTM,
    BalancedSoftmax,
    BayesianKD,
    LogitAdjustment,
    LogitMSE,
    alpha_beta_divergence,
)
from kdsim.losses.dkd import decoupled
from kdsim.losses.ltkd import grouped, rebalanced
from kdsim.losses.terms import kl, tempered
from kdsim.losses.ttm import power_sum


def close(value: torch.Tensor, expected: torch.Tensor, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    torch.testing.assert_close(value, expected, rtol=rtol, atol=atol)


@given(cases(), TEMPERATURES)
def test_dkd_decomposes_the_divergence(case, temperature):
    """KL(p, q) = KL(b_t, b_s) + (1 - p_y) KL(p^, q^)."""
    student, teacher, labels = case
    target_t, rest_t = decoupled(teacher, labels, temperature)
    target_s, rest_s = decoupled(student, labels, temperature)
    whole = kl(tempered(teacher, temperature), tempered(student, temperature))
    close(kl(target_t, target_s) + target_t[..., 1].exp() * kl(rest_t, rest_s), whole)


@given(cases(), TEMPERATURES)
def test_ltkd_decomposes_the_divergence(case, temperature):
    """KL(p, q) = KL(P, Q) + sum_G P_G KL(p~_G, q~_G)."""
    student, teacher, _ = case
    groups = losses.class_groups(range(student.shape[-1]))
    log_p, log_q = tempered(teacher, temperature), tempered(student, temperature)
    (whole_t, within_t), (whole_s, within_s) = (grouped(z / temperature, groups) for z in (teacher, student))
    parts = sum(whole_t[:, g].exp() * kl(within_t[g], within_s[g]) for g in range(3))
    close(kl(whole_t, whole_s) + parts, kl(log_p, log_q))


@given(cases())
def test_rebalancing_gives_every_group_its_share(case):
    """Before it is normalised, s_G P_iG sums to B / M over the batch; a balanced batch is left alone."""
    whole, _ = grouped(case[1] / 2, losses.class_groups(range(case[1].shape[-1])))
    groups, batch = whole.shape[-1], len(whole)
    scaled = batch / groups / whole.exp().sum(0) * whole.exp()
    close(scaled.sum(0), torch.full((groups,), batch / groups, dtype=torch.float64))
    close(rebalanced(whole).exp(), scaled / scaled.sum(-1, keepdim=True))
    balanced = torch.stack([whole[0].roll(shift) for shift in range(groups)])
    close(rebalanced(balanced), balanced)


@given(cases(), TEMPERATURES, WEIGHTS, WEIGHTS)
def test_ltkd_parts_are_switched_by_their_weights(case, temperature, alpha, beta):
    student, teacher, _ = case
    groups = losses.class_groups(range(student.shape[-1]))

    def value(alpha, beta):
        return losses.ltkd(student, teacher, groups, temperature=temperature, alpha=alpha, beta=beta)

    close(value(alpha, beta), alpha * value(1.0, 0.0) + beta * value(0.0, 1.0))
    assert value(0.0, 0.0) == 0


@given(cases(), TEMPERATURES)
def test_ltkd_without_its_corrections_is_kd(case, temperature):
    """T^2 KL(p_T, q_T) exactly; each correction alone changes it, and both are what the published loss has."""
    student, teacher, labels = case
    plain = LTKD(0.0, temperature=temperature, rebalance=False, equal_groups=False)
    whole = temperature**2 * kl(tempered(teacher, temperature), tempered(student, temperature)).mean(-1)
    close(plain(student, teacher, labels, 1), whole, rtol=1e-10, atol=1e-10)
    same = KD(0.0, 1.0, temperature)
    close(plain(student, teacher, labels, 1), same(student, teacher, labels, 1), rtol=1e-10, atol=1e-10)


def test_each_correction_of_ltkd_is_seen():
    student, teacher, labels = random_case(52)
    values = [
        LTKD(0.0, rebalance=first, equal_groups=second)(student, teacher, labels, 1).item()
        for first in (True, False)
        for second in (True, False)
    ]
    assert min(abs(a - b) for i, a in enumerate(values) for b in values[:i]) > 1e-3


def test_rebalancing_a_whole_population_is_a_prior_shift_between_groups():
    """At T = 1 and over all of a population, P' is the BCP of the groups under equal group priors: Bayes' rule.

    A batch stands for the population up to its size.
    """
    generator = torch.Generator().manual_seed(53)
    p = torch.softmax(2 * torch.randn(400, CLASSES, dtype=torch.float64, generator=generator), -1)
    whole, _ = grouped(p.log(), losses.class_groups(range(CLASSES)))
    prior = whole.exp().mean(0)
    expected = whole.exp() / prior
    close(rebalanced(whole).exp(), expected / expected.sum(-1, keepdim=True))


@given(cases(2), st.floats(0.0, 3.0))
def test_logit_adjustment_moves_the_logits_alone(case, tau):
    """tau = 1 is balanced softmax, 0 the cross-entropy; equal counts change nothing at any tau."""
    student, teacher, labels = case
    classes = student.shape[-1]
    counts = tuple(float(1 + (3 * k) % 7) for k in range(classes))
    at = lambda tau, counts=counts: LogitAdjustment(0.4, 0.6, counts, tau=tau)(student, teacher, labels, 1)  # noqa: E731
    close(at(1.0), BalancedSoftmax(0.4, 0.6, counts)(student, teacher, labels, 1))
    plain = 0.4 * losses.label_cross_entropy(student, labels) + 0.6 * losses.CrossEntropy()(student, teacher, None, 1)
    close(at(0.0), plain)
    close(at(tau, (3.0,) * classes), plain)


@given(cases(2), st.floats(0.0, 3.0))
def test_the_minimiser_of_an_adjusted_loss_is_the_bcp_under_another_prior(case, tau):
    """Fitted to p under the prior pi, softmax(z) is p pi^(-tau), normalised: Bayes' rule to the prior pi^(1 - tau)."""
    _, teacher, _ = case
    p = torch.softmax(teacher, -1)
    counts = tuple(float(1 + (3 * k) % 7) for k in range(p.shape[-1]))
    best = p / torch.tensor(counts, dtype=torch.float64) ** tau
    student = best.log().requires_grad_()
    value = LogitAdjustment(0.0, 1.0, counts, tau=tau)(student, teacher, None, 1)
    (gradient,) = torch.autograd.grad(value, student)
    assert gradient.abs().max() < 1e-12
    close(value, -(p * p.log()).sum(-1).mean())  # the entropy of p: no student does better


def test_class_groups():
    assert [len(group) for group in losses.class_groups(range(100))] == [33, 34, 33]
    assert [len(group) for group in losses.class_groups(range(10))] == [3, 4, 3]
    head, medium, tail = losses.class_groups([5, 100, 7, 50, 50, 1])
    assert (head.tolist(), medium.tolist(), tail.tolist()) == ([1, 3], [4, 2], [0, 5])
    with pytest.raises(ConfigError, match=r"shares = .* is not allowed.* 2 classes empty"):
        losses.class_groups([3, 2])
    with pytest.raises(ConfigError, match=r"shares = \(0.5, 0.4\)"):
        losses.class_groups(range(10), (0.5, 0.4))


@given(cases(2))
def test_logit_mse_is_the_limit_of_kd(case):
    """T^2 KL(p_T, q_T) tends to |centred z_s - centred z_t|^2 / 2K, half of the centred logit MSE, as T grows."""
    student, teacher, _ = case
    limit = losses.logit_mse(student, teacher, centred=True) / 2
    close(losses.kd(student, teacher, temperature=1e4), limit, rtol=5e-3)
    near, nearer = (abs(losses.kd(student, teacher, temperature=t) / limit - 1) for t in (1e2, 1e3))
    assert nearer < near / 5 or nearer < 1e-4


@given(cases(2), TEMPERATURES)
def test_bayesian_kd_at_one_temperature_is_kd(case, temperature):
    student, teacher, _ = case
    both = {"teacher_temperature": temperature, "student_temperature": temperature}
    close(losses.bayesian_kd(student, teacher, **both), losses.kd(student, teacher, temperature=temperature))


@given(cases(2), st.floats(0.05, 1.0))
def test_wttm_weights(case, gamma):
    """1 <= U <= K^(1 - gamma), and U = 1 / |p_T|_T."""
    teacher = case[1]
    weight = power_sum(teacher, gamma)
    assert (weight >= 1 - 1e-12).all() and (weight <= teacher.shape[-1] ** (1 - gamma) + 1e-12).all()
    p = torch.softmax(gamma * teacher, -1)
    close(weight, 1 / p.pow(1 / gamma).sum(-1).pow(gamma))


# The alpha-beta divergence ----------------------------------------------------------------


def distributions(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    student, teacher, _ = random_case(seed, batch=6, scale=1.0)
    return torch.log_softmax(teacher, -1), torch.log_softmax(student, -1)


STEP = 1e-4  # means over both sides of a limit leave an error of order STEP^2


@pytest.mark.parametrize("exponent", [0.3, 0.8, 1.0, 1.7, -0.5])
@pytest.mark.parametrize("limit", ["beta = 0", "alpha = 0", "alpha + beta = 0"])
def test_limits_by_continuity(exponent, limit):
    """At an exponent other than 1 this tells 1/a^2 from 1/a."""
    log_p, log_q = distributions(3)
    near = {
        "beta = 0": lambda step: (exponent, step),
        "alpha = 0": lambda step: (step, exponent),
        "alpha + beta = 0": lambda step: (exponent, -exponent + step),
    }[limit]
    around = [alpha_beta_divergence(log_p, log_q, *near(step)) for step in (-STEP, STEP)]
    close(alpha_beta_divergence(log_p, log_q, *near(0.0)), (around[0] + around[1]) / 2, rtol=1e-6, atol=1e-8)


def test_both_exponents_zero_by_continuity():
    log_p, log_q = distributions(4)
    around = [alpha_beta_divergence(log_p, log_q, step, step / 2) for step in (-STEP, STEP)]
    close(alpha_beta_divergence(log_p, log_q, 0.0, 0.0), (around[0] + around[1]) / 2, rtol=1e-5, atol=1e-6)


def test_special_cases_of_the_divergence():
    log_p, log_q = distributions(5)
    p, q = log_p.exp(), log_q.exp()
    close(alpha_beta_divergence(log_p, log_q, 1.0, 0.0), kl(log_p, log_q))
    close(alpha_beta_divergence(log_p, log_q, 0.0, 1.0), kl(log_q, log_p))
    close(alpha_beta_divergence(log_p, log_q, 1.0, 1.0), (p - q).square().sum(-1) / 2)
    close(alpha_beta_divergence(log_p, log_q, 0.5, 0.5), 2 * (p.sqrt() - q.sqrt()).square().sum(-1))  # 4 Hellinger^2
    close(alpha_beta_divergence(log_p, log_q, 1.0, -1.0), (p / q - (p / q).log() - 1).sum(-1))


TENTHS = st.integers(-15, 15).map(lambda number: number / 10)


@given(cases(2), TENTHS, TENTHS)
def test_the_divergence_is_positive_and_dual(case, alpha, beta):
    log_q, log_p = (torch.log_softmax(logits / 4, -1) for logits in case[:2])
    forward = alpha_beta_divergence(log_p, log_q, alpha, beta)
    assert (forward > 0).all()
    close(forward, alpha_beta_divergence(log_q, log_p, beta, alpha), rtol=1e-7)


# Invariances and zeros --------------------------------------------------------------------

SHIFTED_BY = (-30.0, 1000.0)


@pytest.mark.parametrize("loss", LOSSES, ids=label_of)
def test_only_raw_outputs_notice_a_shift_of_a_row(loss):
    student, teacher, labels = random_case(11)
    value = loss(student, teacher, labels, 30)
    moved = loss(student + SHIFTED_BY[0], teacher + SHIFTED_BY[1], labels, 30)
    raw = loss.name == "output-mse" or loss == LogitMSE()
    assert torch.allclose(moved, value, rtol=1e-8, atol=1e-10) != raw


@pytest.mark.parametrize("loss", LOSSES, ids=label_of)
def test_log_probabilities_are_logits(loss):
    student, teacher, labels = random_case(12)
    log_probs = torch.log_softmax(teacher, -1)
    same = torch.allclose(loss(student, teacher, labels, 30), loss(student, log_probs, labels, 30), rtol=1e-10)
    assert same != (loss == LogitMSE())


ZERO_AT_THE_TEACHER = (
    KD(0.0, 1.0),
    KD(0.0, 1.0, standardised=True),
    BayesianKD(1.0, 3.0, 3.0),
    LogitMSE(0.0),
    LogitMSE(0.0, centred=True),
    DKD(0.0),
    DIST(0.0),
    ABKD(0.0),
    ABKD(0.0, alpha=0.0, beta=0.0),
    ABKD(0.0, alpha=0.5, beta=0.0),
    ABKD(0.0, alpha=0.0, beta=0.5),
    TTM(0.0, gamma=1.0),
)


@pytest.mark.parametrize("loss", ZERO_AT_THE_TEACHER, ids=label_of)
def test_zero_and_stationary_where_the_student_is_the_teacher(loss):
    teacher, other, labels = random_case(13)
    student = teacher.clone().requires_grad_()
    value = loss(student, teacher, labels, 30)
    (gradient,) = torch.autograd.grad(value, student)
    assert abs(value.item()) < 1e-13 and gradient.abs().max() < 1e-13
    assert loss(other, teacher, labels, 30) > 1e-3


def test_zeros_of_the_others():
    """TTM where softmax(z_s) = p_T; LTKD within groups at the teacher; Brier where softmax(z) = q."""
    teacher, _, _ = random_case(14)
    assert abs(losses.ttm(0.3 * teacher, teacher, gamma=0.3)) < 1e-14
    assert abs(losses.wttm(0.3 * teacher, teacher, gamma=0.3)) < 1e-14
    groups = losses.class_groups(range(CLASSES))
    assert abs(losses.ltkd(teacher, teacher, groups, alpha=0.0)) < 1e-13
    assert losses.ltkd(teacher, teacher, groups, beta=0.0) > 1e-4  # rebalanced: not the teacher
    assert losses.brier(teacher, torch.softmax(teacher, -1)) == 0


def test_dist_does_not_see_scale_and_offset_of_probabilities():
    """r = 1 for q = a + b p with b > 0, here a mixture with the uniform distribution."""
    _, teacher, _ = random_case(15)
    mixture = 0.3 / CLASSES + 0.7 * torch.softmax(teacher, -1)
    assert losses.kd(mixture.log(), teacher, temperature=1.0) > 1e-3
    assert abs(losses.dist(mixture.log(), teacher)) < 1e-13


def test_dist_of_a_batch_of_one_has_no_columns():
    student, teacher, _ = random_case(16, batch=1)
    rows = losses.dist(student, teacher, gamma=0.0)
    close(losses.dist(student, teacher, gamma=1.0), rows + 1)


def test_standardised_logits_do_not_see_scale():
    student = random_case(17)[0]
    close(losses.standardise(3.0 * student + 5.0), losses.standardise(student), rtol=1e-6)
    standard = losses.standardise(student)
    close(standard.mean(-1), torch.zeros(4, dtype=torch.float64))
    close(standard.std(-1), torch.ones(4, dtype=torch.float64), rtol=1e-6)


def test_equal_logits_standardise_to_zero_exactly():
    """In float32 the mean of a hundred equal numbers is not that number."""
    row = torch.full((1, 100), 1e4 / 3)
    assert (row - row.mean(-1, keepdim=True)).abs().max() > 0
    assert torch.equal(losses.standardise(row), torch.zeros(1, 100))


def test_squared_error_of_logits_leaves_the_softmax_flat():
    """The figure in the docstring of `brier`: 2.7 % at K = 100."""
    assert (
        torch.softmax(torch.eye(100), -1).max().item()
        == pytest.approx(math.e / (math.e + 99))
        == pytest.approx(0.0267, abs=5e-5)
    )
