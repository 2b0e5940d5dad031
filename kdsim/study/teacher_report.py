"""Tables of studies with teachers: their quality, their students, differences beyond chance, correlations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsim.results.rows import COMPUTATION, TEACHER, TRAINING
from kdsim.study import deviation_report
from kdsim.study.report import Row, computation_tables, interval_text, number, plus_minus, training_table
from kdsim.study.table_text import Table

if TYPE_CHECKING:  # statistics need torch, and are needed where students of teachers are compared
    import pandas as pd

    from kdsim.measure.comparison import RankCorrelation

BASELINE = "deterministic"
"""Students of other teachers, and of none, are compared with its students."""
COMPARED = {"test_accuracy": "test accuracy", "noise_accuracy": "noise of accuracy", "noise_loss": "noise of loss"}
"""Of students."""
QUALITIES = {
    "test_bcp_kl": "KL to p",
    "test_bcp_l2": "|m - p|",
    "test_loss": "loss",
    "test_ece": "ece",
    "test_accuracy": "accuracy",
}
"""Of teachers, on test images; distances first."""
_GROUP = ("data", "imbalance", "student", "recipe", "epochs", "loss_settings", "targets", "train_size", "seed")
"""Students that agree in these, and in the network of their teacher, differ in the kind of teacher alone."""
_TEACHER_COLUMNS = (
    ("accuracy", "test_accuracy"),
    ("loss", "test_loss"),
    ("ece", "test_ece"),
    ("KL to p", "test_bcp_kl"),
    ("|m - p|", "test_bcp_l2"),
    ("bias^2", "test_bias_sq"),
    ("nu", "test_nu"),
    ("gradient noise", "test_gradient_noise"),
)


def tables(rows: Sequence[Row], replicas: pd.DataFrame) -> list[Table]:
    """Computations, teachers, students, differences, correlations: as many as there are.

    Args:
        replicas: one row a replica, column `cell`, see `StudyResults`.
    """
    teachers, students = teachers_of(rows), [row for row in rows if row["kind"] == TRAINING]
    found = computation_tables([row for row in rows if row["kind"] == COMPUTATION])
    if teachers:
        found.append(teacher_table(teachers))
    if students:
        found.append(training_table(students))
    if teachers and students:
        found.append(paper_table(rows, replicas))
    found.extend(deviation_report.deviation_tables(rows))
    if teachers and (compared := comparisons(rows, replicas)):
        found.append(_comparison_table(compared))
    if teachers and (correlated := correlations(rows, replicas)):
        found.append(_correlation_table(correlated))
    return found


def teachers_of(rows: Sequence[Row]) -> list[Row]:
    """Rows of teachers."""
    return [row for row in rows if row["kind"] == TEACHER]


def teacher_table(rows: Sequence[Row]) -> Table:
    """Quality of the teachers on the test images."""
    columns = [(header, key) for header, key in _TEACHER_COLUMNS if any(row.get(key) is not None for row in rows)]
    headers = [header for header, _ in columns]
    optional = ("gradient noise", "bias^2", "|m - p|")
    table = Table(["teacher", "network", "recipe", *headers], [], numeric=set(headers), optional=optional)
    for row in rows:
        own = [row["label"], row["teacher"], row["recipe"]]
        table.rows.append(own + [plus_minus(row, key) for _, key in columns])
    table.notes.append("Teachers on the test images, ± half the 95 % interval over independent teachers.")
    if any(header == "nu" for header, _ in columns):
        table.notes.append(
            "nu: variance of the posterior samples a class; gradient noise: E|q - p|^2, of one-hot labels E[1 - |p|^2]."
        )
    return table


def paper_table(rows: Sequence[Row], replicas: pd.DataFrame) -> Table:
    """In the form of the paper's: teachers and students side by side, accuracies in percent.

    Students of one group stand together; a star marks an accuracy, or a noise, that differs significantly from that of
    the student of the deterministic teacher.
    """
    headers = ["student", "recipe", "images", "loss", "taught by", "teacher, %", "student, %", "noise, %"]
    table = Table(headers, [], numeric={"images", "teacher, %", "student, %", "noise, %"})
    teachers = {row["cell"]: row for row in teachers_of(rows)}
    starred = {
        (item["cell"], item["against"], item["metric"]) for item in comparisons(rows, replicas) if item["significant"]
    }
    for group in _groups(rows):
        base = _baseline(group)
        against = base["cell"] if base else None
        for row in group:
            teacher = teachers.get(row["teacher_cell"], {})
            stars = {key: "*" * ((row["cell"], against, key) in starred) for key in ("test_accuracy", "noise_accuracy")}
            table.rows.append(
                [
                    row["student"],
                    row["recipe"],
                    f"{row['train_size']:,}",
                    row["loss_label"],
                    row["label"],
                    _percent(teacher, "test_accuracy"),
                    *(_percent(row, key) + star for key, star in stars.items()),
                ]
            )
    table.notes.append(
        "Test accuracies at the last epoch and convergence noise of the validation accuracy, ± half the 95 % interval; "
        f"*: differs from the student of the {BASELINE} teacher (0.05, Holm)."
    )
    return table


def _baseline(group: Sequence[Row]) -> Row | None:
    """The student of the deterministic teacher; None where there are several such teachers."""
    found = [row for row in group if row["supervision"] == BASELINE]
    return found[0] if len({row["teacher_cell"] for row in found}) == 1 else None


def _percent(row: Row, key: str) -> str:
    return interval_text(row, key, _hundredths, _hundredths, lambda end: f"{100 * end:.3g}")


def _hundredths(share: float) -> str:
    return f"{100 * share:.2f}"


def comparisons(rows: Sequence[Row], replicas: pd.DataFrame) -> list[dict[str, Any]]:
    """Differences of students from those of the deterministic teacher, by replica; Holm's correction in each group.

    A group has one student network, recipe and loss; its students differ in what teaches them.
    """
    found = []
    for group in _groups(rows):
        import torch

        from kdsim.measure.comparison import differences

        base = _baseline(group)
        others = [row for row in group if row is not base]
        for metric in COMPARED if base else ():
            values = {row["cell"]: _values(row, replicas, metric) for row in (base, *others)}
            first = values[base["cell"]]
            told = [row for row in others if first is not None and _fits(values[row["cell"]], first)]
            pairs = [(row["cell"], base["cell"]) for row in told]
            compared = {name: torch.from_numpy(each) for name, each in values.items() if each is not None}
            for row, difference in zip(told, differences(compared, pairs), strict=True):
                found.append(
                    {
                        "cell": row["cell"],
                        "against": base["cell"],
                        "recipe": row["recipe"],
                        "student": row["student"],
                        "loss": base["loss_settings"],
                        "train_size": row["train_size"],
                        "metric": metric,
                        "first": row["label"],
                        "second": base["label"],
                        "difference": difference.interval.mean,
                        "difference_low": difference.interval.low,
                        "difference_high": difference.interval.high,
                        "p": difference.p,
                        "p_holm": difference.adjusted,
                        "significant": difference.significant,
                        "replicas": len(first),
                    }
                )
    return found


def _fits(values: np.ndarray | None, first: np.ndarray) -> bool:
    return values is not None and values.shape == first.shape


def correlations(rows: Sequence[Row], replicas: pd.DataFrame) -> list[dict[str, Any]]:
    """Spearman's rho of a teacher's quality and what its students do, over the teachers and replicas of one group.

    Kinds that stand on the same trained networks are not independent, and the bootstrap of teachers takes them to be:
    its intervals are rather too narrow there.
    """
    teachers = {row["cell"]: row for row in teachers_of(rows)}
    found = []
    for group in _groups(rows):
        students = [row for row in group if row["teacher_cell"] in teachers]
        for quality in QUALITIES:
            for metric in COMPARED:
                correlation, used = _correlation(students, replicas, quality, metric)
                if correlation is not None:
                    found.append(
                        {
                            "recipe": students[0]["recipe"],
                            "student": students[0]["student"],
                            "loss": students[0]["loss_settings"],
                            "train_size": students[0]["train_size"],
                            "quality": quality,
                            "metric": metric,
                            "rho": correlation.rho,
                            "rho_low": correlation.low,
                            "rho_high": correlation.high,
                            "points": correlation.points,
                            "teachers": used,
                            "left_out": len(students) - used,
                        }
                    )
    return found


def _correlation(
    students: Sequence[Row], replicas: pd.DataFrame, quality: str, metric: str
) -> tuple[RankCorrelation | None, int]:
    """The correlation over the teachers that have both columns, and their number; none with fewer than three."""
    x, y = [], []
    for row in students:
        of_teacher = replicas.loc[replicas["cell"] == row["teacher_cell"]].sort_values("replica")
        values = _values(row, replicas, metric)
        if values is None or quality not in of_teacher or of_teacher[quality].isna().any():
            continue
        quality_of = of_teacher[quality].to_numpy(dtype=float)
        x.append(quality_of[np.arange(len(values)) % len(quality_of)])
        y.append(values)
    if len(x) < 3:
        return None, len(x)
    import torch

    from kdsim.measure.comparison import rank_correlation

    clusters = np.repeat(np.arange(len(x)), [len(values) for values in y])
    return rank_correlation(*map(torch.from_numpy, map(np.concatenate, (x, y))), torch.from_numpy(clusters)), len(x)


def _groups(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Students that differ in nothing but what teaches them; students of labels stand in every group of their kind."""
    students = [row for row in rows if row["kind"] == TRAINING]
    alone = [row for row in students if row["teacher_cell"] is None]
    groups: dict[str, list[Row]] = {}
    for row in students:
        if row["teacher_cell"] is not None:
            groups.setdefault(str([row.get(key) for key in (*_GROUP, "teacher")]), []).append(row)
    plain = [key for key in _GROUP if key != "loss_settings"]
    for group in groups.values():
        yield [row for row in alone if all(row.get(key) == group[0].get(key) for key in plain)] + group


def _values(row: Row, replicas: pd.DataFrame, metric: str) -> np.ndarray | None:
    """A metric of each replica, (R,); None where there is none."""
    own = replicas.loc[replicas["cell"] == row["cell"]].sort_values("replica")
    if metric not in own or own[metric].isna().any() or len(own) < 2:
        return None
    return own[metric].to_numpy(dtype=float, copy=True)


def _comparison_table(found: Sequence[dict[str, Any]]) -> Table:
    headers = ["recipe", "images", "student of", "against", "differs in", "by", "p", "p (Holm)", ""]
    table = Table(headers, [], numeric={"images", "by", "p", "p (Holm)"})
    for item in found:
        half = (item["difference_high"] - item["difference_low"]) / 2
        table.rows.append(
            [
                item["recipe"],
                f"{item['train_size']:,}",
                item["first"],
                item["second"],
                COMPARED[item["metric"]],
                f"{item['difference']:+.4g} ± {half:.2g}",
                f"{item['p']:.2g}",
                f"{item['p_holm']:.2g}",
                "significant" if item["significant"] else "",
            ]
        )
    replicas = found[0]["replicas"]
    table.notes.append(
        f"Paired by replica ({replicas}), 95 % t-intervals; significant: below 0.05 after Holm's correction over the "
        "students of one network, recipe and loss, for each metric."
    )
    return table


def _correlation_table(found: Sequence[dict[str, Any]]) -> Table:
    headers = ["recipe", "images", "teacher's", "student's", "rho", "95 % interval", "points"]
    table = Table(headers, [], numeric={"images", "rho", "95 % interval", "points"})
    for item in found:
        interval = f"{item['rho_low']:+.2f} to {item['rho_high']:+.2f}"
        table.rows.append(
            [
                item["recipe"],
                f"{item['train_size']:,}",
                QUALITIES[item["quality"]],
                COMPARED[item["metric"]],
                f"{item['rho']:+.2f}",
                interval,
                number(item["points"]),
            ]
        )
    table.notes.append(
        "Spearman's rank correlation over teachers and replicas of one group; intervals by a bootstrap of whole kinds. "
        "Kinds on the same trained networks are not independent: these intervals are rather too narrow."
    )
    return table
