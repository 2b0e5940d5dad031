"""Tables, and their text: for a terminal or a pipe, Markdown, and LaTeX (booktabs). No cell is ever cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len

from kdsim.plain_text import folded, one_line, printable

TEXT_MINIMUM = 16
"""Characters below which a column of text is not folded."""
PROSE_MINIMUM = 40
"""Characters below which what stands above and below a table is not folded: the terminal does it."""
GAP = "  "
_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\|*<`"})
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "|": r"\textbar{}", "<": r"$<$",
        ">": r"$>$", "`": "{}`",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Headers, rows of text, and what holds for all rows.

    Attributes:
        numeric: headers of the columns that are set flush right.
        optional: headers of the columns that a narrow terminal can do without, first to go first.
        common: key and value of what is the same in every row.
        notes: lines below the table.
    """

    headers: list[str]
    rows: list[list[str]]
    numeric: set[str] = field(default_factory=set)
    optional: tuple[str, ...] = ()
    common: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


# Terminals and pipes ------------------------------------------------------------------------------


def plain(table: Table, width: int | None = None) -> str:
    """The table for a terminal of so many characters, or whole; what all rows share above it and its notes below.

    Where it is too wide, columns of text are folded between words; where that is not enough, `Table.optional` columns
    are left out and named; where that is not enough either, each row stands as lines of header and text.

    Args:
        width: characters of a line; None for no limit.
    """
    prose = None if width is None else max(width, PROSE_MINIMUM)
    columns = [
        (printable(header), [printable(cells[place]) for cells in table.rows], header in table.numeric)
        for place, header in enumerate(table.headers)
    ]
    left_out: list[str] = []
    grid = _grid(columns, width)
    shown = columns
    for name in table.optional:
        if grid is None and name in table.headers:
            left_out.append(printable(name))
            shown = [column for column in columns if column[0] not in left_out]
            grid = _grid(shown, width)
    if grid is None:
        grid, left_out = _records(columns, width), []
    notes = [line for note in table.notes for line in folded(one_line(note), prose)]
    if left_out:
        text = f"The terminal is too narrow for {', '.join(left_out)}: a wider one, or a file, has all columns."
        notes += folded(text, prose)
    above = folded(", ".join(f"{key} {printable(value)}" for key, value in table.common.items()), prose)
    return "\n".join(line.rstrip() for line in [*(above if table.common else []), "", *grid, "", *notes])


Column = tuple[str, list[str], bool]
"""Header, cells, and whether they are set flush right."""


def _grid(columns: Sequence[Column], width: int | None) -> list[str] | None:
    """Header, rule and rows in columns; None where they do not fit."""
    if not columns:
        return []
    natural = [max(map(cell_len, (header, *cells))) for header, cells, _ in columns]
    room = None if width is None else width - len(GAP) * (len(columns) - 1)
    widths = natural if room is None or sum(natural) <= room else _folded_widths(columns, natural, room)
    if widths is None:
        return None
    blocks = [_row([header for header, _, _ in columns], columns, widths)]
    blocks += [_row(list(cells), columns, widths) for cells in zip(*(cells for _, cells, _ in columns), strict=True)]
    lines = [line for block in blocks for line in block]
    if width is not None and max(map(cell_len, lines)) > width:  # characters that are two wide
        return None
    rule = "-" * (sum(widths) + len(GAP) * (len(widths) - 1))
    return [*blocks[0], rule, *(line for block in blocks[1:] for line in block)]


def _folded_widths(columns: Sequence[Column], natural: Sequence[int], room: int) -> list[int] | None:
    """Widths that fit into the room: the widest columns give way first. Numbers are never folded, their headers are."""
    least = []
    for (header, cells, numeric), wide in zip(columns, natural, strict=True):
        words = [*header.split(), *(cells if numeric else [word for cell in cells for word in cell.split()])]
        least.append(max([cell_len(word) for word in words] + [0 if numeric else min(wide, TEXT_MINIMUM)]))
    if sum(least) > room:
        return None
    widths = [max(min(wide, room), narrow) for wide, narrow in zip(natural, least, strict=True)]
    while sum(widths) > room:
        widest = max((place for place in range(len(widths)) if widths[place] > least[place]), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _row(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    """The lines of one row."""
    folds = [folded(cell, width) for cell, width in zip(cells, widths, strict=True)]
    lines = []
    for number in range(max(map(len, folds))):
        texts = []
        for lines_of, (_, _, numeric), width in zip(folds, columns, widths, strict=True):
            text = lines_of[number] if number < len(lines_of) else ""
            space = " " * (width - cell_len(text))
            texts.append(space + text if numeric else text + space)
        lines.append(GAP.join(texts).rstrip())
    return lines


def _records(columns: Sequence[Column], width: int | None) -> list[str]:
    """Each row as lines of header and text."""
    indent = max(cell_len(header) for header, _, _ in columns) + len(GAP)
    narrow = None if width is None or width < 2 * indent else width
    if not columns[0][1]:
        return [header for header, _, _ in columns]
    lines = []
    for number in range(len(columns[0][1])):
        lines += [""] * bool(lines)
        for header, cells, _ in columns:
            if header.strip() or cells[number]:
                space = " " * (indent - cell_len(header))
                lines += folded(header + space + cells[number].lstrip(), narrow, hanging=indent)
    return lines


# Markdown and LaTeX -------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown, what all rows share above it and its notes below."""
    rule = ["---:" if header in table.numeric else "---" for header in table.headers]
    cells = [[printable(cell).translate(_MARKDOWN) for cell in row] for row in (table.headers, *table.rows)]
    lines = [_bar(cells[0]), _bar(rule), *map(_bar, cells[1:])]
    above = [", ".join(f"{key} {one_line(value)}" for key, value in table.common.items()), ""] if table.common else []
    below = ["", *map(one_line, table.notes)] if table.notes else []
    return "\n".join([*above, *lines, *below])


def _bar(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def latex(table: Table) -> str:
    """A tabular of booktabs; what all rows share and the notes as comments, one line each."""
    align = "".join("r" if header in table.numeric else "l" for header in table.headers)
    rows = [_protected(" & ".join(map(_latex, row))) + r" \\" for row in (table.headers, *table.rows)]
    comments = [", ".join(f"{key} {value}" for key, value in table.common.items())] if table.common else []
    return "\n".join(
        [
            *(f"% {one_line(line)}" for line in [*comments, *table.notes]),
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _latex(cell: str) -> str:
    """The cell as LaTeX's text; two hyphens stay two."""
    return printable(cell).translate(_LATEX).replace("--", "-{}-").replace("--", "-{}-")


def _protected(row: str) -> str:
    r"""A row that the \\ before it does not take for its argument."""
    return "{}" + row if row.startswith(("[", "*")) else row
