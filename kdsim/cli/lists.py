"""The command `kdsim list`: what kdsim has of each kind, read from its sources, so that it answers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsim.cli import completion, console
from kdsim.cli.options import Json
from kdsim.config import choose

if TYPE_CHECKING:
    from kdsim.study.settings import Setting


@dataclass(frozen=True)
class Entry:
    """One of what is listed.

    Attributes:
        name: on the command line.
        summary: one line.
        settings: gives its parameters, with their defaults and meanings.
    """

    name: str
    summary: str
    settings: Callable[[], Sequence[Setting]] = tuple


@dataclass(frozen=True)
class Kind:
    """A kind of what is listed.

    Attributes:
        summary: what it is, and where its names are used.
        package: whose `__init__` has the tuples or dictionaries.
        tuples: their names.
        headers: of its table, where it is one of names and first lines; without, parameters are listed too.
        parts: whether the parameters of a parameter that is itself a configuration are listed.
    """

    summary: str
    package: str
    tuples: tuple[str, ...]
    headers: tuple[str, str] | None = None
    parts: bool = True

    def entries(self) -> list[Entry]:
        """All there are, in the order of their tuples."""
        from kdsim.cli.declared import read

        module = read(self.package)
        if module is None:
            raise LookupError(f"{self.package} has no source")
        found: list[Entry] = []
        for name in self.tuples:
            declared = module.get(name)
            items = declared.items() if isinstance(declared, dict) else ((None, item) for item in declared)
            found += [self._entry(*item) for item in items]
        return found

    def _entry(self, name: str | None, declared: Any) -> Entry:
        from kdsim.cli.declared import Class, Instance

        if isinstance(declared, Class):
            summary = declared.get("summary") or declared.summary
            return Entry(declared.name, summary, lambda: list(Instance(declared).settings(parts=self.parts)))
        if isinstance(declared, Instance):  # a claim
            return Entry(declared.get("name"), f"{declared.get('source')}: {declared.get('statement')}")
        return Entry(str(name), declared.summary)


KINDS = {
    "studies": Kind("what run-study simulates; show-study has their settings", "kdsim.studies", ("STUDIES",),
                    ("study", "what it shows")),
    "problems": Kind("populations whose class probabilities are known: --set problem=NAME, export-problem",
                     "kdsim.problems", ("PROBLEMS",)),
    "supervisions": Kind("what a student is taught, noise models on the class probabilities", "kdsim.supervision",
                         ("SUPERVISIONS",)),
    "students": Kind("what is trained on the points of a problem", "kdsim.students", ("STUDENTS", "NETWORK_STUDENTS")),
    "networks": Kind("what train and distill train, of images and of points", "kdsim.networks",
                     ("NETWORKS", "POINT_NETWORKS"), ("network", "what it is")),
    "losses": Kind("what a network minimises: distill --loss NAME", "kdsim.losses", ("DISTILLATION_LOSSES",)),
    "teachers": Kind("trained networks in place of a supervision: their kinds", "kdsim.teachers", ("TEACHERS",),
                     parts=False),
    "recipes": Kind("how a network is trained: train --recipe NAME", "kdsim.training", ("RECIPES",)),
    "claims": Kind("what the papers claim: verify-claims NAME", "kdsim.claims", ("CLAIMS",),
                   ("claim", "what is claimed")),
}  # fmt: skip
"""What can be listed."""


def list_kind(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help=f"{', '.join(KINDS)}; without it, what these are",
            show_default=False,
            autocompletion=completion.kinds,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """What kdsim has of a kind: names, one line each, and the parameters of what has some.

    With --json one object: the kind, and of each its name, summary and settings (key, default, meaning).

    \b
    Examples:
      kdsim list
      kdsim list studies
      kdsim list losses --json
    """
    from kdsim.study.table_text import Table

    if kind is None:
        if as_json:
            found = [{"name": name, "summary": each.summary} for name, each in KINDS.items()]
            return console.print_json({"kinds": found})
        return console.print_table(
            Table(["kdsim list", "what they are"], [[name, each.summary] for name, each in KINDS.items()])
        )
    chosen = choose("kind", kind, KINDS)
    entries = chosen.entries()
    if as_json:
        return console.print_json({kind: [_content(entry) for entry in entries]})
    if chosen.headers is not None:
        return console.print_table(Table([*chosen.headers], [[entry.name, entry.summary] for entry in entries]))
    for entry in entries:
        console.say(f"{entry.name}: {entry.summary}")
        if rows := [[item.key, item.value, item.doc] for item in entry.settings()]:
            console.print_table(Table(["field", "default", "meaning"], rows))
        else:
            console.say()


def _content(entry: Entry) -> dict[str, Any]:
    settings = [{"key": item.key, "default": item.value, "meaning": item.doc} for item in entry.settings()]
    return {"name": entry.name, "summary": entry.summary, "settings": settings}


def register(app: typer.Typer, panel: str) -> None:
    """Add the command, and the older ones that do the same."""
    short = "Studies, problems, losses, claims and so on, by name."
    app.command("list", short_help=short, rich_help_panel=panel)(list_kind)
    for kind in ("studies", "problems", "supervisions"):
        app.command(f"list-{kind}", help=f"The same as `kdsim list {kind}`.", hidden=True)(_lister(kind))


def _lister(kind: str) -> Callable[[], None]:
    def listed() -> None:
        list_kind(kind)

    return listed
