"""Figure of frozen-labels: excess risk, generalisation gap and accuracy against the size of the data set and nu."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdsim.figures import style
from kdsim.figures.style import Figure

Colors = dict[float, Any]


def figure(results: Any) -> Figure:
    """Six panels from stored results (`StudyResults`): against N, one colour a level; against nu, one colour an N."""
    rows = results.rows
    frozen, fresh = rows[rows["targets"] == "frozen"], rows[rows["targets"] == "fresh"]
    levels = sorted(rows["nu"].unique())
    spare = (style.SKY, style.BLUE, style.PURPLE, style.GREEN, style.ORANGE)
    middle = dict(zip(levels[1:-1], spare * (1 + len(levels) // len(spare)), strict=False))
    colors: Colors = {levels[0]: style.BLACK, **middle, levels[-1]: style.RED}
    noisy = {nu: color for nu, color in colors.items() if nu > 0}
    sizes = sorted(frozen["training_set"].astype(int).unique())
    shades: Colors = {
        size: mpl.colormaps["viridis"](0.9 - 0.8 * place / max(len(sizes) - 1, 1)) for place, size in enumerate(sizes)
    }
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 4.9), layout="constrained")
        axes = fig.subplots(2, 3)
        (risk, gap, accuracy), (floor, gap_nu, accuracy_nu) = axes
        _lines(risk, frozen, noisy, "nu", "training_set", "empirical_excess_risk", "frozen_excess_risk")
        _lines(gap, frozen, noisy, "nu", "training_set", "empirical_gap", "frozen_gap")
        _lines(accuracy, frozen, colors, "nu", "training_set", "empirical_accuracy", None)
        _lines(floor, frozen, noisy, "nu", "training_set", "floor", "frozen_floor")
        for nu, color in noisy.items():
            floor.axhline(fresh.loc[fresh["nu"] == nu, "floor"].item(), color=color, linestyle=":", linewidth=0.8)
        unclean = frozen[frozen["nu"] > 0]
        _lines(gap_nu, unclean, shades, "training_set", "nu", "generalisation_gap", "frozen_gap")
        _lines(accuracy_nu, unclean, shades, "training_set", "nu", "accuracy", None)
        limit = fresh[fresh["nu"] > 0].sort_values("nu")
        accuracy_nu.plot(limit["nu"], limit["accuracy"], color="#555555", linestyle=":", linewidth=1.0)
        best = fresh.loc[fresh["nu"] == 0, "accuracy"].item()
        accuracy_nu.axhline(best, color=style.BLACK, linewidth=0.6)
        risk.set(ylabel="nats", yscale="log")
        gap.set(ylabel="nats", yscale="log")
        accuracy.set(ylabel="accuracy")
        floor.set(ylabel=r"floor of $|\theta-\theta_*|^2$", yscale="log")
        gap_nu.set(ylabel="nats", yscale="log")
        accuracy_nu.set(ylabel="accuracy")
        titles = (
            "(a) minimiser: excess risk", "(b) minimiser: generalisation gap", "(c) minimiser: accuracy",
            "(d) SGD: floor", "(e) SGD: generalisation gap", "(f) SGD: accuracy",
        )  # fmt: skip
        for ax, title in zip(axes.flat, titles, strict=True):
            ax.set_title(title, loc="left")
            ax.set_xscale("log")
        for ax in (risk, gap, accuracy, floor):
            ax.set_xlabel("$N$, size of the data set")
            ax.set_xticks(sizes, [str(size) for size in sizes], fontsize=6)
            ax.minorticks_off()
        for ax in (gap_nu, accuracy_nu):
            ax.set_xlabel(r"$\nu$, per-class variance")
        fig.suptitle(_caption(rows), fontsize=7, color="#444444")
        fig.legend(
            handles=_legend(rows, colors, shades), loc="outside lower center", ncols=5, columnspacing=1.1,
            handlelength=1.8,
        )  # fmt: skip
    return fig


def _lines(
    ax: Axes, rows: pd.DataFrame, colors: Colors, group: str, x: str, measured: str, predicted: str | None
) -> None:
    """Measured quantity with its 95 % interval against column `x`, a colour for each `group`, and its prediction."""
    for value, color in colors.items():
        part = rows[(rows[group] == value) & rows[measured].notna()].sort_values(x)
        ax.errorbar(
            part[x], part[measured], yerr=style.bars(part, measured), color=color, marker="o", markersize=3,
            linestyle="none" if predicted else "-", linewidth=0.7, elinewidth=0.8, capsize=1.5,
        )  # fmt: skip
        if predicted:
            ax.plot(part[x], part[predicted], color=color, linewidth=0.9)


def _caption(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return (
        f"{first.problem}, {first.student}, ridge {first.ridge:.3g} ({first.ridge_kind}), step size "
        f"{first.step_size:.3g}, batch {first.batch_size}, {first.steps:,} steps, {first.replicas} data sets of each "
        f"size, seed {first.seed}\nlines in (a), (b), (d), (e): first order in 1/N, drawn where the expansion is valid"
    )


def _legend(rows: pd.DataFrame, colors: Colors, shades: Colors) -> list[Line2D]:
    names = rows.drop_duplicates("nu").set_index("nu")["supervision"]
    levels = [
        Line2D([], [], color=color, marker="o", markersize=4, label=f"{names[nu]}, $\\nu$ = {nu:.2g}")
        for nu, color in colors.items()
    ]
    sizes = [
        Line2D([], [], color=color, marker="o", markersize=4, label=f"(e, f) $N$ = {size}")
        for size, color in shades.items()
    ]
    return [
        *levels,
        *sizes,
        Line2D([], [], color="#555555", linestyle=":", label="(d, f) fresh targets"),
        Line2D([], [], color=style.BLACK, linewidth=0.6, label="(f) exact BCP"),
    ]
