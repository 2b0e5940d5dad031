"""Distillation from Bayesian teachers: teacher and student each at a temperature of their own."""

from __future__ import annotations

from torch import Tensor

from kdsim.losses.terms import kl, tempered


def bayesian_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    teacher_temperature: float = 1.0,
    student_temperature: float = 1.0,
) -> Tensor:
    """Batch mean of T S KL(p~_T, q_S), with the teacher's predictive distribution at T and the student's at S.

    At T = S this is `kd`. p~_T of a posterior is an average over samples; see `kdsim.losses.posterior` for its order.

    Args:
        student_logits, teacher_logits: (..., B, K).
        teacher_temperature: T > 0.
        student_temperature: S > 0.

    Returns:
        (...) in nats.

    Source: I. Morad, N. Shlezinger, Y. C. Eldar, "SGD-based knowledge distillation with Bayesian teachers: theory and
    guidelines", ICLR 2026, arXiv 2601.01484.
    """
    log_p = tempered(teacher_logits, teacher_temperature)  # (..., B, K)
    log_q = tempered(student_logits, student_temperature)
    return teacher_temperature * student_temperature * kl(log_p, log_q).mean(-1)
