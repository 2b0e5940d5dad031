"""Figure of pl-sweep: excess-risk curves of each student, and floors against noise level and step size."""

from __future__ import annotations

from math import log10
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from matplotlib.typing import LineStyleType

from kdsim.figures import style
from kdsim.figures.style import Figure

STUDENTS = {
    "full rank": (style.BLUE, "o"),
    "rank-deficient": (style.ORANGE, "v"),
    "over-parametrised": (style.GREEN, "D"),
    "softmax, no ridge": (style.PURPLE, "^"),
}
FAMILIES = {"one-hot": "*", "dirichlet": "o", "annotators": "v"}
GREY = "#555555"


def figure(results: Any) -> Figure:
    """One panel of curves a student, three of floors, from stored results (`StudyResults`)."""
    rows, curves = results.rows.copy(), results.curves
    rows["who"] = [_student(row) for row in results.records]
    students = [name for name in STUDENTS if (rows["who"] == name).any()]
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 5.2), layout="constrained")
        subfigures: Any = fig.subfigures(2, 1, height_ratios=(1, 1.15))
        top, bottom = subfigures
        panels = top.subplots(1, len(students), squeeze=False)[0]
        for number, (ax, name) in enumerate(zip(panels, students, strict=True)):
            _curves(ax, rows[rows["who"] == name], curves)
            ax.set_title(f"({'abcd'[number]}) {name}", loc="left")
        panels[0].set_ylabel("excess risk")
        left, middle, right = bottom.subplots(1, 3)
        _against_nu(left, rows, students)
        _against_step(middle, rows, students)
        _ratio(right, rows, students)
        titles = ("floor at the smallest step size", "floor under one-hot labels", "measured / predicted floor")
        for number, (ax, title) in enumerate(zip((left, middle, right), titles, strict=True), start=len(students)):
            ax.set_title(f"({'abcdefg'[number]}) {title}", loc="left")
        top.suptitle(_caption(rows), fontsize=7, color="#444444")
        top.legend(handles=_curve_legend(rows), loc="outside lower center", ncols=7, handlelength=2.2)
        bottom.legend(
            handles=_floor_legend(rows, students), loc="outside lower center", ncols=6, columnspacing=1.0,
            handlelength=1.8,
        )  # fmt: skip
    return fig


def _student(row: dict[str, Any]) -> str:
    if row["student"] == "softmax-regression":
        return "softmax, no ridge"
    if row["problem.samples"] < row["problem.dimension"]:
        return "over-parametrised"
    rank = row["problem.rank"]
    return "full rank" if rank is None or rank == row["problem.dimension"] else "rank-deficient"


def _caption(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return (
        f"least squares on {first.problem} (first three) and softmax regression without a ridge; "
        f"batch {first.batch_size}, {first.replicas} replicas, seed {first.seed}"
    )


def _exact(rows: pd.DataFrame) -> pd.Series:
    """Exact floor of the excess risk where there is one, else first order in the step size."""
    return rows["exact_excess_risk"].astype(float).fillna(rows["first_order_excess_risk"].astype(float))


def _curves(ax: Axes, rows: pd.DataFrame, curves: pd.DataFrame) -> None:
    """Mean excess risk at the smallest step size with the band of the replicas, exact curve, T2 and T2'."""
    rows = rows[rows["step_size"] == rows["step_size"].min()]
    dirichlet = rows[rows["supervision"] == "dirichlet"].sort_values("nu")
    shown = pd.concat([rows[rows["supervision"].isin(["exact", "one-hot"])], dirichlet.iloc[[len(dirichlet) // 2]]])
    lowest = []
    for row in shown.itertuples():
        curve = curves[(curves["cell"] == row.cell) & (curves["step"] > 0)].sort_values("step")
        color = style.SUPERVISION[row.supervision][0]
        ax.plot(curve["step"], curve["excess_risk_mean"], color=color, linewidth=1.6, alpha=0.6, zorder=2)
        ax.fill_between(
            curve["step"], curve["excess_risk_q05"], curve["excess_risk_q95"], color=color, alpha=0.18, linewidth=0
        )
        ax.plot(curve["step"], curve["exact_excess_risk"], color="black", linewidth=0.6, zorder=3)
        ax.plot(curve["step"], curve["risk_bound"], color=color, linestyle="--", linewidth=0.9)
        ax.plot(curve["step"], curve["sharp_risk_bound"], color=color, linestyle=":", linewidth=0.9)
        if row.supervision != "exact":
            lowest.append(curve["excess_risk_q05"].min())
    if lowest:  # exact BCP falls to rounding: its curve leaves the panel
        ax.set_ylim(bottom=min(lowest) / 6)
    ax.set(xscale="log", yscale="log", xlabel="step")
    ax.set_xlim(left=10)
    _decades(ax, 10, rows["steps"].max())
    first = shown.iloc[0]
    ax.text(0.04, 0.04, f"$\\alpha$ = {first.step_size:.2g}", transform=ax.transAxes, fontsize=6, color="#333333")
    if not shown["risk_bound_valid"].any():
        reason = "$\\mu$ is an\nestimate" if first.mu_pl_kind == "estimate" else "step size\nabove its limit"
        ax.text(0.97, 0.97, f"no bound:\n{reason}", transform=ax.transAxes, fontsize=6, color="#333333", ha="right",
                va="top")  # fmt: skip


def _decades(ax: Axes, first: float, last: float) -> None:
    """A label at each decade: matplotlib leaves most of them out of a small panel."""
    ticks = [10.0**power for power in range(round(log10(first)), int(log10(last)) + 1)]
    ax.set_xticks(ticks)
    ax.xaxis.set_minor_formatter(NullFormatter())


def _errorbar(ax: Axes, x: pd.Series, rows: pd.DataFrame, scale: Any, color: str, marker: str, *, filled: bool) -> None:
    """Measured excess-risk floor over `scale` with its 95 % interval."""
    value = rows["excess_risk_floor"].astype(float) / scale
    ax.errorbar(
        x, value, yerr=style.bars(rows, "excess_risk_floor", scale), color=color, marker=marker, linestyle="none",
        markersize=6 if marker == "*" else 3.5, markerfacecolor=color if filled else "white", elinewidth=0.8,
        markeredgewidth=0.8, capsize=1.5, zorder=3,
    )  # fmt: skip


def _against_nu(ax: Axes, rows: pd.DataFrame, students: list[str]) -> None:
    for name in students:
        color = STUDENTS[name][0]
        own = rows[(rows["who"] == name) & (rows["nu"] > 0) & rows["excess_risk_floor"].notna()]
        own = own[own["step_size"] == own["step_size"].min()].sort_values("nu")
        for family, marker in FAMILIES.items():
            part = own[own["supervision"] == family]
            _errorbar(ax, part["nu"], part, 1, color, marker, filled=True)
        _lines(ax, own["nu"], own, color)
    ax.set(xscale="log", yscale="log", xlabel=r"$\nu$, per-class variance", ylabel="excess-risk floor")


def _lines(ax: Axes, x: pd.Series, rows: pd.DataFrame, color: str) -> None:
    ax.plot(x, _exact(rows), color=color, linewidth=0.9, zorder=2)
    ax.plot(x, rows["risk_bound_floor"].astype(float), color=color, linestyle="--", linewidth=0.8, zorder=1)
    ax.plot(x, rows["sharp_risk_bound_floor"].astype(float), color=color, linestyle=":", linewidth=0.9, zorder=1)


def _against_step(ax: Axes, rows: pd.DataFrame, students: list[str]) -> None:
    """Floor under one-hot labels against the step size as a multiple of T2's limit; open markers: no valid bound.

    Students are set some per cent apart along the axis, so that their markers do not hide each other.
    """
    for number, name in enumerate(students):
        color, marker = STUDENTS[name]
        own = rows[(rows["who"] == name) & (rows["supervision"] == "one-hot")].sort_values("step_size")
        own = own[own["excess_risk_floor"].notna()]
        bounded = (own["risk_bound_valid"] | own["sharp_risk_bound_valid"]).astype(bool)
        multiple = own["step_size"] / own["risk_step_size_limit"] * 1.06 ** (number - 1.5)
        for chosen, filled in ((bounded, True), (~bounded, False)):
            _errorbar(ax, multiple[chosen], own[chosen], 1, color, marker, filled=filled)
        ax.plot(multiple, _exact(own), color=color, linewidth=0.9, zorder=2)
        for key, dash in (("risk_bound_floor", "_"), ("sharp_risk_bound_floor", "x")):
            ax.plot(multiple, own[key].astype(float), color=color, linestyle="none", marker=dash, markersize=5)
    for limit, label in ((1, "T2"), (2, "T2'")):
        ax.axvline(limit, color="#bbbbbb", linewidth=0.6, zorder=0)
        ax.annotate(label, (limit, 0.02), xycoords=("data", "axes fraction"), fontsize=6, color=GREY,
                    xytext=(1.5, 0), textcoords="offset points")  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel=r"step size / T2's limit $\mu/(2LL_{\max})$")


def _ratio(ax: Axes, rows: pd.DataFrame, students: list[str]) -> None:
    """Measured floor over exact (least squares) or second-order floor (softmax) against alpha / stability limit."""
    for number, name in enumerate(students):
        color, marker = STUDENTS[name]
        own = rows[(rows["who"] == name) & (rows["nu"] > 0) & rows["excess_risk_floor"].notna()]
        own = own[own["supervision"].isin(["one-hot", "dirichlet"])]
        own = own[own["second_order_excess_risk"].notna()]
        x = own["step_size"] / own["stability_limit"] * 1.06 ** (number - 1.5)
        _errorbar(ax, x, own, own["second_order_excess_risk"].astype(float), color, marker, filled=True)
    ax.axhline(1, color=GREY, linewidth=0.8, zorder=1)
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.15 * (high - low), high)  # room for what stands there
    ax.text(0.03, 0.03, "predicted: exact\nsoftmax: second order", transform=ax.transAxes, fontsize=6, color="#333333")
    ax.set(xscale="log", xlabel="step size / stability limit")
    ax.set_xticks([0.01, 0.03, 0.1, 0.3, 1], ["0.01", "0.03", "0.1", "0.3", "1"])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(0.008, 1)


def _curve_legend(rows: pd.DataFrame) -> list[Line2D]:
    entries = [
        Line2D([], [], color=style.SUPERVISION[name][0], linewidth=1.6, alpha=0.6, label=label)
        for name, label in (("exact", "exact BCP"), ("one-hot", "one-hot"), ("dirichlet", "dirichlet"))
        if (rows["supervision"] == name).any()
    ]
    return [
        *entries,
        Line2D([], [], color="black", linewidth=0.6, label="exact theory"),
        Line2D([], [], color=GREY, linestyle="--", label="T2"),
        Line2D([], [], color=GREY, linestyle=":", label="T2'"),
    ]


def _floor_legend(rows: pd.DataFrame, students: list[str]) -> list[Line2D]:
    entries = [
        Line2D([], [], color=STUDENTS[name][0], marker=STUDENTS[name][1], label=name, linewidth=0.9)
        for name in students
    ]
    entries += [
        Line2D([], [], color=GREY, marker=marker, linestyle="none", markersize=6 if marker == "*" else 4, label=name)
        for name, marker in FAMILIES.items()
        if (rows["supervision"] == name).any()
    ]
    entries.append(Line2D([], [], color=GREY, linewidth=0.9, label="exact (first order: softmax)"))
    bounds: tuple[tuple[str, LineStyleType, str], ...] = (
        ("T2: line or bar", "--", "_"),
        ("T2': line or cross", ":", "x"),
    )
    for label, dash, marker in bounds:
        entries.append(Line2D([], [], color=GREY, linestyle=dash, linewidth=0.8, marker=marker, label=label))
    return [
        *entries,
        Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linestyle="none", label="no valid bound"),
    ]
