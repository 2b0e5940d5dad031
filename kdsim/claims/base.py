"""Contract of a claim: what a paper says, which studies test it, by which number, and how it is decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kdsim.claims.verdicts import Part
from kdsim.results.store import StudyResults
from kdsim.study.base import Study

PAPERS = {
    "M": 'Morad, Shlezinger, Eldar, "SGD-Based Knowledge Distillation with Bayesian Teachers: Theory and Guidelines", '
    "ICLR 2026, arXiv 2601.01484",
    "N": 'Nagarajan et al., "On student-teacher deviations in distillation: does it pay to disobey?", NeurIPS 2023, '
    "arXiv 2301.12923",
    "K": 'Kim, "Biased Teacher, Balanced Student", arXiv 2506.18496',
}
NO_SECTION = "section not at hand"
"""Where the number of a section or table is not known: none is invented."""


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger. Everything in it is fixed before anything is run.

    Attributes:
        name: for `--only`.
        source: the paper's letter in brackets, and where in it.
        statement: what is claimed.
        statistic: the number that tests it, in words.
        rule: when it counts as holding, in words.
        studies: quick or not -> the studies to run, with their settings.
        parts: stored results of those studies, in that order -> the claim's parts, tested alike under `verdict`. The
            first is the headline, whose effect stands in the table.
        data: real data that it needs, or None.
    """

    name: str
    source: str
    statement: str
    statistic: str
    rule: str
    studies: Callable[[bool], tuple[Study, ...]]
    parts: Callable[[Sequence[StudyResults]], Sequence[Part]]
    data: str | None = None


@dataclass(frozen=True)
class NotCovered:
    """What a paper reports and no study of kdsim tests."""

    source: str
    what: str
    why: str
