"""Claims on how students deviate from their teachers: along eigendirections exactly, and in their confidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from kdsim.claims.base import NO_SECTION, Claim
from kdsim.claims.noise import by_replica
from kdsim.claims.teachers import QUICK_IMAGES
from kdsim.claims.verdicts import Part, from_values, without_chance
from kdsim.data import KnownImages
from kdsim.results.store import StudyResults
from kdsim.studies.deviations import Deviations
from kdsim.study.base import Study

LEAST = 0.01
"""Smallest exaggeration that counts: of a slope over one, and of a logit. Without it a student that has become its
teacher to four digits shows one, or refutes it, by a few parts in 10,000."""


def _paths(quick: bool) -> tuple[Study, ...]:
    return (Deviations(parts=("paths",)),)


def _students(quick: bool) -> tuple[Study, ...]:
    """Quick: perceptrons and softmax regression as by default, one small pair of networks of images."""
    study = Deviations(parts=("points", "images"))
    if quick:
        study = replace(
            study, pairs=("resnet8 to resnet8",), data=KnownImages(QUICK_IMAGES), image_replicas=4, replicas=8
        )
    return (study,)


def _eigen(found: Sequence[StudyResults]) -> list[Part]:
    parts = []
    for row in found[0].records:
        flow = row["step_size"] is None
        name = "gradient flow" if flow else f"gradient descent, alpha h_1 = {row['step_size']:g}"
        cases = row["comparisons"]
        parts += [
            without_chance(
                name, "pairs of directions along which the bias is not exaggerated", row["violations"], cases, below=0.0
            ),
            # So that not all of them are ties.
            without_chance(
                f"{name}: the effect is there", "smallest ratio of student to early-stopped model along the lower "
                "direction",
                row["ratio_min"], cases, below=0.9,
            ),
        ]  # fmt: skip
    return parts


def _slopes(found: Sequence[StudyResults]) -> list[Part]:
    """Shown by the slope of least squares, which errs downwards; refuted by the inverse one, which errs upwards."""
    parts = []
    for name, row in _taught(found[0]):
        slope, upper = (by_replica(found[0], row["cell"], f"deviation_{key}") for key in ("slope", "slope_upper"))
        part = from_values(name, "slope of the student's logit on the teacher's", slope, above=1 + LEAST)
        other = from_values(name, "slope of the inverse regression", upper, above=1 + LEAST)
        parts.append(replace(part, p_against=other.p_against) if part.by_chance and other.by_chance else part)
    return parts


def _hard_points(found: Sequence[StudyResults]) -> list[Part]:
    """Shown below the diagonal; above it is where regression to the mean puts them anyway, so nothing refutes."""
    parts = []
    for name, row in _taught(found[0]):
        lowest = by_replica(found[0], row["cell"], "deviation_q1")
        part = from_values(name, "logit of student less teacher in the hardest tenth", lowest, below=-LEAST)
        parts.append(replace(part, p_against=1.0) if part.by_chance else part)
    return parts


def _taught(results: StudyResults) -> Iterator[tuple[str, dict[str, Any]]]:
    """Students of teachers, with what tells them apart: networks, what the teacher learned, and for how long."""
    teachers = {row["cell"]: row for row in results.records if row["kind"] == "teacher"}
    trainings = [row for row in results.records if row["kind"] == "training"]
    for row in trainings:
        if row["teacher_cell"] is not None:
            teacher = teachers[row["teacher_cell"]]
            learned = f"taught by {teacher['teacher.supervision']} for {teacher['teacher.epochs']:g} epochs"
            yield f"{row['teacher']} {learned} to {row['student']}", row


CLAIMS = (
    Claim(
        name="exaggerated-eigen-bias",
        source="[N] section 4",
        statement=(
            "Distillation by gradient flow, or descent, exaggerates the bias towards top eigendirections: when a "
            "student of an early-stopped teacher has the same component along a direction as an early-stopped model, "
            "its component along every direction of lower eigenvalue is smaller."
        ),
        statistic=(
            "number of violations over pairs of directions, times of the teacher and times of the student, on exact "
            "paths; and the smallest ratio of the two components, which says that the effect is not nil"
        ),
        rule=(
            "Holds if no pair violates it beyond rounding, and the smallest ratio is below 0.9, for flow and for "
            "descent."
        ),
        studies=_paths,
        parts=_eigen,
    ),
    Claim(
        name="exaggerated-confidence",
        source=f"[N], {NO_SECTION} (plots of logits)",
        statement=(
            "Students exaggerate the confidence of their teachers: the slope of the student's logit of the teacher's "
            "top class on the teacher's logit is above one."
        ),
        statistic="slope of least squares on test points, of each replica",
        rule=(
            f"Shown above {1 + LEAST:g}, although whatever the student does not take over biases it below one; refuted "
            f"only where the slope of the inverse regression, biased the other way, is below {1 + LEAST:g}. One part "
            "for each network and teacher."
        ),
        studies=_students,
        parts=_slopes,
    ),
    Claim(
        name="exaggerated-hard-points",
        source=f"[N], {NO_SECTION} (plots of logits)",
        statement=(
            "Points that are hard for the teacher fall below the diagonal: there the student is less confident in the "
            "teacher's top class than the teacher."
        ),
        statistic="mean difference of the logits in the tenth of the test points of which the teacher is least sure",
        rule=(
            f"Shown below -{LEAST:g}; a larger difference refutes nothing, as regression to the mean raises the lowest "
            "tenth. One part for each network and teacher."
        ),
        studies=_students,
        parts=_hard_points,
    ),
)
