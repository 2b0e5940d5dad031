"""The commands `kdsim results` and `kdsim figure`: a stored run as a table, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdsim.cli import console, paths
from kdsim.cli.options import Csv, Json, Out, Quick, Replicas, Seed, Set, Stored, one_format
from kdsim.cli.run import FORMATS, comparisons, draw, print_results, settings_of, tables_of
from kdsim.config import SOURCE, by_name, choose, encode

if TYPE_CHECKING:  # torch takes a second to import: commands import what they need
    from kdsim.results.store import StudyResults


def results(
    target: Stored,
    settings: Set = None,
    out: Out = "results",
    quick: Quick = False,
    replicas: Replicas = None,
    seed: Seed = None,
    as_json: Json = False,
    as_csv: Csv = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="print Markdown")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="print LaTeX (booktabs)")] = False,
) -> None:
    """The table of a stored run: the most recent one, or the one with the given settings."""
    one_format(json=as_json, csv=as_csv, markdown=as_markdown, latex=as_latex)
    stored = _read(target, out, quick, settings, replicas=replicas, seed=seed)

    if as_json:
        content = {
            "study": stored.name,
            "settings": stored.settings,
            "results": str(stored.folder),
            "rows": stored.records,
            **comparisons(stored.records, stored),
        }
        console.print_json(content)
    elif as_csv:
        console.print_csv(stored.records)
    elif as_markdown or as_latex:
        from kdsim.study import table_text

        write = table_text.markdown if as_markdown else table_text.latex
        console.say("\n\n".join(map(write, tables_of(stored.records, stored))))
    else:
        print_results(stored.records, stored)


def figure(
    target: Stored,
    formats: Annotated[str, typer.Option("--format", metavar="F,F", help="png, pdf, svg")] = "png,pdf",
    settings: Set = None,
    out: Out = "results",
    quick: Quick = False,
    replicas: Replicas = None,
    seed: Seed = None,
    study_file: Annotated[
        str | None,
        typer.Option(
            "--study",
            metavar="FILE",
            help="the study file with the figure's function; its code runs",
            callback=paths.option("--study"),
        ),
    ] = None,
) -> int:
    """Draw the figure of a stored run again; it is written beside its table.

    A figure that is a function of a study file needs this file, as NAME|FILE|FOLDER or by --study: what a results
    folder names is never run.
    """
    extensions = [choose("--format", item.strip(), {name: name for name in FORMATS}) for item in formats.split(",")]
    stored = _read(target, out, quick, settings, replicas=replicas, seed=seed)
    from kdsim.results.json_files import require_no_link

    source = study_file or (target if target.endswith(".py") else None)
    study = None
    if source is not None:
        from kdsim.study.loading import study_of_file

        study = study_of_file(Path(source))
    if stored.folder != Path(target).absolute():  # else the user named it
        for folder in (stored.folder.parent, stored.folder):
            require_no_link(folder)
    function = console.stored_figure(stored, study)
    files, failed = draw(function, stored, extensions)
    for file in files:
        console.say(paths.shown(file))
    return failed


def _read(target: str, out: str, quick: bool, texts: list[str] | None, **options: str | None) -> StudyResults:
    """The stored run that was asked for; says on standard error which one it is.

    Only a study file, and settings, which choose among the runs of a study, need the study's class, which takes torch.
    """
    from kdsim.cli.lists import KINDS
    from kdsim.results.runs import notes, run_folder
    from kdsim.results.store import Store, read_study
    from kdsim.study.settings import settings_line

    studies = {entry.name: entry for entry in KINDS["studies"].entries()}
    settings = settings_of(texts, **options)
    if settings or quick or target.endswith(".py"):
        from kdsim.studies import STUDIES
        from kdsim.study.loading import stored_run

        folder = stored_run(target, by_name(STUDIES), Store(out), settings, quick=quick)
    else:
        folder = run_folder(target, studies, Store(out))
    stored = read_study(folder.absolute())
    usual = {item.key: item.value for item in studies[stored.name].settings()} if stored.name in studies else {}
    line = settings_line(stored.settings, usual)
    console.note(f"{paths.shown(stored.folder)}, {stored.info['date'][:16]} UTC, settings: {line}")
    edited = target.endswith(".py") and stored.settings.get(SOURCE) != _source(target)
    for line in notes(stored, [f"the source of {stored.name}"] if edited else []):
        console.note(line)
    return stored


def _source(target: str) -> str:
    """SHA-256 of the sources of a study file's study as they are now."""
    from kdsim.study.loading import load

    return encode(load(target, {}))[SOURCE]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands."""
    app.command("results", short_help="The table of a stored run.", rich_help_panel=panel)(results)
    app.command("figure", short_help="Draw the figure of a stored run again.", rich_help_panel=panel)(figure)
