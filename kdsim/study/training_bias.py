"""What the replicas of a training have in common, and what not: bias and variance of their predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdsim.conventions import GROUPS
from kdsim.measure import bias_variance
from kdsim.measure.decomposition import columns
from kdsim.population import Population
from kdsim.problems import under_prior
from kdsim.problems.long_tail import balanced_prior
from kdsim.simplex import kl_divergence
from kdsim.trainer import StudentTrainer, Trained, teacher_log_probs
from kdsim.training.evaluation import log_probs_of
from kdsim.training.fitted import FittedTeacher
from kdsim.training.groups import equal_groups_prior, groups_of, mean_by_group


def bias_columns(
    trainer: StudentTrainer, trained: Trained, teachers: Sequence[FittedTeacher] = ()
) -> dict[str, float | None]:
    """test_NAME with its interval for each NAME of `kdsim.measure.bias_variance.measured`, on the test images.

    On long-tailed data also test_bias_removed, see `kdsim.measure.bias_variance.removed`: against the trained teachers,
    which count with the mean of their samples; where none teaches, against the BCP under the long-tailed priors
    (`prior_bias`), which exact, noisy and one-hot targets have for their mean.

    Nothing where the BCP is not known exactly, for a single replica, where one diverged, and for students of the
    engines, whose networks are not kept.
    """
    several = len(trained.networks) > 1 and all(network.scores for network in trained.networks)
    if not (several and trainer.is_network and trainer.data.test_truth == "bcp"):
        return {}
    test = trainer.pools().test
    own = predictions(trainer, trained, test)
    found = bias_variance.measured(own, test.p, groups_of(trainer.data.class_shares))
    if trainer.data.class_shares is not None and (base := _of_what_teaches(trainer, teachers, test)) is not None:
        found["bias_removed"] = bias_variance.removed(own, test.p, base)
    row: dict[str, float | None] = {}
    for name, interval in found.items():
        row |= columns(f"test_{name}", interval)
    return row


def _of_what_teaches(
    trainer: StudentTrainer, teachers: Sequence[FittedTeacher], test: Population
) -> Tensor | float | None:
    """Log-probabilities of the teachers, (T, N, K), or the bias of targets whose mean is the long-tailed BCP."""
    if trainer.teacher is None:
        return prior_bias(trainer)["prior_bias"] if trainer.supervision.unbiased else None
    if not teachers:
        return None
    samples = [teacher_log_probs(trainer.teacher, each, test, trainer.device) for each in teachers[: trainer.replicas]]
    return torch.stack([each.logsumexp(0) - math.log(len(each)) for each in samples])


def predictions(trainer: StudentTrainer, trained: Trained, pool: Population) -> Tensor:
    """Log-probabilities of all networks, (R, N, K) float64 on the CPU."""
    mixed, device = trainer.mixed, trainer.device
    parts = [
        log_probs_of(network.module(device), pool.x.to(device), network.normalisation, mixed).double().cpu()
        for network in trained.networks
    ]
    return torch.log_softmax(torch.stack(parts), -1)  # in float32 the sum is one to 1e-7 alone


def prior_bias(trainer: StudentTrainer) -> dict[str, float]:
    """KL(p, p') on the test images, p under equal priors and p' under those of the training images.

    It is the bias of whoever knows the BCP of the training images exactly. group_prior_bias: likewise with p' under the
    prior that is left when all groups have been made equally frequent, the limit of LTKD's first correction at
    temperature 1 (docs/theory.md, "Long tails"). NAME_G: each over the images of a group, see
    `kdsim.training.groups.mean_by_group`. Nothing where there is no long tail or no known BCP.
    """
    if not trainer.is_network or trainer.data.class_shares is None or trainer.data.test_truth != "bcp":
        return {}
    prior, p = torch.tensor(trainer.data.class_shares, dtype=torch.float64), trainer.pools().test.p
    groups = groups_of(trainer.data.class_shares)
    priors = {"prior_bias": prior} | ({"group_prior_bias": equal_groups_prior(prior, groups)} if groups else {})
    found: dict[str, float] = {}
    for name, left in priors.items():
        divergence = kl_divergence(p, under_prior(p, balanced_prior(len(prior)), left))
        found[name] = divergence.mean().item()
        if groups:
            by_group = mean_by_group(divergence, p, groups).tolist()
            found |= {f"{name}_{group}": value for group, value in zip(GROUPS, by_group, strict=True)}
    return found
