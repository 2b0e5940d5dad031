"""Figure of dimension-sweep: floor over step size against K, d, entropy and conditioning, one panel each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdsim.figures import style
from kdsim.figures.style import Figure

PANELS = {
    "classes": ("(a) classes", "$K$"),
    "dimension": ("(b) dimension", "$d$, without the bias"),
    "entropy": ("(c) entropy of the BCP", r"mean entropy / $\log K$"),
    "conditioning": ("(d) conditioning of the features", "largest / smallest eigenvalue"),
}


def figure(results: Any) -> Figure:
    """Four panels from stored results (`StudyResults`); each varies one quantity, the others at their base values."""
    rows = _with_quantities(results.rows)
    base = _base(results.settings["problem"])
    styles = style.supervision_styles(dict.fromkeys(rows["supervision"]))
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 4.6), layout="constrained")
        axes = fig.subplots(2, 2, sharey=True)
        for ax, (quantity, (title, label)) in zip(axes.flat, PANELS.items(), strict=True):
            _panel(ax, _slice(rows, base, quantity), quantity, styles)
            ax.set_title(title, loc="left")
            ax.set_xlabel(label)
        for ax in axes[:, 0]:
            ax.set_ylabel(r"floor of $|\theta-\theta_*|^2$ / $(\alpha/b)$")
        fig.suptitle(_caption(rows, base), fontsize=7, color="#444444")
        fig.legend(handles=_legend(styles), loc="outside lower center", ncols=6, columnspacing=1.2)
    return fig


def _with_quantities(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        classes=rows["problem.classes"],
        dimension=rows["problem.dimension"],
        conditioning=rows["problem.conditioning"],
        entropy=(rows["problem.entropy"] / np.log(rows["problem.classes"])).round(9),
    )


def _base(problem: dict[str, Any]) -> dict[str, float]:
    return {
        "classes": problem["classes"],
        "dimension": problem["dimension"],
        "conditioning": problem["conditioning"],
        "entropy": round(problem["entropy"] / np.log(problem["classes"]), 9),
    }


def _slice(rows: pd.DataFrame, base: dict[str, float], quantity: str) -> pd.DataFrame:
    """The cells in which every quantity but one has its base value."""
    same = [rows[key] == value for key, value in base.items() if key != quantity]
    return rows[np.logical_and.reduce(same)].sort_values(quantity)


def _panel(ax: Axes, rows: pd.DataFrame, quantity: str, styles: dict[str, tuple[str, str]]) -> None:
    for name, (color, marker) in styles.items():
        family = rows[rows["supervision"] == name]
        x, unit = family[quantity], family["step_size"] / family["batch_size"]
        ax.errorbar(
            x, family["floor"] / unit, yerr=style.bars(family, "floor", unit), color=color, marker=marker,
            linestyle="none", elinewidth=0.8, capsize=1.5, markersize=7 if marker == "*" else 4, zorder=3,
        )  # fmt: skip
        ax.plot(x, family["first_order_floor"] / unit, color=color, linewidth=0.9)
        ax.plot(x, family["bound_floor"] / unit, color=color, linestyle="--", linewidth=0.7)
    ax.set_yscale("log")
    if quantity != "entropy":
        ax.set_xscale("log")
    if quantity in ("classes", "dimension"):
        values = sorted(rows[quantity].unique())
        ax.set_xticks(values, [f"{value:g}" for value in values])
        ax.minorticks_off()


def _caption(rows: pd.DataFrame, base: dict[str, float]) -> str:
    first = rows.iloc[0]
    return (
        f"softmax-linear around K = {base['classes']}, d = {base['dimension']}, entropy {base['entropy']:.2g} log K, "
        f"conditioning {base['conditioning']:g}; centred ridge\n"
        f"batch {first.batch_size}, {first.replicas} replicas, seed {first.seed}; "
        f"step sizes {rows['step_size'].min():.2g} to {rows['step_size'].max():.2g}, each inside T1's condition"
    )


def _legend(styles: dict[str, tuple[str, str]]) -> list[Line2D]:
    markers = [
        Line2D([], [], color=color, marker=marker, linestyle="none", markersize=7 if marker == "*" else 4, label=name)
        for name, (color, marker) in styles.items()
    ]
    return [
        *markers,
        Line2D([], [], color="#555555", label="first-order floor"),
        Line2D([], [], color="#555555", linestyle="--", label="T1 bound"),
    ]
