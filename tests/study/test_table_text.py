"""Tables as plain text, Markdown and LaTeX: no cell is cut, and none acts on a terminal or a page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from kdsim.plain_text import folded, one_line, printable
from kdsim.study.table_text import Table, latex, markdown, plain

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


# Plain --------------------------------------------------------------------------------------------

COMPARED = Table(
    ["recipe", "student of", "by", "p", "p (Holm)", ""],
    [["short", "laplace, temperature 4", "+0.37 ± 0.17", "0.012", "0.03", "significant"],
     ["short", "swag", "+0.01 ± 0.2", "0.9", "1", ""]],
    numeric={"by", "p", "p (Holm)"},
    optional=("recipe",),
    common={"seed": "0"},
    notes=["Paired by replica."],
)  # fmt: skip


def test_whole_without_a_width() -> None:
    assert plain(COMPARED).split("\n") == [
        "seed 0",
        "",
        "recipe  student of                        by      p  p (Holm)",
        "-" * 74,
        "short   laplace, temperature 4  +0.37 ± 0.17  0.012      0.03  significant",
        "short   swag                     +0.01 ± 0.2    0.9         1",
        "",
        "Paired by replica.",
    ]


def test_text_is_folded_then_columns_are_left_out_and_named_then_rows_stand_as_lines() -> None:
    def column(lines: list[str], header: str) -> bool:
        return any(header in line.split() for line in lines)

    folded_text = plain(COMPARED, 70).split("\n")
    assert "short   laplace,            +0.37 ± 0.17  0.012      0.03  significant" in folded_text
    assert "        temperature 4" in folded_text and max(map(len, folded_text)) <= 70
    narrower = plain(COMPARED, 62).split("\n")
    assert not column(narrower[:-1], "recipe") and max(map(len, narrower[:4])) <= 62
    assert "too narrow for recipe: a wider one, or a file, has all columns." in " ".join(narrower)
    records = plain(COMPARED, 40).split("\n")
    assert records[2:8] == [
        "recipe      short", "student of  laplace, temperature 4", "by          +0.37 ± 0.17", "p           0.012",
        "p (Holm)    0.03", "            significant",
    ]  # fmt: skip


texts = st.text(st.one_of(st.characters(), st.sampled_from(" \n\t\x1b\u202e±漢")), max_size=30)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    headers = draw(st.lists(texts, min_size=1, max_size=6, unique_by=printable))
    rows = draw(st.lists(st.lists(texts, min_size=len(headers), max_size=len(headers)), max_size=4))
    numeric = set(draw(st.lists(st.sampled_from(headers))))
    optional = tuple(draw(st.lists(st.sampled_from(headers), unique=True)))
    return Table(headers, rows, numeric, optional, {"seed": draw(texts)}, draw(st.lists(texts, max_size=2)))


@given(tables(), st.sampled_from([None, 1, 2, 20, 80, 200]))
def test_every_cell_is_there_or_its_column_is_named(table: Table, width: int | None) -> None:
    shown = plain(table, width)
    _, _, named = shown.partition("The terminal is too narrow for")
    assert all(line.isprintable() for line in shown.split("\n"))
    for place, header in enumerate(table.headers):
        cells = [header, *(row[place] for row in table.rows)]
        if all(word in shown for cell in cells for word in printable(cell).split()):
            whole = table.rows and (width is None or header in table.numeric)
            missing = [cell for cell in cells[1:] if whole and printable(cell).strip() not in shown]
            if not missing:
                continue
        assert header in table.optional and all(word in named for word in printable(header).split())
    assert all(word in shown for note in table.notes for word in one_line(note).split())


@given(texts, st.sampled_from([None, 1, 5, 30]))
def test_folding_loses_no_word(text: str, width: int | None) -> None:
    lines = folded(one_line(text), width)
    assert " ".join(lines).split() == one_line(text).split()
    assert width is None or all(len(line) <= width or " " not in line.strip() for line in lines)


def test_wide_characters_are_aligned() -> None:
    lines = plain(Table(["a", "b"], [["漢字", "x"], ["y", "z"]])).split("\n")
    assert {cell_len(line[: line.rindex(last)]) for line, last in zip(lines[3:5], "xz", strict=True)} == {6}


# Control characters -------------------------------------------------------------------------------

HOSTILE = Table(["a\nb", "c"], [["x\x1b[2J\r\ny\x00", "--{}^~\\"], ["[2ex]", "<b>*`|\u202e"], ["*", "_"]],
                common={"k": "v\nw"}, notes=["one\n\\input{secret}"])  # fmt: skip


@pytest.mark.parametrize("write", [latex, markdown, plain])
def test_nothing_acts_on_a_page_or_terminal(write) -> None:
    lines = write(HOSTILE).split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == len(write(Table(["a", "c"], [["x", "y"]] * 3, common={"k": "v"}, notes=["n"])).split("\n"))


def test_latex_of_hostile_cells() -> None:
    lines = latex(HOSTILE).split("\n")
    assert lines[:2] == ["% k v w", r"% one \input{secret}"]  # one comment each
    assert lines[6:9] == [
        r"x\textbackslash{}x1b[2J\textbackslash{}r\textbackslash{}ny\textbackslash{}x00 & "
        r"-{}-\{\}\textasciicircum{}\textasciitilde{}\textbackslash{} \\",
        r"{}[2ex] & $<$b$>$*{}`\textbar{}\textbackslash{}u202e \\",
        r"{}* & \_ \\",
    ]  # fmt: skip


def test_markdown_of_hostile_cells() -> None:
    assert markdown(HOSTILE).split("\n")[5] == r"| [2ex] | \<b>\*\`\|\\u202e |"
