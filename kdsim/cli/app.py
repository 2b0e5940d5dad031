"""The commands. They print; nothing below them does (tables and progress: console.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from kdsim import __version__
from kdsim.cli import check, claims, console, gallery, paths, reproduce, train
from kdsim.cli.cost import CostOption, WorkersOption, print_cost, require_cost
from kdsim.cli.data import data
from kdsim.cli.run import (
    FORMATS,
    BlockReplicas,
    DataDir,
    Device,
    ExecutorName,
    How,
    Json,
    Out,
    Quick,
    Repair,
    Replicas,
    Rerun,
    Scheduler,
    Seed,
    Set,
    Workers,
    comparisons,
    draw,
    load_study,
    print_results,
    run,
    settings_of,
    tables_of,
    use_data,
)
from kdsim.config import SOURCE, ConfigError, by_name, choose, encode, override

if TYPE_CHECKING:  # torch takes a second to import: commands import what they need
    from kdsim.results.store import StudyResults
    from kdsim.study.base import Study

HELP = """Simulate SGD that learns from Bayes class probabilities (BCP) and hold it against its theory.

A study trains many replicas of a student on exact, noisy or one-hot class probabilities, measures error floors
with confidence intervals, and sets the bounds and predictions of the theory beside them.

\b
Examples:
  kdsim run-study noise-sweep --quick          a first look, in seconds
  kdsim run-study noise-sweep --set problem=softmax-linear --replicas 256
  kdsim show-study noise-sweep                 the keys of --set, the cells, the cost
  kdsim results noise-sweep --json             the stored table, for your own analysis
  kdsim distill resnet20 resnet8 --quick       a network taught by another, in seconds
"""


class Commands(TyperGroup):
    """The commands; an unknown one is refused like every unknown name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        choose("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


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
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

app.add_typer(data, name="data", short_help="Image data sets: check a folder, fetch archives.")

Target = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE",
        help="a study of kdsim or a study file (.py), which is executed",
        show_default=False,
        callback=paths.target,
    ),
]
Stored = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE|FOLDER",
        help="a study, a study file, or the folder of a run",
        show_default=False,
        callback=paths.target,
    ),
]
Engine = Annotated[
    str | None, typer.Option("--engine", metavar="E", help="auto, cpu_fused, gpu_fused, torch or autograd")
]
Csv = Annotated[bool, typer.Option("--csv", help="print CSV")]


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    if version:
        print(f"kdsim {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


# Studies --------------------------------------------------------------------------------------


@app.command("run-study", short_help="Simulate a study, or what is not yet stored of it.")
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
    study = _load(target, settings, quick, replicas=replicas, seed=seed, device=device, engine=engine)
    return run(study, out, as_json, How(executor, scheduler, workers, block_replicas, repair, rerun))


@app.command("list-studies")
def list_studies() -> None:
    """The studies that come with kdsim."""
    from kdsim.studies import STUDIES
    from kdsim.study.report import Table

    rows = [[study.name, study.summary] for study in STUDIES]
    console.print_table(Table(["study", "what it shows"], rows))


@app.command("show-study", short_help="Settings with their meaning, cells, cost.")
def show_study(
    target: Target,
    settings: Set = None,
    quick: Quick = False,
    replicas: Replicas = None,
    seed: Seed = None,
    device: Device = None,
    engine: Engine = None,
    data_dir: DataDir = None,
    cost_table: CostOption = False,
    workers: WorkersOption = None,
    out: Out = "results",
) -> None:
    """Settings with their meaning, cells with theory's numbers, and what a run would cost.

    With --cost instead a table of core or GPU hours by pack and training, and what of them is stored in --out.
    """
    use_data(data_dir)
    study = _load(target, settings, quick, replicas=replicas, seed=seed, device=device, engine=engine)
    if cost_table:
        return print_cost(study, out, workers)
    require_cost(workers)
    from kdsim.study import computations, packs, report, trainings

    training = trainings.is_training(study)
    rows = trainings.planned_rows(study) if training else packs.predicted_rows(study)
    cost = trainings.estimate(study) if training else packs.estimate(study)
    console.say(f"{study.name}: {getattr(study, 'summary', None) or report.summary_line(type(study))}\n")
    texts = [[setting.key, setting.value, setting.doc] for setting in report.settings(study)]
    console.print_table(report.Table(["key of --set", "value", "meaning"], texts))
    planned = computations.planned_rows(study) if training else []
    if rows:
        console.print_table(report.planned_table(rows) if training else report.cells_table(rows))
    for table in report.computation_tables(planned):
        console.print_table(table)
    calls = f"{cost.packs} {'training' if training else 'engine call'}{'s' * (cost.packs != 1)}"
    seconds = console.duration(cost.seconds)
    aside = f", not counting {len(planned)} computation{'s' * (len(planned) > 1)}" if planned else ""
    console.say(
        f"\n{cost.cells} cells in {calls}, {cost.replica_steps:,} replica-steps, about {seconds} here{aside}"
    )


@app.command(short_help="Theory without simulation: bounds, predicted floors.")
def predict(
    target: Target,
    settings: Set = None,
    quick: Quick = False,
    replicas: Replicas = None,
    seed: Seed = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Theory alone: gradient noise, bounds with their conditions, predicted floors."""
    _one_format(as_json, as_csv)
    study = _load(target, settings, quick, replicas=replicas, seed=seed)
    from kdsim.study import packs, report, trainings

    if trainings.is_training(study):
        raise ConfigError(f"study {study.name!r} trains networks, of which theory predicts nothing: see show-study")
    rows = packs.predicted_rows(study)
    if as_json:
        console.print_json({"study": study.name, "settings": encode(study), "rows": rows})
    elif as_csv:
        console.print_csv(rows)
    else:
        console.print_table(report.cells_table(rows))


# Stored results -------------------------------------------------------------------------------


@app.command(short_help="The table of a stored run.")
def results(
    target: Stored,
    settings: Set = None,
    out: Out = "results",
    quick: Quick = False,
    replicas: Replicas = None,
    seed: Seed = None,
    as_json: Json = False,
    as_csv: Csv = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="print Markdown")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="print LaTeX (booktabs)")] = False,
) -> None:
    """The table of a stored run: the most recent one, or the one with the given settings."""
    _one_format(as_json, as_csv, as_markdown, as_latex)
    stored = _read(target, out, quick, settings, replicas=replicas, seed=seed)

    if as_json:
        content = {
            "study": stored.name,
            "settings": stored.settings,
            "results": str(stored.folder),
            "rows": stored.records,
            **comparisons(stored.records, stored),
        }
        console.print_json(content)
    elif as_csv:
        console.print_csv(stored.records)
    elif as_markdown or as_latex:
        from kdsim.study import table_text

        write = table_text.markdown if as_markdown else table_text.latex
        console.say("\n\n".join(map(write, tables_of(stored.records, stored))))
    else:
        print_results(stored.records, stored)


@app.command(short_help="Draw the figure of a stored run again.")
def figure(
    target: Stored,
    formats: Annotated[str, typer.Option("--format", metavar="F,F", help="png, pdf, svg")] = "png,pdf",
    settings: Set = None,
    out: Out = "results",
    quick: Quick = False,
    replicas: Replicas = None,
    seed: Seed = None,
    study_file: Annotated[
        str | None,
        typer.Option(
            "--study",
            metavar="FILE",
            help="the study file with the figure's function; its code runs",
            callback=paths.option("--study"),
        ),
    ] = None,
) -> int:
    """Draw the figure of a stored run again; it is written beside its table.

    A figure that is a function of a study file needs this file, as NAME|FILE|FOLDER or by --study: what a results
    folder names is never run.
    """
    extensions = [choose("--format", item.strip(), {name: name for name in FORMATS}) for item in formats.split(",")]
    stored = _read(target, out, quick, settings, replicas=replicas, seed=seed)
    from kdsim.results.json_files import require_no_link

    source = study_file or (target if target.endswith(".py") else None)
    study = None
    if source is not None:
        from kdsim.study.loading import study_of_file

        study = study_of_file(Path(source))
    if stored.folder != Path(target).absolute():  # else the user named it
        for folder in (stored.folder.parent, stored.folder):
            require_no_link(folder)
    function = console.stored_figure(stored, study)
    files, failed = draw(function, stored, extensions)
    for file in files:
        console.say(file)
    return failed


gallery.register(app)
check.register(app)
reproduce.register(app)


# Trainings of networks --------------------------------------------------------------------------

train.register(app)

# The ledger of claims ---------------------------------------------------------------------------

claims.register(app)


# Problems and supervisions ----------------------------------------------------------------------


@app.command("export-problem", short_help="Write a problem's pool to an .npz file.")
def export_problem(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a problem, see list-problems", show_default=False)],
    out: Annotated[
        str,
        typer.Option("--out", metavar="FILE", help="the .npz file to write", callback=paths.option("--out")),
    ],
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="seed of the pool")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="set a parameter of the problem; may be repeated"),
    ] = None,
) -> None:
    """Write a problem's pool to a file: x, p, theta_star, y (numpy), its name, parameters and seed."""
    from kdsim.problems import PROBLEMS
    from kdsim.study.export import export
    from kdsim.study.loading import parse_settings

    problem = override(choose("problem", name, by_name(PROBLEMS))(), parse_settings(settings or []), {})
    arrays = export(problem, seed, Path(out))
    shapes = ", ".join(f"{key} {'x'.join(map(str, array.shape))}" for key, array in arrays.items() if array.shape)
    console.note(f"{out}: {shapes}")


@app.command("list-problems", short_help="The problems and their parameters.")
def list_problems() -> None:
    """The problems, with their parameters (keys problem.NAME of --set)."""
    from kdsim.problems import PROBLEMS

    _list(PROBLEMS)


@app.command("list-supervisions", short_help="The supervisions and their parameters.")
def list_supervisions() -> None:
    """The supervisions: noise models on the Bayes class probabilities, with their parameters."""
    from kdsim.supervision import SUPERVISIONS

    _list(SUPERVISIONS)


# Helpers --------------------------------------------------------------------------------------


def _list(classes: Sequence[type]) -> None:
    from kdsim.study.report import Table, settings, summary_line

    for cls in classes:
        console.say(f"{cls.name}: {summary_line(cls)}")
        rows = [[item.key, item.value, item.doc] for item in settings(cls())]
        if rows:
            console.print_table(Table(["field", "default", "meaning"], rows))
        else:
            console.say()


def _load(target: str, texts: list[str] | None, quick: bool, **options: str | None) -> Study:
    return load_study(target, settings_of(texts, **options), quick)


def _read(target: str, out: str, quick: bool, texts: list[str] | None, **options: str | None) -> StudyResults:
    """The stored run that was asked for; says on standard error which one it is."""
    from kdsim.results.provenance import changed_files, other_sources
    from kdsim.results.store import Store, read_study
    from kdsim.studies import STUDIES
    from kdsim.study.loading import load, stored_run
    from kdsim.study.report import settings_line

    known = by_name(STUDIES)
    folder = stored_run(target, known, Store(out), settings_of(texts, **options), quick=quick)
    stored = read_study(folder.absolute())
    differing = settings_line(stored.settings, encode(known[stored.name]()) if stored.name in known else None)
    console.note(f"{stored.folder}, {stored.info['date'][:16]} UTC, settings: {differing}")
    for failure in stored.info.get("failures", []):
        console.note(f"not in this table: {failure}")
    if (line := other_sources(stored.records)) is not None:
        console.note(line)
    changed = changed_files(stored.cells.values())
    if target.endswith(".py") and stored.settings.get(SOURCE) != encode(load(target, known))[SOURCE]:
        changed.insert(0, f"the source of {stored.name}")
    if changed:
        console.note(f"{', '.join(changed)} changed since: these results are of before")
    return stored


def _one_format(as_json: bool, as_csv: bool, as_markdown: bool = False, as_latex: bool = False) -> None:
    chosen = {"--json": as_json, "--csv": as_csv, "--markdown": as_markdown, "--latex": as_latex}
    names = [name for name, wanted in chosen.items() if wanted]
    if len(names) > 1:
        raise ConfigError(f"{' and '.join(names)} exclude each other")
