"""The ledger as a table, as Markdown and as JSON: text only, nothing is computed here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kdsim.claims.base import PAPERS, NotCovered
from kdsim.claims.ledger import Finding, Ran
from kdsim.claims.verdicts import FAILS, HOLDS, OPEN, REFUTED, SEPARATOR, SHOWN, Decided
from kdsim.config import encode
from kdsim.measure.comparison import ALPHA
from kdsim.results.json_files import json_ready
from kdsim.study.settings import settings_line, settings_texts
from kdsim.study.table_text import Table
from kdsim.study.table_text import markdown as markdown_table


def verdict_text(finding: Finding) -> str:
    """The verdict; where it does not hold, whether because that is shown or because nothing is."""
    if finding.verdict == FAILS and not any(each.decision == REFUTED for each in finding.parts):
        return f"{finding.verdict} ({OPEN})"
    return finding.verdict


def effect_text(decided: Decided) -> str:
    """The effect with half of its interval, or with the interval's ends where it is not symmetric to three digits."""
    part = decided.part
    if part.low is None or part.high is None:
        return f"{part.effect:.3g}"
    return f"{part.effect:.4g} ± {(part.high - part.low) / 2:.2g}"


def claimed_text(decided: Decided) -> str:
    """What the claim says of the effect."""
    low, high = decided.part.claimed
    under, over = ("below", "above") if decided.part.by_chance else ("at most", "at least")
    if math.isinf(low):
        return f"{under} {high:.3g}"
    return f"{over} {low:.3g}" if math.isinf(high) else f"{low:.3g} to {high:.3g}"


def p_text(decided: Decided) -> str:
    """The adjusted p-value; of a part without chance there is none."""
    if decided.adjusted is None:
        return "exact"
    return "< 1e-6" if decided.adjusted < 1e-6 else f"{decided.adjusted:.2g}"


def shown(finding: Finding) -> int:
    """Number of parts that are shown."""
    return sum(each.decision == SHOWN for each in finding.parts)


def tests(findings: Sequence[Finding]) -> int:
    """Number of tests over which Holm's correction went."""
    return sum(each.part.by_chance for finding in findings for each in finding.parts)


def method(findings: Sequence[Finding]) -> str:
    """How it was decided, in one paragraph."""
    return (
        "parts: how many of a claim's parts are shown. The effect is that of the first part, ± half its 95 % "
        f"t-interval over replicas; p after Holm's correction over the {tests(findings)} tests of this run, "
        f"family-wise level {ALPHA:g}. A part is shown where its test excludes everything that the claim rules out, "
        "refuted where it excludes what the claim says, and not significant at this size where the interval contains "
        "both. All parts shown: holds; some: holds under conditions; none: does not hold here. exact: computed without "
        "chance. Cost: seconds that the cells of a claim's studies took when they ran; claims share studies."
    )


def summary_table(findings: Sequence[Finding]) -> Table:
    """One row a claim."""
    headers = ["claim", "source", "verdict", "parts", "effect", "claimed", "p (Holm)", "replicas", "s"]
    table = Table(headers, [], numeric={"parts", "effect", "p (Holm)", "replicas", "s"}, optional=("claimed", "source"))
    for finding in findings:
        first = finding.parts[0] if finding.parts else None
        table.rows.append(
            [
                finding.claim.name,
                finding.claim.source.partition(",")[0].partition(" (")[0],
                verdict_text(finding),
                f"{shown(finding)}/{len(finding.parts)}" if first else "-",
                effect_text(first) if first else "-",
                claimed_text(first) if first else "-",
                p_text(first) if first else "-",
                f"{finding.replicas:,}" if finding.replicas else "-",
                f"{finding.seconds:.0f}" if finding.seconds >= 1 else f"{finding.seconds:.1f}",
            ]
        )
    table.notes.append(method(findings))
    return table


def reasons(findings: Sequence[Finding]) -> list[str]:
    """Why each claim that does not simply hold does not: a line for its name, and one for each thing that is said."""
    lines = []
    for finding in findings:
        if finding.verdict != HOLDS:
            lines += [f"{finding.claim.name}:", *(f"  {text}" for text in finding.reason.split(SEPARATOR))]
    return lines


def parts_table(finding: Finding) -> Table:
    """One row a part."""
    headers = ["part", "what is measured", "effect", "claimed", "p (Holm)", "replicas", "decision"]
    table = Table(headers, [], numeric={"effect", "p (Holm)", "replicas"})
    for each in finding.parts:
        part = each.part
        table.rows.append(
            [
                part.condition, part.quantity, effect_text(each), claimed_text(each), p_text(each),
                f"{part.replicas:,}", each.decision,
            ]
        )  # fmt: skip
    return table


def study_lines(ran: Ran) -> list[str]:
    """What was run: settings, digest, versions, seeds, cost."""
    study = ran.study
    usual = settings_texts(encode(type(study)()))
    seeds = ", ".join(map(str, ran.seeds)) or "-"
    versions = "; ".join(", ".join(f"{key} {value}" for key, value in each.items()) for each in ran.versions)
    return [
        f"study {study.name}, settings {ran.digest}: {settings_line(encode(study), usual)}",
        *([f"seed {seeds}, {ran.seconds:.1f} s; {versions}"] if ran.results else [f"failed: {ran.failures[0]}"]),
    ]


# Markdown ---------------------------------------------------------------------------------------------------


def markdown(findings: Sequence[Finding], not_covered: Sequence[NotCovered], stamp: Mapping[str, str]) -> str:
    """The whole ledger as one Markdown text.

    Args:
        stamp: what is said of this run at the top: version, date, size.
    """
    lines = ["# Ledger of claims", "", ", ".join(f"{key} {value}" for key, value in stamp.items()), ""]
    lines += [markdown_table(summary_table(findings)), ""]
    for finding in findings:
        claim = finding.claim
        lines += [f"## {claim.name}: {verdict_text(finding)}", "", claim.statement, ""]
        lines += [f"- Source: {claim.source}", f"- Statistic: {claim.statistic}", f"- Rule: {claim.rule}"]
        lines += [f"- Verdict: {verdict_text(finding)} ({finding.reason})", ""]
        if finding.parts:
            lines += [markdown_table(parts_table(finding)), ""]
        lines += [*(f"- {line}" for ran in finding.ran for line in study_lines(ran)), ""]
    lines += ["## Not covered", "", *(f"- {each.source}: {each.what}. {each.why}" for each in not_covered), ""]
    lines += ["## Sources", "", *(f"- [{letter}] {paper}" for letter, paper in PAPERS.items()), ""]
    return "\n".join(lines)


# JSON -------------------------------------------------------------------------------------------------------


def content(findings: Sequence[Finding], not_covered: Sequence[NotCovered], stamp: Mapping[str, str]) -> dict[str, Any]:
    """The whole ledger for programs."""
    return json_ready(
        {
            **stamp,
            "tests": tests(findings),
            "level": ALPHA,
            "sources": PAPERS,
            "claims": [_entry(finding) for finding in findings],
            "not_covered": [vars(each) for each in not_covered],
        }
    )


def _entry(finding: Finding) -> dict[str, Any]:
    claim, first = finding.claim, finding.parts[0] if finding.parts else None
    return {
        "name": claim.name,
        "source": claim.source,
        "statement": claim.statement,
        "statistic": claim.statistic,
        "rule": claim.rule,
        "verdict": finding.verdict,
        "reason": finding.reason,
        "significant": first is not None and first.decision != OPEN,
        "effect": first.part.effect if first else None,
        "interval": [first.part.low, first.part.high] if first and first.part.low is not None else None,
        "p": first.part.p if first else None,
        "p_holm": first.adjusted if first else None,
        "replicas": finding.replicas,
        "seconds": finding.seconds,
        "parts": [_part(each) for each in finding.parts],
        "studies": [_ran(ran) for ran in finding.ran],
    }


def _part(each: Decided) -> dict[str, Any]:
    part = each.part
    return {
        "condition": part.condition,
        "quantity": part.quantity,
        "effect": part.effect,
        "interval": None if part.low is None else [part.low, part.high],
        "claimed": list(part.claimed),  # an end that is not finite becomes null
        "p": part.p,
        "p_holm": each.adjusted,
        "decision": each.decision,
        "replicas": part.replicas,
    }


def _ran(ran: Ran) -> dict[str, Any]:
    return {
        "study": ran.study.name,
        "settings_digest": ran.digest,
        "settings": encode(ran.study),
        "results": str(ran.results.folder) if ran.results else None,
        "failures": list(ran.failures),
        "seconds": ran.seconds,
        "seeds": list(ran.seeds),
        "versions": list(ran.versions),
    }
