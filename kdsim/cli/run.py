"""What the commands that run something share: their options, the run itself, its table and its figure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsim.cli import console, paths
from kdsim.cli.codes import ExitCode
from kdsim.config import ConfigError, by_name, choose, error_line

if TYPE_CHECKING:  # torch takes a second to import: commands import what they need
    from kdsim.results.store import StudyResults
    from kdsim.study.base import Study
    from kdsim.study.executors import Executor
    from kdsim.study.report import Table

FORMATS = ("png", "pdf", "svg")

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="set a key of the study; may be repeated")
]
Out = Annotated[str, typer.Option("--out", metavar="DIR", help="results folder", callback=paths.option("--out"))]
Quick = Annotated[bool, typer.Option("--quick", help="a small version that ends within seconds")]
Replicas = Annotated[str | None, typer.Option("--replicas", metavar="N", help="independent runs of each cell")]
Seed = Annotated[str | None, typer.Option("--seed", metavar="N", help="seed of the pool and of all randomness")]
Device = Annotated[str | None, typer.Option("--device", metavar="D", help="cpu, cuda, cuda:1")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else on standard output")]
DataDir = Annotated[
    str | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="folder of real images; else KDSIM_DATA",
        callback=paths.option("--data-dir"),
    ),
]


ExecutorName = Annotated[
    str, typer.Option("--executor", metavar="E", help="local (this process) or dask (workers, here or on a cluster)")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="of a dask scheduler, tcp://HOST:8786 or its file; else local",
        callback=paths.scheduler,
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="processes of a local dask cluster; else one a core")
]
BlockReplicas = Annotated[
    int | None,
    typer.Option("--block-replicas", metavar="N", help="replicas simulated at a time, 65536, with dask 1024"),
]
Repair = Annotated[
    bool, typer.Option("--repair", help="move damaged files to DIR/damaged and run again what they held")
]
Rerun = Annotated[
    bool, typer.Option("--rerun", help="run again what another source of kdsim computed; old results move aside")
]


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


class Stopped(Exception):
    """A run was interrupted and saved what it had; the message says how to go on."""


def settings_of(texts: list[str] | None, **options: str | None) -> dict[str, str]:
    """`--set` and the options that are short for one."""
    from kdsim.study.loading import parse_settings

    return parse_settings([*(texts or []), *(f"{key}={text}" for key, text in options.items() if text is not None)])


def load_study(target: str, settings: dict[str, str], quick: bool) -> Study:
    """The study of that name or file with these settings."""
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
    draw_with = console.figure_function(getattr(type(study), "figure", None))

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
    spent = f"{result.replica_steps:,} replica-steps in {console.duration(result.engine_seconds)}"
    console.say(f"\n{spent}" if result.replica_steps else "\nnothing to simulate: all cells were stored")
    console.say(f"results  {result.folder}")
    for file in figures:
        console.say(f"figure   {file}")
    return code


def tables_of(rows: Sequence[dict[str, Any]], stored: StudyResults) -> list[Table]:
    """The tables of a study."""
    from kdsim.study import group_report, report, teacher_report

    if rows[0].get("kind") is None:
        return [report.explained(report.results_table(rows))]
    long_tailed = len(group_report.grouped(rows)) == len(rows)  # what the table of trainings has is then in the others
    found = [] if long_tailed else teacher_report.tables(rows, stored.replicas)
    return [report.explained(table) for table in found + group_report.tables(rows)]


def print_results(rows: Sequence[dict[str, Any]], stored: StudyResults) -> None:
    """Print the tables of a study."""
    for table in tables_of(rows, stored):
        console.print_table(table)


def comparisons(rows: Sequence[dict[str, Any]], stored: StudyResults) -> dict[str, Any]:
    """What a study with teachers compares, for JSON; nothing for others."""
    from kdsim.study import teacher_report

    if rows[0].get("kind") is None or not teacher_report.teachers_of(rows):
        return {}
    return {
        "comparisons": teacher_report.comparisons(rows, stored.replicas),
        "correlations": teacher_report.correlations(rows, stored.replicas),
    }


def draw(function: Any, stored: StudyResults, formats: Sequence[str]) -> tuple[list[str], int]:
    """Files of the figure, or none, and an exit code, after a line that says why. The results are stored either way."""
    try:
        return console.write_figures(function, stored, formats), ExitCode.DONE
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # a study file's own function can raise anything
        console.note(f"warning: no figure, {error_line(failure)}; the results are in {stored.folder}")
        return [], ExitCode.FAILED
