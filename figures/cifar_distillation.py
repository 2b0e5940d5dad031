"""Figure of cifar-distillation: test accuracy and convergence noise of students, one line a loss."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from kdsim.figures import style
from kdsim.figures.style import Figure


def figure(results: Any) -> Figure:
    """Two panels a pair: every replica and the mean with its interval, from stored results (`StudyResults`)."""
    rows, replicas = results.rows, results.replicas
    groups = _pairs(rows, results.settings)
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 0.8 + 2.1 * len(groups)), layout="constrained")
        axes = fig.subplots(len(groups), 2, squeeze=False, sharey="row")
        for (pair, teacher, taught), (left, right) in zip(groups, axes, strict=True):
            _dots(left, taught, replicas, "test_accuracy", with_replicas=True)
            _dots(right, taught, replicas, "noise_accuracy", with_replicas=False)
            if pd.notna(teacher["test_accuracy"]):
                left.axvline(teacher["test_accuracy"], color="#555555", linestyle="--", linewidth=0.9)
                left.text(
                    teacher["test_accuracy"], 1.0, " teacher", transform=left.get_xaxis_transform(), fontsize=7,
                    color="#555555", ha="left", va="top",
                )  # fmt: skip
            left.set_title(f"{pair}: test accuracy, last epoch", loc="left")
            right.set_title("convergence noise of the validation accuracy", loc="left")
            left.set_xlabel("accuracy")
            right.set_xlabel("standard deviation about the trend")
            style.log_x_where_positive(right, taught["noise_accuracy"])
        first = groups[0][2].iloc[0]  # a student
        fig.suptitle(
            f"{first.data}, {first.train_size:,} training images, {first.epochs:g} epochs of recipe {first.recipe}, "
            f"{rows['replicas'].max()} replicas (grey), bars: 95 % intervals, seed {first.seed}",
            fontsize=7, color="#444444",
        )  # fmt: skip
    return fig


def _pairs(rows: pd.DataFrame, settings: dict[str, Any]) -> list[tuple[str, pd.Series, pd.DataFrame]]:
    """(name, the teacher's row, its students' rows) of each pair that has both: a cell that failed has no row."""
    alone, groups = rows["teacher"].isna(), []
    of_teacher = (rows["epochs"] == settings["teacher_recipe"]["epochs"]) & (rows["replicas"] == settings["teachers"])
    for pair in settings["pairs"]:
        teacher, student = (name.strip() for name in pair.split(" to "))
        trained = rows[alone & of_teacher & (rows["student"] == teacher)]
        taught = (rows["student"] == student) & (rows["epochs"] == settings["recipe"]["epochs"])
        students = rows[taught & ((rows["teacher"] == teacher) | alone)].drop(index=trained.index[:1], errors="ignore")
        if len(trained) and len(students):
            groups.append((pair, trained.iloc[0], students))
    return groups


def _dots(ax: Axes, rows: pd.DataFrame, replicas: pd.DataFrame, key: str, *, with_replicas: bool) -> None:
    names = [_name(row) for row in rows.to_dict("records")]
    for place, row in enumerate(rows.to_dict("records")):
        if with_replicas:
            values = replicas.loc[replicas["cell"] == row["cell"], key]
            ax.plot(values, [place] * len(values), "o", color="#aaaaaa", markersize=3, zorder=1)
        if pd.isna(row.get(key)):
            continue
        color = style.RED if pd.isna(row["teacher"]) else style.BLUE
        ax.errorbar(
            row[key], place, xerr=style.ends(row, key), color=color, marker="s", capsize=2, elinewidth=0.9, zorder=2
        )
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)


def _name(row: dict[str, Any]) -> str:
    return "alone" if pd.isna(row["teacher"]) else row["loss_name"]
