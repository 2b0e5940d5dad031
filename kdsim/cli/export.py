"""The command `kdsim export-problem`: a problem's pool for programs of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdsim.cli import completion, console, paths
from kdsim.cli.options import Set
from kdsim.config import by_name, choose, override


def export_problem(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="a problem, see list problems",
            show_default=False,
            autocompletion=completion.names("problems"),
        ),
    ],
    out: Annotated[
        str,
        typer.Option("--out", metavar="FILE", help="the .npz file to write", callback=paths.option("--out")),
    ],
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="seed of the pool")] = 0,
    settings: Set = None,
) -> None:
    """Write a problem's pool to a file: x, p, theta_star, y (numpy), its name, parameters and seed."""
    from kdsim.problems import PROBLEMS
    from kdsim.study.export import export
    from kdsim.study.settings import parse_settings

    problem = override(choose("problem", name, by_name(PROBLEMS))(), parse_settings(settings or []), {})
    arrays = export(problem, seed, Path(out))
    shapes = ", ".join(f"{key} {'x'.join(map(str, array.shape))}" for key, array in arrays.items() if array.shape)
    console.note(f"{paths.shown(out)}: {shapes}")


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    app.command("export-problem", short_help="Write a problem's pool to an .npz file.", rich_help_panel=panel)(
        export_problem
    )
