"""Claims on the noise of a supervision: floors and fluctuations are proportional to it, and it costs generalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kdsim.claims.base import Claim
from kdsim.claims.convex import NOISY, noise_sweep
from kdsim.claims.verdicts import Part, from_estimate, from_values, standard_error
from kdsim.results.store import StudyResults
from kdsim.studies import FrozenLabels
from kdsim.study.base import Study

EXPONENT = (0.9, 1.1)
"""Within which an exponent counts as one."""
CONSTANT = (0.9, 1.1)
"""Within which the constants of two families count as equal. On other pools than noise-sweep's they are others."""


def by_replica(results: StudyResults, cell: str, column: str) -> Tensor:
    """A column of a cell's replicas in their order, (R,) float64; NaN, which decides nothing, if there is none."""
    own = results.replicas[results.replicas["cell"] == cell].sort_values("replica")
    if column not in own:
        return torch.full((len(own),), math.nan, dtype=torch.float64)
    return torch.tensor(own[column].to_numpy(dtype=float))


def exponent(nu: Tensor, values: Tensor) -> tuple[float, float]:
    """Slope of log(mean over replicas) against log(nu) by least squares, and its standard error by the jackknife.

    Replicas of one number share their samples at all levels, so whole replicas are left out.

    Args:
        nu: (L,), L >= 2.
        values: (L, R).

    Source: B. Efron, C. Stein, "The jackknife estimate of variance", Ann. Statist. 9 (1981).
    """
    replicas = values.shape[1]
    centred = nu.log() - nu.log().mean()

    def slope(means: Tensor) -> Tensor:  # (L, ...) -> (...)
        return (centred @ means.log()) / centred.square().sum()

    without = (values.sum(1, keepdim=True) - values) / (replicas - 1)  # (L, R)
    left_out = slope(without)
    spread = (replicas - 1) / replicas * (left_out - left_out.mean()).square().sum()
    return slope(values.mean(1)).item(), spread.sqrt().item()


def _families(results: StudyResults) -> dict[str, list[dict[str, Any]]]:
    """Rows of each unbiased family in order of nu."""
    return {
        name: sorted((row for row in results.records if row["supervision"] == name), key=lambda row: row["nu"])
        for name in NOISY
    }


def _proportional(found: Sequence[StudyResults]) -> list[Part]:
    results, parts = found[0], []
    families = _families(results)
    for name in ("floor", "fluctuation"):
        for family, rows in families.items():
            values = torch.stack([by_replica(results, row["cell"], name) for row in rows])
            slope, se = exponent(torch.tensor([row["nu"] for row in rows], dtype=torch.float64), values)
            parts.append(
                from_estimate(
                    f"{name} within {family}", f"exponent of nu in the {name}", slope, se, values.shape[1],
                    above=EXPONENT[0], below=EXPONENT[1],
                )
            )  # fmt: skip
    base = _constant(results, families[NOISY[0]])
    for family in NOISY[1:]:
        own = _constant(results, families[family])
        mean, se = _ratio(own, base)
        parts.append(
            from_estimate(
                f"one constant for {family} and {NOISY[0]}", "ratio of floor over nu of the two families", mean, se,
                len(own), above=CONSTANT[0], below=CONSTANT[1],
            )
        )  # fmt: skip
    return parts


def _constant(results: StudyResults, rows: Sequence[dict[str, Any]]) -> Tensor:
    """Floor over nu of each replica, averaged over levels, (R,)."""
    return torch.stack([by_replica(results, row["cell"], "floor") / row["nu"] for row in rows]).mean(0)


def _ratio(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Ratio of means of paired values, and its standard error by the delta method. (R,), (R,)."""
    ratio = first.mean() / second.mean()
    residual = (first - ratio * second) / second.mean()
    return ratio.item(), (residual.std() / len(first) ** 0.5).item()


# Labels that are drawn once -------------------------------------------------------------------------------


def _frozen(quick: bool) -> tuple[Study, ...]:
    """Quick: three sizes of data sets, one level of noise."""
    study = FrozenLabels()
    if quick:
        study = replace(study, sizes=study.sizes[::2], nu_fractions=study.nu_fractions[1:2], relaxations=6.0)
    return (study,)


def _differences(results: StudyResults, metric: str, name: str, more: str, less: str, sign: float) -> list[Part]:
    """For each size of the data set: metric under more noise less that under less noise; `sign` is the claimed one."""
    parts = []
    for size in dict.fromkeys(row["training_set"] for row in results.records if row["training_set"]):
        rows = {
            row["supervision"]: row for row in results.records if row["training_set"] == size and _kept(results, row)
        }
        first, second = rows[more], rows[less]
        end = {"above": 0.0} if sign > 0 else {"below": 0.0}
        if metric in results.replicas:
            values = by_replica(results, first["cell"], metric) - by_replica(results, second["cell"], metric)
            parts.append(from_values(f"{name}, N = {size:,}, {more} - {less}", f"difference in {name}", values, **end))
        else:  # unpaired: rows have intervals, replicas no such column
            ends = [(row[metric], row[f"{metric}_high"], row["replicas"]) for row in (first, second)]
            se = math.hypot(*(standard_error(*each) for each in ends))
            parts.append(
                from_estimate(
                    f"{name}, N = {size:,}, {more} - {less}", f"difference in {name}", first[metric] - second[metric],
                    se, first["replicas"], **end,
                )
            )  # fmt: skip
    return parts


def _kept(results: StudyResults, row: dict[str, Any]) -> bool:
    """Of the levels of a family, the middle one stands for it."""
    levels = sorted({r["nu"] for r in results.records if r["supervision"] == row["supervision"]})
    return row["nu"] == levels[len(levels) // 2]


def _generalisation(found: Sequence[StudyResults]) -> list[Part]:
    return [
        *_differences(found[0], "generalisation_gap", "gap", "one-hot", "dirichlet", 1.0),
        *_differences(found[0], "generalisation_gap", "gap", "dirichlet", "exact", 1.0),
    ]


def _accuracy(found: Sequence[StudyResults]) -> list[Part]:
    return [
        *_differences(found[0], "final_accuracy", "accuracy", "one-hot", "dirichlet", -1.0),
        *_differences(found[0], "final_accuracy", "accuracy", "dirichlet", "exact", -1.0),
    ]


_DATA_SETS = (
    "data sets of N points with one target a point that stays (frozen-labels), one-hot labels, Dirichlet noise at a "
    "middle level, and exact BCP; a replica has a data set of its own, the same points under all three"
)

CLAIMS = (
    Claim(
        name="noise-proportional",
        source="[M], section not at hand (guideline: quality of the teacher)",
        statement=(
            "The quality of a teacher as an estimate of the BCP is proportional to the error floor and to the "
            "fluctuations of its student: both grow like nu, the variance of the supervision a class."
        ),
        statistic=(
            "exponent b of nu in floor ~ nu^b and fluctuation ~ nu^b over the levels of each unbiased family (slope of "
            "the logarithms, jackknife over replicas); ratio of floor over nu between families, since nu alone should "
            "decide. Families whose covariance is that of the labels times a number have one constant on every pool; "
            "the ratio of the others is a property of the pool that is tested (of noise-sweep)"
        ),
        rule=(
            f"Shown where the interval of the exponent, or of the ratio, lies within [{EXPONENT[0]:g}, "
            f"{EXPONENT[1]:g}] (two one-sided tests, Holm); refuted where it lies outside."
        ),
        studies=noise_sweep,
        parts=_proportional,
    ),
    Claim(
        name="noise-generalisation",
        source="[M], section not at hand (generalisation)",
        statement="Less noise in the supervision means a smaller gap between population loss and training loss.",
        statistic=(
            "difference of the gap at the end of SGD, under more noise less that under less noise, for each N. On "
            f"{_DATA_SETS}"
        ),
        rule="Shown for an N where the difference is above 0, refuted where it is below 0.",
        studies=_frozen,
        parts=_generalisation,
    ),
    Claim(
        name="noise-accuracy",
        source="[M], section not at hand (accuracy)",
        statement="Less noise in the supervision means a higher accuracy.",
        statistic=(
            "difference of the accuracy on the population at the end of SGD, paired by replica, more noise less fewer "
            f"noise, for each N. On {_DATA_SETS}"
        ),
        rule="Shown for an N where the difference is below 0, refuted where it is above 0.",
        studies=_frozen,
        parts=_accuracy,
    ),
)
