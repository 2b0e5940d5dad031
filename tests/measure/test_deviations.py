"""Deviations of a student from its teacher, on constructed cases whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.measure.deviations import DECILES, NAMES, deviations, over_replicas, top_logits

SEEDS = st.integers(0, 2**31)


def log_probs(seed: int, points: int = 200, classes: int = 4, scale: float = 2.0) -> Tensor:
    """Random log-probabilities, (N, K) float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(scale * torch.randn(points, classes, generator=generator, dtype=torch.float64), -1)


def with_logits(logits: Tensor, classes: int = 4) -> Tensor:
    """Log-probabilities whose first class has these logits, the others equal. (N,) -> (N, K)."""
    others = (torch.nn.functional.logsigmoid(-logits) - math.log(classes - 1))[:, None].expand(-1, classes - 1)
    return torch.cat([torch.nn.functional.logsigmoid(logits)[:, None], others], -1)


def sure(points: int = 400, seed: int = 0) -> Tensor:
    """Logits of a class that is the most probable one of four, (N,)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(points, generator=generator, dtype=torch.float64).abs() * 2


# Logits and slopes ------------------------------------------------------------------------------


@given(SEEDS, st.integers(2, 6))
def test_logits_are_those_of_the_teachers_top_class(seed: int, classes: int) -> None:
    teacher, student = log_probs(seed, 50, classes), log_probs(seed + 1, 50, classes)
    top = teacher.argmax(-1, keepdim=True)
    expected = [torch.logit(each.exp().gather(-1, top)[:, 0]) for each in (teacher, student)]
    for found, reference in zip(top_logits(teacher, student), expected, strict=True):
        torch.testing.assert_close(found, reference, atol=1e-9, rtol=1e-9)


def test_logits_survive_a_probability_that_rounds_to_one() -> None:
    z = torch.tensor([[60.0, 0.0, 0.0]], dtype=torch.float64)
    teacher = torch.log_softmax(z, -1)
    assert teacher.exp()[0, 0] == 1
    assert top_logits(teacher, teacher)[0].item() == pytest.approx(60 - math.log(2))


@given(SEEDS)
def test_the_teacher_itself_does_not_deviate(seed: int) -> None:
    teacher, p = log_probs(seed), log_probs(seed + 1).exp()
    found = deviations(teacher, teacher, p)
    assert found["slope"] == found["slope_axis"] == found["slope_upper"] == pytest.approx(1, abs=1e-12)
    assert found["intercept"] == pytest.approx(0, abs=1e-12)
    zero = ["mean", "below", "below_q1", "left_out", "kl_change", "kl_left_out", "towards"]
    assert [found[name] for name in zero] == [0.0] * 7
    assert [found[f"q{number}"] for number in DECILES] == [0.0] * 10
    assert math.isnan(found["cosine"])  # a deviation of length zero has no direction


@given(SEEDS, st.floats(0.2, 4.0), st.floats(-2, 2))
def test_scaled_and_shifted_logits(seed: int, factor: float, shift: float) -> None:
    l_t = sure(seed=seed)
    found = deviations(with_logits(l_t), with_logits(factor * l_t + shift))
    for name in ("slope", "slope_axis", "slope_upper"):
        assert found[name] == pytest.approx(factor, abs=1e-9)
    assert found["intercept"] == pytest.approx(shift, abs=1e-9)
    assert found["mean"] == pytest.approx((factor - 1) * l_t.mean().item() + shift, abs=1e-9)
    for number in DECILES:
        expected = (factor - 1) * found[f"teacher_q{number}"] + shift
        assert found[f"q{number}"] == pytest.approx(expected, abs=1e-9)


def test_logits_times_one_and_a_half() -> None:
    l_t = sure()
    found = deviations(with_logits(l_t), with_logits(1.5 * l_t))
    assert found["slope"] == pytest.approx(1.5, abs=1e-12)
    assert found["intercept"] == pytest.approx(0, abs=1e-12)
    assert found["below"] == 0  # a sure teacher's points all move up


def test_hard_points_fall_below_the_diagonal() -> None:
    l_t = torch.linspace(0.1, 4.0, 400, dtype=torch.float64)
    found = deviations(with_logits(l_t), with_logits(1.5 * l_t - 1))  # they cross at l_t = 2
    assert found["below_q1"] == 1
    assert found["below"] == pytest.approx((l_t < 2).double().mean().item())
    signs = [found[f"q{number}"] < 0 for number in DECILES]
    assert signs == [True] * 4 + [found["q5"] < 0] + [False] * 5


@given(SEEDS)
def test_slopes_against_scipy(seed: int) -> None:
    l_t = sure(seed=seed)
    l_s = 1.3 * l_t + torch.randn(400, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = deviations(with_logits(l_t), with_logits(l_s))
    x, y = l_t.numpy(), l_s.numpy()
    forward, inverse = stats.linregress(x, y), stats.linregress(y, x)
    assert (found["slope"], found["intercept"]) == pytest.approx((forward.slope, forward.intercept), rel=1e-8, abs=1e-9)
    assert found["slope_upper"] == pytest.approx(1 / inverse.slope, rel=1e-8)
    assert found["slope_axis"] == pytest.approx(y.std() / x.std(), rel=1e-8)
    assert found["slope"] <= found["slope_axis"] <= found["slope_upper"]


@given(SEEDS)
def test_axis_and_total_least_squares_are_on_the_same_side_of_one(seed: int) -> None:
    l_t = sure(seed=seed)
    noise = torch.randn(2, 400, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x, y = l_t + noise[0].abs(), l_t + 1.2 * noise[1]
    found = deviations(with_logits(x), with_logits(y))
    along = torch.linalg.eigh(torch.cov(torch.stack([x, y]))).eigenvectors[:, -1]  # the first principal axis
    total = (along[1] / along[0]).item()
    assert (found["slope_axis"] - 1) * (total - 1) >= -1e-9


def test_regression_to_the_mean_between_the_slopes() -> None:
    """What is shared has slope 1.2; teacher and student have errors of their own: the outer slopes hold it."""
    generator = torch.Generator().manual_seed(3)
    shared = 6 + 2 * torch.randn(100_000, generator=generator, dtype=torch.float64)
    own = torch.randn(2, 100_000, generator=generator, dtype=torch.float64)
    found = deviations(with_logits(shared + own[0]), with_logits(1.2 * shared + own[1]))
    # The variances are 4 and 1: slope 1.2 * 4 / 5, upper (1.44 * 4 + 1) / (1.2 * 4); to six standard errors or so.
    assert found["slope"] == pytest.approx(0.96, abs=0.02)
    assert found["slope_upper"] == pytest.approx(6.76 / 4.8, abs=0.025)
    assert found["slope"] < 1 < 1.2 < found["slope_upper"]
    assert found["q1"] > 0  # the lowest tenth rises, by the same bias


def test_standard_errors_of_tenths() -> None:
    l_t = torch.arange(1.0, 201.0, dtype=torch.float64) / 50
    l_s = l_t + torch.tensor([0.5, -0.5]).repeat(100)
    found = deviations(with_logits(l_t), with_logits(l_s))
    for number in DECILES:
        assert found[f"q{number}"] == pytest.approx(0, abs=1e-9)
        assert found[f"se_q{number}"] == pytest.approx(math.sqrt(0.25 * 20 / 19 / 20))


@given(SEEDS, st.integers(20, 67))
def test_tenths_hold_all_points(seed: int, points: int) -> None:
    teacher, student = log_probs(seed, points), log_probs(seed + 1, points)
    found = deviations(teacher, student)
    place = torch.arange(points) * 10 // points
    sizes = [int((place == number).sum()) for number in range(10)]
    assert max(sizes) - min(sizes) <= 1
    weighted = sum(size * found[f"q{number}"] for size, number in zip(sizes, DECILES, strict=True)) / points
    assert weighted == pytest.approx(found["mean"], abs=1e-9)
    teachers = [found[f"teacher_q{number}"] for number in DECILES]
    assert teachers == sorted(teachers)


# What there is no number for ----------------------------------------------------------------------


def test_infinite_logits_are_left_out_and_counted() -> None:
    l_t = sure(100)
    teacher, student = with_logits(l_t), with_logits(1.5 * l_t)
    certain = torch.tensor([[0.0, -torch.inf, -torch.inf, -torch.inf]], dtype=torch.float64)
    never = torch.tensor([[-torch.inf, 0.0, -torch.inf, -torch.inf]], dtype=torch.float64)
    found = deviations(torch.cat([teacher, certain, teacher[:1]]), torch.cat([student, student[:1], never]))
    plain = deviations(teacher, student)
    assert found["left_out"] == pytest.approx(2 / 102)
    assert plain["left_out"] == 0
    for name in ("slope", "intercept", "mean", "q1", "q10"):
        assert found[name] == pytest.approx(plain[name], abs=1e-12)


def test_infinite_divergences_are_left_out_and_counted() -> None:
    teacher, student, p = log_probs(0, 40), log_probs(1, 40), log_probs(2, 40).exp()
    never = torch.tensor([[-torch.inf, 0.0, -torch.inf, -torch.inf]], dtype=torch.float64)
    more = [torch.cat([each, each[:1]]) for each in (teacher, p)]
    found = deviations(more[0], torch.cat([student, never]), more[1])
    assert found["kl_left_out"] == pytest.approx(1 / 41)
    assert found["kl_change"] == pytest.approx(deviations(teacher, student, p)["kl_change"])
    excluded = torch.cat([torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 2)], -1).double()  # p rules them out too
    fine = deviations(more[0], torch.cat([student, never]), torch.cat([p, excluded]))
    assert fine["kl_left_out"] == 0


@pytest.mark.parametrize("points", [1, 2, 19])
def test_few_points(points: int) -> None:
    teacher, student = log_probs(0, points), log_probs(1, points)
    found = deviations(teacher, student)
    assert math.isnan(found["q1"])
    assert math.isnan(found["slope"]) == (points < 3)
    assert not math.isnan(found["mean"])


def test_a_teacher_that_is_equally_sure_everywhere_has_no_slope() -> None:
    teacher = with_logits(torch.full((40,), 1.0, dtype=torch.float64))
    found = deviations(teacher, with_logits(sure(40)))
    assert math.isnan(found["slope"])
    assert math.isnan(found["slope_upper"])
    assert found["mean"] == pytest.approx(sure(40).mean().item() - 1)


def test_negative_correlation_has_a_slope_but_no_axis() -> None:
    l_t = sure(60)
    found = deviations(with_logits(l_t), with_logits(-l_t))
    assert found["slope"] == pytest.approx(-1)
    assert math.isnan(found["slope_axis"])
    assert math.isnan(found["slope_upper"])


def test_a_student_that_diverged_has_no_numbers() -> None:
    teacher = log_probs(0)
    found = deviations(teacher, torch.full_like(teacher, torch.nan), teacher.exp())
    assert list(found) == list(NAMES)
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize(
    ("teacher", "student", "p", "message"),
    [
        (log_probs(0), log_probs(0, 100), None, "shapes of teacher, student and p"),
        (log_probs(0), log_probs(0), log_probs(0, 100).exp(), "shapes of teacher, student and p"),
        (log_probs(0)[0], log_probs(0)[0], None, "must be one"),
        (log_probs(0) + 1, log_probs(0), None, "of the teacher must be normalised"),
        (log_probs(0) * torch.nan, log_probs(0), None, "of the teacher must be normalised"),
        (log_probs(0), log_probs(0).exp(), None, "of the student must be normalised"),
    ],
)
def test_refused(teacher: Tensor, student: Tensor, p: Tensor | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        deviations(teacher, student, p)


# Towards the truth or away from it ------------------------------------------------------------------


@given(SEEDS, st.floats(0.05, 1.0))
def test_part_of_the_way_to_the_truth(seed: int, part: float) -> None:
    teacher, p = log_probs(seed), log_probs(seed + 1).exp()
    student = ((1 - part) * teacher.exp() + part * p).log()
    found = deviations(teacher, student, p)
    assert found["towards"] == pytest.approx(part, abs=1e-9)
    assert found["cosine"] == pytest.approx(1, abs=1e-9)
    assert found["kl_change"] < 0


@given(SEEDS)
def test_away_from_the_truth(seed: int) -> None:
    teacher, p = log_probs(seed, scale=1.0), log_probs(seed + 1, scale=1.0).exp()
    q = teacher.exp()
    part = 0.5 * (q / (p - q).clamp(min=1e-12)).amin(-1, keepdim=True).clamp(max=1.0)  # stays inside
    found = deviations(teacher, (q - part * (p - q)).log(), p)
    assert found["towards"] < 0
    assert found["kl_change"] > 0


def test_orthogonal_to_the_way() -> None:
    q = torch.tensor([[0.4, 0.3, 0.3]], dtype=torch.float64).repeat(30, 1)
    p, student = q + torch.tensor([0.2, -0.1, -0.1]), q + torch.tensor([0.0, 0.1, -0.1])
    found = deviations(q.log(), student.log(), p)
    assert found["towards"] == pytest.approx(0, abs=1e-12)
    assert found["cosine"] == pytest.approx(0, abs=1e-12)


@given(SEEDS)
def test_kl_change_is_a_difference_of_divergences(seed: int) -> None:
    teacher, student, p = log_probs(seed), log_probs(seed + 1), log_probs(seed + 2).exp()
    expected = stats.entropy(p.numpy(), student.exp().numpy(), axis=1) - stats.entropy(
        p.numpy(), teacher.exp().numpy(), axis=1
    )
    assert deviations(teacher, student, p)["kl_change"] == pytest.approx(expected.mean(), abs=1e-9)


# Replicas -------------------------------------------------------------------------------------------


def test_over_replicas() -> None:
    teacher = with_logits(sure())
    found = [deviations(teacher, with_logits(factor * sure())) for factor in (1.1, 1.2, 1.3)]
    row = over_replicas(found)
    assert row["deviation_slope"] == pytest.approx(1.2)
    half = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert row["deviation_slope_low"] == pytest.approx(1.2 - half)
    assert row["deviation_slope_high"] == pytest.approx(1.2 + half)
    assert not any("se_q" in name for name in row)
    assert not any("kl_change" in name for name in row)  # no truth, no column
    single = over_replicas(found[:1])
    assert (single["deviation_slope"], single["deviation_slope_low"]) == (pytest.approx(1.1), None)


def test_a_replica_without_a_number_leaves_none() -> None:
    teacher = with_logits(sure())
    found = [deviations(teacher, teacher), deviations(teacher, teacher * torch.nan)]
    assert over_replicas(found)["deviation_slope"] is None
