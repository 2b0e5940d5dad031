"""Every command has the arguments and options that scripts rely on, with their types; examples can be parsed."""

from __future__ import annotations

import re
import shlex
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from kdsim.cli.app import app

ROOT = Path(__file__).parents[2]
COMMAND = typer.main.get_command(app)

FLAGS = {
    "run-study": (
        "target:str --set:list[str]? --out:str --quick:bool --replicas:str? --seed:str? --device:str? --engine:str? "
        "--data-dir:str? --executor:str --scheduler:str? --workers:int? --block-replicas:int? --repair:bool "
        "--rerun:bool --json:bool"
    ),
    "list-studies": "",
    "show-study": (
        "target:str --set:list[str]? --quick:bool --replicas:str? --seed:str? --device:str? --engine:str? "
        "--data-dir:str? --cost:bool --workers:int? --out:str"
    ),
    "predict": "target:str --set:list[str]? --quick:bool --replicas:str? --seed:str? --json:bool --csv:bool",
    "results": (
        "target:str --set:list[str]? --out:str --quick:bool --replicas:str? --seed:str? --json:bool --csv:bool "
        "--markdown:bool --latex:bool"
    ),
    "figure": (
        "target:str --format:str --set:list[str]? --out:str --quick:bool --replicas:str? --seed:str? --study:str?"
    ),
    "gallery": "names:list[str]? --out:str --to:str",
    "check-results": "--out:str --json:bool",
    "reproduce": (
        "folder:str --cells:int? --seed:int --only:list[str]? --study:list[str]? --engine:str? --device:str? "
        "--keep:str? --data-dir:str? --json:bool"
    ),
    "train": (
        "network:str --data:str? --data-dir:str? --supervision:str? --recipe:str? --epochs:str? --set:list[str]? "
        "--out:str --quick:bool --replicas:str? --seed:str? --device:str? --repair:bool --rerun:bool --json:bool"
    ),
    "distill": (
        "teacher:str student:str --loss:str? --published:bool --data:str? --data-dir:str? --recipe:str? "
        "--epochs:str? --teacher-epochs:str? --set:list[str]? --out:str --quick:bool --replicas:str? --seed:str? "
        "--device:str? --repair:bool --rerun:bool --json:bool"
    ),
    "verify-claims": (
        "names:list[str]? --only:list[str]? --out:str --quick:bool --data-dir:str? --executor:str --scheduler:str? "
        "--workers:int? --rerun:bool --json:bool"
    ),
    "export-problem": "name:str --out:str --seed:int --set:list[str]?",
    "list-problems": "",
    "list-supervisions": "",
    "data check": "--data-dir:str?",
    "data fetch": "name:str --data-dir:str? --kind:str",
}
"""Command: its arguments and options, with types; "?" may be left out. As they were before options had one place."""

SINCE = {
    "list": "kind:str? --json:bool",
    "columns": "name:str? --json:bool",
}
"""Commands that came later, and options of the older ones."""


def option_of(info: Any) -> str | None:
    """Name of an option, by its declaration; None of an argument."""
    declared = [str(info.default), *(info.param_decls or ())]
    return next((text for text in declared if text.startswith("--")), None)


def flags(function: Callable[..., Any]) -> str:
    """Arguments and options of a command by its signature, with types."""
    found = []
    for name, hint in typing.get_type_hints(function, include_extras=True).items():
        if typing.get_origin(hint) is typing.Annotated:
            kind, info = typing.get_args(hint)[:2]
            option = option_of(info) or name
            text = kind.__name__ if isinstance(kind, type) else str(kind)
            found.append(f"{option}:{text.replace(' | None', '?')}")
    return " ".join(found)


def commands(group: typer.Typer = app, prefix: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every command with its function."""
    for command in group.registered_commands:
        yield prefix + str(command.name), command.callback
    for inner in group.registered_groups:
        yield from commands(inner.typer_instance, f"{prefix}{inner.name} ")


def test_commands_have_the_flags_that_they_had() -> None:
    found = {name: set(flags(function).split()) for name, function in commands()}
    expected = {name: set(text.split()) for name, text in (FLAGS | SINCE).items()}
    assert found == expected


def declarations() -> dict[str, set[int]]:
    """Option: identities of the declarations that it has in all commands."""
    found: dict[str, set[int]] = {}
    for _, function in commands():
        for name, hint in typing.get_type_hints(function, include_extras=True).items():
            if typing.get_origin(hint) is typing.Annotated:
                info = typing.get_args(hint)[1]
                found.setdefault(option_of(info) or name, set()).add(id(info))
    return found


OF_OTHER_MEANING = {
    "--out": 2,  # export-problem's is a file
    "--seed": 3,  # of a study, of a pool, of a sample of cells
    "--only": 2,  # names of claims, digests of cells
    "--study": 2,  # one study file, several
    "--workers": 2,  # processes to start, processes to plan with
}
"""Options that mean different things, and how many."""


def test_options_of_one_meaning_are_declared_once() -> None:
    several = {name: len(ids) for name, ids in declarations().items() if name.startswith("--") and len(ids) > 1}
    assert several == OF_OTHER_MEANING


def examples() -> list[str]:
    """Command lines in README, docs and the help of all commands."""
    texts = [path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
    texts += [str(app.info.help), *(function.__doc__ or "" for _, function in commands())]
    lines = [line.strip().lstrip("$ ") for text in texts for line in text.splitlines()]
    found = [re.split("  | #| [|] ", line)[0] for line in lines if line.startswith("kdsim ")]
    quoted = [code for text in texts for line in text.splitlines() for code in re.findall("`([^`]+)`", line)]
    found += [code for code in quoted if re.match(r"kdsim \S+ \S", code)]
    return [each for each in dict.fromkeys(found) if not re.search(r"[A-Z]{3,}|\.\.\.|\*|<", each)]


@pytest.mark.parametrize("line", examples())
def test_examples_can_be_parsed(line: str) -> None:
    command = COMMAND
    context = command.make_context("kdsim", shlex.split(line)[1:])
    words = [*context._protected_args, *context.args]
    while words:
        name, inner, words = command.resolve_command(context, words)
        context = inner.make_context(name, words, parent=context)
        command, words = inner, [*context._protected_args, *context.args] if hasattr(inner, "commands") else []
