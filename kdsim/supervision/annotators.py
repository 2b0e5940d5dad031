"""The mean vote of independent annotators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from kdsim import simplex
from kdsim.config import ConfigError, require_between
from kdsim.rng import COUNT_SLOT, Draws
from kdsim.supervision.base import Batch, Supervision, Target, require_feasible
from kdsim.supervision.sampling import classes_last, cumulative, reached

MOST = 1 << 24
"""Largest number of annotators: float32 counts exactly up to here."""


@dataclass(frozen=True)
class Annotators(Supervision):
    """Mean of n independent one-hot labels, n = floor(a) or ceil(a) mixed so that E[1/n] = 1/a.

    Mean p, covariance (diag(p) - p p') E[1/n] = (diag(p) - p p') / a.

    The mixture takes f = floor(a) with probability f ((f + 1)/a - 1). Label j is drawn from slot j, so
    one annotator is one-hot supervision, label by label, and more annotators extend the votes of fewer;
    n is drawn from a slot above all labels. The time of a visit is proportional to n.

    Attributes:
        count: a in [1, 2^24], mean number of annotators (harmonic mean); any real number.

    Source: docs/theory.md.
    """

    count: float = 3.0

    name: ClassVar[str] = "annotators"
    level_field: ClassVar[str] = "count"
    unbiased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_between("count", self.count, 1, MOST)

    def sample(self, batch: Batch, draws: Draws) -> Target:
        """n labels from the slots 0 .. n-1."""
        cdf = cumulative(batch.p)  # (K, R, V)
        count = torch.as_tensor(self.count, dtype=torch.float64, device=cdf.device)
        fewest, most = count.floor(), count.ceil()
        keep_fewest = (fewest * ((fewest + 1) / count - 1)).to(cdf.dtype)
        votes = fewest.to(cdf.dtype) + (draws.uniform(COUNT_SLOT) >= keep_fewest).to(cdf.dtype)  # (R, V)
        totals = torch.zeros_like(cdf)  # labels that are at most k
        for first, last, rows in _rounds(most):
            members = slice(None) if rows is None else rows
            theirs = draws if rows is None else draws.replicas(rows)
            theirs_cdf, part = cdf[:, members], torch.zeros_like(cdf[:, members])
            for label in range(first, last):
                at_most = reached(theirs_cdf, theirs.uniform(label))
                if label == last - 1:  # only this one may be missing
                    at_most &= label < votes[members]
                part += at_most.to(cdf.dtype)
            totals[:, members] += part
        totals[1:] -= totals[:-1].clone()
        return Target(q=classes_last(totals / votes), y=batch.y)

    def mean(self, p: Tensor) -> Tensor:
        """E[q | p] = p. (..., K) -> (..., K)."""
        return p

    def covariance(self, p: Tensor) -> Tensor:
        """Cov[q | p] = (diag(p) - p p') / a. (..., K) -> (..., K, K)."""
        return simplex.one_hot_covariance(p) / self.count

    def largest_nu(self, p: Tensor) -> float:
        """One-hot's nu, E[1 - |p|^2] / K, at one annotator."""
        return simplex.gini(p).mean().item() / p.shape[-1]

    def with_nu(self, nu: float, p: Tensor) -> Self:
        """a = nu_onehot / nu, for nu_onehot / 2^24 <= nu <= nu_onehot.

        Raises:
            ConfigError: nu outside this range; the message states its largest value.
        """
        largest = self.largest_nu(p)
        require_feasible(self.name, nu, largest)
        if nu * MOST < largest or nu == 0:
            raise ConfigError(
                f"nu = {nu!r} is not feasible for {self.name}: must be between {largest / MOST:.6g} (2^24 annotators) "
                f"and {largest:.6g}; use dirichlet for less, exact for 0"
            )
        return replace(self, count=max(1.0, largest / nu))


def _rounds(most: Tensor) -> Iterator[tuple[int, int, Tensor | None]]:
    """Labels first .. last - 1 and the replicas (None: all) that have so many annotators. `most`: () or (R, 1)."""
    first = 0
    for last in most.unique().long().tolist():
        everyone = first == 0
        yield first, last, None if everyone else (most[:, 0] >= last).nonzero()[:, 0]
        first = last
