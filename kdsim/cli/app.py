"""The commands, put together; each is in a module of its own. They print (console.py); nothing below them does."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from kdsim import __version__
from kdsim.cli import (
    check,
    claims,
    columns,
    console,
    data,
    export,
    gallery,
    lists,
    paths,
    reproduce,
    results,
    run,
    show,
    train,
)
from kdsim.config import choose

HELP = """Simulate SGD that learns from Bayes class probabilities (BCP) and hold it against its theory.

A study trains many replicas of a student on exact, noisy or one-hot class probabilities, measures error floors
with confidence intervals, and sets the bounds and predictions of the theory beside them.

\b
Examples:
  kdsim list studies                           what can be run
  kdsim run-study noise-sweep --quick          a first look, in seconds
  kdsim run-study noise-sweep --set problem=softmax-linear --replicas 256
  kdsim show-study noise-sweep                 the keys of --set, the cells, the cost
  kdsim results noise-sweep --json             the stored table, for your own analysis
  kdsim distill resnet20 resnet8 --quick       a network taught by another, in seconds
"""

STUDIES, NETWORKS, RESULTS, PAPERS, DATA = "Studies", "Networks", "Stored results", "Papers", "Data"
"""Sections of the help, in their order."""


class Commands(TyperGroup):
    """The commands; an unknown one is refused like every unknown name, and the help lists them in sections."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for param in self.params:  # typer's own flags have no default, and to convert None it imports pydantic
            if getattr(param, "is_flag", False) and param.default is None:
                param.default = False
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        choose("command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[Any]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                sections.setdefault(getattr(command, "rich_help_panel", None) or "Commands", []).append(command)
        longest = max(len(command.name) for commands in sections.values() for command in commands)
        for title, commands in sections.items():
            with formatter.section(title):
                lines = [(command.name.ljust(longest), command.get_short_help_str(70)) for command in commands]
                formatter.write_dl(lines)


class Command(TyperCommand):
    """A command; what the code of a study file prints while it runs goes to standard error."""

    def invoke(self, ctx: Any) -> Any:
        with console.own_output():
            return super().invoke(ctx)


class Application(typer.Typer):
    """The command line, whose commands are `Command`s."""

    def command(self, name: str | None = None, **options: Any) -> Any:
        return super().command(name, cls=Command, **options)


app = Application(
    cls=Commands,
    help=HELP,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    paths.forget()
    if version:
        console.say(f"kdsim {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        console.say(context.get_help())


lists.register(app, STUDIES)
show.register(app, STUDIES)
run.register(app, STUDIES)
train.register(app, NETWORKS)
results.register(app, RESULTS)
gallery.register(app, RESULTS)
columns.register(app, RESULTS)
check.register(app, RESULTS)
reproduce.register(app, RESULTS)
claims.register(app, PAPERS)
export.register(app, DATA)
data.register(app, DATA)
