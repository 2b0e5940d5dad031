"""The command `kdsim run-study`, and what all that run something share: the run itself, its table and its figure."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from kdsim.api.progress import duration
from kdsim.cli import console, paths
from kdsim.cli.codes import ExitCode
from kdsim.cli.options import (
    BlockReplicas,
    DataDir,
    Device,
    Engine,
    ExecutorName,
    Json,
    Out,
    Quick,
    Repair,
    Replicas,
    Rerun,
    Scheduler,
    Seed,
    Set,
    Target,
    Workers,
)
from kdsim.config import ConfigError, by_name, choose, error_line

if TYPE_CHECKING:  # torch takes a second to import: commands import what they need
    from kdsim.results.store import StudyResults
    from kdsim.study.base import Study
    from kdsim.study.executors import Executor
    from kdsim.study.table_text import Table

FORMATS = ("png", "pdf", "svg")
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}
"""What a system says of a disk that is full, fails or must not be written."""


@dataclass(frozen=True)
class How:
    """How a study is run, which changes nothing that it finds.

    Attributes:
        executor: "local" or "dask".
        scheduler, workers: of dask.
        block_replicas, repair, rerun: see `kdsim.study.runner.run`.
    """

    executor: str = "local"
    scheduler: str | None = None
    workers: int | None = None
    block_replicas: int | None = None
    repair: bool = False
    rerun: bool = False

    @contextmanager
    def started(self) -> Iterator[Executor]:
        """The executor, while it is needed."""
        from kdsim.study import on_dask
        from kdsim.study.local import Local

        choose("--executor", self.executor, {"local": None, "dask": None})
        for option, value in (("--scheduler", self.scheduler), ("--workers", self.workers)):
            if value is not None and self.executor == "local":
                raise ConfigError(
                    f"{option} {value} is not allowed with --executor local: must be with --executor dask"
                )
        if self.scheduler is not None and self.workers is not None:
            raise ConfigError("--scheduler and --workers exclude each other: a scheduler has its own workers")
        if self.executor == "local":
            yield Local()
            return
        import torch

        workers = torch.get_num_threads() if self.workers is None else self.workers

        if self.scheduler is not None:
            connected = on_dask.cluster(self.scheduler, console.note)
        else:
            connected = on_dask.local_cluster(workers, console.note)
        with connected as executor:
            yield executor


def run_study(
    target: Target,
    settings: Set = None,
    out: Out = "results",
    quick: Quick = False,
    replicas: Replicas = None,
    seed: Seed = None,
    device: Device = None,
    engine: Engine = None,
    data_dir: DataDir = None,
    executor: ExecutorName = "local",
    scheduler: Scheduler = None,
    workers: Workers = None,
    block_replicas: BlockReplicas = None,
    repair: Repair = False,
    rerun: Rerun = False,
    as_json: Json = False,
) -> int:
    """Simulate a study, or what is not yet stored of it; then its table and its figure.

    A study file (.py) is Python and is executed: run only files that you trust. Values of --set are parsed by the type
    of their key and never evaluated, and nothing in a data folder or a results folder is executed.
    """
    use_data(data_dir)
    given = settings_of(settings, replicas=replicas, seed=seed, device=device, engine=engine)
    how = How(executor, scheduler, workers, block_replicas, repair, rerun)
    return run(load_study(target, given, quick), out, as_json, how)


class Stopped(Exception):
    """A run was interrupted and saved what it had; the message says how to go on."""


def settings_of(texts: list[str] | None, **options: str | None) -> dict[str, str]:
    """`--set` and the options that are short for one."""
    from kdsim.study.settings import parse_settings

    return parse_settings([*(texts or []), *(f"{key}={text}" for key, text in options.items() if text is not None)])


def load_study(target: str, settings: dict[str, str], quick: bool) -> Study:
    """The study of that name or file with these settings."""
    from kdsim.cli.lists import KINDS

    if not target.endswith(".py"):  # a wrong name is told before torch is imported
        choose("study", target, {entry.name: entry for entry in KINDS["studies"].entries()})
    from kdsim.studies import STUDIES
    from kdsim.study.loading import load

    return load(target, by_name(STUDIES), settings, quick=quick)


def use_data(data_dir: str | None) -> None:
    """Real images are read from this folder, or from the one that KDSIM_DATA names."""
    if data_dir is None and os.environ.get("KDSIM_DATA"):
        data_dir = paths.absolute("KDSIM_DATA", os.environ["KDSIM_DATA"])
    if data_dir is not None:
        os.environ["KDSIM_DATA"] = data_dir


def run(study: Study, out: str, as_json: bool, how: How | None = None) -> int:
    """Run a study, print its table or JSON, draw its figure. Returns the exit code."""
    how = how or How()
    draw_with = console.figure_of(type(study))

    from kdsim.results.store import read_study
    from kdsim.study import runner

    try:
        with console.compilation_note(), how.started() as executor, console.progress_report() as progress:
            result = runner.run(
                study,
                out,
                executor=executor,
                progress=progress,
                note=console.note,
                block_replicas=how.block_replicas,
                repair=how.repair,
                rerun=how.rerun,
            )
    except runner.Interrupted as interruption:
        raise Stopped(str(interruption)) from None
    code = ExitCode.DONE
    for failure in result.failures:
        console.error(failure)
        code = ExitCode.REFUSED if result.user_error else ExitCode.FAILED
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
        console.print_json(content | ({"failures": result.failures} if result.failures else {}))
        return code
    spent = f"{result.replica_steps:,} replica-steps in {duration(result.engine_seconds)}"
    console.say(f"\n{spent}" if result.replica_steps else "\nnothing to simulate: all cells were stored")
    console.say(f"results  {paths.shown(result.folder)}")
    for file in figures:
        console.say(f"figure   {paths.shown(file)}")
    return code


def tables_of(rows: Sequence[dict[str, Any]], stored: StudyResults) -> list[Table]:
    """The tables of a study."""
    from kdsim.study import report

    if rows[0].get("kind") is None:
        return [report.explained(report.results_table(rows))]
    from kdsim.study import group_report, teacher_report

    long_tailed = len(group_report.grouped(rows)) == len(rows)  # what the table of trainings has is then in the others
    found = [] if long_tailed else teacher_report.tables(rows, stored.replicas)
    return [report.explained(table) for table in found + group_report.tables(rows)]


def print_results(rows: Sequence[dict[str, Any]], stored: StudyResults) -> None:
    """Print the tables of a study."""
    for table in tables_of(rows, stored):
        console.print_table(table)


def comparisons(rows: Sequence[dict[str, Any]], stored: StudyResults) -> dict[str, Any]:
    """What a study with teachers compares, for JSON; nothing for others."""
    if rows[0].get("kind") is None:
        return {}
    from kdsim.study import teacher_report

    if not teacher_report.teachers_of(rows):
        return {}
    return {
        "comparisons": teacher_report.comparisons(rows, stored.replicas),
        "correlations": teacher_report.correlations(rows, stored.replicas),
    }


def _first_fault(failure: BaseException) -> BaseException:
    """That of a disk, where another error came up while it was handled, as matplotlib's is; else the error."""
    found: BaseException | None = failure
    while found is not None and not (isinstance(found, OSError) and found.errno in DISK_FAULTS):
        found = found.__context__
    return failure if found is None else found


def draw(function: Any, stored: StudyResults, formats: Sequence[str]) -> tuple[list[str], ExitCode]:
    """Files of the figure, or none, and an exit code, after a line that says why. The results are stored either way."""
    try:
        return console.write_figures(function, stored, formats), ExitCode.DONE
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # a study file's own function can raise anything
        console.note(
            f"warning: no figure, {error_line(_first_fault(failure))}; the results are in {paths.shown(stored.folder)}"
        )
        return [], ExitCode.FAILED


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    short = "Simulate a study, or what is not yet stored of it."
    app.command("run-study", short_help=short, rich_help_panel=panel)(run_study)
