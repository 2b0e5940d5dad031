"""Tables as text for papers and notes: Markdown and LaTeX (booktabs)."""

from __future__ import annotations

from collections.abc import Sequence

from kdsim.study.report import Table

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "|": r"\textbar{}", "<": r"$<$",
        ">": r"$>$",
    }
)  # fmt: skip


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown, what all rows share above it and its notes below."""
    rule = ["---:" if header in table.numeric else "---" for header in table.headers]
    lines = [_bar(table.headers), _bar(rule), *map(_bar, table.rows)]
    above = [", ".join(f"{key} {value}" for key, value in table.common.items()), ""] if table.common else []
    below = ["", *table.notes] if table.notes else []
    return "\n".join([*above, *lines, *below])


def _bar(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def latex(table: Table) -> str:
    """A tabular of booktabs; what all rows share and the notes as comments."""
    align = "".join("r" if header in table.numeric else "l" for header in table.headers)
    rows = [" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in (table.headers, *table.rows)]
    comments = [", ".join(f"{key} {value}" for key, value in table.common.items())] if table.common else []
    return "\n".join(
        [
            *(f"% {line}" for line in [*comments, *table.notes]),
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )
