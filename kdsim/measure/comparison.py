"""Which differences between configurations are more than chance: paired t-tests, corrected for their number.

Replicas of one number share data, first weights, order of the images and crops, whatever teaches them: they are pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from scipy import special, stats
from torch import Tensor

from kdsim.config import require
from kdsim.measure.floors import Interval, interval

ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """Mean of `first` - `second` over replicas.

    Attributes:
        first, second: names.
        interval: 95 % t-interval of the mean difference, not corrected for the number of comparisons.
        p: two-sided p-value of the paired t-test.
        adjusted: p after Holm's correction over all differences of one call.
        significant: adjusted below `ALPHA`.
    """

    first: str
    second: str
    interval: Interval
    p: float
    adjusted: float
    significant: bool


def differences(values: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]] | None = None) -> list[Difference]:
    """All pairs, or the given ones, in order. Family-wise error at most `ALPHA`.

    Args:
        values: name to one value a replica, (R,) each, R >= 2 and the same for both of a pair.
        pairs: names of first and second.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    pairs = list(combinations(values, 2)) if pairs is None else list(pairs)
    found = []
    for first, second in pairs:
        a, b = values[first].double(), values[second].double()
        require(a.shape == b.shape and len(a) >= 2, "replicas", (len(a), len(b)), "as many in both, at least 2")
        found.append(interval(a - b))
    p = [_p_value(each, len(values[first])) for each, (first, _) in zip(found, pairs, strict=True)]
    adjusted = holm(p)
    return [
        Difference(*pair, each, raw, corrected, corrected < ALPHA)
        for pair, each, raw, corrected in zip(pairs, found, p, adjusted, strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: the j-th smallest of m times m - j + 1, made monotone, at most 1."""
    order = sorted(range(len(p)), key=lambda number: p[number])
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[number]))
        adjusted[number] = largest
    return adjusted


def _p_value(found: Interval, replicas: int) -> float:
    """Two-sided, of Student's t with R - 1 degrees of freedom; 1 where all replicas differ alike.

    Equal differences come about by chance on the grid of a few test images: there is no standard error to test with.
    """
    if found.se == 0:
        return 1.0
    return 2 * float(special.stdtr(replicas - 1, -abs(found.mean / found.se)))


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho of two columns, with a bootstrap interval.

    Attributes:
        rho: in [-1, 1]; NaN where a column is constant.
        low, high: 95 % percentile interval over bootstrap samples of the points.
        points: number of points.
    """

    rho: float
    low: float
    high: float
    points: int


def rank_correlation(
    x: Tensor, y: Tensor, clusters: Tensor | None = None, *, seed: int = 0, samples: int = 2_000
) -> RankCorrelation:
    """Spearman's rank correlation of n >= 3 points; ties get their mean rank.

    The bootstrap draws points with replacement, or whole clusters where points of one are alike (replicas of one
    configuration); samples in which a column is constant are left out.

    Args:
        x, y: (n,).
        clusters: number of the cluster of each point, (n,) int64; None: each point is one.

    Source: C. Spearman, Am. J. Psychol. 15 (1904); B. Efron, "Bootstrap methods", Ann. Statist. 7 (1979).
    """
    require(len(x) == len(y) >= 3, "points", (len(x), len(y)), "as many in both, at least 3")
    _, number = (torch.arange(len(x)) if clusters is None else clusters).unique(return_inverse=True)
    members = [(number == which).nonzero()[:, 0] for which in range(int(number.max()) + 1)]
    drawn = torch.randint(len(members), (samples, len(members)), generator=torch.Generator().manual_seed(seed))
    if len({len(each) for each in members}) == 1:  # all samples at once
        index = torch.stack(members)[drawn].flatten(1)  # (samples, n)
        found = _spearman(x[index], y[index])
    else:
        each = (torch.cat([members[which] for which in row]) for row in drawn.tolist())
        found = torch.stack([_spearman(x[index], y[index]) for index in each])
    found = found[~found.isnan()]
    nothing = float("nan")
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = found.quantile(ends).tolist() if len(found) else (nothing, nothing)
    return RankCorrelation(_spearman(x, y).item(), low, high, len(x))


def _spearman(x: Tensor, y: Tensor) -> Tensor:
    """Of each row. (..., n), (..., n) -> (...)."""
    a, b = (torch.from_numpy(stats.rankdata(column.double().numpy(), axis=-1)) for column in (x, y))
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    scale = (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    return torch.where(scale > 0, (a * b).sum(-1) / scale, float("nan"))
