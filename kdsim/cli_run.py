"""What the commands that run something share: their options, the run itself, its table and its figure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsim import cli_output
from kdsim.config import by_name, error_line

if TYPE_CHECKING:  # torch takes a second to import: commands import what they need
    from kdsim.study.base import Study
    from kdsim.study.report import Table
    from kdsim.study.store import StudyResults

FORMATS = ("png", "pdf", "svg")
USER_ERROR, INTERRUPTED = 2, 130

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="set a key of the study; may be repeated")
]
Out = Annotated[str, typer.Option("--out", metavar="DIR", help="results folder")]
Quick = Annotated[bool, typer.Option("--quick", help="a small version that ends within seconds")]
Replicas = Annotated[str | None, typer.Option("--replicas", metavar="N", help="independent runs of each cell")]
Seed = Annotated[str | None, typer.Option("--seed", metavar="N", help="seed of the pool and of all randomness")]
Device = Annotated[str | None, typer.Option("--device", metavar="D", help="cpu, cuda, cuda:1")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else on standard output")]
DataDir = Annotated[
    str | None, typer.Option("--data-dir", metavar="DIR", help="folder of real images; else KDSIM_DATA")
]


class Stopped(Exception):
    """A run was interrupted and saved what it had; the message says how to go on."""


def settings_of(texts: list[str] | None, **options: str | None) -> dict[str, str]:
    """`--set` and the options that are short for one."""
    from kdsim.study.loading import parse_settings

    return parse_settings([*(texts or []), *(f"{key}={text}" for key, text in options.items() if text is not None)])


def load_study(target: str, settings: dict[str, str], quick: bool) -> Study:
    """The study of that name or file with these settings."""
    from kdsim.studies import STUDIES
    from kdsim.study.loading import load

    return load(target, by_name(STUDIES), settings, quick=quick)


def use_data(data_dir: str | None) -> None:
    """Real images are read from this folder."""
    if data_dir:
        os.environ["KDSIM_DATA"] = data_dir


def run(study: Study, out: str, as_json: bool) -> int:
    """Run a study, print its table or JSON, draw its figure. Returns the exit code."""
    draw_with = cli_output.figure_function(getattr(type(study), "figure", None))

    from kdsim.study import runner
    from kdsim.study.store import read_study

    try:
        with cli_output.compilation_note(), cli_output.progress_report() as progress:
            result = runner.run(study, out, progress=progress)
    except runner.Interrupted as interruption:
        raise Stopped(str(interruption)) from None
    code = 0
    for failure in result.failures:
        cli_output.error(failure)
        code = USER_ERROR if result.user_error else 1
    if not result.rows:
        return code
    stored = read_study(result.folder)
    if not as_json:
        print_results(result.rows, stored)
    figures: list[str] = []
    if draw_with is not None:
        figures, failed = draw(draw_with, stored, FORMATS[:2])
        code = max(code, failed)
    if as_json:
        content = {
            "study": result.name,
            "settings": result.settings,
            "rows": result.rows,
            "replica_steps": result.replica_steps,
            "engine_seconds": result.engine_seconds,
            "wall_seconds": result.wall_seconds,
            "results": str(result.folder),
            "figures": figures,
        }
        content |= comparisons(result.rows, stored)
        cli_output.print_json(content | ({"failures": result.failures} if result.failures else {}))
        return code
    spent = f"{result.replica_steps:,} replica-steps in {cli_output.duration(result.engine_seconds)}"
    print(f"\n{spent}" if result.replica_steps else "\nnothing to simulate: all cells were stored")
    print(f"results  {result.folder}")
    for file in figures:
        print(f"figure   {file}")
    return code


def tables_of(rows: Sequence[dict[str, Any]], stored: StudyResults) -> list[Table]:
    """The tables of a study."""
    from kdsim.study import group_report, report, teacher_report

    if rows[0].get("kind") is None:
        return [report.results_table(rows)]
    long_tailed = len(group_report.grouped(rows)) == len(rows)  # what the table of trainings has is then in the others
    found = [] if long_tailed else teacher_report.tables(rows, stored.replicas)
    return found + group_report.tables(rows)


def print_results(rows: Sequence[dict[str, Any]], stored: StudyResults) -> None:
    """Print the tables of a study."""
    for table in tables_of(rows, stored):
        cli_output.print_table(table)


def comparisons(rows: Sequence[dict[str, Any]], stored: StudyResults) -> dict[str, Any]:
    """What a study with teachers compares, for JSON; nothing for others."""
    from kdsim.study import teacher_report

    if rows[0].get("kind") is None or not teacher_report.teachers_of(rows):
        return {}
    return {
        "comparisons": teacher_report.comparisons(rows, stored.replicas),
        "correlations": teacher_report.correlations(rows, stored.replicas),
    }


def draw(function: Any, stored: StudyResults, formats: Sequence[str]) -> tuple[list[str], int]:
    """Files of the figure, and 0; or no file, and 1 after a line that says why. The results are stored either way."""
    try:
        return cli_output.write_figures(function, stored, formats), 0
    except (Exception, SystemExit) as failure:  # a study file's own function can raise anything
        cli_output.note(f"warning: no figure, {error_line(failure)}; the results are in {stored.folder}")
        return [], 1
