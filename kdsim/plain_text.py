"""Text for people: nothing in it acts on a terminal or a page, and folding breaks no word and loses none."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """A number of things: "1 cell", "3 cells"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def printable(text: str) -> str:
    """The text with characters that would act on a terminal, or end a line, escaped as Python writes them."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def one_line(text: str) -> str:
    """The same with runs of white space, line breaks included, as one space."""
    return printable(" ".join(text.split()))


def folded(text: str, width: int | None, hanging: int = 0) -> list[str]:
    """Lines of at most `width` characters, broken between words alone: a longer word has a line of its own.

    Args:
        width: None for no limit.
        hanging: characters by which further lines are indented.
    """
    if width is None or len(text) <= width:
        return [text]
    indent = " " * hanging
    lines = textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return lines or [""]


def listed(names: Sequence[str], most: int = 12) -> str:
    """The names with commas between them, of many the first and how many there are."""
    first = ", ".join(map(one_line, names[:most]))
    return first if len(names) <= most else f"{first}, ... ({len(names)})"
