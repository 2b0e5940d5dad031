"""The ledger: runs the studies of the claims, judges from what is stored, and says what it cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdsim import config
from kdsim.claims.base import Claim
from kdsim.claims.verdicts import UNTESTED, Decided, Part, decide, verdict
from kdsim.results.store import Store, StudyResults, read_study
from kdsim.study.base import Cell, Study
from kdsim.study.packs import cells_of
from kdsim.study.runner import RunResult
from kdsim.study.trainings import jobs


@dataclass(frozen=True)
class Ran:
    """A study as it was run for the ledger, or found stored.

    Attributes:
        results: what is stored of it; None where a cell of it could not be run.
        failures: one line for each pack or training that could not be run.
        bad_input: whether all failures come from input, for example missing files.
        seconds: what its cells took when they ran, now or earlier: the trainings of teachers included, counted once.
        versions, seeds: of its cells, each once.
    """

    study: Study
    digest: str
    results: StudyResults | None
    failures: tuple[str, ...] = ()
    bad_input: bool = False
    seconds: float = 0.0
    versions: tuple[dict[str, Any], ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A claim and what the ledger says of it.

    Attributes:
        verdict: one of the four of `kdsim.claims.verdicts`.
        reason: why, in words; of an untested claim what is missing.
        parts: what was tested; the first is the headline.
        ran: the studies behind it.
    """

    claim: Claim
    verdict: str
    reason: str
    parts: tuple[Decided, ...] = ()
    ran: tuple[Ran, ...] = field(default=(), repr=False)

    @property
    def seconds(self) -> float:
        """Of its studies; claims that share a study each count it."""
        return sum(each.seconds for each in self.ran)

    @property
    def replicas(self) -> int | None:
        """Of the headline."""
        return self.parts[0].part.replicas if self.parts else None

    @property
    def failed(self) -> bool:
        """Whether something went wrong that is not missing data."""
        return any(each.failures and not (each.bad_input and self.claim.data) for each in self.ran)


def studies_of(claims: Sequence[Claim], quick: bool) -> Iterator[Study]:
    """The studies of the claims, each once, in order."""
    seen = set()
    for claim in claims:
        for study in claim.studies(quick):
            digest = config.digest(study)
            if digest not in seen:
                seen.add(digest)
                yield study


def collect(claims: Sequence[Claim], quick: bool, out: str, run: Callable[[Study], RunResult]) -> dict[str, Ran]:
    """Run the studies of the claims, or what is not stored of them: settings digest to what came out.

    Args:
        run: runs a study into `out`, as `kdsim.study.runner.run` does.
    """
    store = Store(out)
    found = {}
    for study in studies_of(claims, quick):
        result, digest = run(study), config.digest(study)
        if result.failures:
            found[digest] = Ran(study, digest, None, tuple(result.failures), result.user_error)
            continue
        cells = _cells(study)
        infos = [store.read_cell(cell).info for cell in cells if store.has_cell(cell)]
        versions = {json.dumps(info["versions"], sort_keys=True): info["versions"] for info in infos}
        found[digest] = Ran(
            study,
            digest,
            read_study(result.folder),
            seconds=sum(info["wall_seconds"] for info in infos),
            versions=tuple(versions.values()),
            seeds=tuple(sorted({info["seed"] for info in infos if info["seed"] is not None})),
        )
    return found


def _cells(study: Study) -> list[str]:
    """Digests of the study's cells, and of the trainings of its teachers, each once."""
    cells = cells_of(study)
    if isinstance(cells[0], Cell):
        return list(dict.fromkeys(map(config.digest, cells)))
    return [job.digest for job in jobs(cells, None)]


def judge(claims: Sequence[Claim], quick: bool, ran: dict[str, Ran]) -> list[Finding]:
    """What is decided of each claim; Holm's correction is over the parts of all claims given."""
    tested: list[tuple[Claim, tuple[Ran, ...], slice]] = []
    parts: list[Part] = []
    findings: dict[str, Finding] = {}
    for claim in claims:
        own = tuple(ran[config.digest(study)] for study in claim.studies(quick))
        failures = [line for each in own for line in each.failures]
        if failures:
            missing = f"no {claim.data} files: " if claim.data and all(e.bad_input for e in own if e.failures) else ""
            findings[claim.name] = Finding(claim, UNTESTED, f"{missing}{failures[0]}", ran=own)
            continue
        found = list(claim.parts([each.results for each in own if each.results is not None]))
        tested.append((claim, own, slice(len(parts), len(parts) + len(found))))
        parts += found
    decided = decide(parts)
    for claim, own, where in tested:
        findings[claim.name] = Finding(claim, *verdict(decided[where]), tuple(decided[where]), own)
    return [findings[claim.name] for claim in claims]
