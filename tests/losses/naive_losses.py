"""The losses written down from their formulas in NumPy and float64, with probabilities and loops. Slow on purpose."""

from __future__ import annotations

import numpy as np


def softmax(z, temperature=1.0):
    powers = np.exp(np.asarray(z) / temperature)
    return powers / powers.sum(-1, keepdims=True)


def divergence(p, q):
    return sum(p[k] * np.log(p[k] / q[k]) for k in range(len(p)) if p[k] > 0)


def cross_entropy(z, y):
    return np.mean([-np.log(softmax(row)[label]) for row, label in zip(z, y, strict=True)])


def kd(z_s, z_t, temperature):
    p, q = softmax(z_t, temperature), softmax(z_s, temperature)
    return temperature**2 * np.mean([divergence(p[i], q[i]) for i in range(len(p))])


def bayesian_kd(z_s, z_t, teacher_temperature, student_temperature):
    p, q = softmax(z_t, teacher_temperature), softmax(z_s, student_temperature)
    return teacher_temperature * student_temperature * np.mean([divergence(p[i], q[i]) for i in range(len(p))])


def logit_mse(z_s, z_t, centred=False):
    if centred:
        z_s, z_t = (z - z.mean(-1, keepdims=True) for z in (z_s, z_t))
    return np.mean((z_s - z_t) ** 2)


def dkd(z_s, z_t, y, temperature, alpha, beta, factor=1.0):
    total = 0.0
    for student, teacher, label in zip(z_s, z_t, y, strict=True):
        p, q = softmax(teacher, temperature)[label], softmax(student, temperature)[label]
        rest_t, rest_s = (softmax(np.delete(z, label), temperature) for z in (teacher, student))
        total += alpha * divergence([p, 1 - p], [q, 1 - q]) + beta * divergence(rest_t, rest_s)
    return factor * temperature**2 * total / len(y)


def correlation(u, v):
    """Pearson's, but of vectors that vary by less than 1e-8 as if they varied by that."""
    u, v = u - u.mean(), v - v.mean()
    return u @ v / (max(np.sqrt(u @ u), 1e-8) * max(np.sqrt(v @ v), 1e-8))


def dist(z_s, z_t, temperature, beta, gamma):
    p, q = softmax(z_t, temperature), softmax(z_s, temperature)
    rows = np.mean([1 - correlation(p[i], q[i]) for i in range(p.shape[0])])
    columns = np.mean([1 - correlation(p[:, k], q[:, k]) for k in range(p.shape[1])])
    return temperature**2 * (beta * rows + gamma * columns)


def ttm(z_s, z_t, gamma, weighted=False):
    p, q = softmax(z_t), softmax(z_s)
    total = 0.0
    for i in range(len(p)):
        powers = p[i] ** gamma
        total += (powers.sum() if weighted else 1.0) * divergence(powers / powers.sum(), q[i])
    return total / len(p)


def standardise(z):
    return (z - z.mean(-1, keepdims=True)) / (1e-7 + z.std(-1, ddof=1, keepdims=True))


def ltkd(z_s, z_t, groups, temperature, alpha, beta, rebalance=True, equal_groups=True):
    p, q = softmax(z_t, temperature), softmax(z_s, temperature)
    whole_t = np.stack([p[:, group].sum(-1) for group in groups], -1)
    whole_s = np.stack([q[:, group].sum(-1) for group in groups], -1)
    scale = whole_t.sum() / len(groups) / whole_t.sum(0) if rebalance else 1.0  # s_G
    balanced = scale * whole_t
    balanced /= balanced.sum(-1, keepdims=True)
    total = 0.0
    for i in range(len(p)):
        within = sum(
            (1 if equal_groups else p[i, g].sum()) * divergence(p[i, g] / p[i, g].sum(), q[i, g] / q[i, g].sum())
            for g in groups
        )
        total += alpha * divergence(balanced[i], whole_s[i]) + beta * within
    return temperature**2 * total / len(p)


def adjusted(z, target, counts, tau=1.0):
    """Cross-entropy of n_k^tau e^(z_k) / sum_j n_j^tau e^(z_j) against target probabilities."""
    weighted = np.asarray(counts) ** tau * np.exp(z)
    return -(target * np.log(weighted / weighted.sum(-1, keepdims=True))).sum(-1).mean()


def alpha_beta(p, q, a, b):
    inner = p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)
    return -inner.sum(-1) / (a * b)


def abkd(z_s, z_t, temperature, alpha, beta):
    return alpha_beta(softmax(z_t, temperature), softmax(z_s, temperature), alpha, beta).mean()


def brier(z, q):
    return np.mean((softmax(z) - q) ** 2)
