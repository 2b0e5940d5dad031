"""Figure of long-tail: floors by group of classes, bias and variance, and what is between and within groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.typing import LineStyleType

from kdsim.figures import style
from kdsim.figures.style import Figure

GROUPS = {"head": style.BLACK, "medium": style.BLUE, "tail": style.RED}
LOSSES = {
    "cross-entropy": "cross-entropy",
    "label-cross-entropy": "cross-entropy",
    "balanced-softmax": "balanced softmax",
    "logit-adjustment": "logit adjustment",
    "kd": "KD",
    "dkd": "DKD",
    "ltkd": "LTKD",
    "ltkd-rebalanced": "LTKD, P' alone",
    "ltkd-equal-groups": "LTKD, equal groups alone",
}
TEACHERS = {"one-hot": "labels", "exact": "exact BCP", "dirichlet": "noisy BCP", "deterministic": "trained"}
FOLLOWED = {"kd": style.BLACK, "ltkd": style.RED, "ltkd-rebalanced": style.ORANGE, "ltkd-equal-groups": style.SKY}
"""Losses whose curves are shown, with their colours."""
BIAS, VARIANCE, PRIOR = "#9a9a9a", style.YELLOW, style.GREEN
PRIORS: dict[str, LineStyleType] = {"prior_bias": ":", "group_prior_bias": "-."}
GREY = "#777777"


def figure(results: Any) -> Figure:
    """One row of panels for each data set and imbalance, from stored results (`StudyResults`)."""
    rows, curves = results.rows, results.curves
    settings = [group.reset_index(drop=True) for _, group in rows.groupby(["data", "imbalance"], sort=False)]
    heights = [0.55 + 0.125 * len(setting) for setting in settings]
    columns = 3 if any(map(_known, settings)) else 1  # of labels alone there is nothing but accuracy
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 0.9 + sum(heights)), layout="constrained")
        widths = (1, 1, 1.15)[:columns]
        axes = fig.subplots(len(settings), columns, squeeze=False, height_ratios=heights, width_ratios=widths)
        for setting, (first, *others) in zip(settings, axes, strict=True):
            known, one = _known(setting), setting.iloc[0]
            _by_group(first, setting, "floor" if known else "test_accuracy")
            _names(first, setting)
            first.set_title(f"{one['data']}, imbalance {one['imbalance']:g}", loc="left")
            if not others:
                continue
            second, third = others
            if "test_bias" in setting and setting["test_bias"].notna().any():
                _bias(second, setting)
                _names(second, setting, told=False)
            else:
                second.set_axis_off()
            if known:
                _during_training(third, setting, curves)
            else:
                third.set_axis_off()
        shown = rows.iloc[0]
        bands = ", bands: ± 2 standard errors of the logarithm" if columns > 1 else ""
        fig.suptitle(
            f"Long-tailed training, balanced validation and test; replicas: {_replicas(settings)}\n"
            f"bars: 95 % intervals{bands}; seed {shown['seed']}",
            fontsize=7, color="#444444",
        )  # fmt: skip
        handles = _handles(rows) if columns > 1 else _handles(rows)[: len(GROUPS)]
        fig.legend(handles=handles, loc="outside lower center", ncols=5, columnspacing=1.2, handlelength=1.6)
    return fig


def _known(setting: pd.DataFrame) -> bool:
    """Whether the BCP is known, so that there are floors."""
    return "floor_tail" in setting and bool(setting["floor_tail"].notna().any())


def _names(ax: Axes, setting: pd.DataFrame, told: bool = True) -> None:
    """One line a student, with a thin line between students of different teachers."""
    records, several = setting.to_dict("records"), setting["student"].nunique() > 1
    named = ((LOSSES.get(row["loss_name"], row["loss_name"]), _teacher(row), row["student"]) for row in records)
    texts = [f"{student}: {loss} | {teacher}" if several else f"{loss} | {teacher}" for loss, teacher, student in named]
    ax.set_yticks(range(len(setting)), texts if told else [""] * len(setting))
    ax.tick_params(axis="y", length=0, labelsize=5.6)
    ax.set_ylim(len(setting) - 0.5, -0.5)
    taught = list(map(_teacher, setting.to_dict("records")))
    for place in range(1, len(taught)):
        if taught[place] != taught[place - 1]:
            ax.axhline(place - 0.5, color="#bbbbbb", linewidth=0.5)


def _teacher(row: dict[str, Any]) -> str:
    name = TEACHERS.get(row["supervision"], row["supervision"])
    return f"{name} {row['teacher']}" if name == "trained" else name


def _by_group(ax: Axes, setting: pd.DataFrame, key: str) -> None:
    for place, row in enumerate(setting.to_dict("records")):
        for offset, (group, color) in zip((-0.22, 0.0, 0.22), GROUPS.items(), strict=True):
            name = f"{key}_{group}"
            if pd.notna(row[name]):
                ax.errorbar(
                    row[name], place + offset, xerr=style.ends(row, name), color=color, marker="o", markersize=2,
                    elinewidth=0.7, linestyle="none",
                )  # fmt: skip
    if key == "floor":
        ax.set(xlabel=r"floor: KL$(p, q)$, nats", xscale="log")
        style.plain_log(ax.xaxis)
    else:
        ax.set(xlabel="test accuracy")
    ax.grid(axis="x", color="#dddddd", linewidth=0.4)


def _bias(ax: Axes, setting: pd.DataFrame) -> None:
    """Bars of bias and variance, one after the other, and the biases that are known before anything is trained."""
    for place, row in enumerate(setting.to_dict("records")):
        if pd.isna(row["test_bias"]):
            continue
        bias, variance = max(row["test_bias"], 0.0), max(row["test_variance"], 0.0)
        ax.barh(place, bias, height=0.62, color=BIAS)
        ax.barh(place, variance, left=bias, height=0.62, color=VARIANCE)
        ax.errorbar(bias, place, xerr=style.ends(row, "test_bias"), color=style.BLACK, elinewidth=0.7, linestyle="none")
    for name, line in PRIORS.items():
        if name in setting and pd.notna(setting[name].iloc[0]):
            ax.axvline(setting[name].iloc[0], color=PRIOR, linestyle=line, linewidth=1.1)
    ax.set(xlabel="bias and variance, nats")
    ax.set_xlim(left=0)


def _during_training(ax: Axes, setting: pd.DataFrame, curves: pd.DataFrame) -> None:
    """Divergence between groups (solid) and within them (dashed), of students of one teacher: the first there is."""
    taught = [row for row in setting.to_dict("records") if row["loss_name"] in FOLLOWED]
    for row in (row for row in taught if _teacher(row) == _teacher(taught[0])):
        curve = curves[curves["cell"] == row["cell"]]
        epoch = curve["step"] * row["batch_size"] / row["train_size"]
        for part, line in (("between", "-"), ("within", "--")):
            mean, se = curve[f"bcp_kl_{part}_mean"], curve[f"bcp_kl_{part}_se"]
            color = FOLLOWED[row["loss_name"]]
            ax.plot(epoch, mean, color=color, linestyle=line, linewidth=0.9)
            width = np.exp(2 * se / mean)  # to first order, and never below zero
            ax.fill_between(epoch, mean / width, mean * width, color=color, alpha=0.15, linewidth=0)
    ax.set(xlabel="epoch", ylabel="part of KL, nats", yscale="log")
    style.plain_log(ax.yaxis)
    if taught:
        ax.set_title(f"taught by: {_teacher(taught[0])}", loc="left", fontsize=7)


def _replicas(settings: list[pd.DataFrame]) -> str:
    return ", ".join(dict.fromkeys(f"{setting['replicas'].max()} ({setting['data'].iloc[0]})" for setting in settings))


def _handles(rows: pd.DataFrame) -> list[Any]:
    shown = set(rows["loss_name"])
    point: dict[str, Any] = {"marker": "o", "markersize": 3, "linestyle": "none"}
    found: list[Any] = [Line2D([], [], color=color, label=group, **point) for group, color in GROUPS.items()]
    found += [Patch(color=BIAS, label="bias"), Patch(color=VARIANCE, label="variance")]
    for line, text in zip(PRIORS.values(), ("bias of the long-tailed BCP", "likewise, groups made equal"), strict=True):
        found.append(Line2D([], [], color=PRIOR, linestyle=line, linewidth=1.1, label=text))
    found += [Line2D([], [], color=color, label=LOSSES[name]) for name, color in FOLLOWED.items() if name in shown]
    lines: tuple[tuple[LineStyleType, str], ...] = (("-", "between groups"), ("--", "within groups"))
    return found + [Line2D([], [], color=GREY, linestyle=line, label=text) for line, text in lines]
