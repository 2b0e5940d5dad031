"""Figure of bias-sweep: bias, cross term and variance against the level, and what the bias costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdsim.figures import style
from kdsim.figures.style import Figure

FAMILIES = {
    "temperature": ("(a) temperature", "temperature $T$"),
    "label-smoothing": ("(b) label smoothing", r"$\varepsilon$"),
    "logit-gaussian": ("(c) logit-Gaussian", "scale $s$"),
    "confusion": ("(d) confusion, $q = Ap$", "rate"),
    "confusion, labels": ("(e) confusion, labels from $Ap$", "rate"),
}
# Part of the floor: predicted column, measured column, colour, marker, label. The floor and the mean are signed alike.
PARTS = (
    ("first_order_floor", "floor", style.BLACK, "o", "floor"),
    ("predicted_mean_dist_sq", "mean_dist_sq", style.RED, "D", r"$|\mathrm{E}\theta-\theta_*|^2$"),
    ("variance", "measured_variance", style.BLUE, "^", "variance"),
    ("cross_term", "measured_cross_term", style.GREEN, "v", "|cross term|"),
)


def figure(results: Any) -> Figure:
    """Five panels of the floor's parts and one of the cost, from stored results (`StudyResults`)."""
    rows = _with_family(results.rows)
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 4.8), layout="constrained")
        axes = fig.subplots(2, 3)
        for ax, (family, (title, label)) in zip(axes.flat, FAMILIES.items(), strict=False):
            _parts(ax, rows[rows["family"] == family].sort_values("level"))
            ax.set_title(title, loc="left")
            ax.set_xlabel(label)
            if family == "temperature":
                ax.set_xscale("log", base=2)
                ax.xaxis.set_major_formatter("{x:g}")
            if family == "logit-gaussian":
                ax.set_xscale("log", base=2)
                ax.xaxis.set_major_formatter("{x:g}")
        for ax in axes[:, 0]:
            ax.set_ylabel("part of the floor")
        _cost(axes[1, 2], rows)
        fig.suptitle(_caption(rows), fontsize=7, color="#444444")
        fig.legend(handles=_legend(), loc="outside lower center", ncols=6, columnspacing=1.2)
    return fig


def _with_family(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with a column `family`, in which labels drawn from A p (nu > 0) are apart from A p itself (nu = 0)."""
    labels = (rows["supervision"] == "confusion") & (rows["nu"] > 0)
    return rows.assign(family=np.where(labels, "confusion, labels", rows["supervision"]))


def _parts(ax: Axes, rows: pd.DataFrame) -> None:
    """Predicted parts as lines, measured ones with their 95 % intervals; the cross term by its size."""
    for predicted, measured, color, marker, _ in PARTS:
        for side in _sides(rows):
            ax.plot(side["level"], side[predicted].abs(), color=color, linewidth=0.9)
        value, low, high = (rows[f"{measured}{end}"] for end in ("", "_low", "_high"))
        seen = (low * high > 0) if measured == "measured_cross_term" else value > 0
        below, above = style.bars(rows, measured)
        # An interval that contains zero has no place on a logarithmic axis: its upper end stands as a bar.
        ends = [np.where(value < 0, above, below)[seen], np.where(value < 0, below, above)[seen]]
        ax.errorbar(
            rows["level"][seen], value.abs()[seen], yerr=ends, color=color, marker=marker, markersize=3.5,
            linestyle="none", elinewidth=0.8, capsize=1.5,
        )  # fmt: skip
        upper = (np.maximum(low.abs(), high.abs()) if measured == "measured_cross_term" else high)[~seen]
        ax.plot(rows["level"][~seen], upper, color=color, marker="_", markersize=6, linestyle="none")
    for side in _sides(rows):
        ax.plot(side["level"], side["bias_sq"], color=style.ORANGE, linestyle=":", linewidth=1.2)
    ax.set_yscale("log")


def _sides(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Temperatures below and above one, where the bias is zero: no line joins them. Other families are whole."""
    below = (rows["family"] == "temperature") & (rows["level"] < 1)
    return [rows[below], rows[~below]]


def _cost(ax: Axes, rows: pd.DataFrame) -> None:
    """Mean distance of the predictions to the BCP, and loss of accuracy against exact BCP, as the bias grows."""
    best = rows.loc[rows["supervision"] == "exact", "accuracy"].item()
    biased = rows[rows["family"].isin(FAMILIES)]
    for family, (color, marker) in zip(
        FAMILIES, ((style.BLUE, "o"), (style.ORANGE, "v"), (style.GREEN, "D"), (style.PURPLE, "^"), (style.RED, "s")),
        strict=True,
    ):  # fmt: skip
        part = biased[biased["family"] == family]
        lost = 100 * (best - part["accuracy"])
        spread = 50 * (part["accuracy_high"] - part["accuracy_low"])
        ax.errorbar(
            part["bcp_l2"], lost, yerr=spread, color=color, marker=marker, markersize=3.5, linestyle="none",
            elinewidth=0.8, label=FAMILIES[family][0].split(") ")[1],
        )  # fmt: skip
    ax.set_title("(f) what it costs", loc="left")
    ax.set(xlabel=r"$\mathrm{E}\,|\phi - p|$", ylabel="accuracy lost, % points", xscale="log")
    ax.set_yscale("symlog", linthresh=0.01, linscale=0.5)
    ax.set_ylim(-0.004, 30)
    ax.set_yticks([0, 0.01, 0.1, 1, 10], ["0", "0.01", "0.1", "1", "10"])
    ax.legend(fontsize=5.5, loc="upper left", handletextpad=0.2, labelspacing=0.25, borderaxespad=0.1)


def _legend() -> list[Line2D]:
    parts = [
        Line2D([], [], color=color, marker=marker, markersize=4, label=label) for _, _, color, marker, label in PARTS
    ]
    return [
        *parts,
        Line2D([], [], color=style.ORANGE, linestyle=":", label=r"bias $|\theta_m-\theta_*|^2$"),
        Line2D([], [], color="#555555", label="line: first order"),
    ]


def _caption(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return (
        f"{first.problem}, {first.student}, ridge {first.ridge:.3g} ({first.ridge_kind}), "
        f"step size {first.step_size:.3g}, batch {first.batch_size}, {first.steps:,} steps, "
        f"{first.replicas} replicas, seed {first.seed}\n"
        "lone bar: upper end of an interval that contains zero"
    )
