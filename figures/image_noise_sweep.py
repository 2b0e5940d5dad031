"""Figure of image-noise-sweep: distance to the BCP and loss while networks learn, floor and fluctuation against nu."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdsim.figures import style
from kdsim.figures.style import Figure
from kdsim.figures.training_curves import band

SHADES = (style.SKY, style.BLUE, style.PURPLE, style.GREEN, style.ORANGE)


def figure(results: Any) -> Figure:
    """Four panels, from stored results (`StudyResults`)."""
    rows, curves = results.rows.sort_values("nu"), results.curves
    colors = _colors(rows)
    with style.paper():
        fig = Figure(figsize=(style.TEXT_WIDTH, 5.0), layout="constrained")
        axes = fig.subplots(2, 2)
        for row in rows.itertuples():
            curve = curves[curves["cell"] == row.cell]
            epoch = curve["step"] * row.batch_size / row.train_size
            for ax, metric in zip(axes[0], ("bcp_kl", "loss"), strict=True):
                band(ax, epoch, curve, metric, colors[row.cell], row.replicas)
        for ax, title, unit in zip(
            axes[0],
            ("(a) distance to the BCP", "(b) loss on the validation labels"),
            (r"KL$(p,\phi)$, nats", "cross-entropy, nats"),
            strict=True,
        ):
            ax.set(xlabel="epoch", ylabel=unit, yscale="log")
            style.plain_log(ax.yaxis)
            ax.set_title(title, loc="left")
        axes[0, 1].axhline(rows["bayes_loss"].iloc[0], color="#555555", linestyle="--", linewidth=0.9)
        _against_nu(axes[1, 0], rows, colors, "floor", "(c) floor", r"KL$(p,\phi)$ in the window, nats")
        _against_nu(axes[1, 1], rows, colors, "fluctuation", "(d) fluctuation", "of the validation loss, nats")
        first = rows.iloc[0]
        fig.suptitle(
            f"{first.student} on {first.train_size:,} images, {first.targets} targets, step size {first.step_size:g}, "
            f"batch {first.batch_size}, {first.replicas} replicas, seed {first.seed}; "
            "bands: 5 to 95 % of the replicas; bars: 95 % intervals",
            fontsize=7, color="#444444",
        )  # fmt: skip
        handles = [Line2D([], [], color=colors[row["cell"]], label=_label(row)) for row in rows.to_dict("records")]
        handles.append(Line2D([], [], color="#555555", linestyle="--", linewidth=0.9, label="loss of the BCP"))
        fig.legend(handles=handles, loc="outside lower center", ncols=5, columnspacing=1.3)
    return fig


def _label(row: dict[str, Any]) -> str:
    return f"Dirichlet, $c$ = {row['level']:g}" if row["supervision"] == "dirichlet" else row["supervision"]


def _colors(rows: pd.DataFrame) -> dict[str, str]:
    """Exact black, one-hot red, the others between them in the order of their noise."""
    shades = iter(SHADES * 4)
    ends = {"exact": style.BLACK, "one-hot": style.RED}
    return {row.cell: ends.get(row.supervision) or next(shades) for row in rows.itertuples()}


def _against_nu(ax: Axes, rows: pd.DataFrame, colors: dict[str, str], key: str, title: str, unit: str) -> None:
    for row in rows.to_dict("records"):
        if pd.isna(row[key]):
            continue
        ax.errorbar(
            row["nu"],
            row[key],
            yerr=style.ends(row, key),
            color=colors[row["cell"]],
            marker="o",
            capsize=2,
            elinewidth=0.8,
        )
    ax.set_title(title, loc="left")
    ax.set(xlabel=r"$\nu$", ylabel=unit, yscale="log")
    style.plain_log(ax.yaxis)
