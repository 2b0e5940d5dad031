"""Stored cells run again, and whether the results agree.

A cell is run from its stored configuration alone, in a results folder of its own. Simulated cells run in the packs in
which they ran before, since a path is bit-identical only in the same packing: cell.json says which pack it was and
where in it the cell stood. Where not all cells of a pack are stored any more, the rest runs in another one, and paths
agree to rounding.

The random numbers are the same as before. So on another engine, device or machine results differ by rounding, and by
what SGD makes of it, far less than independent runs would: a difference of a standard error is within the limit that is
set here, and yet a reason to look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsim.files import Damaged
from kdsim.results.rows import TEACHER, TRAINING
from kdsim.results.store import Store
from kdsim.study import agreement
from kdsim.study.agreement import Comparison
from kdsim.study.local import Local
from kdsim.study.packs import Pack
from kdsim.study.reproduce_plan import Selection, plan_of
from kdsim.study.runner import SLICE_SECONDS, deferred_signals
from kdsim.study.session import Progress, Session
from kdsim.study.stored_configs import Classes
from kdsim.study.weights import read_weights

IDENTICAL, ROUNDING, STATISTICAL = "identical", "equal to rounding", "statistically equal"
DIFFERS, NOT_CHECKED = "differs", "not checked"
VERDICTS = (IDENTICAL, ROUNDING, STATISTICAL, DIFFERS, NOT_CHECKED)

ANYWHERE = ("platform", "cores", "memory_gib")
"""Of versions and hardware: what results do not depend on. Kernels and the size of a machine are told all the same."""


@dataclass(frozen=True)
class Verdict:
    """What came of one cell.

    Attributes:
        cell: digest under which it is stored.
        what: the cell in words.
        verdict: one of `VERDICTS`.
        why: what differs, why it was not checked, or how far agreement goes.
        relative: largest relative difference of a measured number; None if not checked.
        z: largest difference of measured numbers that are not equal to rounding, in combined standard errors; None if
            there are none.
        z_limit: the |z| up to which chance explains that number.
        promised: whether results should have been identical: same engine, packing, processor and versions, on a CPU.
        failed: whether it could not be checked although it should have been: it is damaged, or its rerun crashed.
    """

    cell: str
    what: str
    verdict: str
    why: str = ""
    relative: float | None = None
    z: float | None = None
    z_limit: float | None = None
    promised: bool = False
    failed: bool = False


@dataclass(frozen=True)
class Reproduction:
    """What came of all.

    Attributes:
        verdicts: one a cell.
        comparisons: of measured numbers by their standard errors, over all cells: what Bonferroni divides by.
        differences: of versions and hardware between then and now, each with its number of cells.
    """

    verdicts: list[Verdict]
    comparisons: int
    differences: dict[str, int]

    @property
    def checked(self) -> int:
        """Cells of which there is a verdict."""
        return sum(verdict.verdict != NOT_CHECKED for verdict in self.verdicts)

    @property
    def agrees(self) -> bool:
        """Whether no cell differs, and none that should have been checked was not."""
        return not any(verdict.verdict == DIFFERS or verdict.failed for verdict in self.verdicts)


# Running and judging ----------------------------------------------------------------------------


def reproduce(
    selection: Selection,
    classes: Classes,
    into: Path,
    *,
    engine: str | None = None,
    device: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Reproduction:
    """Run cells again and compare.

    Args:
        selection: see `select`.
        classes: what their packs' other cells may name.
        into: an empty folder for the results.
        engine: for simulated cells, instead of the one on which they ran.
        device: for all cells, instead of their own.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived.
        StorageError: `into` cannot be written.
    """
    plan = plan_of(selection, classes, engine, device)
    wanted = set(plan.names.values())
    again = Store(into)
    again.prepare()
    with deferred_signals() as told_to_stop:
        session = Session(again, Local(), plan.todo, set(), told_to_stop, SLICE_SECONDS, progress, note, False)
        for item in session.items:
            if isinstance(item.work, Pack):  # its other cells walk beside those that were asked for, no more
                item.wanted &= wanted
        session.run()
    again.unfinished.remove_if_empty()
    judged: dict[str, tuple[Comparison, bool]] = {}
    differences: dict[str, int] = {}
    verdicts: dict[str, Verdict] = {}
    for digest, new in plan.names.items():
        if not again.has_cell(new):
            failure = session.failed[new]
            verdicts[digest] = _unchecked(selection, digest, failure.line, failed=not failure.user_error)
            continue
        try:
            stored = selection.store.read_cell(digest)
        except Damaged as damage:
            verdicts[digest] = _unchecked(selection, digest, str(damage), failed=True)
            continue
        rerun = again.read_cell(new)
        found = environment(stored.info, rerun.info)
        for line in found:
            differences[line] = differences.get(line, 0) + 1
        comparison = agreement.compare(stored, rerun)
        if stored.info.get("weights") and rerun.info.get("weights"):
            comparison.changes.extend(_weights(selection.store, digest, again, new))
        judged[digest] = comparison, promised(stored.info, rerun.info)
    comparisons = sum(
        sum(figure.stored_se == figure.stored_se for figure in comparison.figures)
        for comparison, _ in judged.values()
        if comparison.changes
    )
    for digest, (comparison, promise) in judged.items():
        verdicts[digest] = _judge(digest, describe(selection.infos[digest]), comparison, promise, max(comparisons, 1))
    for digest, why in selection.refused.items():
        verdicts[digest] = _unchecked(selection, digest, why, failed=digest in selection.damaged)
    order = [*selection.infos, *(digest for digest in selection.refused if digest not in selection.infos)]
    return Reproduction([verdicts[digest] for digest in order], comparisons, differences)


def _unchecked(selection: Selection, digest: str, why: str, failed: bool) -> Verdict:
    info = selection.infos.get(digest)
    return Verdict(digest, describe(info) if info else "", NOT_CHECKED, why, failed=failed)


def _weights(store: Store, digest: str, again: Store, new: str) -> list[agreement.Change]:
    """Weights of trained networks that are not bit for bit the same."""
    found = []
    for own, other in zip(read_weights(store, digest), read_weights(again, new), strict=False):
        for name, tensor in own.weights.items():
            rerun = other.weights.get(name)
            if rerun is None or tensor.shape != rerun.shape or not bool(((tensor == rerun) | (tensor != tensor)).all()):
                found.append(agreement.Change(f"weights of replica {own.replica}", name, "others"))
                break
    return found


def _judge(digest: str, what: str, comparison: Comparison, promise: bool, comparisons: int) -> Verdict:
    relative = comparison.relative
    if not comparison.changes:
        return Verdict(digest, what, IDENTICAL, relative=relative, promised=promise)
    worst = comparison.largest_z
    z, limit = (None, None) if worst is None else (worst.z, worst.limit(comparisons))
    common: dict[str, Any] = {"relative": relative, "z": z, "z_limit": limit, "promised": promise}
    if comparison.broken:
        return Verdict(digest, what, DIFFERS, str(comparison.broken[0]), **common)
    if promise:
        unequal = max(comparison.figures, key=lambda figure: figure.relative, default=None)
        place = unequal if unequal is not None and unequal.relative > 0 else comparison.changes[0]
        why = f"{place}; same engine, packing, processor and versions: it should be identical"
        return Verdict(digest, what, DIFFERS, why, **common)
    beyond = [figure for figure in comparison.unequal if figure.z > figure.limit(comparisons)]
    if beyond:
        return Verdict(digest, what, DIFFERS, str(max(beyond, key=lambda figure: figure.z)), **common)
    if not comparison.unequal:
        return Verdict(digest, what, ROUNDING, **common)
    without = [figure for figure in comparison.unequal if figure.z != figure.z]
    if without:
        why = f"no standard error to judge by, and not equal to rounding: {without[0]}"
        return Verdict(digest, what, NOT_CHECKED, why, **common)
    return Verdict(digest, what, STATISTICAL, f"largest difference {worst}", **common)


def environment(stored: Mapping[str, Any], rerun: Mapping[str, Any]) -> list[str]:
    """What of engine, packing, versions and hardware is not the same, in words."""
    found = []
    for part in ("versions", "hardware"):
        own, other = (info.get(part) if isinstance(info.get(part), Mapping) else {} for info in (stored, rerun))
        for key in dict.fromkeys([*own, *other]):
            one, two = own.get(key, "not known"), other.get(key, "not known")
            if one != two:
                name = "source of kdsim" if key == "source_sha256" else key.replace("_", " ")
                found.append(f"{name}: {_short(one)} then, {_short(two)} now")
    for key, name in (("engine", "engine"), ("device", "device"), ("pack", "packing"), ("provenance", "data")):
        if stored.get(key) != rerun.get(key):
            values = "" if key in ("pack", "provenance") else f": {_short(stored.get(key))} then, {rerun[key]} now"
            found.append(f"{name}{values or ' is another'}")
    return found


def promised(stored: Mapping[str, Any], rerun: Mapping[str, Any]) -> bool:
    """Whether two results should be identical.

    A path of an engine depends on no number of threads, that of a network on those of one replica alone.
    """
    free = set(ANYWHERE)
    if "pack" in stored:
        free |= {"threads", "replica_threads"}
    elif stored.get("kind") in (TRAINING, TEACHER) and "replica_threads" in _mapping(stored, "versions"):
        free.add("threads")
    parts = [
        {key: value for part in ("versions", "hardware") for key, value in _mapping(info, part).items()}
        | {key: info.get(key) for key in ("engine", "device", "pack", "provenance")}
        for info in (stored, rerun)
    ]
    own, other = ({key: value for key, value in part.items() if key not in free} for part in parts)
    return own == other and own["device"] == "cpu" and "source_sha256" in own


def _mapping(info: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = info.get(key)
    return value if isinstance(value, Mapping) else {}


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else f"{text:.80}"


def describe(info: Mapping[str, Any]) -> str:
    """A stored cell in words."""
    summary = info["summary"]
    names = ("problem", "computation", "teacher", "student", "data", "supervision", "loss_name")
    words = [str(summary[key]) for key in names if summary.get(key)]
    numbers = [f"{name} {summary[key]:g}" for key, name in (("level", "level"), ("step_size", "step"))
               if isinstance(summary.get(key), (int, float))]  # fmt: skip
    return ", ".join([*dict.fromkeys(words), *numbers])[:200]
