"""Arguments and options that several commands have: each is declared here once, with its one help text."""

from __future__ import annotations

from typing import Annotated

import typer

from kdsim.cli import completion, paths
from kdsim.config import ConfigError

# What is run, and with which settings -----------------------------------------------------------

Target = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE",
        help="a study of kdsim or a study file (.py), which is executed",
        show_default=False,
        callback=paths.target,
        autocompletion=completion.names("studies"),
    ),
]
Stored = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE|FOLDER",
        help="a study, a study file, or the folder of a run",
        show_default=False,
        callback=paths.target,
        autocompletion=completion.names("studies"),
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="set a key, which show-study lists (of problems: list problems); may be repeated",
        autocompletion=completion.keys,
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="a small version, for a first look")]
Replicas = Annotated[str | None, typer.Option("--replicas", metavar="N", help="independent runs of each cell")]
Seed = Annotated[str | None, typer.Option("--seed", metavar="N", help="seed of the pool and of all randomness")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="D", help="cpu, cuda, cuda:1", autocompletion=completion.words("cpu", "cuda", "cuda:1")
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="E",
        help="auto, cpu_fused, gpu_fused, torch or autograd",
        autocompletion=completion.words("auto", "cpu_fused", "gpu_fused", "torch", "autograd"),
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="folder of real images; else KDSIM_DATA",
        callback=paths.option("--data-dir"),
    ),
]

# How it is run ----------------------------------------------------------------------------------

ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="E",
        help="local (this process) or dask (workers, here or on a cluster)",
        autocompletion=completion.words("local", "dask"),
    ),
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

# Results ----------------------------------------------------------------------------------------

Out = Annotated[str, typer.Option("--out", metavar="DIR", help="results folder", callback=paths.option("--out"))]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else on standard output")]
Csv = Annotated[bool, typer.Option("--csv", help="print CSV")]


def one_format(**wanted: bool) -> None:
    """Refuse more than one of the options that say in which form a table is printed."""
    names = [f"--{name}" for name, is_wanted in wanted.items() if is_wanted]
    if len(names) > 1:
        raise ConfigError(f"{' and '.join(names)} exclude each other")
