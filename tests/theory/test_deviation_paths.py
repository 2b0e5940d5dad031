"""Paths of linear students of linear teachers: integrated, stepped, and the statement that distillation exaggerates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from kdsim.config import ConfigError
from kdsim.theory.deviations import (
    exaggeration,
    fitted_share,
    rate,
    student_components,
    teacher_components,
    time_to_reach,
)

EIGENVALUES = st.floats(1e-4, 1e4)
RELATIVE_TIMES = st.floats(1e-3, 1e2)
"""In units of 1/h_1."""
RATIOS = st.floats(1e-4, 1.0)
SPECTRA = st.lists(st.floats(0.01, 3.0), min_size=1, max_size=6)


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def truth_of(count: int) -> torch.Tensor:
    return torch.linspace(-1.5, 2.0, count, dtype=torch.float64)


# Paths ------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(SPECTRA, st.floats(0.05, 8.0), st.floats(0.05, 8.0))
def test_flow_solves_its_equation(spectrum: list[float], teacher_time: float, time: float) -> None:
    h, w = tensor(spectrum), truth_of(len(spectrum))
    taught = teacher_components(h, w, teacher_time)
    settings = {"rtol": 1e-12, "atol": 1e-13, "method": "DOP853"}
    zero = np.zeros(len(spectrum))
    teacher = solve_ivp(lambda _, a: -h.numpy() * (a - w.numpy()), (0, teacher_time), zero, **settings).y[:, -1]
    student = solve_ivp(lambda _, s: -h.numpy() * (s - teacher), (0, time), zero, **settings).y[:, -1]
    np.testing.assert_allclose(taught.numpy(), teacher, atol=1e-10)
    np.testing.assert_allclose(student_components(h, w, teacher_time, time).numpy(), student, atol=1e-10)


@given(st.integers(0, 2**31), st.floats(0.05, 1.9), st.integers(0, 40), st.integers(0, 40))
def test_descent_is_a_loop_in_the_original_basis(seed: int, fraction: float, teacher_steps: int, steps: int) -> None:
    """Fewer samples than features at times: directions without curvature stay at 0."""
    generator = torch.Generator().manual_seed(seed)
    samples, features = 3 + seed % 6, 4
    x = torch.randn(samples, features, generator=generator, dtype=torch.float64)
    y = torch.randn(samples, generator=generator, dtype=torch.float64)  # noisy targets: w is their least squares
    gram = x.T @ x / samples
    h, basis = torch.linalg.eigh(gram)
    h = h.clamp(min=0)
    step_size = fraction / h.max().item()

    def descend(targets: torch.Tensor, count: int) -> torch.Tensor:
        theta = torch.zeros(features, dtype=torch.float64)
        for _ in range(count):
            theta = theta - step_size * x.T @ (x @ theta - targets) / samples
        return theta

    teacher = descend(y, teacher_steps)
    student = descend(x @ teacher, steps)
    best = basis.T @ torch.linalg.pinv(x) @ y
    torch.testing.assert_close(
        basis @ teacher_components(h, best, teacher_steps, step_size), teacher, atol=1e-10, rtol=1e-10
    )
    torch.testing.assert_close(
        basis @ student_components(h, best, teacher_steps, steps, step_size), student, atol=1e-10, rtol=1e-10
    )


@given(SPECTRA, st.floats(0.1, 5.0))
def test_descent_of_small_steps_is_flow(spectrum: list[float], time: float) -> None:
    h, step_size = tensor(spectrum), 1e-5
    steps = round(time / step_size)
    flow, descent = fitted_share(h, steps * step_size), fitted_share(h, steps, step_size)
    # (1 - a h)^t = e^{-h t a} (1 - a h^2 t a / 2 + ...)
    assert (flow - descent).abs().max() <= step_size * 9 * 5 + 1e-12


def test_times_broadcast() -> None:
    h = tensor([2.0, 0.5])
    assert fitted_share(h, tensor([[0.0], [1.0], [3.0]])).shape == (3, 2)
    assert fitted_share(h, 0.0).tolist() == [0.0, 0.0]


def test_fractions_of_a_step_are_refused_where_descent_jumps() -> None:
    with pytest.raises(ConfigError, match="whole steps"):
        fitted_share(tensor([1.0]), 0.5, step_size=1.2)
    assert fitted_share(tensor([1.0]), 3, step_size=1.5).item() == pytest.approx(1.125)


# The time to reach ------------------------------------------------------------------------------


@given(EIGENVALUES, st.floats(0.001, 0.999), st.booleans())
def test_time_to_reach_is_the_root(eigenvalue: float, share: float, descent: bool) -> None:
    step_size = 0.3 / eigenvalue if descent else None
    found = time_to_reach(eigenvalue, share, step_size)
    h = tensor([eigenvalue])
    assert fitted_share(h, found, step_size).item() == pytest.approx(share, abs=1e-12)
    bracket = (0.0, 40 / rate(eigenvalue, step_size))
    root = brentq(lambda t: fitted_share(h, t, step_size).item() - share, *bracket, xtol=1e-13 * bracket[1])
    assert found == pytest.approx(root, rel=1e-9)


# The statement ----------------------------------------------------------------------------------


@given(EIGENVALUES, RATIOS, RELATIVE_TIMES, RELATIVE_TIMES, st.just(0.0) | st.floats(1e-9, 0.999))
def test_student_is_smaller_along_the_second(h: float, ratio: float, t: float, T: float, fraction: float) -> None:
    """For flow (fraction 0) and every step size below 1/h_1, within the limits that the derivation gives."""
    step_size = fraction / h if fraction > 0 else None
    unit = 1 / rate(h, step_size)  # times in units of the first direction's relaxation, in steps or not
    both = exaggeration(h, ratio * h, t * unit, T * unit, step_size)
    assert both.student <= both.early_stopped + 1e-10
    assert 0 < both.time < min(t, T) * unit * (1 + 1e-10)
    slowest = rate(ratio * h, step_size) / rate(h, step_size)
    assert slowest - 1e-10 <= both.ratio <= 1 + 1e-10


@given(EIGENVALUES, st.floats(0.01, 0.9), st.floats(0.05, 5.0), st.floats(0.05, 5.0))
def test_strictly_so_away_from_the_limits(h: float, ratio: float, t: float, T: float) -> None:
    both = exaggeration(h, ratio * h, t / h, T / h)
    assert both.student < both.early_stopped * (1 - 1e-6)


@given(EIGENVALUES, RATIOS, RELATIVE_TIMES, RELATIVE_TIMES)
def test_both_sides_are_the_paths(h: float, ratio: float, t: float, T: float) -> None:
    spectrum, ones = tensor([h, ratio * h]), torch.ones(2, dtype=torch.float64)
    both = exaggeration(h, ratio * h, t / h, T / h)
    student = student_components(spectrum, ones, T / h, t / h)
    matched = teacher_components(spectrum, ones, both.time)
    assert student.tolist() == pytest.approx([both.first, both.student], abs=1e-10)
    assert matched.tolist() == pytest.approx([both.first, both.early_stopped], abs=1e-10)


@given(EIGENVALUES, RELATIVE_TIMES, RELATIVE_TIMES)
def test_ties(h: float, t: float, T: float) -> None:
    equal = exaggeration(h, h, t / h, T / h)
    assert equal.student == pytest.approx(equal.early_stopped, abs=1e-12)
    flat = exaggeration(h, 0.0, t / h, T / h)
    assert flat.student == flat.early_stopped == 0
    assert math.isnan(flat.ratio)


@given(EIGENVALUES, st.floats(0.05, 0.95), st.floats(0.1, 3.0))
def test_limits(h: float, ratio: float, t: float) -> None:
    late = exaggeration(h, ratio * h, t / h, 1e4 / h)  # a teacher that has learned all
    assert late.time * h == pytest.approx(t)
    assert late.ratio == pytest.approx(1, abs=1e-10)
    long = exaggeration(h, ratio * h, 1e4 / h, t / h)  # a student that has learned all of the teacher
    assert (long.time * h, long.ratio) == (pytest.approx(t), pytest.approx(1, abs=1e-10))
    early = exaggeration(h, ratio * h, 1e-6 / h, 1e-6 / h)
    assert early.ratio == pytest.approx(ratio, rel=1e-5)
    # T to 0 at a fixed t: g_2(t) / g_1(t)
    one = exaggeration(h, ratio * h, t / h, 1e-7 / h)
    assert one.ratio == pytest.approx(math.expm1(-ratio * t) / math.expm1(-t), rel=1e-5)


@given(EIGENVALUES, st.floats(0.05, 0.95), RELATIVE_TIMES, RELATIVE_TIMES)
def test_symmetric_in_the_two_times(h: float, ratio: float, t: float, T: float) -> None:
    one, other = exaggeration(h, ratio * h, t / h, T / h), exaggeration(h, ratio * h, T / h, t / h)
    assert (one.student, one.early_stopped) == pytest.approx((other.student, other.early_stopped), abs=1e-12)


@given(EIGENVALUES, st.floats(0.05, 0.95), st.floats(0.01, 0.99), st.integers(1, 60), st.integers(1, 60))
def test_descent_in_whole_steps(h: float, ratio: float, fraction: float, t: int, T: int) -> None:
    """The first whole step at which the model of the truth has at least the student's component along 1."""
    step_size = fraction / h
    both = exaggeration(h, ratio * h, t, T, step_size)
    assume(math.isfinite(both.time))
    reached = teacher_components(
        tensor([h, ratio * h]), torch.ones(2, dtype=torch.float64), math.ceil(both.time), step_size
    )
    assert reached[0] >= both.first - 1e-10
    assert both.student <= reached[1].item() + 1e-10


def test_beyond_one_over_h_the_statement_fails() -> None:
    """alpha (h_1, h_2) = (1 + sqrt y, 1/2), y^2 + y = 1: after t = T = 4 steps the student has the component along 1
    that a model of the truth has after 2, and more along direction 2."""
    y = (math.sqrt(5) - 1) / 2
    spectrum, ones = tensor([1 + math.sqrt(y), 0.5]), torch.ones(2, dtype=torch.float64)
    student = student_components(spectrum, ones, 4, 4, step_size=1.0)
    stopped = teacher_components(spectrum, ones, 2, step_size=1.0)
    assert student[0].item() == pytest.approx(stopped[0].item(), abs=1e-12)
    assert student[1].item() == pytest.approx(0.87890625)
    assert stopped[1].item() == pytest.approx(0.75)
    with pytest.raises(ConfigError, match=r"step_size = 1\.0 is not allowed: must be below"):
        exaggeration(1 + math.sqrt(y), 0.5, 4, 4, 1.0)


def test_at_one_over_h_the_first_direction_is_there_in_one_step() -> None:
    spectrum, ones = tensor([1.0, 0.5]), torch.ones(2, dtype=torch.float64)
    for steps in (1, 2, 5):
        assert teacher_components(spectrum, ones, steps, step_size=1.0)[0].item() == 1
    with pytest.raises(ConfigError, match="step_size"):
        exaggeration(1.0, 0.5, 2, 2, 1.0)


@given(EIGENVALUES, st.floats(0.05, 0.95), RELATIVE_TIMES, RELATIVE_TIMES)
def test_at_any_time_the_share_along_the_first_is_larger_than_the_teachers(
    h: float, ratio: float, t: float, T: float
) -> None:
    spectrum, ones = tensor([h, ratio * h]), torch.ones(2, dtype=torch.float64)
    teacher, student = teacher_components(spectrum, ones, T / h), student_components(spectrum, ones, T / h, t / h)
    assert student[1] * teacher[0] <= student[0] * teacher[1] + 1e-10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 2.0, 1.0, 1.0), "second = 2.0 is not allowed"),
        ((0.0, 0.0, 1.0, 1.0), "first = 0.0 is not allowed"),
        ((1.0, 0.5, 0.0, 1.0), "time = 0.0 is not allowed"),
        ((1.0, 0.5, 1.0, math.inf), "teacher_time = inf is not allowed"),
        ((1.0, 0.5, 1.0, 1.0, -0.1), "step_size = -0.1 is not allowed"),
    ],
)
def test_refused(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        exaggeration(*arguments)


def test_nothing_is_reached_without_curvature() -> None:
    with pytest.raises(ConfigError, match=r"eigenvalue = 0\.0"):
        time_to_reach(0.0, 0.5)
    with pytest.raises(ConfigError, match=r"share = 1\.0"):
        time_to_reach(1.0, 1.0)
