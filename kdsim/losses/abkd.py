"""The alpha-beta divergence between teacher and student."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdsim.losses.terms import tempered, weighted


def abkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 4.0,
    alpha: float = 0.5,
    beta: float = 0.5,
) -> Tensor:
    """Batch mean of D(p_T, q_T), the alpha-beta divergence at temperature T. There is no T^2.

    Args:
        student_logits, teacher_logits: (..., B, K).
        temperature: T > 0.
        alpha, beta: see `alpha_beta_divergence`.

    Returns:
        (...).

    Source: G. Wang, Z. Yang, Z. Wang, S. Wang, Q. Xu, Q. Huang, "ABKD: pursuing a proper allocation of the probability
    mass in knowledge distillation via alpha-beta-divergence", ICML 2025, arXiv 2505.04560.
    """
    log_p, log_q = tempered(teacher_logits, temperature), tempered(student_logits, temperature)
    return alpha_beta_divergence(log_p, log_q, alpha, beta).mean(-1)


def alpha_beta_divergence(log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> Tensor:
    """-1/(ab) sum_k [p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b)], a = alpha, b = beta. (..., K), (..., K) -> (...).

    Its limits, by continuity:

        b = 0        1/a^2 sum [p^a log(p^a / q^a) - p^a + q^a]      KL(p, q) at a = 1
        a = 0        1/b^2 sum [q^b log(q^b / p^b) - q^b + p^b]      KL(q, p) at b = 1
        a + b = 0    1/a^2 sum [(p/q)^a - log (p/q)^a - 1]           Itakura-Saito at a = 1
        a = b = 0    1/2 sum [log p - log q]^2

    (A published implementation has 1/a and 1/b in the first two, which is not the limit.)  Finite at all logits for
    a, b >= 0; a negative exponent raises small probabilities to it. Close to a limit, not at it, digits are lost: take
    the limit.

    Source: A. Cichocki, S. Cruces, S. Amari, "Generalized alpha-beta divergences and their application to robust
    nonnegative matrix factorization", Entropy 13 (2011), doi:10.3390/e13010134.
    """
    ratio = log_p - log_q
    if alpha == 0 and beta == 0:
        return ratio.square().sum(-1) / 2
    if math.isclose(alpha, -beta, rel_tol=1e-12):  # 0.3 - (0.1 + 0.2) is not 0
        return (torch.expm1(alpha * ratio) - alpha * ratio).sum(-1) / alpha**2
    if beta == 0:
        p, q = (alpha * log_p).exp(), (alpha * log_q).exp()
        return (weighted(p, alpha * ratio) - p + q).sum(-1) / alpha**2
    if alpha == 0:
        p, q = (beta * log_p).exp(), (beta * log_q).exp()
        return (weighted(q, -beta * ratio) - q + p).sum(-1) / beta**2
    total = alpha + beta
    product = (alpha * log_p + beta * log_q).exp()
    powers = alpha / total * (total * log_p).exp() + beta / total * (total * log_q).exp()
    return (powers - product).sum(-1) / (alpha * beta)
