"""The command `kdsim columns`: what the columns of results are."""

from __future__ import annotations

from typing import Annotated

import typer

from kdsim.cli import completion, console
from kdsim.cli.options import Json


def columns(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="a column, or a part of its name",
            show_default=False,
            autocompletion=completion.columns,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Every column of stored results: type, unit, meaning, and who fills it; or the columns of that name.

    A part of a name lists all columns that have it. ± marks columns with a 95 % interval in NAME_low and NAME_high.
    """
    from kdsim.results import describe
    from kdsim.study.table_text import Table

    found = describe.chosen(name)
    if as_json:
        console.print_json({"columns": describe.as_json(found)})
    else:
        console.print_table(Table(list(describe.HEADERS), [describe.line(column) for column in found]))


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    app.command("columns", short_help="What the columns of results are.", rich_help_panel=panel)(columns)
