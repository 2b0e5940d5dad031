"""The command `kdsim gallery`: a page of stored studies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdsim.cli import completion, console, paths
from kdsim.cli.codes import ExitCode
from kdsim.cli.options import Out
from kdsim.cli.run import tables_of
from kdsim.config import ConfigError, by_name, choose, error_line

if TYPE_CHECKING:
    from kdsim.results.store import StudyResults


def gallery(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STUDY",
            help="studies; all that are stored if none is given",
            show_default=False,
            autocompletion=completion.names("studies"),
        ),
    ] = None,
    out: Out = "results",
    to: Annotated[
        str,
        typer.Option("--to", metavar="DIR", help="folder of the page and its figures", callback=paths.option("--to")),
    ] = "docs/gallery",
) -> int:
    """Write a page of stored studies: figure, command, settings and table of each.

    Nothing is simulated: of each study the run with default settings is shown, else the most recent. DIR/README.md and
    DIR/STUDY.png are written.
    """
    from kdsim.files import temporary_beside
    from kdsim.results.store import Store
    from kdsim.studies import STUDIES
    from kdsim.study import gallery as pages

    known = by_name(STUDIES)
    for name in names or ():
        choose("study", name, known)
    found = pages.exhibits(Store(out), known, names or ())
    folder = Path(to)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sections, code = [], ExitCode.DONE
        for exhibit in found:
            results = exhibit.results
            figure, failed = _figure(results, folder)
            code = max(code, failed)
            sections.append(pages.section(exhibit, figure, tables_of(results.records, results)))
            console.note(f"{results.name}: {paths.shown(results.folder)}")
        with temporary_beside(folder / "README.md") as file:
            file.write_text(pages.page(sections), encoding="utf-8")
            file.replace(folder / "README.md")
    except OSError as error:
        raise ConfigError(f"--to = {to!r} cannot be written: {error.strerror}") from None
    console.say(paths.shown(folder / "README.md"))
    return code


def _figure(results: StudyResults, folder: Path) -> tuple[str | None, ExitCode]:
    """Name of the figure's file in the folder, or None; and an exit code, after a line that says why drawing failed."""
    if results.info["figure"] is None:
        return None, ExitCode.DONE
    try:
        return Path(
            console.write_figures(console.stored_figure(results), results, ["png"], folder)[0]
        ).name, ExitCode.DONE
    except OSError:
        raise
    except Exception as failure:
        console.note(f"warning: no figure of {results.name}, {error_line(failure)}")
        return None, ExitCode.FAILED


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    app.command("gallery", short_help="Write a page of stored studies.", rich_help_panel=panel)(gallery)
