"""What `kdsim show-study --cost` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kdsim.cli import console
from kdsim.config import ConfigError, require_count

if TYPE_CHECKING:  # torch takes a second to import: commands import what they need
    from kdsim.study.base import Study
    from kdsim.study.cost_table import Cost, StudyCost
    from kdsim.study.report import Table

WORKERS = (1, 2, 4, 8, 16, 32, 64)
"""Of which the duration is told where --workers does not say how many."""

UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))

CostOption = Annotated[
    bool, typer.Option("--cost", help="core or GPU hours of each pack and training, from rates measured here")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="with --cost: duration on so many workers")
]


def require_cost(workers: int | None) -> None:
    """Refuse --workers without --cost."""
    if workers is not None:
        raise ConfigError(f"--workers {workers} is not allowed without --cost")


def print_cost(study: Study, out: str, workers: int | None) -> None:
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


def _table(cost: StudyCost) -> Table:
    from kdsim.study.cost_table import PROBES
    from kdsim.study.report import Table

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


def _notes(cost: StudyCost, probes: int) -> list[str]:
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
        notes.append(f"Not counted: {cost.not_counted} computation{'s' * (cost.not_counted > 1)}.")
    return notes + [f"Not measured: {each.problem}" for each in cost.costs if each.problem]


def _totals(cost: StudyCost, out: str) -> list[str]:
    lines = []
    for on_gpu, name in ((False, "core"), (True, "GPU")):
        if any(each.on_gpu == on_gpu for each in cost.costs):
            whole, left = (
                "{} +- {}".format(*map(_hours, cost.hours(on_gpu, left=only_left))) for only_left in (False, True)
            )
            stored = f", left {left} ({cost.stored} of {cost.cells} cells are stored in {out!r})" if cost.stored else ""
            lines.append(f"{name} hours  {whole}{stored}")
    known = [each.bytes for each in cost.costs if each.bytes is not None]
    return lines + ([f"on disk     about {_bytes(sum(known))}"] if known else [])


def _durations(cost: StudyCost, workers: int | None) -> list[str]:
    unit = "GPU" if any(each.on_gpu for each in cost.costs) else "core"
    texts, last, most = [], None, 0
    for count in WORKERS if workers is None else (workers,):
        seconds = cost.wall(count)
        if last is not None and seconds >= 0.95 * last:
            break  # more workers find nothing to do
        texts.append(f"{console.duration(seconds)} on {count}")
        last, most = seconds, count
    left = " of what is left" if cost.stored else ""
    return [f"duration    {', '.join(texts)} {'worker' if most == 1 else 'workers'} of one {unit}{left}"]


def _rate(cost: Cost) -> str:
    if not cost.rates:
        return ""
    half = (max(cost.rates) - min(cost.rates)) / 2
    return f"{sum(cost.rates) / len(cost.rates):,.3g} +- {half:,.2g}".replace("e+0", "e")


def _hours(hours: float) -> str:
    return f"{hours:.2g}" if hours < 100 else f"{hours:,.0f}"


def _bytes(count: float) -> str:
    size, unit = next((count / size, unit) for size, unit in UNITS if count >= size or size == 1)
    return f"{size:,.0f} {unit}" if size >= 100 else f"{size:.2g} {unit}"
