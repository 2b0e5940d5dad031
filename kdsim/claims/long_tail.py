"""Claims on long tails: the two corrections of long-tailed knowledge distillation (LTKD), one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kdsim.claims.base import NO_SECTION, Claim
from kdsim.claims.noise import by_replica
from kdsim.claims.verdicts import Part, from_values
from kdsim.results.store import StudyResults
from kdsim.studies.long_tail import LongTailStudy
from kdsim.study.base import Study

LOSSES = ("kd", "ltkd", "ltkd-rebalanced", "ltkd-equal-groups")


def _study(quick: bool) -> tuple[Study, ...]:
    """The default study with KD and LTKD alone; quick has points and one imbalance."""
    study = LongTailStudy(losses=LOSSES)
    return (replace(study, data=("points",), imbalances=(50.0,), replicas=12) if quick else study,)


def _corrected(row: dict[str, Any]) -> tuple[bool, bool] | None:
    """(rebalanced between groups, equal weights within) of a student's loss; None of another loss. KD has neither."""
    if row["loss_kind"] == "kd":
        return False, False
    if row["loss_kind"] != "ltkd":
        return None
    return "rebalance=True" in row["loss_settings"], "equal_groups=True" in row["loss_settings"]


def _settings(results: StudyResults) -> dict[str, dict[tuple[bool, bool], dict[str, Any]]]:
    """Condition in words to the students under each pair of corrections."""
    found: dict[str, dict[tuple[bool, bool], dict[str, Any]]] = {}
    for row in results.records:
        corrections = _corrected(row) if row["kind"] == "training" else None
        if corrections is not None:
            condition = f"{row['data']}, imbalance {row['imbalance']:g}, taught by {row['supervision']}"
            found.setdefault(condition, {})[corrections] = row
    return found


def _against_kd(corrections: tuple[bool, bool], metrics: dict[str, tuple[str, float]]) -> Callable[..., list[Part]]:
    """Paired differences of students with these corrections from students under KD, for each metric and setting.

    Args:
        metrics: column of the replicas to its name, and the sign of a difference that the claim says.
    """

    def parts(found: Sequence[StudyResults]) -> list[Part]:
        made = []
        for metric, (name, sign) in metrics.items():
            for condition, students in _settings(found[0]).items():
                first, second = (
                    by_replica(found[0], students[key]["cell"], metric) for key in (corrections, (False, False))
                )
                end = {"above": 0.0} if sign > 0 else {"below": 0.0}
                made.append(from_values(f"{condition}: {name}", f"difference in {name}", first - second, **end))
        return made

    return parts


_PAIRED = (
    "paired by replica, on balanced test data; students of the exact long-tailed BCP, of noisy estimates of it, and of "
    "a trained teacher (long-tail). alpha and beta of the paper are not known here: 1 and 1"
)

CLAIMS = (
    Claim(
        name="ltkd-rebalance",
        source=f"[K], {NO_SECTION} (first correction)",
        statement=(
            "Rebalancing the teacher's masses between head, medium and tail removes bias between the groups: the "
            "student's divergence from the balanced BCP between groups falls, and its accuracy on the tail rises."
        ),
        statistic=(
            "difference of KL(P, Q) between groups, and of the accuracy on the tail, LTKD with the first correction "
            f"alone less KD, {_PAIRED}"
        ),
        rule=(
            "Shown where the divergence falls, or the accuracy rises; refuted where it is the other way. Two parts a "
            "setting."
        ),
        studies=_study,
        parts=_against_kd(
            (True, False),
            {"test_bcp_kl_between": ("KL between groups", -1.0), "test_accuracy_tail": ("tail accuracy", 1.0)},
        ),
    ),
    Claim(
        name="ltkd-equal-weights",
        source=f"[K], {NO_SECTION} (second correction)",
        statement=(
            "Equal weights of the groups' inner terms, in place of the teacher's biased masses, teach what is within "
            "the groups better: the student's divergence from the balanced BCP within groups falls, and its accuracy "
            "on the tail rises."
        ),
        statistic=(
            "difference of sum_G P_G KL(p~_G, q~_G) within groups, and of the accuracy on the tail, LTKD with the "
            f"second correction alone less KD, {_PAIRED}"
        ),
        rule=(
            "Shown where the divergence falls, or the accuracy rises; refuted where it is the other way. Two parts a "
            "setting."
        ),
        studies=_study,
        parts=_against_kd(
            (False, True),
            {"test_bcp_kl_within": ("KL within groups", -1.0), "test_accuracy_tail": ("tail accuracy", 1.0)},
        ),
    ),
    Claim(
        name="ltkd",
        source=f"[K], {NO_SECTION} (both corrections)",
        statement=(
            "With both corrections the student is more accurate on balanced data than under KD, on all and on the tail."
        ),
        statistic=f"difference of the accuracy on all test data, and on the tail, LTKD less KD, {_PAIRED}",
        rule="Shown where the accuracy rises, refuted where it falls. Two parts a setting.",
        studies=_study,
        parts=_against_kd(
            (True, True), {"test_accuracy": ("accuracy", 1.0), "test_accuracy_tail": ("tail accuracy", 1.0)}
        ),
    ),
)
