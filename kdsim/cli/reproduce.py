"""The command `kdsim reproduce`: stored cells run again, and held against what is stored."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsim.cli import console, paths
from kdsim.cli.codes import ExitCode
from kdsim.cli.options import DataDir, Device, Engine, Json
from kdsim.cli.run import Stopped, use_data
from kdsim.config import ConfigError, require_count
from kdsim.plain_text import counted, one_line

if TYPE_CHECKING:  # torch takes a second to import: commands import what they need
    from kdsim.study.reproduce import Reproduction
    from kdsim.study.table_text import Table

LISTED = 8
"""Lines of what is another now."""


def reproduce(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="RESULTS_DIR",
            help="a results folder, or the folder of one run (DIR/STUDY/DIGEST)",
            show_default=False,
            callback=paths.option("RESULTS_DIR"),
        ),
    ],
    cells: Annotated[
        int | None, typer.Option("--cells", metavar="N", help="a random sample of so many cells; else all")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="draws the sample of --cells")] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="DIGEST", help="cells whose digest begins so; may be repeated"),
    ] = None,
    study_files: Annotated[
        list[str] | None,
        typer.Option(
            "--study",
            metavar="FILE",
            help="a study file that defines some; its code runs; may be repeated",
            callback=paths.options("--study"),
        ),
    ] = None,
    engine: Engine = None,
    device: Device = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            help="keep the results of the rerun in this new folder",
            callback=paths.option("--keep"),
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Run stored cells again, from their stored configurations alone, and say whether the results agree.

    \b
    identical             bit for bit: tables, theory, measurements and weights; only times may differ
    equal to rounding     half of the digits of the run's number format agree everywhere
    statistically equal   differences of measured numbers are within what chance explains, in standard errors
    differs               with the number that does, and both values

    Identical is promised on the same engine, processor and versions, on a CPU; there every difference is one. The
    random numbers are the same as before, so elsewhere results should differ by far less than a standard error. Nothing
    is written to RESULTS_DIR, and nothing in it is executed: cells of a study file need --study. With --engine
    simulated cells run on another engine than they did, with --device all on another device. The exit code is 0 if all
    cells that were checked agree, and 1 if one differs or is damaged.

    \b
    Examples:
      kdsim reproduce results --cells 5
      kdsim reproduce results --engine torch
      kdsim reproduce results/my-study/0123456789abcdef0123 --study my_study.py
    """
    from kdsim.study import runner
    from kdsim.study.reproduce import NOT_CHECKED
    from kdsim.study.reproduce import reproduce as rerun
    from kdsim.study.reproduce_plan import choose, select, stored_cells
    from kdsim.study.stored_configs import classes_of

    use_data(data_dir)
    if cells is not None:
        require_count("--cells", cells)
    store, digests = stored_cells(Path(folder))
    chosen = choose(digests, only or (), cells, seed)
    if cells is not None:
        console.note(f"sample of {len(chosen)} of {len(digests)} cells, seed {seed}: {', '.join(chosen)}")
    classes = classes_of(study_files or (), _further_classes())
    selection = select(store, chosen, classes)
    if engine is not None:
        _require_engine(engine, selection.cells.values())
    with tempfile.TemporaryDirectory(prefix="kdsim-reproduce-") as scratch:
        into = Path(scratch) if keep is None else _new_folder(Path(keep), store.root)
        try:
            with console.compilation_note(), console.progress_report() as progress:
                found = rerun(
                    selection, classes, into, engine=engine, device=device, progress=progress, note=console.note
                )
        except runner.Interrupted as interruption:
            raise Stopped(f"{interruption}; nothing was compared: --cells and --only make it shorter") from None
    if found.checked == 0:
        reasons = Counter(verdict.why for verdict in found.verdicts).most_common(1)
        if found.agrees:
            raise ConfigError(f"none of {len(found.verdicts)} cells could be checked: {reasons[0][0]}")
    if as_json:
        console.print_json(_content(found, folder, keep, (cells, seed)))
    else:
        console.print_table(_table(found))
        for why, count in Counter(v.why for v in found.verdicts if v.verdict == NOT_CHECKED).items():
            console.say(f"not checked, {counted(count, 'cell')}: {one_line(why)}")
        console.say(_summary(found))
        if keep is not None:
            console.say(f"rerun    {paths.shown(keep)}")
    return ExitCode.DONE if found.agrees else ExitCode.FAILED


def _further_classes() -> tuple[type, ...]:
    """Computations and teachers that belong to single studies of kdsim's."""
    from kdsim.claims.exact import GradientNoise, Propositions
    from kdsim.teachers.other_start import OtherStart

    return GradientNoise, Propositions, OtherStart


def _require_engine(engine: str, cells: Any) -> None:
    from kdsim.config import choose
    from kdsim.engines import AUTO, ENGINES
    from kdsim.study.base import Cell

    choose("engine", engine, {AUTO: None, **ENGINES})
    if not any(isinstance(cell, Cell) for cell in cells):
        raise ConfigError(f"--engine {engine!r}: none of the cells is a simulation; trainings have no engine")


def _new_folder(keep: Path, stored: Path) -> Path:
    """A folder that holds nothing yet, where what lay there would be compared in place of a rerun; and that lies
    outside of the results, into which nothing is written."""
    try:
        place, results = keep.resolve(), stored.resolve()
        if place == results or results in place.parents:
            raise ConfigError(f"--keep {str(keep)!r} is not allowed: must lie outside of the results, {str(stored)!r}")
        if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
            raise ConfigError(f"--keep {str(keep)!r} is not allowed: must be a new or empty folder")
    except OSError as error:
        raise ConfigError(f"--keep {str(keep)!r} cannot be used: {error.strerror}") from None
    return keep


def _table(found: Reproduction) -> Table:
    from kdsim.study.agreement import LEVEL
    from kdsim.study.reproduce import NOT_CHECKED
    from kdsim.study.table_text import Table

    rows = [
        [
            verdict.cell[:10],
            verdict.what,
            verdict.verdict,
            "" if verdict.relative is None else f"{verdict.relative:.1e}" if verdict.relative else "0",
            "" if verdict.z is None else f"{verdict.z:.2g}",
            "" if verdict.verdict == NOT_CHECKED else one_line(verdict.why),
        ]
        for verdict in found.verdicts
    ]
    headers = ["cell", "what", "verdict", "difference", "|z|", "why"]
    notes = ["difference: the largest of all measured numbers, relative to the number or the standard error if larger"]
    if any(verdict.z is not None for verdict in found.verdicts):
        limits = [verdict.z_limit for verdict in found.verdicts if verdict.z_limit is not None]
        ends = f"{min(limits):.2f}" if max(limits) - min(limits) < 0.005 else f"{min(limits):.2f} to {max(limits):.2f}"
        share = f"{100 * LEVEL:g} % over all {found.comparisons:,} comparisons together (Bonferroni)"
        notes.append(f"|z|: in combined standard errors; the limit is {ends} (t or normal, by replicas), {share}.")
        notes.append(
            "The rerun drew the same random numbers, so that on another engine, device or machine differences should "
            "be far below a standard error: one that is not is a reason to look, even within the limit."
        )
    shown = sorted(found.differences.items(), key=lambda item: -item[1])
    notes += [f"another now, {counted(count, 'cell')}: {line}" for line, count in shown[:LISTED]]
    if len(shown) > LISTED:
        notes.append(f"... and {len(shown) - LISTED} more: --json has all")
    return Table(headers, rows, numeric={"difference", "|z|"}, notes=notes)


def _summary(found: Reproduction) -> str:
    from kdsim.study.reproduce import VERDICTS

    counts = Counter(verdict.verdict for verdict in found.verdicts)
    verdicts = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name])
    return f"{counted(len(found.verdicts), 'cell')}: {verdicts}"


def _content(found: Reproduction, folder: str, keep: str | None, sample: tuple[int | None, int]) -> dict[str, Any]:
    from kdsim.study.agreement import LEVEL

    counts = Counter(verdict.verdict for verdict in found.verdicts)
    return {
        "results": folder,
        "agrees": found.agrees,
        "counts": dict(counts),
        "sample": None if sample[0] is None else {"cells": sample[0], "seed": sample[1]},
        "level": LEVEL,
        "comparisons": found.comparisons,
        "cells": [vars(verdict) for verdict in found.verdicts],
        "differences": [{"what": line, "cells": count} for line, count in found.differences.items()],
        "rerun": keep,
    }


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    app.command("reproduce", short_help="Run stored cells again and compare.", rich_help_panel=panel)(reproduce)
