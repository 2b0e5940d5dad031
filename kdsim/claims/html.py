"""The ledger as one HTML file: no script, no link, no font or picture from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape as html_escape

from kdsim.claims.base import PAPERS, NotCovered
from kdsim.claims.ledger import Finding
from kdsim.claims.report import method, parts_table, study_lines, summary_table, verdict_text
from kdsim.claims.verdicts import CONDITIONS, FAILS, HOLDS, UNTESTED
from kdsim.plain_text import one_line
from kdsim.study.table_text import Table

CLASSES = {HOLDS: "holds", CONDITIONS: "conditions", FAILS: "fails", UNTESTED: "untested"}
"""Verdict to CSS class."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; margin: .8rem 0; }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e3e3e3; }
th { border-bottom: 2px solid #888; } td.number, th.number { text-align: right; }
.number, .whole { white-space: nowrap; }
.verdict { padding: .05rem .45rem; border-radius: .6rem; white-space: nowrap; }
.holds { background: #d9f0e5; } .conditions { background: #fdf0c8; } .fails { background: #f8dcd0; }
.untested { background: #e4e4e4; }
dl { display: grid; grid-template-columns: 7rem 1fr; gap: .2rem 1rem; } dt { color: #666; } dd { margin: 0; }
img { max-width: 100%; height: auto; display: block; margin: .8rem 0; }
.note, figcaption { color: #555; font-size: .85rem; }
.run { font-family: ui-monospace, monospace; font-size: .75rem; color: #555; overflow-wrap: anywhere; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dt { margin-top: .4rem; } }
"""


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
    run = escape(", ".join(f"{key} {value}" for key, value in stamp.items()))
    sections = "\n".join(_section(finding, figures) for finding in findings)
    open_ends = "".join(
        f"<li>{escape(each.source)}: {escape(each.what)}. {escape(each.why)}</li>" for each in not_covered
    )
    papers = "".join(f"<li>[{escape(letter)}] {escape(paper)}</li>" for letter, paper in PAPERS.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>kdsim: ledger of claims</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Ledger of claims</h1>
<p class="note">{run}</p>
{_summary(findings)}
<p class="note">{escape(method(findings))}</p>
{sections}
<h2>Not covered</h2>
<ul>{open_ends}</ul>
<h2>Sources</h2>
<ul>{papers}</ul>
</body>
</html>
"""


def escape(text: str) -> str:
    """The text as HTML, without control characters."""
    return html_escape(one_line(text))


def _badge(finding: Finding) -> str:
    return f'<span class="verdict {CLASSES[finding.verdict]}">{escape(verdict_text(finding))}</span>'


def _summary(findings: Sequence[Finding]) -> str:
    """The table of all claims; names lead to their sections."""
    table = summary_table(findings)
    links = {finding.claim.name: finding for finding in findings}
    place = table.headers.index("verdict")

    def cell(row: Sequence[str], number: int) -> str:
        if number == 0:
            return f'<a href="#{escape(row[0])}">{escape(row[0])}</a>'
        return _badge(links[row[0]]) if number == place else escape(row[number])

    rows = [[cell(row, number) for number in range(len(row))] for row in table.rows]
    return _table(table, rows)


def _table(table: Table, rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    kinds = [
        ' class="number"' if header in table.numeric else ' class="whole"' if header == "claimed" else ""
        for header in table.headers
    ]
    head = "".join(f"<th{kind}>{escape(header)}</th>" for header, kind in zip(table.headers, kinds, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _section(finding: Finding, figures: Mapping[str, bytes]) -> str:
    claim = finding.claim
    entries = {"claim": claim.statement, "source": claim.source, "statistic": claim.statistic, "rule": claim.rule}
    listed = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in entries.items())
    listed += f"<dt>verdict</dt><dd>{_badge(finding)} {escape(finding.reason)}</dd>"
    parts = parts_table(finding)
    numbers = _table(parts, [[escape(cell) for cell in row] for row in parts.rows]) if finding.parts else ""
    pictures = "\n".join(
        _figure(figures[ran.digest], f"{ran.study.name} ({ran.digest})") for ran in finding.ran if ran.digest in figures
    )
    runs = "".join(f"<p class='run'>{escape(line)}</p>" for ran in finding.ran for line in study_lines(ran))
    return f"""<section id="{escape(claim.name)}">
<h2>{escape(claim.name)}</h2>
<dl>{listed}</dl>
{numbers}
{pictures}
{runs}
</section>"""


def _figure(picture: bytes, name: str) -> str:
    data = base64.b64encode(picture).decode("ascii")
    return (
        f'<figure style="margin:0"><img alt="figure of {escape(name)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
    )
