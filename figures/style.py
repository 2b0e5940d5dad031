"""Look shared by all figures: sizes for a two-column paper, colours that survive colour blindness and grey print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator

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


@contextmanager
def paper() -> Iterator[None]:
    """Settings of matplotlib for a figure in a paper."""
    settings = {
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
    with mpl.rc_context(settings):
        yield


def plain_log(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade of a logarithmic axis; at 3 and 7 too where it is short."""
    low, high = axis.get_view_interval()
    narrow = high / low < 6
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if narrow else (1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def ends(row: Any, key: str) -> list[list[float]] | None:
    """Lengths of the bars below and above `row[key]`, as `errorbar` takes them; None where there is no interval."""
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return None if pd.isna(low) else [[row[key] - low], [high - row[key]]]
