"""Figure of guideline: quality of teachers against the truth, and what their students make of it."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdsim.figures import style
from kdsim.figures.style import Figure

MARKERS = (
    (style.BLACK, "s"), (style.BLUE, "o"), (style.RED, "^"), (style.GREEN, "D"), (style.PURPLE, "v"),
    (style.ORANGE, "P"), (style.SKY, "X"), ("#777777", "h"), ("#994F00", "<"), (style.YELLOW, ">"), ("#555555", "*"),
)  # fmt: skip
QUALITY = (("test_bcp_kl", "teacher: KL to p, nats"), ("test_accuracy", "teacher: test accuracy"))
OUTCOME = (("test_accuracy", "student: test accuracy"), ("noise_accuracy", "student: noise of the accuracy"))


def figure(results: Any) -> Figure:
    """Every teacher and its student, four panels, from stored results (`StudyResults`)."""
    rows, replicas = results.rows, results.replicas
    students = rows[(rows["kind"] == "training") & rows["teacher_cell"].notna()]
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 5.2), layout="constrained")
        axes = fig.subplots(2, 2, sharex="col", sharey="row")
        looks = dict(zip(students["cell"], MARKERS * 4, strict=False))
        for column, (quality, unit) in enumerate(QUALITY):
            for place, (outcome, label) in enumerate(OUTCOME):
                ax = axes[place, column]
                for row in students.itertuples():
                    _points(ax, row, replicas, quality, outcome, *looks[row.cell])
                if place == 1:
                    ax.set_xlabel(unit)
                if column == 0:
                    ax.set_ylabel(label)
                ax.set_title(f"({'abcd'[2 * place + column]})", loc="left")
        first = students.iloc[0]
        fig.suptitle(
            f"{first.data}, {first.teacher} to {first.student}, recipe {first.recipe}, {first.train_size:,.0f} images; "
            f"small: {first.replicas} teachers and their students each, large: means; seed {first.seed}",
            fontsize=7, color="#444444",
        )  # fmt: skip
        handles = [
            Line2D([], [], color=looks[row.cell][0], marker=looks[row.cell][1], linestyle="none", label=row.label)
            for row in students.itertuples()
        ]
        fig.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=1.3)
    return fig


def _points(ax: Axes, row: Any, replicas: pd.DataFrame, quality: str, outcome: str, color: str, marker: str) -> None:
    teacher = replicas[replicas["cell"] == row.teacher_cell].sort_values("replica")
    student = replicas[replicas["cell"] == row.cell].sort_values("replica")
    if quality not in teacher or outcome not in student:
        return
    x = teacher[quality].to_numpy(dtype=float)
    y = student[outcome].to_numpy(dtype=float)
    x = x[[number % len(x) for number in range(len(y))]]
    ax.plot(x, y, marker, color=color, markersize=2.5, alpha=0.5)
    ax.plot(x.mean(), y.mean(), marker, color=color, markersize=6.5)
