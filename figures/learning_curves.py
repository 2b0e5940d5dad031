"""Figure of experiments without a figure of their own: learning curves, one a panel for each of two measures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdsim.figures import style
from kdsim.figures.style import Figure

MEASURES = {
    "dist_sq": r"$\mathrm{E}\,|\theta_t-\theta_*|^2$",
    "excess_risk": "excess risk, nats",
    "loss": "loss, nats",
    "accuracy": "accuracy",
    "bcp_l2": "squared distance to the BCP",
}
"""Columns of `curves` in order of preference, and what they are."""
PANELS = 2
NAMED = 12
"""Curves that the legend names; of more it names some, evenly spaced."""
LINE = 110
"""Characters of a line of the legend."""
COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.RED, style.PURPLE, style.SKY, style.BLACK, "#777777")


def figure(results: Any) -> Figure:
    """Means over replicas with bands from 5 to 95 % of them, from stored results (`StudyResults`)."""
    rows, curves = results.rows, results.curves
    rows = rows[rows["cell"].isin(curves["cell"])]
    with style.paper():
        names = [name for name in MEASURES if _has(curves, name)][:PANELS]
        fig = Figure(figsize=(style.TEXT_WIDTH, 3.2), layout="constrained")
        if not names:
            fig.suptitle(f"{results.name}: no learning curves", fontsize=7, color="#444444")
            return fig
        colors = _colors(len(rows))
        for letter, name, ax in zip("ab", names, fig.subplots(1, len(names), squeeze=False)[0], strict=False):
            for row, color in zip(rows.to_dict("records"), colors, strict=True):
                _curve(ax, curves[curves["cell"] == row["cell"]].sort_values("step"), name, color)
            _scales(ax, name)
            ax.set(xlabel="step")
            ax.set_title(f"({letter}) {MEASURES[name]}", loc="left")
        labels = [_label(row) for row in rows.to_dict("records")]
        shown = range(0, len(labels), math.ceil(len(labels) / NAMED))
        handles = [Line2D([], [], color=colors[number], label=labels[number]) for number in shown]
        fig.suptitle(_caption(results.name, rows), fontsize=7, color="#444444")
        columns = max(1, min(4, LINE // (max(map(len, labels)) + 8)))
        fig.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.3)
    return fig


def _has(curves: pd.DataFrame, name: str) -> bool:
    return f"{name}_mean" in curves and bool(curves[f"{name}_mean"].notna().any())


def _colors(count: int) -> list[Any]:
    """Colours that can be told apart, or shades in order where there are too many."""
    if count <= len(COLORS):
        return list(COLORS[:count])
    return [colormaps["viridis"](0.95 * number / (count - 1)) for number in range(count)]


def _curve(ax: Axes, curve: pd.DataFrame, name: str, color: Any) -> None:
    curve = curve[curve["step"] > 0]
    ax.plot(curve["step"], curve[f"{name}_mean"], color=color)
    if f"{name}_q05" in curve:
        low, high = curve[f"{name}_q05"], curve[f"{name}_q95"]
        ax.fill_between(curve["step"], low, high, color=color, alpha=0.15, linewidth=0)


def _scales(ax: Axes, name: str) -> None:
    """Logarithmic where something positive is drawn; accuracies are not."""
    drawn = (float(value) for line in ax.lines for value in np.asarray(line.get_ydata(), dtype=float))
    values = [value for value in drawn if value > 0 and math.isfinite(value)]
    ax.set_xscale("log")
    if name != "accuracy" and values:
        ax.set_yscale("log")
        ax.set_ylim(min(values) / 2, max(values) * 2)


def _label(row: dict[str, Any]) -> str:
    """The row's name in a legend, or its supervision with the level."""
    if isinstance(row.get("legend"), str):
        return row["legend"]
    level = row.get("level")
    return f"{row.get('supervision', row['cell'])}" + ("" if level is None or pd.isna(level) else f" {level:g}")


def _caption(name: str, rows: pd.DataFrame) -> str:
    """What all experiments share, in few words."""
    shared = [f"{column.replace('_', ' ')} {rows[column].iloc[0]:,}" for column in ("replicas", "seed")
              if column in rows and rows[column].nunique() == 1]  # fmt: skip
    return ", ".join([name, *shared, "bands: 5 to 95 % of the replicas"])
