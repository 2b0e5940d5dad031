"""Exact paths of a linear student and its linear teacher on one quadratic, and what distillation exaggerates.

Both start from 0 and have the squared error on the same inputs, with eigenvalues h_i of E xx'. In the eigenbasis the
components do not see each other. Of its target, a model has fitted at time t the share

    g_i(t) = 1 - exp(-h_i t)              gradient flow,
    g_i(t) = 1 - (1 - alpha h_i)^t        gradient descent with step size alpha, after t steps,

so that a teacher that learns the truth w until T has the components a_i(T) = g_i(T) w_i, and a student that learns the
teacher's outputs for a time t has g_i(t) a_i(T). With the rates kappa_i = h_i, or -log(1 - alpha h_i) for
alpha h_i < 1, both are one: g_i(t) = 1 - exp(-kappa_i t).

Source: Nagarajan et al., "On student-teacher deviations in distillation: does it pay to disobey?", NeurIPS 2023, arXiv
2301.12923, section 4; conditions and proofs in docs/theory.md, "Student-teacher deviations".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kdsim.config import ConfigError, require, require_positive


def fitted_share(eigenvalues: Tensor, time: Tensor | float, step_size: float | None = None) -> Tensor:
    """g_i(t), the share of its target that a model from 0 has reached along each eigendirection.

    Args:
        eigenvalues: h_i >= 0, (..., d).
        time: t >= 0, broadcast against h; a number of steps, whole ones where alpha h_i > 1.
        step_size: alpha; None: gradient flow.
    """
    time = torch.as_tensor(time, dtype=eigenvalues.dtype)
    if step_size is None:
        return -torch.expm1(-eigenvalues * time)
    if bool((step_size * eigenvalues < 1).all()):
        return -torch.expm1(torch.log1p(-step_size * eigenvalues) * time)
    if bool((time != time.round()).any()):
        raise ConfigError("time = a fraction of a step is not allowed: must be whole steps where alpha h >= 1")
    return 1 - (1 - step_size * eigenvalues) ** time


def teacher_components(
    eigenvalues: Tensor, truth: Tensor, time: Tensor | float, step_size: float | None = None
) -> Tensor:
    """a_i(T) of a teacher of the truth w (..., d) that is stopped at T; arguments as in `fitted_share`."""
    return fitted_share(eigenvalues, time, step_size) * truth


def student_components(
    eigenvalues: Tensor,
    truth: Tensor,
    teacher_time: Tensor | float,
    time: Tensor | float,
    step_size: float | None = None,
) -> Tensor:
    """g_i(t) a_i(T) of a student that learns for a time t from the outputs of a teacher stopped at T."""
    taught = teacher_components(eigenvalues, truth, teacher_time, step_size)
    return fitted_share(eigenvalues, time, step_size) * taught


def rate(eigenvalue: float, step_size: float | None = None) -> float:
    """kappa: h, or -log(1 - alpha h) a step.

    Raises:
        ConfigError: a step size alpha >= 1/h. From 1/h on, descent reaches its target in one step or jumps over it: the
            share no longer grows, and "the time at which it is reached" has no meaning.
    """
    if step_size is None:
        return eigenvalue
    require_positive("step_size", step_size)
    require(step_size * eigenvalue < 1, "step_size", step_size, f"below 1/h = {1 / max(eigenvalue, 1e-300):g}")
    return -math.log1p(-step_size * eigenvalue)


def time_to_reach(eigenvalue: float, share: float, step_size: float | None = None) -> float:
    """tau with g(tau) = share in [0, 1): -log(1 - share) / kappa, in steps for descent and then rarely a whole one."""
    require(0 <= share < 1, "share", share, "in [0, 1)")
    kappa = rate(eigenvalue, step_size)
    require(kappa > 0, "eigenvalue", eigenvalue, "> 0: nothing is ever fitted along a direction without curvature")
    return -math.log1p(-share) / kappa


@dataclass(frozen=True)
class Exaggeration:
    """Student and early-stopped model at the same component along direction 1.

    Attributes:
        time: tau at which a model of the truth has the student's component along direction 1. Before T and before t.
        first: that component, in units of w_1.
        student: the student's component along direction 2, in units of w_2.
        early_stopped: that of the model of the truth at tau, likewise.
    """

    time: float
    first: float
    student: float
    early_stopped: float

    @property
    def ratio(self) -> float:
        """student / early_stopped, in [h_2/h_1, 1] for flow: 1 is no exaggeration. NaN where both are zero."""
        return self.student / self.early_stopped if self.early_stopped else math.nan


def exaggeration(
    first: float, second: float, time: float, teacher_time: float, step_size: float | None = None
) -> Exaggeration:
    """Both sides of: for h_1 > h_2, at the same component along 1, the student's component along 2 is the smaller one.

    The student of a teacher that was stopped at T has trained for t. It is compared with a model that learns the truth
    and is stopped at the time tau at which it has the student's component along direction 1, g_1(tau) = g_1(t) g_1(T).
    Such a tau is the teacher's own at an earlier moment; the teacher at T itself the student never reaches. Then

        g_2(t) g_2(T) < g_2(tau)     for all 0 < t, T < infinity,

    for gradient flow always, for descent where alpha h_1 < 1, and not in general from there on. Equality for h_2 = h_1
    or 0 and in the limits; the ratio of the two sides is above kappa_2/kappa_1, to which it tends as t and T go to 0.

    Args:
        first, second: h_1 > 0 and h_2 in [0, h_1].
        time, teacher_time: t and T, > 0; steps for descent.
        step_size: alpha < 1/h_1; None: gradient flow.

    Raises:
        ConfigError: an argument is outside of these.
    """
    require_positive("first", first)
    require(0 <= second <= first, "second", second, f"in [0, {first:g}]: direction 1 has the larger eigenvalue")
    require_positive("time", time)
    require_positive("teacher_time", teacher_time)
    fast, slow = rate(first, step_size), rate(second, step_size)
    share = math.expm1(-fast * time) * math.expm1(-fast * teacher_time)
    # log(1 - share), near 0 as that of the sum 1 - share = e^{-kappa t} + e^{-kappa T} (1 - e^{-kappa t}).
    left = math.log1p(-share) if share < 0.5 else _log_sum(-fast * time, -fast * teacher_time + _log_share(fast * time))
    return Exaggeration(
        time=-left / fast,
        first=share,
        student=math.expm1(-slow * time) * math.expm1(-slow * teacher_time),
        early_stopped=-math.expm1(slow / fast * left),
    )


def _log_share(exponent: float) -> float:
    """log(1 - e^{-x}), x > 0."""
    return math.log(-math.expm1(-exponent))


def _log_sum(a: float, b: float) -> float:
    """log(e^a + e^b)."""
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))
