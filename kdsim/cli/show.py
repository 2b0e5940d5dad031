"""The commands `kdsim show-study` and `kdsim predict`: a study without a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kdsim.api.progress import duration
from kdsim.cli import console, paths
from kdsim.cli.options import Csv, DataDir, Device, Engine, Json, Out, Quick, Replicas, Seed, Set, Target, one_format
from kdsim.cli.run import load_study, settings_of, use_data
from kdsim.config import ConfigError, encode, require_count
from kdsim.plain_text import counted

if TYPE_CHECKING:  # torch takes a second to import: commands import what they need
    from kdsim.study import cost_table as costs
    from kdsim.study.base import Study
    from kdsim.study.table_text import Table

WORKERS = (1, 2, 4, 8, 16, 32, 64)
"""Of which the duration is told where --workers does not say how many."""

UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))

Cost = Annotated[
    bool, typer.Option("--cost", help="core or GPU hours of each pack and training, from rates measured here")
]
CostWorkers = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="with --cost: duration on so many workers")
]


def show_study(
    target: Target,
    settings: Set = None,
    quick: Quick = False,
    replicas: Replicas = None,
    seed: Seed = None,
    device: Device = None,
    engine: Engine = None,
    data_dir: DataDir = None,
    with_cost: Cost = False,
    workers: CostWorkers = None,
    out: Out = "results",
) -> None:
    """Settings with their meaning, cells with theory's numbers, and what a run would cost.

    With --cost instead a table of core or GPU hours by pack and training, and what of them is stored in --out.
    """
    use_data(data_dir)
    if workers is not None and not with_cost:
        raise ConfigError(f"--workers {workers} is not allowed without --cost")
    given = settings_of(settings, replicas=replicas, seed=seed, device=device, engine=engine)
    study = load_study(target, given, quick)
    if with_cost:
        return _print_cost(study, out, workers)
    from kdsim.study import computations, packs, report, trainings
    from kdsim.study.settings import settings as settings_in
    from kdsim.study.settings import summary_line
    from kdsim.study.table_text import Table

    training = trainings.is_training(study)
    rows = trainings.planned_rows(study) if training else packs.predicted_rows(study)
    cost = trainings.estimate(study) if training else packs.estimate(study)
    console.say(f"{study.name}: {getattr(study, 'summary', None) or summary_line(type(study).__doc__)}\n")
    texts = [[setting.key, setting.value, setting.doc] for setting in settings_in(study)]
    console.print_table(Table(["key of --set", "value", "meaning"], texts))
    planned = computations.planned_rows(study) if training else []
    if rows:
        console.print_table(report.planned_table(rows) if training else report.cells_table(rows))
    for table in report.computation_tables(planned):
        console.print_table(table)
    calls = counted(cost.packs, "training" if training else "engine call")
    aside = f", not counting {counted(len(planned), 'computation')}" if planned else ""
    seconds = duration(cost.seconds)
    steps = counted(cost.replica_steps, "replica-step")
    console.say(f"\n{counted(cost.cells, 'cell')} in {calls}, {steps}, about {seconds} here{aside}")


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
    one_format(json=as_json, csv=as_csv)
    study = load_study(target, settings_of(settings, replicas=replicas, seed=seed), quick)
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


# What --cost prints ------------------------------------------------------------------------------


def _print_cost(study: Study, out: str, workers: int | None) -> None:
    """Measure what a study costs, and print a table of it."""
    from kdsim.results.store import Store
    from kdsim.study.cost_table import study_cost

    if workers is not None:
        require_count("--workers", workers)
    with console.compilation_note():
        cost = study_cost(study, Store(out))
    console.print_table(_table(cost))
    for line in (*_totals(cost, out), *_durations(cost, workers)):
        console.say(line)


def _table(cost: costs.StudyCost) -> Table:
    from kdsim.study.cost_table import PROBES
    from kdsim.study.table_text import Table

    total = {on_gpu: sum(each.hours for each in cost.costs if each.on_gpu == on_gpu) for on_gpu in (False, True)}
    headers = ["pack or training", "cells", "replicas", "steps", "replica-steps/s", "hours", "share", "left", "disk"]
    rows = [
        [
            each.what,
            str(each.cells),
            f"{each.replicas:,}",
            f"{each.steps:,}" if each.rates else "",
            _rate(each),
            f"{_hours(each.hours)} +- {_hours(each.spread)} {'GPU' if each.on_gpu else 'core'}"
            if each.seconds
            else "not known",
            f"{100 * each.hours / total[each.on_gpu]:.0f} %" if total[each.on_gpu] else "",
            f"{100 * each.left:.0f} %",
            "" if each.bytes is None else _bytes(each.bytes),
        ]
        for each in cost.costs
    ]
    return Table(headers, rows, numeric={*headers[1:]}, notes=_notes(cost, PROBES))


def _notes(cost: costs.StudyCost, probes: int) -> list[str]:
    from kdsim.study.provenance import hardware

    machine = hardware()
    gpus = f", {', '.join(machine['gpus'])}" if machine["gpus"] else ""
    threads = max((each.threads for each in cost.costs), default=1)
    notes = [
        f"Measured now on {machine['cpu']}, {machine['cores']} cores ({threads} used){gpus}: {probes} probes of each "
        "rate, +- half of their range.",
        "Core hours are seconds times the cores in use. Theory and measurement were timed on two cells of a pack after "
        "a few steps, the first once; fits on a few images, once. On disk: tables, and weights of image networks.",
        "left: what is not stored yet; what interrupted work has done is not taken off it.",
    ]
    if cost.load > 0.75:
        notes.append(f"The load of this machine is {cost.load:.1f} a core: others use it, which makes rates lower.")
    if cost.not_counted:
        notes.append(f"Not counted: {counted(cost.not_counted, 'computation')}.")
    return notes + [f"Not measured: {each.problem}" for each in cost.costs if each.problem]


def _totals(cost: costs.StudyCost, out: str) -> list[str]:
    lines = []
    for on_gpu, name in ((False, "core"), (True, "GPU")):
        if any(each.on_gpu == on_gpu for each in cost.costs):
            whole, left = (
                "{} +- {}".format(*map(_hours, cost.hours(on_gpu, left=only_left))) for only_left in (False, True)
            )
            done = f"{cost.stored} of {counted(cost.cells, 'cell')} stored in {paths.shown(out)!r}"
            stored = f", left {left} ({done})" if cost.stored else ""
            lines.append(f"{name} hours  {whole}{stored}")
    known = [each.bytes for each in cost.costs if each.bytes is not None]
    return lines + ([f"on disk     about {_bytes(sum(known))}"] if known else [])


def _durations(cost: costs.StudyCost, workers: int | None) -> list[str]:
    unit = "GPU" if any(each.on_gpu for each in cost.costs) else "core"
    texts, last, most = [], None, 0
    for count in WORKERS if workers is None else (workers,):
        seconds = cost.wall(count)
        if last is not None and seconds >= 0.95 * last:
            break  # more workers find nothing to do
        texts.append(f"{duration(seconds)} on {count}")
        last, most = seconds, count
    left = " of what is left" if cost.stored else ""
    return [f"duration    {', '.join(texts)} {'worker' if most == 1 else 'workers'} of one {unit}{left}"]


def _rate(cost: costs.Cost) -> str:
    if not cost.rates:
        return ""
    half = (max(cost.rates) - min(cost.rates)) / 2
    return f"{sum(cost.rates) / len(cost.rates):,.3g} +- {half:,.2g}".replace("e+0", "e")


def _hours(hours: float) -> str:
    return f"{hours:.2g}" if hours < 100 else f"{hours:,.0f}"


def _bytes(count: float) -> str:
    size, unit = next((count / size, unit) for size, unit in UNITS if count >= size or size == 1)
    return f"{size:,.0f} {unit}" if size >= 100 else f"{size:.2g} {unit}"


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands."""
    app.command("show-study", short_help="Settings with their meaning, cells, cost.", rich_help_panel=panel)(show_study)
    app.command("predict", short_help="Theory without simulation: bounds, floors.", rich_help_panel=panel)(predict)
