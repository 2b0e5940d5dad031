"""What the shell offers for arguments and options, read from the sources of kdsim (`kdsim.cli.declared`)."""

from __future__ import annotations

import os
from collections.abc import Callable

import typer

Offered = list[tuple[str, str]]
"""Words with what they mean, which some shells show."""


def words(*known: str) -> Callable[[str], list[str]]:
    """Typer's completion of an option that takes one of these words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete


def names(*kinds: str) -> Callable[[str], Offered]:
    """Typer's completion of an argument or option that takes a name of these kinds, see `kdsim list`."""

    def complete(incomplete: str) -> Offered:
        from kdsim.cli.lists import KINDS

        offered = (entry for kind in kinds for entry in KINDS[kind].entries())
        return [(entry.name, entry.summary) for entry in offered if entry.name.startswith(incomplete)]

    return complete


def kinds(incomplete: str) -> Offered:
    """Typer's completion of what `kdsim list` takes."""
    from kdsim.cli.lists import KINDS

    return [(name, kind.summary) for name, kind in KINDS.items() if name.startswith(incomplete)]


def columns(incomplete: str) -> Offered:
    """Typer's completion of a column of results."""
    from kdsim.results import schema

    found = {column.name: column.meaning for column in schema.columns() if column.name.startswith(incomplete)}
    return list(found.items())


def keys(ctx: typer.Context, incomplete: str) -> Offered:
    """Typer's completion of `--set`: keys of the study or problem that is named; of a study file none are known."""
    from kdsim.cli.lists import KINDS

    command = str(ctx.command.name)
    names = [command] if command in ("train", "distill") else _typed()
    entries = KINDS["problems" if command == "export-problem" else "studies"].entries()
    named = next((entry for entry in entries if entry.name in names), None)
    found = [(f"{item.key}=", item.doc) for item in named.settings()] if named else []
    return [(key, doc) for key, doc in found if key.startswith(incomplete)]


def _typed() -> list[str]:
    """The words that were typed, from where typer's scripts for the shells put them.

    Typer has parsed no argument yet where the last word is an option that waits for its value.
    """
    return " ".join(os.environ.get(name, "") for name in ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")).split()
