"""The command `kdsim check-results`: is everything in a results folder as it was written?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import typer

from kdsim.cli import console, paths
from kdsim.cli.codes import ExitCode
from kdsim.cli.options import Json, Out
from kdsim.plain_text import one_line

LISTED = 20
"""Notices of one sort that are printed; --json has all."""


def check_results(out: Out = "results", as_json: Json = False) -> int:
    """Read everything in a results folder, verify all checksums, and say what is damaged and what to do.

    Also listed: interrupted packs and trainings, temporary files, what --repair has set aside, and cells of the older
    version without checksums. Nothing is written. The exit code is 0 if all is whole and can be read, else 1.
    """
    from kdsim.study.checking import NOTICE, check

    found = check(Path(out))
    if as_json:
        content = {
            "results": out,
            "intact": not found.damaged,
            "read": found.counts,
            "findings": [vars(finding) for finding in found.findings],
        }
        console.print_json(content)
        return ExitCode.FAILED if found.damaged else ExitCode.DONE
    notices = [finding for finding in found.findings if finding.kind == NOTICE]
    shown = [*found.damaged, *notices[:LISTED]]
    for item in shown:  # not a table: paths are to be copied, and too long to stand beside something
        console.say(f"{item.kind}: {one_line(item.path)}")
        console.say(*(f"  {one_line(text)}" for text in (item.what, item.advice) if text), "", sep="\n")
    if len(notices) > LISTED:
        console.say(f"... and {len(notices) - LISTED} more notices: --json has all\n")
    read = ", ".join(f"{count} {name}" for name, count in found.counts.items())
    kinds = Counter(finding.kind for finding in found.damaged)
    wrong = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    console.say(f"{paths.shown(out)}: read {read}; {wrong or 'nothing is damaged'}")
    return ExitCode.FAILED if wrong else ExitCode.DONE


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    short = "Verify everything in a results folder."
    app.command("check-results", short_help=short, rich_help_panel=panel)(check_results)
