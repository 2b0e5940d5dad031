"""Figure of nonconvex-sweep: excess-risk floor against the step size up to divergence, one column a student."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdsim.figures import style
from kdsim.figures.style import Figure

TITLES = {"factored-least-squares": "factored least squares", "mlp": "MLP"}


def figure(results: Any) -> Figure:
    """Floors above, share of diverged replicas below, from stored results (`StudyResults`)."""
    rows = _labelled(results.rows)
    students = list(dict.fromkeys(rows["student"]))
    colors = _colors(rows)
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 3.8), layout="constrained")
        grid = fig.subplots(2, len(students), height_ratios=(3, 1), sharex="col", squeeze=False)
        for column, student in enumerate(students):
            part = rows[rows["student"] == student]
            _floors(grid[0, column], part, colors)
            _diverged(grid[1, column], part, colors)
            grid[0, column].set_title(f"({'abcd'[column]}) {TITLES.get(student, student)}", loc="left")
            grid[1, column].set_xlabel(r"step size $\alpha$")
        grid[0, 0].set_ylabel("excess-risk floor")
        grid[1, 0].set_ylabel("diverged")
        first = rows.iloc[0]
        fig.suptitle(
            f"batch {first.batch_size}, {first.steps:,} steps, {first.replicas} replicas, seed {first.seed}; "
            "hollow: the floor still drifts, or that is not known\n"
            "dotted: $1/L_{max}$ at one minimiser, over exact BCP and over all labels; an estimate, no bound",
            fontsize=7, color="#444444",
        )  # fmt: skip
        handles = [
            Line2D([], [], color=color, marker="o", markersize=4, label=label) for label, color in colors.items()
        ]
        fig.legend(handles=handles, loc="outside lower center", ncols=5, columnspacing=1.2)
    return fig


def _labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """A column `label`: the supervision, and which of its levels, counted from the least noise within a student."""
    labels = pd.Series(rows["supervision"], index=rows.index)
    for _, part in rows[rows["supervision"] == "dirichlet"].groupby("student"):
        order = part["nu"].rank(method="dense").astype(int)
        labels[part.index] = "Dirichlet, level " + order.astype(str)
    return rows.assign(label=labels)


def _colors(rows: pd.DataFrame) -> dict[str, str]:
    noisy = sorted(label for label in set(rows["label"]) if label.startswith("Dirichlet"))
    shades = (style.SKY, style.BLUE, style.PURPLE, style.GREEN, style.ORANGE)
    return {"exact": style.BLACK, **dict(zip(noisy, shades, strict=False)), "one-hot": style.RED}


def _floors(ax: Axes, rows: pd.DataFrame, colors: dict[str, str]) -> None:
    for label, color in colors.items():
        part = rows[(rows["label"] == label) & rows["excess_risk_floor"].notna()].sort_values("step_size")
        ax.plot(part["step_size"], part["excess_risk_floor"], color=color, linewidth=0.8)
        for steady, face in ((True, color), (False, "white")):
            seen = part[part["stationary"].eq(True) == steady]  # None: not known
            ax.errorbar(
                seen["step_size"], seen["excess_risk_floor"], yerr=style.bars(seen, "excess_risk_floor"), color=color,
                marker="o", markersize=3.5, markerfacecolor=face, linestyle="none", elinewidth=0.8, capsize=1.5,
            )  # fmt: skip
    ax.set(xscale="log", yscale="log")
    for label in ("exact", "one-hot"):  # over p, and over all labels: see `kdsim.theory.nonconvex.estimates`
        for largest in rows.loc[rows["label"] == label, "L_max_estimate"].dropna().unique():
            ax.axvline(1 / largest, color=colors[label], linestyle=":", linewidth=0.9)


def _diverged(ax: Axes, rows: pd.DataFrame, colors: dict[str, str]) -> None:
    for label, color in colors.items():
        part = rows[rows["label"] == label].sort_values("step_size")
        ax.plot(part["step_size"], part["diverged"] / part["replicas"], color=color, marker="o", markersize=2.5)
    ax.set(xscale="log", ylim=(-0.08, 1.08), yticks=(0, 0.5, 1))
