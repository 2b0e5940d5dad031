"""Figure of deviations: exact paths along eigendirections, and students against their teachers by logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from kdsim.figures import style
from kdsim.figures.style import Figure

DECILES = range(1, 11)
COLOURS = (style.BLACK, style.SKY, style.BLUE, style.GREEN, style.ORANGE, style.RED, style.PURPLE, "#777777")
MARKERS = "osD^vP<X"


@dataclass(frozen=True)
class Strip:
    """A row of panels: students of one network that differ in their teachers, or in their losses.

    Attributes:
        rows: of the students.
        labels: what tells them apart.
    """

    title: str
    rows: list[dict[str, Any]]
    labels: list[str]


def figure(results: Any) -> Figure:
    """From stored results (`StudyResults`): exact paths first, then a row of panels for each network taught."""
    rows = results.rows
    paths = rows[rows["kind"] == "computation"] if "computation" in rows else rows.iloc[:0]
    strips = list(_strips(rows))
    heights = [2.1] * (len(paths) > 0) + [1.25 + 0.12 * len(strip.rows) for strip in strips]
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 0.25 + sum(heights)), layout="constrained")
        axes = list(fig.subplots(len(heights), 3, squeeze=False, height_ratios=heights))
        if len(paths):
            _paths(axes.pop(0), paths, results.curves)
        for panels, strip in zip(axes, strips, strict=True):
            _strip(panels, strip)
        students = rows[rows["kind"] == "training"]
        seeds = ", ".join(f"{seed:.0f}" for seed in sorted(set(students["seed"]))) if len(students) else ""
        fig.suptitle(
            f"bars: 95 % intervals over replicas, seed {seeds}" if seeds else "exact, no simulation",
            fontsize=7,
            color="#444444",
        )
    return fig


# Exact paths --------------------------------------------------------------------------------------


def _paths(axes: Sequence[Axes], paths: pd.DataFrame, curves: pd.DataFrame) -> None:
    """The student against an early-stopped model of the truth that has the same component along direction 1."""
    first = curves[curves["cell"] == paths["cell"].iloc[0]]
    times = sorted(first["teacher_time"].unique())
    middle = times[min(1, len(times) - 1)]
    _plane(axes[0], first, times)
    for ax, (_, row) in zip(axes[1:], paths.iterrows(), strict=False):
        own = curves[curves["cell"] == row["cell"]]
        near = min(own["teacher_time"].unique(), key=lambda time: abs(time - middle))
        _matched(ax, own[own["teacher_time"] == near])
        kind = "gradient flow" if pd.isna(row["step_size"]) else f"descent by {row['step_size']:g}/$h_1$"
        ax.set_title(kind, loc="left")
        ax.set_ylabel(f"student (teacher until {near:g})")
    for ax in axes[1 + len(paths) :]:
        ax.set_axis_off()


def _plane(ax: Axes, own: pd.DataFrame, times: list[float]) -> None:
    """Paths in the plane of two directions."""
    directions = sorted(own["direction"].unique())
    number = directions[len(directions) // 2]
    for time, colour in zip(times, COLOURS[1:], strict=False):
        path = own[own["teacher_time"] == time].pivot(index="time", columns="direction", values="student")
        ax.plot(path[1], path[number], color=colour, label=f"of a teacher until {time:g}")
        taught = own[(own["teacher_time"] == time) & (own["time"] == own["time"].max())].set_index("direction")[
            "teacher"
        ]
        ax.plot(taught[1], taught[number], "o", color=colour, clip_on=False)
    last = own[own["teacher_time"] == times[-1]]
    stopped = last.pivot(index="time", columns="direction", values="early_stopped")
    ax.plot(stopped[1], stopped[number], color=style.BLACK, linestyle="--", label="taught by the truth", zorder=1)
    h = own.loc[own["direction"] == number, "eigenvalue"].iloc[0]
    ax.set_xlabel("component along direction 1")
    ax.set_ylabel(f"along $h$ = {h:.2g} $h_1$")
    ax.set_title("paths of students (dots: teachers)", loc="left")
    ax.legend(loc="upper left", handlelength=1.4, fontsize=6)


def _matched(ax: Axes, own: pd.DataFrame) -> None:
    directions = [number for number in sorted(own["direction"].unique()) if number > 1]
    shown = directions[:: -(-len(directions) // 4)]
    for number, colour in zip(shown, COLOURS[1:], strict=False):
        path = own[own["direction"] == number].sort_values("time")
        ax.plot(path["early_stopped"], path["student"], color=colour, label=f"$h$ = {path['eigenvalue'].iloc[0]:.2g}")
    top = own.loc[own["direction"] > 1, "early_stopped"].max()
    ax.plot([0, top], [0, top], color=style.BLACK, linestyle=":", linewidth=0.8)
    ax.set_xlabel("early-stopped model")
    ax.legend(loc="upper left", handlelength=1.4, fontsize=6)


# Networks -----------------------------------------------------------------------------------------


def _strips(rows: pd.DataFrame) -> Iterator[Strip]:
    """For each network taught, its students by teacher, and by loss where one teacher has students of several."""
    if "deviation_slope" not in rows:
        return
    teachers = rows[rows["kind"] == "teacher"].set_index("cell")
    students = rows[(rows["kind"] == "training") & rows["deviation_slope"].notna()]
    for (data, network), group in students.groupby(["data", "student"], sort=False):
        plain = group["loss_name"].iloc[0]
        by_teacher = group[group["loss_name"] == plain].to_dict("records")
        several = [cell for cell, same in group.groupby("teacher_cell", sort=False) if len(same) > 1]
        replicas = f"({group['replicas'].iloc[0]:.0f} replicas)"
        yield Strip(f"{network}, {data}: teachers {replicas}", by_teacher, _teacher_labels(by_teacher, teachers))
        for cell in several:
            same = group[group["teacher_cell"] == cell].to_dict("records")
            title = f"{network}, {data}: losses {replicas}"
            yield Strip(title, same, [_loss_label(row, plain) for row in same])


def _teacher_labels(rows: list[dict[str, Any]], teachers: pd.DataFrame) -> list[str]:
    """What the teachers learned and how long; their network where that differs."""
    found = [teachers.loc[row["teacher_cell"]] for row in rows]
    networks = len({teacher["teacher"] for teacher in found}) > 1
    texts = []
    for teacher in found:
        network = f"{teacher['teacher']}, " if networks else ""
        learned = teacher["teacher.supervision"]
        if pd.notna(teacher["teacher.level"]):
            learned += f" {teacher['teacher.level']:g}"
        texts.append(f"{network}{learned}, {teacher['teacher.epochs']:g} ep.")
    return texts


def _loss_label(row: dict[str, Any], plain: str) -> str:
    names = {plain: "teacher", "label-cross-entropy": "labels"}
    parts = [names.get(name, name) for name in row["loss_name"].split(" then ")]
    return parts[0] + " throughout" if len(parts) == 1 else ", then ".join(parts)


def _strip(axes: Sequence[Axes], strip: Strip) -> None:
    """Deviation by tenths of the teacher's logit, slopes, and the change of the distance from the truth."""
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(strip.rows))]
    for number, (row, colour) in enumerate(zip(strip.rows, colours, strict=True)):
        marker = MARKERS[number % len(MARKERS)]
        _deciles(axes[0], row, colour, marker)
        _slope(axes[1], row, number, colour, marker)
        _truth(axes[2], row, number, colour, marker)
    axes[0].axhline(0, color="#999999", linewidth=0.6, zorder=0)
    axes[0].set_xlabel("teacher's logit, mean of a tenth")
    axes[0].set_ylabel("student - teacher")
    axes[0].set_title(strip.title, loc="left")
    for ax, line in ((axes[1], 1), (axes[2], 0)):
        ax.axvline(line, color="#999999", linewidth=0.6, zorder=0)
        ax.set_ylim(len(strip.rows) - 0.4, -0.6)
    axes[1].set_yticks(range(len(strip.rows)), strip.labels)
    for text, colour in zip(axes[1].get_yticklabels(), colours, strict=True):
        text.set_color(colour)
    axes[1].set_xlabel("slope (small: axis)")
    known = any(pd.notna(row.get("deviation_kl_change")) for row in strip.rows)
    axes[2].set_yticks(range(len(strip.rows)), [""] * len(strip.rows))
    if known:
        axes[2].set_xlabel("change of KL to p, nats")
    else:
        axes[2].set_axis_off()


def _deciles(ax: Axes, row: dict[str, Any], colour: str, marker: str) -> None:
    x = [row[f"deviation_teacher_q{number}"] for number in DECILES]
    if pd.isna(x).any():  # too few points for tenths
        return
    y = [row[f"deviation_q{number}"] for number in DECILES]
    low, high = ([row[f"deviation_q{number}_{end}"] for number in DECILES] for end in ("low", "high"))
    bars = None if pd.isna(low).any() else [[a - b for a, b in zip(y, low, strict=True)],
                                            [b - a for a, b in zip(y, high, strict=True)]]  # fmt: skip
    ax.errorbar(x, y, yerr=bars, color=colour, marker=marker, markersize=2.5, linewidth=0.9, elinewidth=0.6)


def _slope(ax: Axes, row: dict[str, Any], place: int, colour: str, marker: str) -> None:
    ax.errorbar(
        row["deviation_slope"], place, xerr=style.ends(row, "deviation_slope"), color=colour, marker=marker,
        markersize=4, capsize=2, elinewidth=0.9,
    )  # fmt: skip
    if pd.notna(row["deviation_slope_axis"]):
        ax.plot(row["deviation_slope_axis"], place, marker=marker, markersize=2, color=colour, alpha=0.6)


def _truth(ax: Axes, row: dict[str, Any], place: int, colour: str, marker: str) -> None:
    if pd.isna(row.get("deviation_kl_change")):
        return
    ax.errorbar(
        row["deviation_kl_change"], place, xerr=style.ends(row, "deviation_kl_change"), color=colour, marker=marker,
        markersize=4, capsize=2, elinewidth=0.9,
    )  # fmt: skip
