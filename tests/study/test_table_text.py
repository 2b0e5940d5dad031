"""Tables as Markdown and LaTeX."""

from __future__ import annotations

from kdsim.study.report import Table
from kdsim.study.table_text import latex, markdown

TABLE = Table(
    ["taught by", "|m - p|", "noise, %"],
    [["one-hot", "-", "1.2 ± 0.3"], ["a_b & c", "0.1", "50 %"]],
    numeric={"|m - p|", "noise, %"},
    common={"seed": "0"},
    notes=["A note."],
)


def test_markdown() -> None:
    assert markdown(TABLE).split("\n") == [
        "seed 0",
        "",
        "| taught by | \\|m - p\\| | noise, % |",
        "| --- | ---: | ---: |",
        "| one-hot | - | 1.2 ± 0.3 |",
        "| a_b & c | 0.1 | 50 % |",
        "",
        "A note.",
    ]


def test_latex() -> None:
    assert latex(TABLE).split("\n") == [
        "% seed 0",
        "% A note.",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"taught by & \textbar{}m - p\textbar{} & noise, \% \\",
        r"\midrule",
        r"one-hot & - & 1.2 $\pm$ 0.3 \\",
        r"a\_b \& c & 0.1 & 50 \% \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_table_without_more() -> None:
    plain = Table(["a"], [["1"]])
    assert markdown(plain) == "| a |\n| --- |\n| 1 |"
    assert latex(plain).startswith(r"\begin{tabular}{l}")
