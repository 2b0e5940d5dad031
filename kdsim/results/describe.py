"""The schema in words: tables of columns, JSON, and the page docs/columns.md."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kdsim.results.schema import Column, columns, matching, names_of

TABLES = {
    "rows": "Rows: one a cell (`results`, `table.csv`, `StudyResults.rows`)",
    "curves": "Curves: one row a checkpoint of a cell (`StudyResults.curves`)",
    "replicas": "Replicas: one row a replica of a cell (`StudyResults.replicas`)",
    "spectrum": "Spectrum: one row a recorded direction of a cell (`StudyResults.spectrum`)",
}
SOURCES = {
    "experiment": "What was run",
    "theory": "What theory says",
    "measurement": "What simulations showed",
    "training": "What trainings showed",
    "teacher": "What teachers are",
    "computation": "What computations found",
    "provenance": "Origin",
}
HEADERS = ("column", "type", "unit", "in", "meaning", "from")
_PAGE = """# Columns of results

Written by `python -m kdsim.results.describe > docs/columns.md` from the schema in kdsim/results/columns; a test
compares the two. `kdsim columns [NAME]` prints the same. {names} in braces stand for several columns. Where there is no
number a column is empty (None in JSON, NaN in a table): what does not apply to a cell, what its assumptions rule out,
and what is newer than a stored row. A column marked ± has the ends of its 95 % interval over replicas beside it, as
NAME_low and NAME_high. Units: |theta|^2 and |gradient|^2 are squared norms of parameters and gradients; losses and
divergences are in nats for cross-entropy.

A computation of your own declares what it measures in its attribute `columns`, a tuple of
`kdsim.results.schema.Column`; the declaration is stored with its results. Parameters of your own problems, data and
teachers are `problem.NAME`, `data.NAME` and `teacher.NAME`.
"""


def chosen(text: str | None) -> list[Column]:
    """All columns, or those that a text names, see `matching`.

    Raises:
        ConfigError: there is none of that name.
    """
    return list(columns()) if text is None else matching(text)


def line(column: Column) -> list[str]:
    """What `HEADERS` ask of a column."""
    origin = f"theory.md, {column.place}" if column.place else SOURCES[column.source].lower()
    name = f"{column.name} ±" if column.interval else column.name
    kinds = ", ".join(column.kinds) if column.table == "rows" else f"{column.table} of {', '.join(column.kinds)}"
    return [name, column.type, column.unit, kinds, column.meaning, origin]


def as_json(found: Iterable[Column]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "name": column.name,
            "columns": list(names_of(column)),
            "table": column.table,
            **column.encoded(),
            "source": column.source,
            "kinds": list(column.kinds),
            "theory": column.place or None,
            "heading": column.heading or column.name,
            "parts": {part: list(values) for part, values in column.parts},
        }
        for column in found
    ]


def page() -> str:
    """docs/columns.md."""
    lines = [_PAGE]
    for table, title in TABLES.items():
        lines.append(f"## {title}\n")
        own = [each for each in columns() if each.table == table]
        if table != "rows":
            lines += _markdown(own)
            continue
        for source, heading in SOURCES.items():
            lines += [f"### {heading}\n", *_markdown([each for each in own if each.source == source])]
    return "\n".join(lines)


def _markdown(found: Iterable[Column]) -> list[str]:
    """Their table, and an empty line."""
    rows = [[f"`{column.name}`" + " ±" * column.interval, *line(column)[1:]] for column in found]
    bars = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (list(HEADERS), *rows)]
    return [bars[0], "|" + "---|" * len(HEADERS), *bars[1:], ""]


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
