"""What a figure draws, read back from its artists: who has which look, and which numbers stand there.

`results` fabricates rows in which every number is another, so that a mark that stands for the wrong column, row or end
of an interval is found: nothing is simulated.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdsim.figures import FIGURES

# Fabricated results -------------------------------------------------------------------------------


def number(cell: str, column: str) -> float:
    """A number that no other cell and column has, between .3 and .6."""
    return 0.3 + 0.3 * zlib.crc32(f"{cell} {column}".encode()) / 2**32


def table(
    cells: Sequence[Mapping[str, Any]], measured: Iterable[str] = (), columns: Iterable[str] = (), **shared: Any
) -> pd.DataFrame:
    """Rows with a column `cell`, and numbers of their own under `measured`, with intervals, and under `columns`.

    Intervals reach a tenth below and a third above, so that ends which change places are seen.
    """
    found = []
    for place, given in enumerate(cells):
        cell = f"cell {place}"
        row: dict[str, Any] = {"cell": cell} | shared | dict(given)
        for key in measured:
            value = row.setdefault(key, number(cell, key))
            row.setdefault(f"{key}_low", None if value is None else value - abs(value) * (0.1 + number(cell, key) / 9))
            row.setdefault(f"{key}_high", None if value is None else value + abs(value) * (0.3 + number(cell, key) / 9))
        for key in columns:
            row.setdefault(key, number(cell, key))
        found.append(row)
    return pd.DataFrame(found)


def curves(cells: Iterable[str], columns: Iterable[str], **shared: Sequence[float]) -> pd.DataFrame:
    """A table of a few rows for each cell, with numbers of their own; a band NAME_q05 to NAME_q95 holds NAME_mean."""
    count = len(next(iter(shared.values())))
    own = {key: 0.2 * key.endswith("_q95") - 0.2 * key.endswith("_q05") for key in columns}
    return pd.concat(
        [
            pd.DataFrame(
                {"cell": cell, **shared}
                | {
                    key: [number(f"{cell} {place}", key) + shift for place in range(count)]
                    for key, shift in own.items()
                }
            )
            for cell in cells
        ],
        ignore_index=True,
    )


def results(rows: pd.DataFrame, settings: Mapping[str, Any] | None = None, **tables: pd.DataFrame) -> Any:
    """What a figure is drawn from (`kdsim.results.store.StudyResults`)."""
    empty = pd.DataFrame({"cell": []})
    tables = {"curves": empty, "replicas": empty, "spectrum": empty} | tables
    records = [
        {key: None if pd.isna(value) else value for key, value in row.items()} for row in rows.to_dict("records")
    ]
    return SimpleNamespace(rows=rows, records=records, settings=settings or {}, **tables)


def draw(name: str, stored: Any) -> Figure:
    """The figure of that name."""
    return FIGURES[name](stored)


# Artists ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """By what a mark is known; `face` is the colour within an open marker."""

    color: str
    line: str
    marker: str
    face: str


def look(line: Line2D) -> Look:
    """Of a line or of markers."""
    marker = str(line.get_marker())
    face = line.get_markerfacecolor()
    return Look(
        to_hex(line.get_color()), line.get_linestyle(), "" if marker in ("None", "none", " ") else marker,
        to_hex(line.get_color() if isinstance(face, str) and face == "auto" else face),
    )  # fmt: skip


def legend(figure: Figure | Axes) -> dict[str, Look]:
    """Label to look, of all legends of a figure or the one of a panel."""
    legends = [figure.get_legend()] if isinstance(figure, Axes) else figure.legends
    found = {}
    for each in legends:
        for handle, text in zip(each.legend_handles, each.get_texts(), strict=True):
            if isinstance(handle, Line2D):
                found[text.get_text()] = look(handle)
            else:
                found[text.get_text()] = Look(to_hex(handle.get_facecolor()), "", "", "")
    return found


def panel(figure: Figure, words: str) -> Axes:
    """The one panel whose title, or label of y, has these words."""
    found = [ax for ax in figure.axes if words in ax.get_title(loc="left") or words in ax.get_ylabel()]
    assert len(found) == 1, (words, [ax.get_title(loc="left") for ax in figure.axes])
    return found[0]


Points = np.ndarray
"""Columns x, y, and the ends of the bars along x and along y, NaN where there are none."""


def bars(ax: Axes) -> list[tuple[Look, Points]]:
    """Look and points of everything with error bars."""
    found = []
    for container in ax.containers:
        if not isinstance(container, ErrorbarContainer):
            continue
        line, _, collections = container.lines
        x, y = (np.atleast_1d(np.asarray(values, dtype=float)) for values in line.get_data(orig=True))
        points = np.full((len(x), 6), np.nan)
        points[:, 0], points[:, 1] = x, y
        places = [0] * container.has_xerr + [1] * container.has_yerr
        for axis, collection in zip(places, collections, strict=True):
            segments = np.array([segment[[0, -1], axis] for segment in collection.get_segments()])
            if len(segments):
                points[:, 2 + 2 * axis : 4 + 2 * axis] = segments
        found.append((look(line), points))
    return found


def plain_lines(ax: Axes) -> list[tuple[Look, np.ndarray]]:
    """Look and (n, 2) data of the lines and markers that are no part of error bars."""
    parts = set()
    for container in ax.containers:
        if isinstance(container, ErrorbarContainer):
            line, caps, _ = container.lines
            parts |= {id(line), *map(id, caps)}
    return [
        (look(line), np.column_stack([np.atleast_1d(np.asarray(each, dtype=float)) for each in line.get_data()]))
        for line in ax.lines
        if id(line) not in parts
    ]


# What should be there -----------------------------------------------------------------------------


def shows_bars(
    ax: Axes, marks: Look, rows: pd.DataFrame, x: Any, y: str, *, scale: Any = 1.0, sideways: bool = False,
    along_x: bool = False,
) -> int:  # fmt: skip
    """Markers of this look stand at column `y` of these rows, with bars from `y`_low to `y`_high. Returns their number.

    Args:
        x: column, or places.
        scale: what `y` is divided by.
        sideways: the roles of the axes are exchanged.
        along_x: there are bars along x too, of column `x`.
    """
    own = [points for each, points in bars(ax) if (each.color, each.marker) == (marks.color, marks.marker)]
    drawn = np.concatenate(own) if own else np.empty((0, 6))
    if sideways:
        drawn = drawn[:, [1, 0, 4, 5, 2, 3]]
    places = rows[x] if isinstance(x, str) else x
    expected = np.full((len(rows), 6), np.nan)
    expected[:, 0] = places
    for column, end in ((1, ""), (4, "_low"), (5, "_high")):
        expected[:, column] = rows[y + end].astype(float) / scale
    if along_x:
        expected[:, 2], expected[:, 3] = rows[f"{x}_low"], rows[f"{x}_high"]
    _same(drawn, expected)
    return len(drawn)


def shows_line(ax: Axes, marks: Look | None, x: Any, y: Any, **other: str) -> None:
    """Exactly one line of this look, with what `other` says instead, goes through these points."""
    wanted = vars(marks) | other if marks else other
    expected = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    alike = [points for each, points in plain_lines(ax) if all(vars(each)[key] == wanted[key] for key in wanted)]
    matching = [points for points in alike if points.shape == expected.shape and _close(points, expected)]
    assert len(matching) == 1, f"no line {wanted} through {expected.tolist()}; but {[p.tolist() for p in alike]}"


def shows_band(ax: Axes, color: str, x: Any, low: Any, high: Any) -> None:
    """A band of this colour has these edges."""
    x, low, high = (np.asarray(values, dtype=float) for values in (x, low, high))
    wanted = {(round(a, 9), round(b, 9)) for edge in (low, high) for a, b in zip(x, edge, strict=True)}
    found = [
        {(round(float(a), 9), round(float(b), 9)) for a, b in path.vertices}
        for each in ax.collections
        if isinstance(each, PolyCollection) and to_hex(each.get_facecolor()[0]) == color
        for path in each.get_paths()
    ]
    assert wanted in found, (color, wanted, found)


def _same(drawn: np.ndarray, expected: np.ndarray) -> None:
    assert drawn.shape == expected.shape, (drawn, expected)
    order = [np.lexsort((points[:, 1], points[:, 0])) for points in (drawn, expected)]
    assert _close(drawn[order[0]], expected[order[1]]), (drawn, expected)


def _close(drawn: np.ndarray, expected: np.ndarray) -> bool:
    return np.allclose(drawn, expected, rtol=1e-9, atol=0, equal_nan=True)
