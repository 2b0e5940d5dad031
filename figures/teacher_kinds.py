"""Figure of teacher-kinds and its relatives: the teachers, their students' accuracy, and their convergence noise."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from kdsim.figures import style
from kdsim.figures.style import Figure


def figure(results: Any) -> Figure:
    """One row of panels a recipe, student and size of the training set, from stored results (`StudyResults`)."""
    rows, replicas = results.rows, results.replicas
    students = rows[rows["kind"] == "training"]
    teachers = rows[rows["kind"] == "teacher"].set_index("cell")
    groups = [group for _, group in students.groupby(["recipe", "student", "train_size"], sort=False)]
    most = max(len(group) for group in groups)
    with style.paper():
        height = 0.6 + len(groups) * (0.75 + 0.19 * most)
        fig = Figure(figsize=(style.TEXT_WIDTH, height), layout="constrained")
        axes = fig.subplots(len(groups), 3, squeeze=False, sharey="row")
        for group, (first, second, third) in zip(groups, axes, strict=True):
            labels = _labels(group)
            known = teachers["test_bcp_kl"].notna().any()
            quality = "test_bcp_kl" if known else "test_loss"
            _teachers(first, group, teachers, quality)
            _students(second, group, replicas, "test_accuracy")
            _students(third, group, replicas, "noise_accuracy")
            first.set_yticks(range(len(group)), labels)
            first.set_ylim(len(group) - 0.4, -0.6)
            one = group.iloc[0]
            first.set_title(f"{one.student}, {one.recipe}, {one.train_size:,.0f} images", loc="left")
            first.set_xlabel("teacher: KL to p, nats" if known else "teacher: test loss, nats")
            second.set_xlabel("student: test accuracy")
            third.set_xlabel("student: noise of the accuracy")
            style.log_x_where_positive(third, _noises(group, replicas))
        data = students.iloc[0]
        fig.suptitle(
            f"{data.data}, {students['replicas'].max()} teachers and students (grey), bars: 95 % intervals, "
            f"seed {data.seed}",
            fontsize=7, color="#444444",
        )  # fmt: skip
    return fig


def _noises(group: pd.DataFrame, replicas: pd.DataFrame) -> list[float]:
    """Noises of the accuracy that are drawn: means and replicas."""
    own = replicas.loc[replicas["cell"].isin(group["cell"])]
    return [*group["noise_accuracy"], *own.get("noise_accuracy", ())]


def _labels(group: pd.DataFrame) -> list[str]:
    """What teaches, in full where the kind alone names two; with the loss where a teacher's students differ in it."""
    taught = group[group["teacher_cell"].notna()]
    several = bool((taught.groupby("teacher_cell")["loss_label"].nunique() > 1).any())
    kinds = taught.groupby("supervision")["label"].nunique()
    names = [row.supervision if kinds.get(row.supervision) == 1 else row.label for row in group.itertuples()]
    return [
        f"{name}, {row.loss_label}" if several and pd.notna(row.teacher_cell) else name
        for name, row in zip(names, group.itertuples(), strict=True)
    ]


def _teachers(ax: Axes, group: pd.DataFrame, teachers: pd.DataFrame, key: str) -> None:
    for place, row in enumerate(group.to_dict("records")):
        if row["teacher_cell"] not in teachers.index:
            continue
        teacher = teachers.loc[row["teacher_cell"]]
        _point(ax, teacher, key, place, style.BLACK)


def _students(ax: Axes, group: pd.DataFrame, replicas: pd.DataFrame, key: str) -> None:
    for place, row in enumerate(group.to_dict("records")):
        if key in replicas:
            values = replicas.loc[replicas["cell"] == row["cell"], key]
            ax.plot(values, [place] * len(values), "o", color="#bbbbbb", markersize=2.5, zorder=1)
        taught = pd.notna(row["teacher_cell"])
        _point(ax, row, key, place, style.BLUE if taught else style.RED)


def _point(ax: Axes, row: Any, key: str, place: int, color: str) -> None:
    if pd.isna(row[key]):
        return
    ax.errorbar(
        row[key],
        place,
        xerr=style.ends(row, key),
        color=color,
        marker="s",
        markersize=3,
        capsize=2,
        elinewidth=0.9,
        zorder=2,
    )
