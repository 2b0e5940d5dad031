"""Bias and variance of predicted class probabilities over replicas, in the divergence from the truth.

With q_r the predictions of R replicas at x and qbar proportional to exp(mean_r log q_r), their geometric mean,

    mean_r KL(p, q_r) = KL(p, qbar) + mean_r KL(qbar, q_r)

exactly, at every x and hence in every weighted mean: the first is the bias, what all replicas have in common, and the
second the variance, by which they differ. (sum_k p_k (log qbar_k - mean_r log q_rk) is -log Z, the constant that
normalises qbar, whatever p is: for p = qbar it is the second term.)

Replicas differ in first weights, order of the images, targets and, with trained teachers, these. They share the images
and their labels y; what a student has from these is bias here.

Source: T. Heskes, "Bias/variance decompositions for likelihood-based estimators", Neural Computation 10 (1998).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from scipy import special
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.conventions import CONFIDENCE, GROUPS
from kdsim.measure.floors import Interval
from kdsim.training.groups import Groups, between_and_within, masses


def geometric_mean(log_probs: Tensor) -> Tensor:
    """log qbar of the R predictions. (R, ..., K) -> (..., K)."""
    return torch.log_softmax(log_probs.mean(0), -1)


def bias_and_variance(log_probs: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p, qbar) and mean_r KL(qbar, q_r) at each point, in nats. (R, N, K), (N, K) -> (N,), (N,)."""
    log_mean = geometric_mean(log_probs)
    bias = (torch.xlogy(p, p) - torch.where(p > 0, p * log_mean, 0.0)).sum(-1)
    return bias, (log_mean.exp() * (log_mean - log_probs.mean(0))).sum(-1)


def measured(log_probs: Tensor, p: Tensor, groups: Groups = ()) -> dict[str, Interval]:
    """Means over the points with jackknife intervals over replicas: bias, variance.

    With groups of classes also bias_G and variance_G, over the points of a group as
    `kdsim.training.groups.mean_by_group` has it, and bias_between and bias_within, the parts of the bias.

    With R replicas qbar is known only up to some variance / R, which the plain KL(p, qbar) has too much and the
    variance too little; the jackknife takes out what is of the order 1/R from both, and their sum stays the mean
    divergence to rounding. A bias near zero may then be negative. With two replicas the variance has no interval.

    Args:
        log_probs: (R, N, K), R >= 2.
        p: Bayes class probabilities, (N, K).

    Source: M. H. Quenouille, "Notes on bias in estimation", Biometrika 43 (1956); J. W. Tukey, 1958.
    """
    replicas = len(log_probs)
    if replicas < 2:
        raise ConfigError(f"bias and variance need at least 2 replicas, not {replicas}")
    log_probs, p = log_probs.double(), p.double()
    weights = torch.full((1, len(p)), 1 / len(p), dtype=torch.float64)  # rows: of all points, and of each group
    if groups:
        share = masses(p, groups).T  # (M, N)
        weights = torch.cat([weights, share / share.sum(-1, keepdim=True)])

    def parts(chosen: Tensor) -> Tensor:
        """Bias and variance of some replicas, all points and each group; between and within."""
        found = [weights @ part for part in bias_and_variance(chosen, p)]
        if groups:
            found.append(torch.stack([part.mean() for part in between_and_within(p, geometric_mean(chosen), groups)]))
        return torch.cat(found)

    whole = parts(log_probs)
    left_out = torch.stack([parts(torch.cat([log_probs[:r], log_probs[r + 1 :]])) for r in range(replicas)])
    where = ["", *(f"_{name}" for name in GROUPS)] if groups else [""]
    names = [f"{what}{group}" for what in ("bias", "variance") for group in where]
    names += ["bias_between", "bias_within"] if groups else []
    found = {name: _jackknife(*pair) for name, *pair in zip(names, whole, left_out.T, strict=True)}
    if replicas == 2:  # without one of them there is no variance left, and no interval to be had
        unknown = {"se": math.nan, "low": math.nan, "high": math.nan}
        found |= {name: replace(found[name], **unknown) for name in names if name.startswith("variance")}
    return found


def removed(log_probs: Tensor, p: Tensor, teachers: Tensor | float) -> Interval:
    """Share of the teachers' bias that their students have not, 1 - bias / bias of the teachers; as in `measured`.

    Args:
        log_probs: of the students, (R, N, K), R >= 2.
        p: Bayes class probabilities, (N, K).
        teachers: theirs, (T, N, K), number r modulo T that of student r; or their bias, where it is known exactly. With
            T = R a teacher is left out with its student, so that what a pair has in common does not widen the interval.
            With fewer they are taken as they are: the interval then leaves out how teachers differ.
    """
    replicas = len(log_probs)
    paired = isinstance(teachers, Tensor) and len(teachers) == replicas

    def bias(predicted: Tensor) -> Tensor:
        return bias_and_variance(predicted.double(), p.double())[0].mean()

    def share(kept: list[int]) -> Tensor:
        if not isinstance(teachers, Tensor):
            return 1 - bias(log_probs[kept]) / teachers
        return 1 - bias(log_probs[kept]) / bias(teachers[kept] if paired else teachers)

    every = list(range(replicas))
    return _jackknife(share(every), torch.stack([share(every[:r] + every[r + 1 :]) for r in every]))


def _jackknife(whole: Tensor, left_out: Tensor) -> Interval:
    """Interval of a statistic from its value () and those without each replica (R,)."""
    count, mean = len(left_out), left_out.mean()
    estimate = (count * whole - (count - 1) * mean).item()
    se = ((count - 1) / count * (left_out - mean).square().sum()).sqrt().item()
    half = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * se
    return Interval(estimate, se, estimate - half, estimate + half)
