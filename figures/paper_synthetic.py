"""Figure of paper-synthetic: validation loss, accuracy and distance to the BCP against the step, and how runs end."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from kdsim.figures import style

PANELS = (
    ("loss", "(a) validation loss", "nats"),
    ("label_accuracy", "(b) validation accuracy", "accuracy"),
    ("bcp_l2", "(c) distance to the BCP", r"$\mathrm{E}|\phi-p|$"),
)


def figure(results: Any) -> Figure:
    """Three learning curves with bands over replicas, and the end of the runs, from stored results (`StudyResults`)."""
    rows, curves = results.rows, results.curves
    colors = _colors(rows)
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 4.8), layout="constrained")
        axes = fig.subplots(2, 2)
        for ax, (metric, title, unit) in zip(axes.flat[:3], PANELS, strict=True):
            for row in rows.itertuples():
                _band(ax, curves[curves["cell"] == row.cell], metric, colors[row.cell])
            ax.set_title(title, loc="left")
            ax.set(xscale="log", xlabel="step", ylabel=unit)
        axes[0, 0].axhline(rows["bayes_loss"].iloc[0], color="#555555", linestyle="--", linewidth=0.9)
        for ax in (axes[0, 0], axes[1, 0]):
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter("")
        _ends(axes[1, 1], rows, colors)
        first = rows.iloc[0]
        fig.suptitle(
            f"{first.problem}, MLP, step size {first.step_size:g}, batch {first.batch_size}, {first.targets} targets, "
            f"{first.steps:,} steps, {first.replicas} replicas, seed {first.seed}; bands: 5 to 95 % of the replicas",
            fontsize=7, color="#444444",
        )  # fmt: skip
        handles = [
            Line2D([], [], color=colors[row.cell], label=_label(row.supervision, row.level))
            for row in rows.itertuples()
        ]
        handles.append(Line2D([], [], color="#555555", linestyle="--", linewidth=0.9, label="loss of the BCP"))
        fig.legend(handles=handles, loc="outside lower center", ncols=5, columnspacing=1.3)
    return fig


def _label(supervision: str, level: float | None) -> str:
    return f"Dirichlet, $c$ = {level:g}" if supervision == "dirichlet" else supervision


def _colors(rows: pd.DataFrame) -> dict[str, str]:
    """Exact black, one-hot red, and between them the others in the order of their noise."""
    middle = rows[~rows["supervision"].isin(["exact", "one-hot"])].sort_values("nu")["cell"]
    spare = (style.BLUE, style.SKY, style.PURPLE, style.GREEN, style.ORANGE)
    colors = {cell: spare[place % len(spare)] for place, cell in enumerate(middle)}
    for name, color in (("exact", style.BLACK), ("one-hot", style.RED)):
        colors |= dict.fromkeys(rows.loc[rows["supervision"] == name, "cell"], color)
    return colors


def _band(ax: Axes, curve: pd.DataFrame, metric: str, color: str) -> None:
    seen = curve[curve["step"] > 0]
    ax.plot(seen["step"], seen[f"{metric}_mean"], color=color, linewidth=1.0)
    ax.fill_between(seen["step"], seen[f"{metric}_q05"], seen[f"{metric}_q95"], color=color, alpha=0.2, linewidth=0)


def _ends(ax: Axes, rows: pd.DataFrame, colors: dict[str, str]) -> None:
    """Excess loss against the fluctuation of the loss, one point a supervision, with 95 % intervals."""
    for row in rows.to_dict("records"):
        if row["excess_loss"] is None or row["excess_loss"] <= 0:
            continue
        errors = [
            [[row[name] - row[f"{name}_low"]], [row[f"{name}_high"] - row[name]]]
            for name in ("fluctuation", "excess_loss")
        ]
        ax.errorbar(
            row["fluctuation"], row["excess_loss"], xerr=errors[0], yerr=errors[1], color=colors[row["cell"]],
            marker="o", markersize=4, capsize=2, elinewidth=0.8, linestyle="none",
        )  # fmt: skip
    ax.set_title("(d) at the end", loc="left")
    ax.set(
        xscale="log", yscale="log", xlabel="fluctuation of the loss in the tail", ylabel="loss above the BCP's, nats"
    )
    ax.xaxis.set_minor_formatter("")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
