"""Figure of train and distill: loss and accuracy on the validation images against the epoch."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kdsim.figures import style
from kdsim.figures.style import Figure

COLORS = (style.BLACK, style.BLUE, style.RED, style.GREEN, style.PURPLE, style.ORANGE)


def figure(results: Any) -> Figure:
    """Learning curves with bands over replicas, from stored results (`StudyResults`)."""
    rows, curves = results.rows, results.curves
    several = bool(rows["replicas"].max() > 1)
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 2.9), layout="constrained")
        loss, accuracy = fig.subplots(1, 2)
        for row, color in zip(rows.itertuples(), COLORS, strict=False):
            curve = curves[curves["cell"] == row.cell]
            epoch = curve["step"] * row.batch_size / row.train_size
            own = _is_cross_entropy(row)
            if own:
                loss.plot(epoch, curve["train_loss_mean"], color=color, linestyle=":", linewidth=0.9)
            band(loss, epoch, curve, "loss", color, row.replicas)
            band(accuracy, epoch, curve, "accuracy", color, row.replicas)
        handles = [
            Line2D([], [], color=color, label=label(row))
            for row, color in zip(rows.to_dict("records"), COLORS, strict=False)
        ]
        if any(map(_is_cross_entropy, rows.itertuples())):
            handles.append(Line2D([], [], color="#555555", linestyle=":", linewidth=0.9, label="training loss"))
        first = rows.iloc[0]
        if pd.notna(first.bayes_loss) and first.truth == "bcp":
            loss.axhline(first.bayes_loss, color="#555555", linestyle="--", linewidth=0.9)
            handles.append(Line2D([], [], color="#555555", linestyle="--", linewidth=0.9, label="loss of the BCP"))
        loss.set(xlabel="epoch", ylabel="cross-entropy, nats", yscale="log")
        style.plain_log(loss.yaxis)
        for ax in (loss, accuracy):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        loss.set_title("(a) loss on the validation labels", loc="left")
        accuracy.set(xlabel="epoch", ylabel="accuracy")
        accuracy.set_title("(b) validation accuracy", loc="left")
        bands = "; bands: 5 to 95 % of the replicas" if several else ""
        fig.suptitle(
            f"{first.data}, {first.train_size:,} training images, recipe {first.recipe}, {first.precision}, "
            f"{max(rows['replicas'])} replica{'s' * several}, seed {first.seed}{bands}",
            fontsize=7, color="#444444",
        )  # fmt: skip
        fig.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.3)
    return fig


def label(row: dict[str, Any]) -> str:
    """What a training was, in few words."""
    if pd.notna(row["teacher"]):
        return f"{row['student']} taught by {row['teacher']}, {row['loss_kind']}"
    return f"{row['student']}, {row['supervision']}" + (f" {row['level']:g}" if pd.notna(row["level"]) else "")


def band(ax: Axes, x: pd.Series, curve: pd.DataFrame, metric: str, color: str, replicas: int) -> None:
    """Mean over replicas, and 5 to 95 % of them."""
    ax.plot(x, curve[f"{metric}_mean"], color=color)
    if replicas > 1:
        ax.fill_between(x, curve[f"{metric}_q05"], curve[f"{metric}_q95"], color=color, alpha=0.2, linewidth=0)


def _is_cross_entropy(row: Any) -> bool:
    """Whether the training loss is in the unit of the validation loss."""
    return row.loss_kind in ("cross-entropy", "label-cross-entropy")
