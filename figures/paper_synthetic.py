"""Figure of paper-synthetic: validation loss, accuracy and distance to the BCP against the step, and how runs end."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from kdsim.figures import style
from kdsim.figures.style import Figure

PANELS = (
    ("loss", "(a) validation loss above the BCP's", "nats"),
    ("label_accuracy", "(b) validation accuracy", "accuracy"),
    ("bcp_l2", "(c) distance to the BCP", r"$\mathrm{E}|\phi-p|$"),
)
SHOWN = 1 / 450
"""Part of the run from which curves are shown: before, nothing has happened yet."""


def figure(results: Any) -> Figure:
    """Three learning curves with bands over replicas, and the end of the runs, from stored results (`StudyResults`).

    Frozen targets are solid lines with bands and full markers, fresh ones dashed lines and open markers.
    """
    rows, curves = results.rows, results.curves
    colors = _colors(rows)
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 5.0), layout="constrained")
        axes = fig.subplots(2, 2)
        for ax, (metric, title, unit) in zip(axes.flat[:3], PANELS, strict=True):
            for row in rows.to_dict("records"):
                _curve(ax, curves[curves["cell"] == row["cell"]], metric, row, colors[row["cell"]])
            ax.set_title(title, loc="left")
            ax.set(xscale="log", xlabel="step", ylabel=unit)
        for ax in (axes[0, 0], axes[1, 0]):
            ax.set_yscale("log")
            _plain_ticks(ax.yaxis)
        _ends(axes[1, 1], rows, colors)
        first = rows.iloc[0]
        fig.suptitle(
            f"{first.problem}, MLP, step size {first.step_size:g}, batch {first.batch_size}, {first.steps:,} steps, "
            f"{first.replicas} replicas, seed {first.seed}; loss of the BCP {first.bayes_loss:.3f} nats; "
            "bands: 5 to 95 % of the replicas",
            fontsize=7, color="#444444",
        )  # fmt: skip
        named = rows.drop_duplicates(["supervision", "level"])
        handles = [
            Line2D([], [], color=colors[row["cell"]], label=_label(row["supervision"], row["level"]))
            for row in named.to_dict("records")
        ]
        for targets in rows["targets"].unique():
            line, marker = _strokes(targets, "#555555")
            handles.append(Line2D([], [], color="#555555", label=f"{targets} targets", **line, **marker))
        fig.legend(handles=handles, loc="outside lower center", ncols=6, columnspacing=1.3)
    return fig


def _label(supervision: str, level: float | None) -> str:
    return f"Dirichlet, $c$ = {level:g}" if supervision == "dirichlet" else supervision


def _colors(rows: pd.DataFrame) -> dict[str, str]:
    """Exact black, one-hot red, and between them the others in the order of their noise; one colour a supervision."""
    others = rows[~rows["supervision"].isin(["exact", "one-hot"])].sort_values("nu", kind="stable")
    spare = (style.BLUE, style.SKY, style.PURPLE, style.GREEN, style.ORANGE)
    place = others.groupby(["supervision", "level"], sort=False).ngroup()
    colors = {cell: spare[number % len(spare)] for cell, number in zip(others["cell"], place, strict=True)}
    for name, color in (("exact", style.BLACK), ("one-hot", style.RED)):
        colors |= dict.fromkeys(rows.loc[rows["supervision"] == name, "cell"], color)
    return colors


def _strokes(targets: str, color: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Line and marker of frozen or fresh targets."""
    fresh = targets == "fresh"
    line = {"linestyle": (0, (3, 1.5)) if fresh else "-", "linewidth": 1.0}
    return line, {"marker": "o", "markersize": 4, "markerfacecolor": "white" if fresh else color}


def _curve(ax: Axes, curve: pd.DataFrame, metric: str, row: dict[str, Any], color: str) -> None:
    seen = curve[curve["step"] >= row["steps"] * SHOWN]
    zero = row["bayes_loss"] if metric == "loss" else 0.0
    line, _ = _strokes(row["targets"], color)
    ax.plot(seen["step"], seen[f"{metric}_mean"] - zero, color=color, **line)
    if row["targets"] == "frozen":
        low, high = seen[f"{metric}_q05"] - zero, seen[f"{metric}_q95"] - zero
        ax.fill_between(seen["step"], low, high, color=color, alpha=0.2, linewidth=0)


def _ends(ax: Axes, rows: pd.DataFrame, colors: dict[str, str]) -> None:
    """Excess loss against the fluctuation of the loss, one point a supervision, with 95 % intervals."""
    for row in rows.to_dict("records"):
        if pd.isna(row["excess_loss"]) or row["excess_loss"] <= 0:
            continue
        errors = [style.ends(row, name) for name in ("fluctuation", "excess_loss")]
        color = colors[row["cell"]]
        ax.errorbar(
            row["fluctuation"], row["excess_loss"], xerr=errors[0], yerr=errors[1], color=color,
            capsize=2, elinewidth=0.8, linestyle="none", **_strokes(row["targets"], color)[1],
        )  # fmt: skip
    ax.set_title("(d) at the end", loc="left")
    ax.set(
        xscale="log", yscale="log", xlabel="fluctuation of the loss in the tail", ylabel="loss above the BCP's, nats"
    )
    for axis in (ax.xaxis, ax.yaxis):
        _plain_ticks(axis)


def _plain_ticks(axis: Any) -> None:
    """Labels 1, 2, 5 of every decade, written out."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")
