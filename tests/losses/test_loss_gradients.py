"""Gradients: right in float64, finite in float32 wherever logits may go."""

from __future__ import annotations

import math

import pytest
import torch
from loss_cases import CLASSES, LOSSES, label_of, random_case

from kdsim import losses


@pytest.mark.parametrize("loss", LOSSES, ids=label_of)
def test_gradcheck(loss):
    student, teacher, labels = random_case(21, batch=3)
    assert torch.autograd.gradcheck(lambda z: loss(z, teacher, labels, 7), (student.requires_grad_(),))


@pytest.mark.parametrize("exponents", [(0.5, -0.5), (-0.5, 1.2), (1.3, -0.4)])
def test_gradcheck_of_the_divergence_at_negative_exponents(exponents):
    student, teacher, _ = random_case(22, batch=3, scale=1.0)
    alpha, beta = exponents
    function = lambda z: losses.abkd(z, teacher, temperature=2.0, alpha=alpha, beta=beta)  # noqa: E731
    assert torch.autograd.gradcheck(function, (student.requires_grad_(),))


def extreme_logits() -> dict[str, torch.Tensor]:
    """Logits at +-1e4, each (4, K): signs at random, one class ahead, one behind, ties, and a last layer at zero."""
    generator = torch.Generator().manual_seed(23)
    one_hot = torch.eye(4, CLASSES)
    return {
        "signs": 1e4 * (2.0 * torch.randint(2, (4, CLASSES), generator=generator) - 1),
        "spread": 2e4 * torch.rand(4, CLASSES, generator=generator) - 1e4,
        "ahead": 2e4 * one_hot - 1e4,
        "ahead elsewhere": 2e4 * one_hot.roll(1, -1) - 1e4,
        "behind": 1e4 - 2e4 * one_hot,
        "high": torch.full((4, CLASSES), 1e4),
        "low": torch.full((4, CLASSES), -1e4),
        "zero": torch.zeros(4, CLASSES),
        "usual": torch.randn(4, CLASSES, generator=generator),
    }


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES, ids=label_of)
def test_finite_at_extreme_logits(loss):
    """Value and gradient in float32, for every pair of student and teacher."""
    labels = torch.tensor([0, 1, 2, 4])
    for mine, student in extreme_logits().items():
        for theirs, teacher in extreme_logits().items():
            student = student.clone().requires_grad_()
            value = loss(student, teacher, labels, 30)
            (gradient,) = torch.autograd.grad(value, student)
            assert value.dtype == torch.float32, (mine, theirs)
            assert torch.isfinite(value) and torch.isfinite(gradient).all(), (mine, theirs, value, gradient)


def test_values_at_extreme_logits():
    """Finite is not enough: a sure student that contradicts a sure teacher pays the gap between the logits."""
    teacher, student = torch.tensor([[1e4, -1e4, -1e4]]), torch.tensor([[-1e4, 1e4, -1e4]])
    label = torch.tensor([0])
    assert losses.kd(student, teacher, temperature=4.0).item() == 16 * 5e3
    assert losses.ttm(student, teacher, gamma=0.1).item() == 2e4
    assert losses.label_cross_entropy(student, label).item() == 2e4
    # b_t = (1, 0), b_s = (0, 1): 5e3; the teacher is undecided between the others, the student sure of one: 2.5e3.
    value_of_the_rest = pytest.approx(16 * (2.5e3 - math.log(2)), rel=1e-6)
    assert losses.dkd(student, teacher, label, alpha=1.0, beta=0.0).item() == 16 * 5e3
    assert losses.dkd(student, teacher, label, alpha=0.0, beta=1.0).item() == value_of_the_rest
    groups = [torch.tensor([0]), torch.tensor([1, 2])]
    assert losses.ltkd(student, teacher, groups, alpha=0.0).item() == value_of_the_rest
    assert losses.dist(student, teacher, gamma=0.0).item() == pytest.approx(1.5)  # r = -1/2
    assert losses.brier(student, torch.softmax(teacher, -1)).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("rows", [slice(4), slice(1), slice(1, 2)], ids=["all", "some-groups", "one-group"])
def test_ltkd_where_the_teacher_gives_a_group_no_probability(rows):
    """Groups are (0, 1), (2) and (3, 4): the formula over those that are there, and no gradient from the others."""
    student, _, labels = random_case(25)
    votes = torch.tensor([[0.5, 0.5, 0, 0, 0], [1, 0, 0, 0, 0], [0.2] * 5, [0, 0, 0.1, 0.9, 0]], dtype=torch.float64)
    student, votes = student[rows].requires_grad_(), votes[rows]
    groups = [[0, 1], [2], [3, 4]]
    value = losses.LTKD(0.0, temperature=1.0)(student, votes.log(), labels[rows], 1)
    (gradient,) = torch.autograd.grad(value, student)
    q = torch.softmax(student, -1)
    whole = torch.stack([votes[:, group].sum(-1) for group in groups], -1)
    balanced = torch.where(whole > 0, whole / whole.sum(0), 0.0)
    balanced = balanced / balanced.sum(-1, keepdim=True)
    divergence = lambda p, q: (torch.xlogy(p, p) - p * q.log()).sum()  # noqa: E731
    expected = torch.zeros(len(votes), dtype=torch.float64)
    for i in range(len(votes)):
        expected[i] += divergence(balanced[i], torch.stack([q[i, group].sum() for group in groups]))
        for number, group in enumerate(groups):
            if whole[i, number] > 0:
                expected[i] += divergence(votes[i, group] / whole[i, number], q[i, group] / q[i, group].sum())
    torch.testing.assert_close(value, expected.mean())
    torch.testing.assert_close(gradient, *torch.autograd.grad(expected.mean(), student))


@pytest.mark.parametrize("loss", [losses.KD(), losses.TTM(), losses.ABKD(alpha=1.0, beta=0.0)], ids=label_of)
def test_a_teacher_may_exclude_classes(loss):
    """Votes of a few people have zeros, log-probabilities of -inf: the same as probabilities too small to count."""
    student, _, labels = random_case(24)
    votes = torch.tensor([[0.5, 0.5, 0, 0, 0], [1, 0, 0, 0, 0], [0.2] * 5, [0, 0, 0.1, 0.9, 0]], dtype=torch.float64)
    student.requires_grad_()
    results = []
    for teacher in (votes.log(), votes.log().clamp(min=-1e4)):
        value = loss(student, teacher, labels, 1)
        results.append((value, *torch.autograd.grad(value, student)))
    torch.testing.assert_close(*results, rtol=1e-12, atol=0.0)
