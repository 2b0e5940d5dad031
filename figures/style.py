"""Look shared by all figures: sizes for a two-column paper, colours that survive colour blindness and grey print."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import figure
from matplotlib import style as mpl_style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator

from kdsim import intervals

TEXT_WIDTH = 7.0  # inches: the text width of a two-column paper

# Okabe and Ito, "Color Universal Design" (2008).
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)

SUPERVISION = {
    "exact": (BLACK, "s"),
    "one-hot": (RED, "*"),
    "dirichlet": (BLUE, "o"),
    "annotators": (ORANGE, "v"),
    "two-point": (GREEN, "D"),
    "independent": (PURPLE, "^"),
}
_SPARE = ((SKY, "P"), (YELLOW, "X"), ("#777777", "h"), ("#994F00", "<"))


def supervision_styles(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each supervision; families that kdsim does not know get the spare ones in order."""
    spare = iter(_SPARE * 8)
    return {name: SUPERVISION.get(name) or next(spare) for name in names}


SETTINGS = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "legend.frameon": False,
    "figure.dpi": 120,
    "savefig.dpi": 250,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
}
"""Settings of matplotlib for a figure in a paper, beside matplotlib's defaults."""


@contextmanager
def paper() -> Iterator[None]:
    """Within the block matplotlib's settings are its defaults and `SETTINGS`; afterwards they are the user's again.

    The backend is neither asked for nor changed.
    """
    with mpl_style.context(["default", SETTINGS]):
        yield


class Figure(figure.Figure):
    """A figure that looks the same whatever the user's settings are when it is drawn or written.

    Matplotlib looks much of them up that late: fonts, ticks, TeX, the box that is written.
    """

    def draw(self, renderer: Any) -> None:
        with paper():
            super().draw(renderer)

    def savefig(self, *args: Any, **options: Any) -> None:
        with paper():
            super().savefig(*args, **options)

    def _repr_png_(self) -> bytes:
        """What a notebook shows of it, whether or not matplotlib has been told that it is in one."""
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def plain_log(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade of a logarithmic axis; at 3 and 7 too where it is short."""
    low, high = axis.get_view_interval()
    narrow = high / low < 6
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if narrow else (1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def bars(rows: Any, key: str, scale: Any = 1.0) -> list[Any]:
    """Lengths of the bars below and above `rows[key]` / scale, as `errorbar` takes them.

    Args:
        rows: a table of results, or one row.
        scale: one number, or one for each row.
    """
    value = np.asarray(rows[key], dtype=float)
    low, high = intervals.ends(rows, key)
    scale = np.asarray(scale, dtype=float)
    return [(value - low) / scale, (high - value) / scale]


def ends(row: Any, key: str) -> list[list[float]] | None:
    """The same of one row; None where it has no interval."""
    if pd.isna(row[f"{key}_low"]):
        return None
    below, above = bars(row, key)
    return [[float(below)], [float(above)]]


def log_x_where_positive(ax: Axes, values: Iterable[float]) -> None:
    """A logarithmic axis of x, with plain numbers, unless a value is zero."""
    shown = [value for value in values if not pd.isna(value)]
    if shown and min(shown) > 0:
        ax.set_xscale("log")
        plain_log(ax.xaxis)
