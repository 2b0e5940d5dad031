"""The command `kdsim verify-claims`: runs the studies of the ledger of claims, judges, and writes the report."""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdsim import __version__
from kdsim.cli import completion, console, paths
from kdsim.cli.codes import ExitCode
from kdsim.cli.options import DataDir, ExecutorName, Json, Out, Quick, Rerun, Scheduler, Workers
from kdsim.cli.run import How, Stopped, use_data
from kdsim.config import ConfigError, choose, error_line
from kdsim.plain_text import folded

if TYPE_CHECKING:  # torch takes a second to import: commands import what they need
    from kdsim.claims.base import Claim
    from kdsim.claims.ledger import Finding, Ran
    from kdsim.study.base import Study
    from kdsim.study.executors import Executor
    from kdsim.study.runner import RunResult

FOLDER = "claims"
"""Of the report, in the results folder."""
DPI = 110

Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="NAME",
        help="this claim alone; more names may follow, with or without --only",
        autocompletion=completion.names("claims"),
    ),
]


def verify_claims(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="these claims alone, as with --only",
            show_default=False,
            autocompletion=completion.names("claims"),
        ),
    ] = None,
    only: Only = None,
    out: Out = "results",
    quick: Quick = False,
    data_dir: DataDir = None,
    executor: ExecutorName = "local",
    scheduler: Scheduler = None,
    workers: Workers = None,
    rerun: Rerun = False,
    as_json: Json = False,
) -> int:
    """Judge what the papers claim, claim by claim, from simulations and trainings; what is stored is not run again.

    The ledger says of each claim whether it holds, holds under conditions, or does not hold here, by a rule that was
    fixed beforehand (docs/claims.md), with effect, 95 % interval, replicas and cost. It is written to
    DIR/claims/claims.md, claims.json and claims.html, figures included. With --quick it takes minutes, else hours.

    \b
    Examples:
      kdsim verify-claims --quick
      kdsim verify-claims --quick --only double-step-special p2
      kdsim verify-claims --data-dir my/data --json
    """
    use_data(data_dir)
    from kdsim.claims import CLAIMS, NOT_COVERED, html, ledger, report
    from kdsim.files import temporary_beside
    from kdsim.results.json_files import json_text, require_no_link
    from kdsim.results.store import Store

    chosen = _chosen([*(only or ()), *(names or ())], CLAIMS)
    Store(out).prepare()
    folder = Path(out) / FOLDER
    require_no_link(folder)
    studies = len(list(ledger.studies_of(chosen, quick)))
    with How(executor, scheduler, workers).started() as computing:
        ran = ledger.collect(chosen, quick, out, _Runner(out, studies, computing, rerun))
    findings = ledger.judge(chosen, quick, ran)
    stamp = {
        "kdsim": __version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "size": "quick" if quick else "full",
    }
    content = report.content(findings, NOT_COVERED, stamp)
    texts = {
        "claims.md": report.markdown(findings, NOT_COVERED, stamp),
        "claims.json": json_text(content),
        "claims.html": html.page(findings, NOT_COVERED, stamp, _figures(ran)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with temporary_beside(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
                temporary.replace(folder / name)
    except OSError as error:
        raise ConfigError(f"report folder {str(folder)!r} cannot be written: {error}") from None
    if as_json:
        console.print_json(content)
    else:
        _print(findings, [folder / name for name in texts])
    failed = [finding for finding in findings if finding.failed]
    for finding in failed:
        console.error(f"{finding.claim.name}: {finding.reason}")
    return ExitCode.FAILED if failed else ExitCode.DONE


def _chosen(texts: Sequence[str], claims: Sequence[Claim]) -> list[Claim]:
    """The claims of these names, in the order of the ledger; all without names."""
    names = [name.strip() for text in texts for name in text.split(",")]
    known = {claim.name: claim for claim in claims}
    for name in names:
        choose("claim", name, known)
    return [claim for claim in claims if not names or claim.name in names]


class _Runner:
    """Runs the studies of the ledger one after the other, with progress on standard error."""

    def __init__(self, out: str, count: int, executor: Executor, rerun: bool) -> None:
        self.out, self.count, self.number = out, count, 0
        self.executor, self.rerun = executor, rerun

    def __call__(self, study: Study) -> RunResult:
        from kdsim.study import runner

        self.number += 1
        console.note(f"study {self.number} of {self.count}: {study.name}")
        try:
            with console.compilation_note(), console.progress_report() as progress:
                return runner.run(
                    study,
                    self.out,
                    executor=self.executor,
                    progress=progress,
                    note=console.note,
                    rerun=self.rerun,
                )
        except runner.Interrupted as interruption:
            raise Stopped(str(interruption)) from None


def _figures(ran: Mapping[str, Ran]) -> dict[str, bytes]:
    """PNG of each study that has a figure and results, by its settings digest. A figure that fails is left out."""
    pictures = {}
    for digest, each in ran.items():
        draw = console.figure_of(type(each.study))
        if draw is None or each.results is None:
            continue
        buffer = io.BytesIO()
        try:
            draw(each.results).savefig(buffer, format="png", dpi=DPI)
        except Exception as failure:
            console.note(f"warning: no figure of {each.study.name}, {error_line(failure)}")
            continue
        pictures[digest] = buffer.getvalue()
    return pictures


def _print(findings: Sequence[Finding], files: Sequence[Path]) -> None:
    from kdsim.claims import report

    console.print_table(report.summary_table(findings))
    console.say()
    for line in report.reasons(findings):
        indent = len(line) - len(line.lstrip())
        console.say(*folded(line, console.line_width(), hanging=indent + 2), sep="\n")
    console.say()
    for file in files:
        console.say(f"report   {paths.shown(file)}")


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    short = "The papers' claims, judged one by one."
    app.command("verify-claims", short_help=short, rich_help_panel=panel)(verify_claims)
