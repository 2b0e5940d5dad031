"""What all figures share: colours, and settings that are neither the user's nor left behind."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as PlainFigure

from kdsim.cli import console
from kdsim.figures import style

HOSTILE = {
    "text.usetex": True, "savefig.bbox": "tight", "savefig.facecolor": "red", "savefig.transparent": True,
    "font.family": "no such font", "font.size": 40, "axes.prop_cycle": mpl.cycler(color=["red"]), "axes.grid": True,
    "axes.spines.left": False, "axes.labelsize": 90, "axes.xmargin": 0.4, "axes.unicode_minus": False,
    "figure.figsize": (1, 1), "figure.dpi": 30, "figure.autolayout": True, "lines.linestyle": ":", "lines.marker": "x",
    "errorbar.capsize": 20, "legend.loc": "center", "legend.numpoints": 5, "xtick.direction": "in",
    "path.sketch": (1, 100, 2), "mathtext.fontset": "cm", "axes.facecolor": "black", "svg.fonttype": "path",
    "image.cmap": "gray", "axes.axisbelow": True, "text.color": "white", "axes.formatter.use_locale": True,
}  # fmt: skip


@pytest.fixture
def hostile() -> Iterator[None]:
    with mpl.rc_context(HOSTILE):
        yield


def picture() -> bytes:
    """A figure with what settings change: ticks, formulas, legend, error bars; written after its `paper` has ended."""
    with style.paper():
        figure = style.Figure(figsize=(2, 2), layout="constrained")
        ax = figure.subplots()
        ax.errorbar([1, 2], [1, 3], yerr=[0.2, 0.4], label=r"$\nu$, of -1")
        ax.set(title="a title", xlabel=r"$\alpha^2$", yscale="log")
        ax.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


@pytest.mark.slow
def test_settings_of_the_user_change_nothing(hostile: None) -> None:
    seen = picture()
    with mpl.rc_context({key: mpl.rcParamsDefault[key] for key in HOSTILE}):
        assert seen == picture()


def test_settings_and_backend_of_the_user_stay(hostile: None) -> None:
    before = dict(mpl.rcParams.copy())
    picture()
    with pytest.raises(RuntimeError), style.paper():
        raise RuntimeError
    assert dict(mpl.rcParams.copy()) == before


def test_every_figure_has_settings_of_its_own() -> None:
    """Each is made by `style.Figure`: matplotlib's own takes those of the moment when it is written."""
    from kdsim import figures

    modules = [getattr(figures, name.replace("-", "_")) for name in figures.FIGURES]
    classes = [module.Figure for module in modules]
    assert len(classes) == len(figures.FIGURES) and set(classes) == {style.Figure}
    assert not [module for module in modules if PlainFigure in vars(module).values()]


def test_colours_and_markers_of_supervisions() -> None:
    """Those of the published figures: Okabe and Ito's, none used twice."""
    assert style.SUPERVISION == {
        "exact": ("#000000", "s"), "one-hot": ("#D55E00", "*"), "dirichlet": ("#0072B2", "o"),
        "annotators": ("#E69F00", "v"), "two-point": ("#009E73", "D"), "independent": ("#CC79A7", "^"),
    }  # fmt: skip
    own = style.supervision_styles([*style.SUPERVISION, "mine", "theirs"])
    assert len(set(own.values())) == 8 and len({color for color, _ in own.values()}) == 8


def test_bars_end_where_intervals_do() -> None:
    rows = pd.DataFrame({"floor": [2.0, 3.0], "floor_low": [1.5, 2.0], "floor_high": [4.0, 8.0]})
    below, above = style.bars(rows, "floor", pd.Series([1.0, 2.0]))
    assert below.tolist() == [0.5, 0.5] and above.tolist() == [2.0, 2.5]
    assert style.ends(rows.iloc[0], "floor") == [[0.5], [2.0]]
    assert style.ends({"floor": 1.0, "floor_low": np.nan, "floor_high": np.nan}, "floor") is None


@pytest.mark.parametrize("chosen", [None, "svg", "no such backend"])
def test_the_backend_of_a_notebook_stays(chosen: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether matplotlib was imported before the command or by it; the environment stays too."""
    if chosen is None:
        monkeypatch.delenv("MPLBACKEND", raising=False)
    else:
        monkeypatch.setenv("MPLBACKEND", chosen)
    original, first = dict.__getitem__(mpl.rcParams, "backend"), dict.__getitem__(mpl.rcParamsOrig, "backend")
    try:
        with console.windowless():
            assert os.environ["MPLBACKEND"] == "Agg"
        assert dict.__getitem__(mpl.rcParams, "backend") is original and os.environ.get("MPLBACKEND") == chosen
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "matplotlib")
            with console.windowless():
                patch.setitem(sys.modules, "matplotlib", mpl)
                dict.__setitem__(mpl.rcParams, "backend", "agg")  # as importing it with this environment does
        assert dict.__getitem__(mpl.rcParams, "backend") == ("svg" if chosen == "svg" else first)
    finally:
        dict.__setitem__(mpl.rcParams, "backend", original)
