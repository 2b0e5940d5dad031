"""Head, medium and tail: groups of classes by how often they occur in training, and scores by group.

With P_G = sum_{k in G} p_k the mass of group G and p~_G = p / P_G the distribution within it, likewise Q and q~,

    KL(p, q) = KL(P, Q) + sum_G P_G KL(p~_G, q~_G)     between groups, and within.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdsim.conventions import GROUPS
from kdsim.losses.ltkd import class_groups
from kdsim.scores import top_k_accuracy

Groups = Sequence[Tensor]
"""Indices of the classes of each group, (K_G,) int64."""


def groups_of(shares: Sequence[float] | None) -> tuple[Tensor, ...]:
    """The groups of a source with these shares of the classes (`Source.class_shares`).

    None where the source has no long tail, or fewer classes than groups.
    """
    return class_groups(shares) if shares is not None and len(shares) >= len(GROUPS) else ()


def equal_groups_prior(prior: Tensor, groups: Groups) -> Tensor:
    """Priors pi_k / (M Pi_G): all M groups occur equally often, and within each all is as it was. (K,) -> (K,)."""
    weight = torch.zeros_like(prior)
    for group in groups:
        weight[group] = 1 / prior[group].sum()
    return prior * weight / len(groups)


def masses(p: Tensor, groups: Groups) -> Tensor:
    """P_G of each group. (..., K) -> (..., M)."""
    return torch.stack([p[..., group.to(p.device)].sum(-1) for group in groups], -1)


def between_and_within(p: Tensor, log_q: Tensor, groups: Groups) -> tuple[Tensor, Tensor]:
    """KL(P, Q) and sum_G P_G KL(p~_G, q~_G) in nats, with 0 log 0 = 0. (..., K), (..., K) -> (...), (...).

    Args:
        p: probabilities.
        log_q: log-probabilities.
    """
    between, within = torch.zeros_like(p[..., 0]), torch.zeros_like(p[..., 0])
    for group in groups:
        own, log_own = p[..., group.to(p.device)], log_q[..., group.to(p.device)]
        mass, log_mass = own.sum(-1), log_own.logsumexp(-1)
        cost = _weighted(mass, log_mass)  # P_G log Q_G
        between += torch.xlogy(mass, mass) - cost
        within += (torch.xlogy(own, own) - _weighted(own, log_own)).sum(-1) - (torch.xlogy(mass, mass) - cost)
    return between, within


def mean_by_group(values: Tensor, p: Tensor, groups: Groups) -> Tensor:
    """Means over images of a group: sum_x P_G(x) v(x) / sum_x P_G(x), for each G. (..., N), (N, K) -> (..., M).

    It is E[v(x) | y in G] with y ~ p(x). So the mean over all images is that of the groups' means, weighted by the
    groups' shares E[P_G], which are 1/3 or so where the images are balanced.
    """
    share = masses(p, groups)  # (N, M)
    return values @ (share / share.sum(0))


def group_accuracies(log_probs: Tensor, labels: Tensor, groups: Groups) -> list[Tensor]:
    """Share of the images whose label is in the group that are told right; NaN where there is none. (N, K) -> M of ().

    Told right among all classes, not among those of the group.
    """
    members = [torch.isin(labels, group.to(labels.device)) for group in groups]
    return [top_k_accuracy(log_probs[own], labels[own]) for own in members]


def group_names(truth: str) -> tuple[str, ...]:
    """Names of `group_scores`."""
    divergences = () if truth == "labels" else (*(f"bcp_kl_{name}" for name in GROUPS), *PARTS)
    return (*(f"accuracy_{name}" for name in GROUPS), *divergences)


PARTS = ("bcp_kl_between", "bcp_kl_within")


def group_scores(log_probs: Tensor, p: Tensor, labels: Tensor, truth: str, groups: Groups) -> dict[str, Tensor]:
    """accuracy_G: see `group_accuracies`. Where p is known also bcp_kl_G, KL(p, q) over a group as `mean_by_group` has
    it, and bcp_kl_between and bcp_kl_within, the two parts of the mean of KL(p, q).

    Args:
        log_probs: (N, K).
        truth: what p (N, K) is, see `Source`.
    """
    found = group_accuracies(log_probs, labels, groups)
    if truth != "labels":
        parts = between_and_within(p, log_probs, groups)
        found += [*mean_by_group(parts[0] + parts[1], p, groups), *(part.mean() for part in parts)]
    return dict(zip(group_names(truth), found, strict=True))


def _weighted(weight: Tensor, log_value: Tensor) -> Tensor:
    """weight * log_value, 0 where the weight is."""
    return torch.where(weight > 0, weight * log_value, 0.0)
