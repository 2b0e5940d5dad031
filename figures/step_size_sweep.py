"""Figure of step-size-sweep: floor against step size, its ratio to theory, T1', and step sizes for a tolerance."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from kdsim.figures import style
from kdsim.figures.style import Figure

STEP_SIZE = r"step size $\alpha$"
GREY = "#555555"
LEVEL_COLORS = (style.BLUE, style.SKY, style.GREEN, style.PURPLE, style.ORANGE)


def figure(results: Any) -> Figure:
    """Four panels from stored results (`StudyResults.rows`)."""
    sweep, held = _parts(results)
    groups = _groups(sweep)
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 5.4), layout="constrained")
        grid = fig.add_gridspec(4, 2, height_ratios=(2.2, 1, 2.2, 1))
        floor = fig.add_subplot(grid[:2, 0])
        ratio = fig.add_subplot(grid[:2, 1], sharex=floor)
        sharp = fig.add_subplot(grid[2:, 0], sharex=floor)
        _floors(floor, sweep, groups)
        _ratios(ratio, sweep, groups)
        _against_t1_sharp(sharp, sweep, groups)
        for ax, title in ((floor, "(a) error floor"), (ratio, "(b) floor / first order"), (sharp, "(c) floor / T1'")):
            ax.set_title(title, loc="left")
            _marks(ax, sweep, labels=ax is floor)
        if not held.empty:
            largest = fig.add_subplot(grid[2, 1])
            check = fig.add_subplot(grid[3, 1], sharex=largest)
            _largest(largest, held, sweep)
            _check(check, held)
            largest.set_title("(d) largest step size for a floor", loc="left")
        fig.suptitle(_caption(sweep), fontsize=7, color="#444444")
        fig.legend(handles=_legend(groups), loc="outside lower center", ncols=5, columnspacing=1.4, handlelength=2.4)
    return fig


def _parts(results: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cells of the sweep, and those that hold the floor: these have a supervision of their own each."""
    rows = results.rows
    count = rows.groupby(["supervision", "nu"])["step_size"].transform("size")
    held = rows[(count == 1) & (rows["supervision"] == "dirichlet")].sort_values("nu")
    return rows.drop(held.index), held


def _groups(sweep: pd.DataFrame) -> list[tuple[str, pd.DataFrame, str, str]]:
    """(label, cells by step size, colour, marker) of one-hot and each level, largest nu first."""
    noisy = sweep[sweep["nu"] > 0]
    groups, colors = [], iter(LEVEL_COLORS * 4)
    for (name, nu), cells in sorted(noisy.groupby(["supervision", "nu"]), key=lambda item: -item[0][1]):
        color, marker = style.SUPERVISION[name] if name == "one-hot" else (next(colors), "o")
        label = "one-hot" if name == "one-hot" else f"Dirichlet, $\\nu$ = {nu:.1e}"
        groups.append((label, cells.sort_values("step_size"), color, marker))
    return groups


def _caption(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return (
        f"{first.problem}, {first.student}, ridge {first.ridge:.3g} ({first.ridge_kind}), batch {first.batch_size}, "
        f"{rows['steps'].min():,} to {rows['steps'].max():,} steps, {first.replicas} replicas, seed {first.seed}"
    )


def _legend(groups: list[tuple[str, pd.DataFrame, str, str]]) -> list[Line2D]:
    points = [
        Line2D([], [], color=color, marker=marker, linestyle="none", markersize=7 if marker == "*" else 4, label=label)
        for label, _, color, marker in groups
    ]
    exact = groups[0][1]["stability_kind"].iloc[0] == "exact"
    lines: tuple[tuple[LineStyleType, str], ...] = (
        ("-", "exact" if exact else "second order"),
        (":", "first order"),
        ("--", "T1"),
        ("-.", "T1'"),
    )
    return points + [Line2D([], [], color=GREY, linestyle=kind, label=label) for kind, label in lines]


def _marks(ax: Axes, rows: pd.DataFrame, *, labels: bool) -> None:
    """Step sizes 1/(2 L_max), 1/L_max and the stability limit, of batches: T1's limit of noisy cells, its double."""
    t1 = rows.loc[rows["supervision"] == "one-hot", "step_size_limit"].iloc[0]
    limit = rows["stability_limit"].iloc[0]
    kind = "" if rows["stability_kind"].iloc[0] == "exact" else "linearised\n"
    for position, text in (
        (t1, r"$\frac{1}{2L_{\max}}$"),
        (2 * t1, r"$\frac{1}{L_{\max}}$"),
        (limit, f"{kind}stability"),
    ):
        ax.axvline(position, color="#999999", linewidth=0.6, zorder=0)
        if labels:
            left = position == limit
            ax.annotate(
                text, (position, 1), xycoords=("data", "axes fraction"), xytext=(-2 if left else 2, -2), va="top",
                ha="right" if left else "left", textcoords="offset points", fontsize=6, color=GREY,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip


def _points(ax: Axes, cells: pd.DataFrame, over: pd.Series | float, color: str, marker: str, x: str) -> None:
    seen = cells["floor"].notna()
    rows, scale = cells[seen], over[seen] if isinstance(over, pd.Series) else over
    ax.errorbar(
        rows[x], rows["floor"] / scale, yerr=style.bars(rows, "floor", scale), color=color, marker=marker,
        linestyle="none", markersize=7 if marker == "*" else 3.5, elinewidth=0.8, capsize=1.5, zorder=3,
    )  # fmt: skip


def _floors(ax: Axes, sweep: pd.DataFrame, groups: list[tuple[str, pd.DataFrame, str, str]]) -> None:
    for _, cells, color, marker in groups:
        _points(ax, cells, 1.0, color, marker, "step_size")
        ax.plot(cells["step_size"], cells["second_order_floor"], color=color, linewidth=0.9)
        ax.plot(cells["step_size"], cells["first_order_floor"], color=color, linestyle=":", linewidth=0.9)
        ax.plot(cells["step_size"], cells["bound_floor"], color=color, linestyle="--", linewidth=0.9)
        ax.plot(cells["step_size"], cells["sharp_bound_floor"], color=color, linestyle="-.", linewidth=0.9)
    ax.set(xscale="log", yscale="log", xlabel=STEP_SIZE, ylabel=r"floor of $|\theta-\theta_*|^2$")
    ax.margins(y=0.12)
    ax.set_ylim(top=ax.get_ylim()[1] * 4)  # room for the names of the marks
    exact = sweep[(sweep["supervision"] == "exact") & sweep["floor"].notna()]
    if not exact.empty:
        text = f"exact BCP: at most {_above(exact['floor'].max())}\nat all {len(exact)} step sizes"
        ax.text(0.98, 0.03, text, transform=ax.transAxes, ha="right", va="bottom", fontsize=6, color="#333333")


def _above(value: float) -> str:
    """The value with one digit, rounded up."""
    return f"{Context(prec=1, rounding=ROUND_CEILING).plus(Decimal(value)):.0e}"


def _ratios(ax: Axes, sweep: pd.DataFrame, groups: list[tuple[str, pd.DataFrame, str, str]]) -> None:
    """Measured floor over first order; the line is second order over first order, the same for every family."""
    for _, cells, color, marker in groups:
        _points(ax, cells, cells["first_order_floor"], color, marker, "step_size")
        ratio = cells["second_order_floor"] / cells["first_order_floor"]
        ax.plot(cells["step_size"], ratio, color=color, linewidth=0.9)
    ax.axhline(1, color=GREY, linestyle=":", linewidth=0.9, zorder=0)
    ax.set(xscale="log", yscale="log", xlabel=STEP_SIZE, ylabel="ratio")
    _plain_ticks(ax)


def _plain_ticks(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if str(f"{value:e}")[0] in "235" else "")
    ax.tick_params(axis="y", which="minor", labelsize=6)


def _against_t1_sharp(ax: Axes, sweep: pd.DataFrame, groups: list[tuple[str, pd.DataFrame, str, str]]) -> None:
    """Floor over the neighbourhood of T1', alpha sigma*^2 / mu: below 1 where T1' is a bound (filled), open beyond."""
    mu = sweep["mu"].iloc[0]
    if not mu > 0:
        ax.text(0.5, 0.5, "not strongly convex: no T1'", transform=ax.transAxes, ha="center", color=GREY)
        ax.set(xlabel=STEP_SIZE, ylabel=r"floor / $(\alpha\sigma_*^2/\mu)$", xscale="log")
        return
    for _, cells, color, marker in groups:
        cells = cells[cells["floor"].notna()]
        neighbourhood = cells["step_size"] * cells["sigma_star_sq"] / mu
        _points(ax, cells, neighbourhood, color, marker, "step_size")
        beyond = ~cells["sharp_bound_valid"].astype(bool)
        open_cells = cells[beyond]
        ax.plot(
            open_cells["step_size"], open_cells["floor"] / neighbourhood[beyond], linestyle="none", marker=marker,
            color=color, markerfacecolor="white", markersize=7 if marker == "*" else 3.5, zorder=4,
        )  # fmt: skip
        ax.plot(cells["step_size"], cells["second_order_floor"] / neighbourhood, color=color, linewidth=0.9)
    ax.axhline(1, color=GREY, linestyle="-.", linewidth=0.9, zorder=0)
    ax.axhline(2, color=GREY, linestyle="--", linewidth=0.9, zorder=0)
    ax.set(xscale="log", yscale="log", xlabel=STEP_SIZE, ylabel=r"floor / $(\alpha\sigma_*^2/\mu)$")
    _plain_ticks(ax)


def _largest(ax: Axes, held: pd.DataFrame, sweep: pd.DataFrame) -> None:
    """The step size of each cell that holds the floor, beside first order's and the limit."""
    exact = held["stability_kind"].iloc[0] == "exact"
    tolerance = _tolerance(held)
    ax.plot(held["nu"], held["step_size"], color=style.BLUE, marker="o", markersize=3.5)
    first = held["step_size"] * tolerance / held["first_order_floor"]
    ax.plot(held["nu"], first, color=style.BLUE, linestyle=":", linewidth=0.9)
    limit = held["stability_limit"].iloc[0]
    t1 = sweep.loc[sweep["supervision"] == "one-hot", "step_size_limit"].iloc[0]
    for position, text in ((limit, "stability" if exact else "linearised stability"), (t1, r"$1/(2L_{\max})$")):
        ax.axhline(position, color="#999999", linewidth=0.6, zorder=0)
        ax.annotate(
            text, (0.45, position), xycoords=("axes fraction", "data"), xytext=(0, 1.5), textcoords="offset points",
            ha="center", fontsize=6, color=GREY,
        )  # fmt: skip
    ax.set(xscale="log", yscale="log", ylabel=r"largest $\alpha$")
    ax.set_ylim(top=limit * 4)
    ax.tick_params(labelbottom=False)
    ax.text(0.03, 0.05, f"floor {tolerance:.3g}", transform=ax.transAxes, fontsize=6, color="#333333")


def _tolerance(held: pd.DataFrame) -> float:
    """The floor that the cells were to hold; those beyond second order have no such column."""
    return float(held["second_order_floor"].astype(float).max())


def _check(ax: Axes, held: pd.DataFrame) -> None:
    """The measured floor of those cells over the floor that they were to hold."""
    _points(ax, held, _tolerance(held), style.BLUE, "o", "nu")
    ax.axhline(1, color=GREY, linewidth=0.8, zorder=0)
    ax.set(xscale="log", xlabel=r"$\nu$, per-class variance (Dirichlet)", ylabel="measured /\nset floor")
    ax.margins(y=0.2)
