"""The ledger as one HTML file, from a template: no script, no link, no font or picture from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kdsim.claims.base import PAPERS, NotCovered
from kdsim.claims.ledger import Finding
from kdsim.claims.report import method, parts_table, study_lines, summary_table, verdict_text
from kdsim.claims.verdicts import CONDITIONS, FAILS, HOLDS, UNTESTED
from kdsim.plain_text import one_line

TEMPLATE = "ledger.html.jinja"
CLASSES = {HOLDS: "holds", CONDITIONS: "conditions", FAILS: "fails", UNTESTED: "untested"}
"""Verdict to CSS class."""


def page(
    findings: Sequence[Finding],
    not_covered: Sequence[NotCovered],
    stamp: Mapping[str, str],
    figures: Mapping[str, bytes],
) -> str:
    """The whole ledger.

    Args:
        stamp: what is said of this run at the top.
        figures: settings digest of a study to its figure as PNG.
    """
    environment = Environment(
        loader=PackageLoader("kdsim.claims", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_without_control_characters,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(
        findings=findings,
        not_covered=not_covered,
        stamp=stamp,
        figures={digest: base64.b64encode(picture).decode("ascii") for digest, picture in figures.items()},
        by_name={finding.claim.name: finding for finding in findings},
        summary=summary_table(findings),
        method=method(findings),
        papers=PAPERS,
        classes=CLASSES,
        parts_table=parts_table,
        study_lines=study_lines,
        verdict_text=verdict_text,
    )


def _without_control_characters(value: Any) -> Any:
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value
