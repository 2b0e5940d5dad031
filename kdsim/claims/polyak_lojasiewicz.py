"""Claims on students that are Polyak-Lojasiewicz, most of them not strongly convex: T2 with all kinds of "
"supervision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kdsim.claims.base import Claim
from kdsim.claims.convex import BOUND_RULE, cell_name, under_bound, valid
from kdsim.claims.verdicts import Part, all_of, from_interval
from kdsim.results.store import StudyResults
from kdsim.studies import PLSweep
from kdsim.study.base import Study


def pl_sweep(quick: bool) -> tuple[Study, ...]:
    """The default study; quick leaves out half the levels and most step sizes beyond T2's limit."""
    return (replace(PLSweep(), levels=2, stability_fractions=(0.6,)) if quick else PLSweep(),)


def _pool(row: Mapping[str, Any]) -> str:
    """Which of the study's least-squares pools a row belongs to: their PL constants are known exactly."""
    if row["problem.samples"] < row["problem.dimension"]:
        return "fewer points than features"
    rank = row["problem.rank"]
    return "rank below the dimension" if rank is not None and rank < row["problem.dimension"] else "full rank"


def _t2(*names: str) -> Callable[[Sequence[StudyResults]], list[Part]]:
    """Floors and curves on each pool, for the supervisions of these names together; exact BCP have no floor."""

    def parts(found: Sequence[StudyResults]) -> list[Part]:
        rows = valid(found[0], "risk_bound_valid", names)
        pools = {pool: [row for row in rows if _pool(row) == pool] for pool in dict.fromkeys(map(_pool, rows))}
        curves = [
            under_bound(found[0], own, "excess_risk", "risk_bound", f"{pool}, whole curve")
            for pool, own in pools.items()
        ]
        return (
            curves if names == ("exact",) else [_floor(own, f"{pool}, floor") for pool, own in pools.items()] + curves
        )

    return parts


def _floor(rows: Sequence[Mapping[str, Any]], condition: str) -> Part:
    """Largest ratio of an excess-risk floor to T2 averaged over the tail, transient included."""
    parts = []
    for row in rows:
        # No floor is stored where replicas diverged.
        ends = [math.inf if row[key] is None else row[key] for key in ("excess_risk_floor", "excess_risk_floor_high")]
        scale = row["risk_bound_tail"]
        effect, high = ends
        parts.append(from_interval(cell_name(row), "ratio", effect, high, row["replicas"], scale=scale, below=1.0))
    return all_of(condition, "measured excess-risk floor over the bound", parts)


_T2 = (
    "E[f(theta_t) - f*] <= (1 - alpha mu)^t (f_0 - f*) + (L alpha/mu) sigma*^2 at every step, for a mu-PL and L-smooth "
    "objective with convex L_max-smooth samples and alpha <= mu/(2 L L_max)"
)
_STATISTIC = (
    "excess-risk floor over the bound's average in the tail; largest ratio, over all checkpoints, of the mean excess "
    "risk to the bound. On three pools of least squares: of full rank, of a rank below the dimension, and with fewer "
    "points than features (the last two are PL and not strongly convex)"
)

CLAIMS = (
    Claim(
        name="t2-one-hot",
        source="[M] theorem 2 (T2)",
        statement=f"With one-hot labels {_T2}.",
        statistic=_STATISTIC,
        rule=f"{BOUND_RULE} Two parts a pool.",
        studies=pl_sweep,
        parts=_t2("one-hot"),
    ),
    Claim(
        name="t2-exact",
        source="[M] theorem 2 (T2), interpolation",
        statement=(
            "With exact BCP the second term of T2 vanishes and alpha <= mu/(L L_max) suffices: the excess risk falls "
            "at least like (1 - alpha mu)^t, without a floor."
        ),
        statistic=(
            "largest ratio of the mean excess risk to (1 - alpha mu)^t (f_0 - f*) over all checkpoints, at T2's limit "
            "and at twice its step size; the runs are ten relaxation times long, so that a floor above some 5e-5 of "
            "the start would show"
        ),
        rule=f"{BOUND_RULE} One part a pool.",
        studies=pl_sweep,
        parts=_t2("exact"),
    ),
    Claim(
        name="t2-noisy",
        source="[M] theorem 2 (T2), noisy BCP",
        statement=f"With unbiased noisy BCP, with that supervision's sigma*^2, {_T2}.",
        statistic=f"{_STATISTIC}; Dirichlet noise and means of annotators at all levels",
        rule=f"{BOUND_RULE} Two parts a pool.",
        studies=pl_sweep,
        parts=_t2("dirichlet", "annotators"),
    ),
)
