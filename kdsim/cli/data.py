"""The commands `kdsim data`: what a data folder holds, and how the official archives get there."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from kdsim.api.progress import duration
from kdsim.cli import completion, console
from kdsim.cli.codes import ExitCode
from kdsim.cli.options import DataDir
from kdsim.cli.run import use_data
from kdsim.config import ConfigError
from kdsim.plain_text import one_line

commands = typer.Typer(
    help="Image data sets in a folder of yours. Nothing is downloaded unless you ask for it.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@commands.command("check", short_help="What the data folder holds.")
def check_folder(data_dir: DataDir = None) -> int:
    """Data sets in the folder, in the order of preference of the readers; archives are checked against their digests.

    The exit code is 2 if one of them cannot be used.
    """
    from kdsim.data import check

    data_dir = _folder(data_dir)
    findings = check(data_dir)
    for finding in findings:
        console.say(one_line(str(finding)))
    if not findings:
        console.say(f"no data set that kdsim knows in {data_dir}: kdsim data fetch cifar10 --data-dir {data_dir}")
    faults = [finding for finding in findings if finding.fault]
    if faults:
        console.error(f"{len(faults)} of {len(findings)} data sets in {data_dir} cannot be used")
        return ExitCode.REFUSED
    return ExitCode.DONE


@commands.command("fetch", short_help="Download an official archive.")
def fetch_archive(
    name: Annotated[
        str,
        typer.Argument(
            metavar="cifar10|cifar100",
            help="the data set",
            show_default=False,
            autocompletion=completion.words("cifar10", "cifar100"),
        ),
    ],
    data_dir: DataDir = None,
    kind: Annotated[str, typer.Option("--kind", metavar="K", help="python or binary archive")] = "python",
) -> None:
    """Download an official archive into the data folder and check its digest; goes on where it was interrupted."""
    from kdsim.data import fetch

    console.say(fetch(name, _folder(data_dir), progress=_Progress(name), kind=kind))


def _folder(data_dir: str | None) -> str:
    use_data(data_dir)
    if not os.environ.get("KDSIM_DATA"):
        raise ConfigError("--data-dir (or the environment variable KDSIM_DATA) must name the data folder")
    return os.environ["KDSIM_DATA"]


class _Progress:
    """A line now and then, with the rate."""

    def __init__(self, name: str) -> None:
        self.name, self.started, self.last = name, time.monotonic(), time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done  # what an earlier download had left
        if now - self.last < console.LINE_SECONDS:
            return
        self.last = now
        rate = (done - self.first) / (now - self.started)
        whole = f" of {total / 1e6:,.0f}" if total else ""
        left = f", {duration((total - done) / rate)} left" if total and rate > 0 else ""
        console.note(f"{self.name}: {done / 1e6:,.0f}{whole} MB, {rate / 1e6:.2g} MB/s{left}")


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands."""
    app.add_typer(
        commands, name="data", short_help="Image data sets: check a folder, fetch archives.", rich_help_panel=panel
    )
