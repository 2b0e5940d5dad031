"""The report: a table, Markdown, JSON with the stated keys, one HTML file that asks for nothing."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser

import pytest

from kdsim.claims import NOT_COVERED, html, report
from kdsim.claims.base import Claim
from kdsim.claims.ledger import Finding, Ran
from kdsim.claims.propositions import ExactStatements
from kdsim.claims.verdicts import FAILS, HOLDS, OPEN, UNTESTED, decide, from_estimate, verdict, without_chance

STAMP = {"kdsim": "0", "date": "today", "size": "quick"}
PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(8)
HOSTILE = 'a < b & "c" | <script src="http://example.org/x.js"></script>'


def finding(name: str, *parts: object, statement: str = HOSTILE) -> Finding:
    claim = Claim(name, "[M], somewhere", statement, "a number", "a rule", lambda quick: (), lambda found: [])
    ran = Ran(ExactStatements(), f"digest-of-{name}", None, ("line",), True)
    if not parts:
        return Finding(claim, UNTESTED, "no CIFAR-10 files: nothing there", ran=(ran,))
    decided = tuple(decide(list(parts)))
    return Finding(claim, *verdict(decided), decided, (ran,))


@pytest.fixture
def findings() -> list[Finding]:
    return [
        finding("good", from_estimate("c", "q", 1.0, 0.1, 20, above=0.0)),
        finding("exact", without_chance("c|d", "q", 1e-12, 9, below=1e-9)),
        finding("open", from_estimate("c", "q", 0.05, 0.1, 20, above=0.0)),
        finding("bad", from_estimate("c", "q", 1.0, 0.01, 20, above=0.2, below=0.5)),
        finding("diverged", from_estimate("c", "q", math.inf, math.nan, 20, below=0.5)),
        finding("untested"),
    ]


def test_verdicts_and_their_texts(findings: list[Finding]) -> None:
    assert [each.verdict for each in findings] == [HOLDS, HOLDS, FAILS, FAILS, FAILS, UNTESTED]
    texts = [report.verdict_text(each) for each in findings]
    assert texts[2] == f"{FAILS} ({OPEN})"  # not the same as refuted
    assert texts[3] == texts[4] == FAILS


def test_table_has_a_row_for_each_claim(findings: list[Finding]) -> None:
    table = report.summary_table(findings)
    assert [row[0] for row in table.rows] == [each.claim.name for each in findings]
    row = dict(zip(table.headers, table.rows[0], strict=True))
    assert row["effect"] == "1 ± 0.21"  # Student's t with 19 degrees of freedom: 2.093
    assert (row["claimed"], row["replicas"]) == ("above 0", "20")
    assert dict(zip(table.headers, table.rows[3], strict=True))["claimed"] == "0.2 to 0.5"
    assert "3 tests" in table.notes[0]
    names = [line for line in report.reasons(findings) if not line.startswith("  ")]
    assert names == ["open:", "bad:", "diverged:", "untested:"]


def test_markdown(findings: list[Finding]) -> None:
    text = report.markdown(findings, NOT_COVERED, STAMP)
    assert all(f"## {each.claim.name}: " in text for each in findings)
    assert text.count("- Rule: a rule") == len(findings)
    assert "c\\|d" in text  # a bar ends no cell
    assert "TinyImageNet" in text


def test_json_has_the_stated_keys(findings: list[Finding]) -> None:
    content = json.loads(json.dumps(report.content(findings, NOT_COVERED, STAMP), allow_nan=False))
    keys = {"name", "source", "statement", "verdict", "effect", "interval", "replicas", "seconds", "rule", "studies"}
    for entry in content["claims"]:
        assert keys <= entry.keys()
        assert {"settings_digest", "versions", "seeds", "settings"} <= entry["studies"][0].keys()
    assert content["tests"] == 3
    assert content["claims"][0]["interval"][0] < 1 < content["claims"][0]["interval"][1]
    assert content["claims"][4]["effect"] is None  # infinite
    assert content["claims"][2]["significant"] is False


class Reader(HTMLParser):
    """Collects what a browser would ask for, and the nesting of tags."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.open: list[str] = []
        self.targets: set[str] = set()
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "src":
                self.asked.append(value or "")
            if name == "href":
                self.links.append(value or "")
            if name == "id":
                self.targets.add(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_one_file_and_asks_for_nothing(findings: list[Finding]) -> None:
    text = html.page(findings, NOT_COVERED, STAMP, {"digest-of-good": PIXEL})
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert all(address.startswith("data:image/png;base64,") for address in reader.asked)
    assert len(reader.asked) == 1
    assert all(link.startswith("#") and link[1:] in reader.targets for link in reader.links)
    assert len(reader.links) == len(findings)
    assert "script" not in reader.tags and "link" not in reader.tags and "iframe" not in reader.tags
    assert "<script" not in text  # what a claim says is text
    assert "url(" not in text and "@import" not in text
    assert text.index("<table") < text.index("<section")  # the summary first
