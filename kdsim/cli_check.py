"""The command `kdsim check-results`: is everything in a results folder as it was written?"""

from __future__ import annotations

from pathlib import Path

import typer

from kdsim import cli_output
from kdsim.cli_run import Json, Out
from kdsim.plain_text import one_line

LISTED = 20
"""Notices of one sort that are printed; --json has all."""


def check_results(out: Out = "results", as_json: Json = False) -> int:
    """Read everything in a results folder, verify all checksums, and say what is damaged and what to do.

    Also listed: interrupted packs and trainings, temporary files, what --repair has set aside, and cells of the older
    version without checksums. Nothing is written. The exit code is 0 if nothing is damaged, else 1.
    """
    from kdsim.study.checking import BROKEN, check

    found = check(Path(out))
    if as_json:
        content = {
            "results": out,
            "intact": not found.damaged,
            "read": found.counts,
            "findings": [vars(finding) for finding in found.findings],
        }
        cli_output.print_json(content)
        return 1 if found.damaged else 0
    notices = [finding for finding in found.findings if finding.kind != BROKEN]
    shown = [*found.damaged, *notices[:LISTED]]
    for item in shown:  # not a table: paths are to be copied, and too long to stand beside something
        cli_output.say(f"{item.kind}: {one_line(item.path)}")
        cli_output.say(*(f"  {one_line(text)}" for text in (item.what, item.advice) if text), "", sep="\n")
    if len(notices) > LISTED:
        cli_output.say(f"... and {len(notices) - LISTED} more notices: --json has all\n")
    read = ", ".join(f"{count} {name}" for name, count in found.counts.items())
    count = len(found.damaged)
    cli_output.say(f"{out}: read {read}; " + (f"{count} damaged" if count else "nothing is damaged"))
    return 1 if count else 0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check-results", short_help="Verify everything in a results folder.")(check_results)
