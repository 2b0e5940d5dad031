"""Figure of noise-sweep: learning curves with the bound, floor against nu, fluctuation against nu."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from kdsim.figures import style
from kdsim.figures.style import Figure

NU = r"$\nu$, per-class variance"
CURVE_FAMILY = "dirichlet"
"""The family whose lowest and middle levels are drawn among the learning curves."""


def figure(results: Any) -> Figure:
    """Three panels from stored results (`StudyResults`: rows, one a cell, and curves, one a checkpoint of a cell)."""
    rows, curves = results.rows, results.curves
    styles = style.supervision_styles(dict.fromkeys(rows["supervision"]))
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 3.5), layout="constrained")
        grid = fig.add_gridspec(2, 3, height_ratios=(3, 1))
        left, right = fig.add_subplot(grid[:, 0]), fig.add_subplot(grid[:, 2])
        middle = fig.add_subplot(grid[0, 1])
        below = fig.add_subplot(grid[1, 1], sharex=middle)
        _curves(left, rows, curves, styles)
        _against_nu(middle, rows, styles, "floor")
        _ratio(below, rows, styles)
        _against_nu(right, rows, styles, "fluctuation")
        middle.set_xlabel("")
        middle.tick_params(labelbottom=False)
        left.set_title("(a) learning curves", loc="left")
        middle.set_title("(b) error floor", loc="left")
        right.set_title("(c) fluctuation in the tail", loc="left")
        fig.suptitle(_caption(rows), fontsize=7, color="#444444")
        fig.legend(
            handles=_legend(rows, styles), loc="outside lower center", ncols=6, columnspacing=1.2, handlelength=2.2
        )
    return fig


def _caption(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return (
        f"{first.problem}, {first.student}, ridge {first.ridge:.3g} ({first.ridge_kind}), "
        f"step size {first.step_size:.3g}, batch {first.batch_size}, {first.steps:,} steps, "
        f"{first.replicas} replicas, seed {first.seed}"
    )


def _legend(rows: pd.DataFrame, styles: dict[str, tuple[str, str]]) -> list[Line2D]:
    entries = [
        Line2D([], [], color=color, linewidth=1.6, label=name)  # a curve in panel (a) only: at nu = 0
        if name == "exact"
        else Line2D(
            [], [], color=color, marker=marker, linestyle="none", markersize=7 if marker == "*" else 4, label=name
        )
        for name, (color, marker) in styles.items()
    ]
    entries.append(
        Line2D([], [], color="#555555", linestyle="-", label="exact floor" if _exact(rows) else "first-order floor")
    )
    if rows["bound_floor"].notna().any():
        entries.append(Line2D([], [], color="#555555", linestyle="--", label="T1 bound"))
    if rows["sharp_bound_floor"].notna().any():
        entries.append(Line2D([], [], color="#555555", linestyle=":", label="T1' bound"))
    return entries


def _exact(rows: pd.DataFrame) -> bool:
    return rows["exact_floor"].notna().all()


def _shown_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Exact BCP, one-hot, and two levels of one family."""
    family = rows[rows["supervision"] == CURVE_FAMILY].sort_values("nu")
    if family.empty:
        family = rows[~rows["supervision"].isin(["exact", "one-hot"])].sort_values("nu").iloc[:3]
    picks = family.iloc[[0, len(family) // 2]] if len(family) else family
    return pd.concat([rows[rows["supervision"].isin(["exact", "one-hot"])], picks]).drop_duplicates("cell")


def _curves(ax: Axes, rows: pd.DataFrame, curves: pd.DataFrame, styles: dict[str, tuple[str, str]]) -> None:
    """Mean squared distance with the band from 5 % to 95 % of the replicas, and T1 with its transient."""
    shown = _shown_curves(rows)
    lowest, highest, ends = [], [], []
    for row in shown.itertuples():
        curve = curves[(curves["cell"] == row.cell) & (curves["step"] > 0)].sort_values("step")
        color = styles[row.supervision][0]
        highest.append(curve["dist_sq_mean"].where(curve["dist_sq_mean"] < float("inf")).max())
        ax.plot(curve["step"], curve["dist_sq_mean"], color=color, zorder=3)
        ax.fill_between(curve["step"], curve["dist_sq_q05"], curve["dist_sq_q95"], color=color, alpha=0.2, linewidth=0)
        if row.bound_valid:
            highest.append(curve["bound"].max())
            ax.plot(curve["step"], curve["bound"], color=color, linestyle="--", linewidth=0.8)
        if row.supervision != "exact":
            lowest.append(curve["dist_sq_q05"].min())
            ends.append((curve["dist_sq_mean"].iloc[-1], f"$\\nu$ = {row.nu:.1e}", color))
    scale = "log" if max(highest, default=0) > 0 else "linear"  # K = 1: the student is right from the start
    ax.set(xscale="log", yscale=scale, xlabel="step", ylabel=r"$\mathrm{E}\,|\theta_t-\theta_*|^2$")
    low, high = min(lowest, default=0), max(highest, default=0)
    if 0 < low < high < float("inf"):  # exact BCP falls to rounding: its curve leaves the panel
        ax.set_ylim(low / 3, high * 2)
    last = rows["steps"].max()
    ax.set_xlim(min(10, last / 10), last)
    ax.xaxis.set_major_locator(LogLocator(numticks=8))
    _label_ends(ax, ends)


def _label_ends(ax: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Name curves (height of the end, label, colour) to the right of the panel, apart where they end together."""
    finite = sorted(end for end in ends if 0 < end[0] < math.inf)
    if not finite:  # all have diverged
        return
    bottom, top = (math.log(limit) for limit in ax.get_ylim())
    lowest = -math.inf
    for height, label, color in finite:
        lowest = max((math.log(height) - bottom) / (top - bottom), lowest + 0.045)
        ax.annotate(
            label, (1, lowest), xycoords="axes fraction", xytext=(3, 0), textcoords="offset points", ha="left",
            va="center", fontsize=6, color=color, annotation_clip=False,
        )  # fmt: skip


def _against_nu(ax: Axes, rows: pd.DataFrame, styles: dict[str, tuple[str, str]], quantity: str) -> None:
    """Measured quantity with its 95 % interval against nu; for the floor also the prediction and the bounds."""
    prediction = "exact_floor" if _exact(rows) else "first_order_floor"
    seen = rows[(rows["nu"] > 0) & (rows[quantity] > 0)]
    for name, (color, marker) in styles.items():
        family = seen[seen["supervision"] == name].sort_values("nu")
        if family.empty:
            continue
        ax.errorbar(
            family["nu"], family[quantity], yerr=style.bars(family, quantity), color=color,
            marker=marker, markersize=7 if marker == "*" else 3.5, linestyle="none", elinewidth=0.8, capsize=1.5,
            zorder=3,
        )  # fmt: skip
        if quantity == "floor" and len(family) > 1:
            ax.plot(family["nu"], family[prediction], color=color, linewidth=0.9, zorder=2)
            ax.plot(family["nu"], family["bound_floor"], color=color, linestyle="--", linewidth=0.7, zorder=1)
            ax.plot(family["nu"], family["sharp_bound_floor"], color=color, linestyle=":", linewidth=0.7, zorder=1)
    ylabel = (
        r"floor of $|\theta-\theta_*|^2$" if quantity == "floor" else r"s.d. of $|\theta-\theta_*|^2$ within a replica"
    )
    scale = "linear" if seen.empty else "log"
    ax.set(xscale=scale, yscale=scale, xlabel=NU, ylabel=ylabel)
    _note_zero(ax, rows, quantity)


def _ratio(ax: Axes, rows: pd.DataFrame, styles: dict[str, tuple[str, str]]) -> None:
    """Measured floor over predicted floor with its 95 % interval. Families share random numbers, so do neighbours."""
    prediction = "exact_floor" if _exact(rows) else "first_order_floor"
    seen = rows[(rows["nu"] > 0) & rows["floor"].notna() & (rows[prediction] > 0)]
    for name, (color, marker) in styles.items():
        family = seen[seen["supervision"] == name]
        predicted = family[prediction]
        ax.errorbar(
            family["nu"], family["floor"] / predicted, yerr=style.bars(family, "floor", predicted), color=color,
            marker=marker, linestyle="none", markersize=5 if marker == "*" else 2.5, elinewidth=0.7, alpha=0.8,
        )  # fmt: skip
    ax.axhline(1, color="#555555", linewidth=0.8, zorder=1)
    ax.set(xlabel=NU, ylabel="measured /\npredicted")
    ax.margins(y=0.15)


def _note_zero(ax: Axes, rows: pd.DataFrame, quantity: str) -> None:
    """Say where exact BCP is: at nu = 0, off a logarithmic axis."""
    exact = rows[(rows["supervision"] == "exact") & rows[quantity].notna()]
    if not exact.empty:
        text = f"exact BCP ($\\nu$ = 0): {exact.iloc[0][quantity]:.1e}"
        ax.text(0.97, 0.03, text, transform=ax.transAxes, ha="right", va="bottom", fontsize=6, color="#333333")
