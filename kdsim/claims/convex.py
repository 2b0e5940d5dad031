"""Claims on strongly convex students: T1 with exact, one-hot and noisy supervision, and the doubled step size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from kdsim.claims.base import Claim
from kdsim.claims.verdicts import Part, all_of, from_estimate, from_values, without_chance
from kdsim.conventions import NEGLIGIBLE
from kdsim.results.store import StudyResults
from kdsim.studies import NoiseSweep, NonconvexSweep, StepSizeSweep
from kdsim.study.base import Study

NOISY = ("dirichlet", "annotators", "two-point", "independent")
ROUNDING = f"zero to rounding: at most {NEGLIGIBLE:g} of the start"
BOUND_RULE = (
    "Holds if floor and curve are below the bound in every cell for which the bound's conditions hold: the ratio's "
    "test against 1 at the worst cell and checkpoint (intersection-union) after Holm. Refuted if one ratio is above 1 "
    "after Bonferroni over cells and checkpoints, and Holm."
)


def noise_sweep(quick: bool) -> tuple[Study, ...]:
    """The default study; quick has half the levels."""
    return (NoiseSweep(levels=4) if quick else NoiseSweep(),)


def under_bound(
    results: StudyResults, rows: Sequence[Mapping[str, Any]], metric: str, bound: str, condition: str
) -> Part:
    """Largest ratio of a metric's mean over replicas to its bound, over all checkpoints after the start of all cells.

    Checkpoints at which the bound itself is zero to rounding (NEGLIGIBLE of its start) are left out.

    Args:
        metric: name in the curves, for example dist_sq.
        bound: column of the curves.
    """
    parts = []
    for row in rows:
        curve = results.curves[results.curves["cell"] == row["cell"]].sort_values("step")
        limit = curve[bound].to_numpy()
        means = np.nan_to_num(
            curve[f"{metric}_mean"].to_numpy(), nan=np.inf, posinf=np.inf
        )  # of replicas that diverged
        later = (curve["step"].to_numpy() > 0) & (limit > NEGLIGIBLE * limit[0])
        name = f"{cell_name(row)}, step"
        for step, mean, se, at in zip(
            curve["step"].to_numpy()[later],
            means[later],
            curve[f"{metric}_se"].to_numpy()[later],
            limit[later],
            strict=True,
        ):
            parts.append(from_estimate(f"{name} {step:,}", "ratio", mean / at, se / at, row["replicas"], below=1.0))
    return all_of(condition, "largest ratio of the measured mean to the bound", parts)


def cell_name(row: Mapping[str, Any]) -> str:
    """Supervision, its noise and the step size."""
    level = "" if not row["nu"] else f" at nu {row['nu']:.2g}"
    return f"{row['supervision']}{level}, step size {row['step_size']:.3g}"


def valid(results: StudyResults, key: str, supervisions: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of these supervisions on which the bound's conditions hold."""
    return [row for row in results.records if row["supervision"] in supervisions and row[key]]


def zero_floor(results: StudyResults, rows: Sequence[Mapping[str, Any]], condition: str) -> Part:
    """The largest squared distance of a replica at the end of the run, over its start."""
    worst, cases = 0.0, 0
    for row in rows:
        curve = results.curves[results.curves["cell"] == row["cell"]].sort_values("step")
        final = results.replicas.loc[results.replicas["cell"] == row["cell"], "final_dist_sq"].to_numpy()
        final = np.nan_to_num(final, nan=np.inf, posinf=np.inf)  # of replicas that diverged
        worst, cases = max(worst, (final / curve["dist_sq_mean"].iloc[0]).max()), cases + len(final)
    return without_chance(condition, "largest final squared distance over its start", worst, cases, below=NEGLIGIBLE)


def floor_under_bound(results: StudyResults, rows: Sequence[Mapping[str, Any]], condition: str) -> Part:
    """Largest ratio of a cell's floor to T1 averaged over the tail, transient included."""
    parts = []
    for row in rows:
        own = results.replicas.loc[results.replicas["cell"] == row["cell"], "floor"].to_numpy()
        values = torch.tensor(np.nan_to_num(own, nan=np.inf, posinf=np.inf) / row["bound_tail"])
        parts.append(from_values(cell_name(row), "ratio", values, below=1.0))
    return all_of(condition, "measured floor over the bound", parts)


def _t1_exact(found: Sequence[StudyResults]) -> list[Part]:
    rows = valid(found[0], "bound_valid", ("exact",))
    return [
        zero_floor(found[0], rows, "no floor"),
        under_bound(found[0], rows, "dist_sq", "bound", "whole curve"),
    ]


def _t1(names: Sequence[str]) -> Any:
    """The parts that the supervisions of these names stay under T1, one after the other."""

    def parts(found: Sequence[StudyResults]) -> list[Part]:
        rows = {name: valid(found[0], "bound_valid", (name,)) for name in names}
        return [
            *(floor_under_bound(found[0], own, f"{name}, floor") for name, own in rows.items()),
            *(under_bound(found[0], own, "dist_sq", "bound", f"{name}, whole curve") for name, own in rows.items()),
        ]

    return parts


# The doubled step size ------------------------------------------------------------------------------------


def step_sizes(quick: bool) -> tuple[Study, ...]:
    """Both limits, 1 / (2 L_max) and 1 / L_max, are among the study's step sizes."""
    study = StepSizeSweep()
    return (replace(study, step_sizes=3, lowest=1.0, tolerance_levels=0, window=8.0, replicas=64) if quick else study,)


def _doubled(row: Mapping[str, Any]) -> bool:
    """Whether the step size is 1 / L_max, twice what T1 admits for noisy supervision."""
    limit = row["step_size_limit"] * (1 if row["supervision"] == "exact" else 2)
    return math.isclose(row["step_size"], limit, rel_tol=1e-6)


def _double_step(found: Sequence[StudyResults]) -> list[Part]:
    rows = [row for row in found[0].records if row["supervision"] == "exact" and _doubled(row)]
    return [
        zero_floor(found[0], rows, "no floor at 1/L_max"),
        under_bound(found[0], rows, "dist_sq", "bound", "whole curve at 1/L_max"),
    ]


def nonconvex(quick: bool) -> NonconvexSweep:
    """Both students, to divergence."""
    study = NonconvexSweep()
    return replace(study, nu_fractions=(0.1,), steps=2_000, octaves=5, replicas=16) if quick else study


def _double_step_special(found: Sequence[StudyResults]) -> list[Part]:
    linear, curved = found
    parts = []
    noisy = [row for row in linear.records if row["supervision"] != "exact" and _doubled(row)]
    for row in noisy:
        own = linear.replicas[linear.replicas["cell"] == row["cell"]]
        neighbourhood = 2 * row["step_size"] * row["sigma_star_sq"] / row["mu"]
        values = torch.tensor(np.nan_to_num(own["floor"].to_numpy(), nan=np.inf, posinf=np.inf) / neighbourhood)
        parts.append(
            from_values(
                f"linear student, {row['supervision']} at nu {row['nu']:.2g}",
                "floor at 1/L_max over T1's neighbourhood 2 alpha sigma*^2 / mu",
                values,
                above=1.0,
            )
        )
    for student in dict.fromkeys(row["student"] for row in curved.records):
        exact, one_hot = (_largest_borne(curved, student, name) for name in ("exact", "one-hot"))
        parts.append(
            from_values(
                f"{student} (not convex)",
                "octaves between the largest step sizes that exact BCP and one-hot labels bear",
                torch.tensor(exact - one_hot),
                above=0.0,
            )
        )
    return parts


def _largest_borne(results: StudyResults, student: str, supervision: str) -> np.ndarray:
    """log2 of the largest step size that a replica bears, (R,): it and all smaller ones end below a constant guess.

    A replica bears a step size if it has not diverged and its excess risk at the end is below that of the best constant
    prediction. Where it bears none of the grid, half the smallest stands for it.
    """
    rows = [row for row in results.records if (row["student"], row["supervision"]) == (student, supervision)]
    rows.sort(key=lambda row: row["step_size"])
    borne = []
    for row in rows:
        own: pd.DataFrame = results.replicas[results.replicas["cell"] == row["cell"]].sort_values("replica")
        fine = (own["diverged_at"] < 0) & (own["final_excess_risk"] < row["constant_excess_risk"])
        borne.append(fine.to_numpy())
    count = np.cumprod(np.stack(borne), axis=0).sum(0)  # (R,) step sizes borne one after the other
    sizes = np.array([rows[0]["step_size"] / 2, *(row["step_size"] for row in rows)])
    return np.log2(sizes[count])


def _step_studies(quick: bool) -> tuple[Study, ...]:
    return (*step_sizes(quick), nonconvex(quick))


CLAIMS = (
    Claim(
        name="t1-one-hot",
        source="[M] theorem 1 (T1)",
        statement=(
            "With one-hot labels, for a mu-strongly convex objective with convex L_max-smooth samples and a step size "
            "alpha <= 1/(2 L_max), E|theta_t - theta*|^2 <= (1 - alpha mu)^t |theta_0 - theta*|^2 + (2 alpha/mu) "
            "sigma*^2 at every step."
        ),
        statistic=(
            "floor (mean over the tail and replicas) over the bound's average there; largest ratio, over all "
            "checkpoints, of the mean squared distance over replicas to the bound"
        ),
        rule=BOUND_RULE,
        studies=noise_sweep,
        parts=_t1(("one-hot",)),
    ),
    Claim(
        name="t1-exact",
        source="[M] theorem 1 (T1), interpolation",
        statement=(
            "With exact BCP the second term of T1 vanishes: E|theta_t - theta*|^2 <= (1 - alpha mu)^t |theta_0 - "
            "theta*|^2, and SGD at a constant step size converges to theta* with no error floor."
        ),
        statistic=(
            "largest ratio to the bound over the checkpoints at which the bound is more than rounding; largest squared "
            "distance of a replica at the end, over its start"
        ),
        rule=f"{BOUND_RULE} And the end of every replica is {ROUNDING}.",
        studies=noise_sweep,
        parts=_t1_exact,
    ),
    Claim(
        name="t1-noisy",
        source="[M] theorem 1 (T1), noisy BCP",
        statement=(
            "With unbiased noisy BCP the same bound holds with that supervision's sigma*^2, which is proportional to "
            "its noise: Dirichlet, mean of annotators, two-point, and independent noise as in [M]."
        ),
        statistic="as t1-one-hot, for each family of noise over all its levels",
        rule=f"{BOUND_RULE} One part a family.",
        studies=noise_sweep,
        parts=_t1(NOISY),
    ),
    Claim(
        name="double-step",
        source="[M] theorem 1 (T1), interpolation",
        statement=(
            "Exact BCP bears twice the step size: at alpha = 1/L_max the bound (1 - alpha mu)^t |theta_0 - theta*|^2 "
            "still holds, without a floor."
        ),
        statistic="as t1-exact, at alpha = 1/L_max",
        rule=f"{BOUND_RULE} And the end of every replica is {ROUNDING}.",
        studies=step_sizes,
        parts=_double_step,
    ),
    Claim(
        name="double-step-special",
        source="[M], read off T1's two step-size conditions",
        statement=(
            "The doubled step size is special to exact BCP: with noisy labels alpha has to stay below 1/(2 L_max) for "
            "T1's neighbourhood to hold, and exact BCP bears larger steps."
        ),
        statistic=(
            "linear students: measured floor at alpha = 1/L_max over T1's neighbourhood, for each noisy supervision; "
            "students that are not convex: octaves between the largest step sizes at which exact BCP and one-hot "
            "labels still end below the best constant prediction, of each replica"
        ),
        rule=(
            "Linear students: shown where the floor passes the neighbourhood (ratio above 1), refuted where the ratio "
            "is below 1; T1' of docs/theory.md, attained at every condition number, has it at most 1/2 for targets "
            "that sum to one. Not convex: shown where exact BCP bears larger steps (above 0), refuted where it bears "
            "smaller ones."
        ),
        studies=_step_studies,
        parts=_double_step_special,
    ),
)
