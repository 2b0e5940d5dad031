"""Who is compared with whom: students that differ in their teacher alone, paired by replica. On rows made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from kdsim.results.rows import TEACHER, TRAINING
from kdsim.study import teacher_report

SETTING = {
    "data": "known-images", "imbalance": None, "student": "resnet8", "recipe": "crd", "epochs": 4.0,
    "loss_settings": "kd()", "targets": "frozen", "train_size": 100, "seed": 0,
}  # fmt: skip
"""In which students agree that are compared."""
BASE = np.array([0.5, 0.7, 0.6, 0.8])
"""Accuracies of the student of the deterministic teacher, by replica."""


def student(cell: str, kind: str | None, **changes: Any) -> dict[str, Any]:
    taught = {"supervision": kind or "one-hot", "label": kind or "one-hot", "teacher": kind and "resnet20"}
    return {"kind": TRAINING, "cell": cell, "teacher_cell": kind and f"{kind} teacher", **taught, **SETTING, **changes}


def replicas(**accuracies: np.ndarray) -> pd.DataFrame:
    """One row a replica, in no order."""
    parts = [
        pd.DataFrame({"cell": cell, "replica": range(len(values)), "test_accuracy": values})
        for cell, values in accuracies.items()
    ]
    return pd.concat(parts).sample(frac=1, random_state=3, ignore_index=True)


def test_students_are_paired_by_replica() -> None:
    rows = [student("a", "deterministic"), student("b", "laplace")]
    better = BASE + 0.1 + np.array([-0.01, 0.01, 0.01, -0.01])
    (found,) = teacher_report.comparisons(rows, replicas(a=BASE, b=better))
    assert (found["cell"], found["against"], found["metric"]) == ("b", "a", "test_accuracy")
    assert found["difference"] == pytest.approx(0.1)
    assert found["difference_high"] - 0.1 == pytest.approx(3.182 * 0.01 / 3**0.5, rel=1e-3)  # t with 3 degrees
    assert found["significant"] and found["replicas"] == 4


@pytest.mark.parametrize("key", [*SETTING, "teacher"])
def test_students_that_differ_in_more_than_the_teacher_are_not_compared(key: str) -> None:
    rows = [student("a", "deterministic"), student("b", "laplace", **{key: "another"})]
    assert teacher_report.comparisons(rows, replicas(a=BASE, b=BASE + 0.1)) == []


def test_students_of_labels_are_compared_with_those_of_every_loss() -> None:
    """Their own loss is another, since there is no teacher in it."""
    rows = [student("a", "deterministic"), student("b", None, loss_settings="label-cross-entropy()")]
    assert len(teacher_report.comparisons(rows, replicas(a=BASE, b=BASE + 0.1))) == 1


def test_a_replica_is_held_against_the_teacher_that_taught_it() -> None:
    """Replica r hears teacher r modulo their number; the better the teacher, the better its student here."""
    kinds = ("deterministic", "laplace", "swag")
    rows = [student(kind, kind) for kind in kinds]
    rows += [{"kind": TEACHER, "cell": f"{kind} teacher"} for kind in kinds]
    quality = {kind: np.array([0.1, 0.9]) + number for number, kind in enumerate(kinds)}
    each = replicas(**{kind: np.tile(values, 2) for kind, values in quality.items()})
    teachers = [
        pd.DataFrame({"cell": f"{kind} teacher", "replica": [1, 0], "test_loss": values[::-1]})
        for kind, values in quality.items()
    ]
    (found,) = teacher_report.correlations(rows, pd.concat([each, *teachers], ignore_index=True))
    assert (found["quality"], found["metric"]) == ("test_loss", "test_accuracy")
    assert found["rho"] == pytest.approx(1.0) and (found["points"], found["teachers"]) == (12, 3)
