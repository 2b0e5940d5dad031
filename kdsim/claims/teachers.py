"""Claims on teachers: Bayesian ones make better and steadier students, with few data and at every temperature."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from kdsim.claims.base import NO_SECTION, Claim
from kdsim.claims.noise import by_replica
from kdsim.claims.point_teachers import PointTeachers
from kdsim.claims.verdicts import Part, all_of, from_values
from kdsim.data import Cifar10, KnownImages
from kdsim.problems import Images
from kdsim.results.store import StudyResults
from kdsim.studies import FewShot, TeacherKinds, Temperature
from kdsim.studies.teacher_kinds import SMALL, TeacherStudy
from kdsim.study.base import Study

BAYESIAN = {"laplace": "laplace", "variational": "ivon"}
"""Names in rows, and of kinds: the paper has Laplace's method and variational inference."""
METRICS = {
    "test_accuracy": ("accuracy", 1.0),
    "noise_accuracy": ("convergence noise of the accuracy", -1.0),
    "test_bcp_kl": ("KL to the BCP", -1.0),
}
"""Columns of the replicas: their names, and the sign of a difference in favour of the Bayesian teacher."""
QUICK_IMAGES: Images = replace(SMALL, samples=1_200, validation_samples=300, test_samples=1_000)

Parts = Callable[[Sequence[StudyResults]], list[Part]]
_Images = TypeVar("_Images", bound=TeacherStudy)


# Studies: those that claims share are equal, and their cells found again ---------------------------------------


def _of_points(quick: bool) -> PointTeachers:
    return PointTeachers().quick() if quick else PointTeachers()


def _small(study: _Images) -> _Images:
    """The study at minutes: one pair of small networks, 1,200 drawn images, 4 replicas."""
    return replace(study, pairs=("resnet8 to resnet8",), data=KnownImages(QUICK_IMAGES), replicas=4)


def _kinds(quick: bool) -> tuple[Study, ...]:
    images = TeacherKinds(recipes=("crd",))
    return _of_points(quick), _small(images) if quick else images


def _few_shot(quick: bool) -> tuple[Study, ...]:
    images = FewShot()
    return _of_points(quick), replace(_small(images), fractions=(0.25, 1.0)) if quick else images


def _temperature(quick: bool) -> tuple[Study, ...]:
    images = Temperature()
    return _of_points(quick), replace(_small(images), temperatures=(1.0, 4.0)) if quick else images


def _cifar10(quick: bool) -> tuple[Study, ...]:
    study = TeacherKinds(data=Cifar10(few_shot=0.2), recipes=("crd",))
    if quick:
        data = Cifar10(few_shot=0.03, validation=0.01, test_images=2_000)
        study = replace(study, data=data, pairs=("resnet8 to resnet8",), replicas=3)
    return (study,)


# Students of one study ----------------------------------------------------------------------------------------


def _students(results: StudyResults, supervision: str) -> list[dict[str, Any]]:
    """Rows of the students of this kind of teacher."""
    return [row for row in results.records if row["kind"] == "training" and row["supervision"] == supervision]


def _temperature_of(row: dict[str, Any]) -> float:
    """Of the teacher under bayesian-kd."""
    return float(row["loss_settings"].partition("teacher_temperature=")[2].partition(",")[0])


def _sizes(results: StudyResults) -> list[int]:
    return sorted({row["train_size"] for row in results.records if row["kind"] == "training"})


def advantage(results: StudyResults, kind: str, metric: str, size: int, temperature: float = 1.0) -> Any:
    """Student of the teacher of this kind less student of the deterministic teacher, of each replica, (R,).

    Pairs of one size of the training set and temperature; they share data, first weights and order of the images.
    """
    pair = []
    for supervision in (kind, "deterministic"):
        (row,) = (
            row
            for row in _students(results, supervision)
            if row["train_size"] == size and _temperature_of(row) == temperature
        )
        pair.append(by_replica(results, row["cell"], metric))
    return pair[0] - pair[1]


def _found(results: StudyResults, metric: str) -> bool:
    """Whether the study's students have the metric: without a known BCP there is no divergence from it."""
    rows = [row for kind in (*BAYESIAN, "deterministic") for row in _students(results, kind)]
    cells = results.replicas["cell"].isin([row["cell"] for row in rows])
    return metric in results.replicas and not results.replicas.loc[cells, metric].isna().all()


def _part(condition: str, metric: str, values: Any, sign: float | None = None) -> Part:
    name, favourable = METRICS[metric]
    claimed = {"above": 0.0} if (sign or favourable) > 0 else {"below": 0.0}
    return from_values(condition, f"difference in {name}", values, **claimed)


def _places(found: Sequence[StudyResults]) -> Iterator[tuple[str, StudyResults]]:
    """Where a study stands, for people."""
    for results in found:
        yield ("points" if results.name == PointTeachers.name else "images"), results


# Parts --------------------------------------------------------------------------------------------------------


def _better(found: Sequence[StudyResults]) -> list[Part]:
    """Accuracy first, at the largest training set."""
    return [
        _part(f"{place}, {kind}: {METRICS[metric][0]}", metric, advantage(results, kind, metric, _sizes(results)[-1]))
        for metric in METRICS
        for place, results in _places(found)
        for kind in BAYESIAN
        if _found(results, metric)
    ]


def _with_few(found: Sequence[StudyResults]) -> list[Part]:
    parts = []
    for place, results in _places(found):
        few, many = _sizes(results)[0], _sizes(results)[-1]
        for kind in BAYESIAN:
            own = {size: advantage(results, kind, "test_accuracy", size) for size in (few, many)}
            both = [
                _part(f"with {few:,}", "test_accuracy", own[few]),
                _part(f"with {few:,} less with {many:,}", "test_accuracy", own[few] - own[many]),
            ]
            condition = f"{place}, {kind}: with {few:,}, and more so than with {many:,}"
            parts.append(all_of(condition, "difference in accuracy", both))
    return parts


def _at_temperatures(found: Sequence[StudyResults]) -> list[Part]:
    parts = []
    for place, results in _places(found):
        size = _sizes(results)[-1]
        temperatures = sorted(
            {_temperature_of(row) for row in _students(results, "deterministic") if row["train_size"] == size}
        )
        for kind in BAYESIAN:
            for temperature in temperatures:
                values = advantage(results, kind, "test_accuracy", size, temperature)
                parts.append(_part(f"{place}, {kind}: better at T = {temperature:g}", "test_accuracy", values))
    return parts


_PAIRED = (
    "paired by replica: the student of a Bayesian teacher (Laplace's method on the last layer; IVON, variational, "
    "on images with the noise of its published settings) less that of the deterministic one on the same data, under "
    "bayesian-kd"
)
_POINTS = "perceptrons on points of a Gaussian mixture (point-teachers)"
_SIGN = (
    "Shown where the difference is in favour of the Bayesian teacher, refuted where it is against it; one part each."
)

CLAIMS = (
    Claim(
        name="bayesian-teachers",
        source=f"[M], {NO_SECTION} (table of teachers), synthetic",
        statement=(
            "Students of Bayesian teachers are better (more accurate, closer to the BCP) and converge more steadily "
            "(less convergence noise) than students of a deterministic teacher."
        ),
        statistic=(
            "difference of test accuracy, of the convergence noise of the validation accuracy, and of KL(p, q) on the "
            f"test set, {_PAIRED}. On {_POINTS}, and on CIFAR-shaped drawn images with known BCPs (teacher-kinds)"
        ),
        rule=_SIGN,
        studies=_kinds,
        parts=_better,
    ),
    Claim(
        name="bayesian-teachers-cifar10",
        source=f"[M], {NO_SECTION} (table of teachers); [M] has CIFAR-100",
        statement="The same on CIFAR-10: more accurate and steadier students of Bayesian teachers.",
        statistic=(
            f"difference of test accuracy, and of the convergence noise of the validation accuracy, {_PAIRED} "
            "(teacher-kinds)"
        ),
        rule=_SIGN,
        studies=_cifar10,
        parts=_better,
        data="CIFAR-10",
    ),
    Claim(
        name="few-shot",
        source=f"[M], {NO_SECTION} (few-shot study)",
        statement=(
            "With few training examples the student of a Bayesian teacher is the more accurate one, and its advantage "
            "is larger than with many."
        ),
        statistic=(
            "difference of test accuracy with the smallest training set, and how much larger it is than with the "
            f"largest, {_PAIRED}. On {_POINTS}, and on CIFAR-shaped drawn images (few-shot)"
        ),
        rule=(
            "Shown where both numbers are above 0 (intersection-union test), refuted where one is below 0; one part "
            "for each kind of teacher and data."
        ),
        studies=_few_shot,
        parts=_with_few,
    ),
    Claim(
        name="temperature",
        source=f"[M], {NO_SECTION} (grid over T); what it says of T is not at hand, this is how it is read here",
        statement="The student of a Bayesian teacher is the more accurate one at every temperature T of the teacher.",
        statistic=(
            f"difference of test accuracy at each T, {_PAIRED}. On {_POINTS}, and on CIFAR-shaped drawn images "
            "(temperature)"
        ),
        rule="Shown at a T where the difference is above 0, refuted where it is below 0.",
        studies=_temperature,
        parts=_at_temperatures,
    ),
)
