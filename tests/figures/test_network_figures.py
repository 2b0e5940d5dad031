"""Figures of trained networks: labelled marks stand for the numbers of their columns, with their intervals' ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn import (
    Look,
    bars,
    curves,
    draw,
    legend,
    number,
    panel,
    plain_lines,
    results,
    shows_band,
    shows_bars,
    shows_line,
    table,
)
from matplotlib.colors import to_hex

from kdsim.figures import style

SHARED: dict[str, Any] = {
    "kind": "training", "data": "gabor-images", "recipe": "short", "train_size": 100, "batch_size": 10, "replicas": 3,
    "seed": 0, "epochs": 2.0, "loss_name": "kd", "loss_label": "kd", "loss_kind": "kd", "step_size": 0.1,
    "precision": "float32", "targets": "fresh", "truth": "bcp", "level": None, "teacher": None, "teacher_cell": None,
    "diverged": 0,
}  # fmt: skip
STEPS = [0, 10, 20]
BLUE, RED, BLACK = (Look(color.lower(), "", "s", "") for color in (style.BLUE, style.RED, style.BLACK))


def replicas_of(cells: pd.Series, columns: tuple[str, ...]) -> pd.DataFrame:
    """Three replicas of each cell."""
    return pd.DataFrame(
        [{"cell": cell, "replica": place} | {key: number(f"{cell} {place}", key) for key in columns}
         for cell in cells for place in range(3)]
    )  # fmt: skip


def dots(ax: Any, sideways: bool = False) -> list[tuple[float, float]]:
    """Points of all grey dots."""
    return sorted(
        (float(x), float(y))
        for each, points in plain_lines(ax)
        if each.color in ("#aaaaaa", "#bbbbbb")
        for x, y in points
    )


def test_cifar_distillation() -> None:
    cells = [{"student": "big", "replicas": 2, "epochs": 4.0}, {"student": "small", "epochs": 2.0},
             *({"student": "small", "teacher": "big", "loss_name": name} for name in ("kd", "dkd"))]  # fmt: skip
    rows = table(cells, ("test_accuracy", "noise_accuracy"), **SHARED)
    replicas = replicas_of(rows["cell"], ("test_accuracy", "noise_accuracy"))
    settings = {"pairs": ["big to small"], "teachers": 2, "teacher_recipe": {"epochs": 4.0}, "recipe": {"epochs": 2.0}}
    figure = draw("cifar-distillation", results(rows, settings, replicas=replicas))
    left, right = panel(figure, "test accuracy"), panel(figure, "convergence noise")
    students = rows.iloc[1:]
    for ax, key in ((left, "test_accuracy"), (right, "noise_accuracy")):
        assert shows_bars(ax, RED, students.iloc[:1], [0.0], key, sideways=True) == 1
        assert shows_bars(ax, BLUE, students.iloc[1:], [1.0, 2.0], key, sideways=True) == 2
    assert [text.get_text() for text in left.get_yticklabels()] == ["alone", "kd", "dkd"]
    own = replicas[replicas["cell"] != "cell 0"]["test_accuracy"]
    assert dots(left) == sorted(zip(own, np.repeat([0.0, 1.0, 2.0], 3), strict=True))
    taught = rows["test_accuracy"][0]
    shows_line(left, None, [taught, taught], [0, 1], line="--")
    assert right.get_xscale() == "log" and left.get_xscale() == "linear"


def test_intervals_of_a_standard_deviation_stay_above_zero() -> None:
    """Two replicas that differ by a factor of three have a t-interval from below zero: the logarithm's is drawn."""
    cells = [
        {"student": "big", "replicas": 2, "epochs": 4.0},
        {"student": "small"},
        {"student": "small", "teacher": "big"},
    ]
    wide = {"noise_accuracy": 0.02, "noise_accuracy_low": -0.107, "noise_accuracy_high": 0.147}
    rows = table([cell | wide for cell in cells], ("test_accuracy",), **SHARED)
    settings = {"pairs": ["big to small"], "teachers": 2, "teacher_recipe": {"epochs": 4.0}, "recipe": {"epochs": 2.0}}
    replicas = replicas_of(rows["cell"], ("test_accuracy",))
    figure = draw("cifar-distillation", results(rows, settings, replicas=replicas))
    factor = np.exp(0.127 / 0.02)
    for _, points in bars(panel(figure, "convergence noise")):
        assert points[:, 2:4] == pytest.approx(np.array([[0.02 / factor, 0.02 * factor]]))


def test_teacher_kinds() -> None:
    cells = [{"kind": "teacher", "supervision": kind, "label": kind, "cell": f"teacher {kind}"}
             for kind in ("deterministic", "ensemble")]  # fmt: skip
    cells += [{"supervision": "one-hot", "label": "one-hot", "student": "small"}]
    cells += [{"supervision": kind, "label": kind, "student": "small", "teacher_cell": f"teacher {kind}"}
              for kind in ("deterministic", "ensemble")]  # fmt: skip
    rows = table(cells, ("test_bcp_kl", "test_loss", "test_accuracy", "noise_accuracy"), **SHARED)
    replicas = replicas_of(rows["cell"], ("test_accuracy", "noise_accuracy"))
    figure = draw("teacher-kinds", results(rows, replicas=replicas))
    first, second, third = figure.axes
    assert first.get_xlabel() == "teacher: KL to p, nats"
    assert [text.get_text() for text in first.get_yticklabels()] == ["one-hot", "deterministic", "ensemble"]
    teachers, students = rows.iloc[:2], rows.iloc[2:]
    assert shows_bars(first, BLACK, teachers, [1.0, 2.0], "test_bcp_kl", sideways=True) == 2
    for ax, key, label in ((second, "test_accuracy", "test accuracy"), (third, "noise_accuracy", "noise of the")):
        assert label in ax.get_xlabel()
        assert shows_bars(ax, RED, students.iloc[:1], [0.0], key, sideways=True) == 1
        assert shows_bars(ax, BLUE, students.iloc[1:], [1.0, 2.0], key, sideways=True) == 2
        own = replicas[replicas["cell"].isin(students["cell"])][key]
        assert dots(ax) == sorted(zip(own, np.repeat([0.0, 1.0, 2.0], 3), strict=True))
    assert (second.get_xscale(), third.get_xscale()) == ("linear", "log")


def test_teacher_kinds_without_a_known_bcp() -> None:
    cells = [{"kind": "teacher", "supervision": "ensemble", "label": "ensemble", "cell": "teacher"},
             {"supervision": "ensemble", "label": "ensemble", "teacher_cell": "teacher"}]  # fmt: skip
    rows = table(cells, ("test_loss", "test_accuracy", "noise_accuracy"), test_bcp_kl=None, student="small", **SHARED)
    figure = draw("teacher-kinds", results(rows))
    assert figure.axes[0].get_xlabel() == "teacher: test loss, nats"
    shows_bars(figure.axes[0], BLACK, rows.iloc[:1], [0.0], "test_loss", sideways=True)


def test_guideline() -> None:
    kinds = ("deterministic", "ensemble", "swag")
    cells = [{"kind": "teacher", "label": kind, "cell": f"teacher {kind}"} for kind in kinds]
    cells += [
        {"label": kind, "student": "small", "teacher": "big", "teacher_cell": f"teacher {kind}"} for kind in kinds
    ]
    rows = table(cells, **SHARED)
    replicas = replicas_of(rows["cell"], ("test_bcp_kl", "test_accuracy", "noise_accuracy"))
    figure = draw("guideline", results(rows, replicas=replicas))
    looks = legend(figure)
    assert list(looks) == list(kinds)
    places = (("(a)", "test_bcp_kl", "test_accuracy"), ("(b)", "test_accuracy", "test_accuracy"),
              ("(c)", "test_bcp_kl", "noise_accuracy"), ("(d)", "test_accuracy", "noise_accuracy"))  # fmt: skip
    labels = {"test_bcp_kl": "KL to p", "test_accuracy": "test accuracy", "noise_accuracy": "noise of the accuracy"}
    for words, quality, outcome in places:
        ax = panel(figure, words)
        for row in rows.iloc[3:].itertuples():
            x = replicas[replicas["cell"] == row.teacher_cell][quality]
            y = replicas[replicas["cell"] == row.cell][outcome]
            shows_line(ax, looks[row.label], x, y)
            shows_line(ax, looks[row.label], [x.mean()], [y.mean()])
    assert (
        labels["test_bcp_kl"] in figure.axes[2].get_xlabel() and labels["test_accuracy"] in figure.axes[3].get_xlabel()
    )
    assert labels["test_accuracy"] in figure.axes[0].get_ylabel()
    assert labels["noise_accuracy"] in figure.axes[2].get_ylabel()


def test_training_curves() -> None:
    cells = [{"student": "small", "supervision": "one-hot", "loss_kind": "cross-entropy"},
             {"student": "small", "supervision": "dirichlet", "level": 3.0, "loss_kind": "cross-entropy"},
             {"student": "small", "teacher": "big", "supervision": "deterministic"}]  # fmt: skip
    rows = table(cells, bayes_loss=0.2, **SHARED)
    names = [f"{name}_{end}" for name in ("loss", "accuracy") for end in ("mean", "q05", "q95")]
    tables = curves(rows["cell"], [*names, "train_loss_mean"], step=STEPS)
    figure = draw("training-curves", results(rows, curves=tables))
    looks = legend(figure)
    labels = ("small, one-hot", "small, dirichlet 3", "small taught by big, kd")
    loss, accuracy = panel(figure, "(a)"), panel(figure, "(b)")
    for label, row in zip(labels, rows.itertuples(), strict=True):
        curve, color = tables[tables["cell"] == row.cell], looks[label].color
        epoch = curve["step"] / 10
        for ax, metric in ((loss, "loss"), (accuracy, "accuracy")):
            shows_line(ax, None, epoch, curve[f"{metric}_mean"], color=color, line="-")
            shows_band(ax, color, epoch, curve[f"{metric}_q05"], curve[f"{metric}_q95"])
        if row.loss_kind == "cross-entropy":
            shows_line(loss, None, epoch, curve["train_loss_mean"], color=color, line=looks["training loss"].line)
    shows_line(loss, looks["loss of the BCP"], [0, 1], [0.2, 0.2])
    assert len(plain_lines(loss)) == 6 and len(plain_lines(accuracy)) == 3


def test_image_noise_sweep() -> None:
    cells = [{"supervision": name, "nu": nu, "level": level, "student": "small"}
             for name, nu, level in (("one-hot", 0.1, None), ("dirichlet", 0.05, 3.0), ("dirichlet", 0.02, 9.0),
                                     ("exact", 0.001, None))]  # fmt: skip
    rows = table(cells, ("floor", "fluctuation"), bayes_loss=0.2, **SHARED)
    names = [f"{name}_{end}" for name in ("bcp_kl", "loss") for end in ("mean", "q05", "q95")]
    tables = curves(rows["cell"], names, step=STEPS)
    figure = draw("image-noise-sweep", results(rows, curves=tables))
    looks = legend(figure)
    for row in rows.itertuples():
        label = f"Dirichlet, $c$ = {row.level:g}" if row.supervision == "dirichlet" else row.supervision
        curve, color = tables[tables["cell"] == row.cell], looks[label].color
        for words, metric in (("(a)", "bcp_kl"), ("(b)", "loss")):
            shows_line(panel(figure, words), None, curve["step"] / 10, curve[f"{metric}_mean"], color=color, line="-")
            edges = (curve[f"{metric}_{end}"] for end in ("q05", "q95"))
            shows_band(panel(figure, words), color, curve["step"] / 10, *edges)
        own, marks = rows[rows["cell"] == row.cell], Look(color, "", "o", "")
        assert shows_bars(panel(figure, "(c)"), marks, own, "nu", "floor") == 1
        assert shows_bars(panel(figure, "(d)"), marks, own, "nu", "fluctuation") == 1
    shows_line(panel(figure, "(b)"), looks["loss of the BCP"], [0, 1], [0.2, 0.2])


GROUPS = ("head", "medium", "tail")


def test_long_tail() -> None:
    losses = ("kd", "ltkd", "ltkd-rebalanced", "ltkd-equal-groups")
    cells = [
        {"loss_name": name, "student": "small", "supervision": "deterministic", "teacher": "big"} for name in losses
    ]
    keys = [f"floor_{group}" for group in GROUPS]
    rows = table(cells, (*keys, "test_bias"), ("test_variance",), imbalance=50.0, prior_bias=0.7, group_prior_bias=0.9,
                 **{key: value for key, value in SHARED.items() if key != "teacher"})  # fmt: skip
    names = [f"bcp_kl_{part}_{end}" for part in ("between", "within") for end in ("mean", "se")]
    tables = curves(rows["cell"], names, step=STEPS)
    figure = draw("long-tail", results(rows, curves=tables))
    looks = legend(figure)
    first, second, third = figure.axes
    for offset, group in zip((-0.22, 0.0, 0.22), GROUPS, strict=True):
        assert shows_bars(first, looks[group], rows, np.arange(4) + offset, f"floor_{group}", sideways=True) == 4
    assert shows_bars(second, Look("#000000", "", "", ""), rows, np.arange(4.0), "test_bias", sideways=True) == 4
    boxes = [(to_hex(patch.get_facecolor()), patch.get_x(), patch.get_width()) for patch in second.patches]
    for row in rows.itertuples():
        assert (looks["bias"].color, 0.0, row.test_bias) in boxes
        assert any(box == (looks["variance"].color, row.test_bias, pytest.approx(row.test_variance)) for box in boxes)
    shows_line(second, None, [0.7, 0.7], [0, 1], line=looks["bias of the long-tailed BCP"].line, color=looks[
        "bias of the long-tailed BCP"].color)  # fmt: skip
    shows_line(second, None, [0.9, 0.9], [0, 1], line=looks["likewise, groups made equal"].line)
    labels = ("KD", "LTKD", "LTKD, P' alone", "LTKD, equal groups alone")
    for label, row in zip(labels, rows.itertuples(), strict=True):
        curve, color = tables[tables["cell"] == row.cell], looks[label].color
        for kind, part in (("between groups", "between"), ("within groups", "within")):
            mean, width = (
                curve[f"bcp_kl_{part}_mean"],
                np.exp(2 * curve[f"bcp_kl_{part}_se"] / curve[f"bcp_kl_{part}_mean"]),
            )
            shows_line(third, None, curve["step"] / 10, mean, color=color, line=looks[kind].line)
            shows_band(third, color, curve["step"] / 10, mean / width, mean * width)
    names = [text.get_text().split(" |")[0] for text in first.get_yticklabels()]
    assert names == list(labels)
    fewer = legend(draw("long-tail", results(rows[:2], curves=tables)))
    assert not {*labels[2:]} & fewer.keys() and {*labels[:2]} <= fewer.keys()


def test_long_tail_of_labels() -> None:
    """Without a known BCP there is accuracy alone, and the legend has the groups alone."""
    rows = table([{"loss_name": "label-cross-entropy", "student": "small", "supervision": "one-hot"}] * 2,
                 [f"test_accuracy_{group}" for group in GROUPS], imbalance=50.0, **{k: v for k, v in SHARED.items()
                                                                                  if k != "loss_name"})  # fmt: skip
    figure = draw("long-tail", results(rows))
    looks = legend(figure)
    assert list(looks) == list(GROUPS)
    for offset, group in zip((-0.22, 0.0, 0.22), GROUPS, strict=True):
        shows_bars(figure.axes[0], looks[group], rows, np.arange(2) + offset, f"test_accuracy_{group}", sideways=True)


def test_deviations_of_networks() -> None:
    teacher = {"kind": "teacher", "teacher": "big", "teacher.supervision": "one-hot", "teacher.level": None}
    cells = [teacher | {"cell": f"teacher {place}", "teacher.epochs": float(place)} for place in (1, 2)]
    measured = ["deviation_slope", "deviation_slope_axis", "deviation_kl_change"]
    measured += [f"deviation_q{number}" for number in range(1, 11)]
    places = {f"deviation_teacher_q{number}": float(number) for number in range(1, 11)}
    students = [{"student": "small", "teacher_cell": f"teacher {place}"} | places for place in (1, 2)]
    others = table(cells, **SHARED)
    rows = pd.concat([others, table(students, measured, **SHARED)], ignore_index=True)
    figure = draw("deviations", results(rows))
    deciles, slope, truth = figure.axes
    own = rows.iloc[2:]
    for place, (color, marker) in enumerate(((style.BLACK, "o"), (style.SKY, "s"))):
        row, marks = own.iloc[[place]], Look(color.lower(), "", marker, "")
        assert shows_bars(slope, marks, row, [float(place)], "deviation_slope", sideways=True) == 1
        assert shows_bars(truth, marks, row, [float(place)], "deviation_kl_change", sideways=True) == 1
        shows_line(slope, None, row["deviation_slope_axis"], [place], color=marks.color, marker=marker)
        one = row.iloc[0]
        tenths = pd.DataFrame({f"q{end}": [one[f"deviation_q{number}{end}"] for number in range(1, 11)]
                               for end in ("", "_low", "_high")})  # fmt: skip
        assert shows_bars(deciles, marks, tenths, np.arange(1.0, 11.0), "q") == 10
    assert [text.get_text() for text in slope.get_yticklabels()] == ["one-hot, 1 ep.", "one-hot, 2 ep."]


def test_deviations_along_exact_paths() -> None:
    rows = table([{"kind": "computation", "computation": "eigen-paths", "step_size": None}], seed=0)
    grid = [{"cell": "cell 0", "teacher_time": time, "direction": direction, "time": moment,
             "eigenvalue": 1.0 / direction}
            for time in (1.0, 2.0) for direction in (1, 2, 3) for moment in (0.0, 1.0, 2.0)]  # fmt: skip
    tables = pd.DataFrame([row | {key: number(str(row), key) for key in ("student", "teacher", "early_stopped")}
                           for row in grid])  # fmt: skip
    figure = draw("deviations", results(rows, curves=tables))
    plane, matched = figure.axes[:2]

    def path(time: float, direction: int, key: str) -> np.ndarray:
        own = tables[(tables["teacher_time"] == time) & (tables["direction"] == direction)]
        return own.sort_values("time")[key].to_numpy()

    looks = legend(plane)
    for time in (1.0, 2.0):
        marks = looks[f"of a teacher until {time:g}"]
        shows_line(plane, marks, path(time, 1, "student"), path(time, 2, "student"))
        shows_line(
            plane, None, path(time, 1, "teacher")[-1:], path(time, 2, "teacher")[-1:], color=marks.color, marker="o"
        )
    stopped = (path(2.0, direction, "early_stopped") for direction in (1, 2))
    shows_line(plane, looks["taught by the truth"], *stopped)
    for direction in (2, 3):
        marks = legend(matched)[f"$h$ = {1 / direction:.2g}"]
        shows_line(matched, marks, path(2.0, direction, "early_stopped"), path(2.0, direction, "student"))
