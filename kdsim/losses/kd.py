"""Knowledge distillation: the divergence between teacher and student at one temperature."""

from __future__ import annotations

from torch import Tensor

from kdsim.losses.terms import kl, tempered


def kd(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Batch mean of T^2 KL(p_T, q_T), with p_T = softmax(z_t / T) and q_T = softmax(z_s / T).

    The factor T^2 keeps the gradient of the order of that of cross-entropy: it tends to
    (centred z_s - centred z_t) / K as T grows, and the loss to |centred z_s - centred z_t|^2 / (2 K).

    Args:
        student_logits, teacher_logits: (..., B, K).
        temperature: T > 0.

    Returns:
        (...) in nats.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", 2015, arXiv 1503.02531,
    section 2. KL for cross-entropy, which differs by a constant of the teacher.
    """
    log_p, log_q = tempered(teacher_logits, temperature), tempered(student_logits, temperature)  # (..., B, K)
    return temperature**2 * kl(log_p, log_q).mean(-1)
