"""Figure of batch-sweep: floor, its ratio to theory, fluctuation, and the spectrum of the fluctuations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from kdsim.figures import style
from kdsim.figures.style import Figure

GREY = "#555555"
RULES: dict[str, tuple[str, LineStyleType, bool]] = {
    "alpha": ("fixed step size", "-", True),
    "ratio": (r"fixed $\alpha/b$", "--", False),
}
"""Rule to its label, line style, and whether its markers are filled."""


def figure(results: Any) -> Figure:
    """Four panels from stored results (`StudyResults`: rows, one a cell, and spectrum, one a direction of a cell)."""
    rows, spectrum = results.rows, results.spectrum
    styles = style.supervision_styles(dict.fromkeys(rows["supervision"]))
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 4.9), layout="constrained")
        grid = fig.add_gridspec(3, 2, height_ratios=(3, 2, 1))
        floor, ratio = fig.add_subplot(grid[0, 0]), fig.add_subplot(grid[0, 1])
        fluctuation, times = fig.add_subplot(grid[1:, 0]), fig.add_subplot(grid[1, 1])
        below = fig.add_subplot(grid[2, 1], sharex=times)
        _against_batch(floor, rows, styles, "floor", r"floor of $|\theta-\theta_*|^2$")
        _ratios(ratio, rows, styles)
        _against_batch(fluctuation, rows, styles, "fluctuation", r"s.d. of $|\theta-\theta_*|^2$ within a replica")
        _times(times, below, rows, spectrum)
        floor.set_title("(a) error floor", loc="left")
        ratio.set_title("(b) floor / first order", loc="left")
        fluctuation.set_title("(c) fluctuation in the tail", loc="left")
        times.set_title("(d) autocorrelation time along eigendirections", loc="left")
        fig.suptitle(_caption(rows), fontsize=7, color="#444444")
        fig.legend(handles=_legend(rows, styles), loc="outside lower center", ncols=6, columnspacing=1.3)
    return fig


def _caption(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return (
        f"{first.problem}, {first.student}, ridge {first.ridge:.3g} ({first.ridge_kind}), "
        f"{rows['steps'].min():,} to {rows['steps'].max():,} steps, {first.replicas} replicas, seed {first.seed}"
    )


def _by_rule(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The cells of each rule by batch size. The step size that most cells share is the fixed one."""
    step_size = rows["step_size"].mode().iloc[0]
    fixed = np.isclose(rows["step_size"], step_size)
    per_sample = rows["step_size"] / rows["batch_size"]
    ratio = np.isclose(per_sample, per_sample[~fixed].iloc[0]) if (~fixed).any() else ~fixed
    return {"alpha": rows[fixed].sort_values("batch_size"), "ratio": rows[ratio].sort_values("batch_size")}


def _legend(rows: pd.DataFrame, styles: dict[str, tuple[str, str]]) -> list[Line2D]:
    entries = [
        Line2D([], [], color=color, marker=marker, linestyle="none", markersize=7 if marker == "*" else 4, label=name)
        for name, (color, marker) in styles.items()
    ]
    for label, line, filled in RULES.values():
        face = GREY if filled else "white"
        entries.append(
            Line2D([], [], color=GREY, linestyle=line, marker="o", markersize=4, markerfacecolor=face, label=label)
        )
    exact = rows["stability_kind"].iloc[0] == "exact"
    entries.append(Line2D([], [], color=GREY, linewidth=0.9, label="line: exact" if exact else "line: second order"))
    entries.append(Line2D([], [], color=GREY, linestyle=":", linewidth=0.9, label="first order"))
    return entries


def _points(
    ax: Axes, x: pd.Series, rows: pd.DataFrame, key: str, color: str, marker: str, *, scale: Any = 1.0,
    filled: bool = True,
) -> None:  # fmt: skip
    """Column `key` / scale with its 95 % interval."""
    ax.errorbar(
        x, rows[key] / scale, yerr=style.bars(rows, key, scale), color=color, marker=marker, linestyle="none",
        elinewidth=0.8, markersize=7 if marker == "*" else 4, markerfacecolor=color if filled else "white", capsize=1.5,
        zorder=3,
    )  # fmt: skip


def _against_batch(
    ax: Axes, rows: pd.DataFrame, styles: dict[str, tuple[str, str]], quantity: str, ylabel: str
) -> None:
    """The quantity with its 95 % interval against the batch size; for the floor with theory's lines."""
    for rule, cells in _by_rule(rows).items():
        _, line, filled = RULES[rule]
        for name, (color, marker) in styles.items():
            family = cells[(cells["supervision"] == name) & cells[quantity].notna()]
            _points(ax, family["batch_size"], family, quantity, color, marker, filled=filled)
            if quantity == "floor":
                ax.plot(family["batch_size"], family["second_order_floor"], color=color, linestyle=line, linewidth=0.9)
                ax.plot(family["batch_size"], family["first_order_floor"], color=color, linestyle=":", linewidth=0.9)
    ax.set(xscale="log", yscale="log", xlabel="batch size $b$", ylabel=ylabel)
    _batch_ticks(ax, rows)


def _ratios(ax: Axes, rows: pd.DataFrame, styles: dict[str, tuple[str, str]]) -> None:
    """Measured floor over first order; lines are second order over first order."""
    for rule, cells in _by_rule(rows).items():
        _, line, filled = RULES[rule]
        for name, (color, marker) in styles.items():
            family = cells[(cells["supervision"] == name) & cells["floor"].notna()]
            first = family["first_order_floor"]
            _points(ax, family["batch_size"], family, "floor", color, marker, scale=first, filled=filled)
            ratio = family["second_order_floor"] / first
            ax.plot(family["batch_size"], ratio, color=color, linestyle=line, linewidth=0.9)
    ax.axhline(1, color=GREY, linestyle=":", linewidth=0.9, zorder=0)
    ax.set(xscale="log", xlabel="batch size $b$", ylabel="ratio")
    _batch_ticks(ax, rows)


def _batch_ticks(ax: Axes, rows: pd.DataFrame) -> None:
    sizes = sorted(rows["batch_size"].unique())
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()


def _times(ax: Axes, below: Axes, rows: pd.DataFrame, spectrum: pd.DataFrame) -> None:
    """Autocorrelation time in steps against 1/(alpha h), one-hot, one colour a cell; below, their ratio.

    A time whose interval is open at an end (see `measure.spectrum`) is left out.
    """
    cells = _by_rule(rows[rows["supervision"] == "one-hot"])
    shown = pd.concat([cells["alpha"].iloc[[0, -1]], cells["ratio"].iloc[[0, -1]]]).drop_duplicates("cell")
    colors = (style.RED, style.BLUE, style.GREEN, style.ORANGE)
    ends = []
    for row, color, marker in zip(shown.itertuples(), colors, "osDv", strict=False):
        table = spectrum[spectrum["cell"] == row.cell]
        if table.empty:
            continue
        table = table[np.isfinite(table["time_high"]) & (table["time_low"] > 0)]
        theory = table["time_theory"]
        _points(ax, theory, table, "time", color, marker)
        _points(below, theory, table, "time", color, marker, scale=theory)
        label = f"$b$ = {row.batch_size}, $\\alpha$ = {row.step_size:.2g}"
        ax.plot([], [], color=color, marker=marker, linestyle="none", label=label)
        ends += theory.tolist()
    if ends:
        ax.plot([min(ends), max(ends)], [min(ends), max(ends)], color=GREY, linewidth=0.8, zorder=0)
        ax.legend(loc="upper left", fontsize=6, handletextpad=0.2)
    below.axhline(1, color=GREY, linewidth=0.8, zorder=0)
    ax.set(xscale="log", yscale="log", ylabel="measured, steps")
    ax.tick_params(labelbottom=False)
    below.set(xlabel=r"theory: $1/(\alpha h_i)$, steps", ylabel="ratio")
    below.margins(y=0.15)
