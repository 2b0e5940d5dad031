"""The schema of results: what every column of every stored table is, and who fills it.

A row of a study has one cell: a simulation, a training, a teacher or a computation. A row lacks what does not apply to
it, and an older row what is newer than it: both read as None, NaN in a table. Columns are declared in
`kdsim.results.columns`; a study's own computations declare theirs as their attribute `columns`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from kdsim.config import ConfigError, require

Type = Literal["float", "int", "bool", "str", "any"]
Source = Literal["experiment", "theory", "measurement", "training", "teacher", "provenance", "computation"]
Table = Literal["rows", "curves", "replicas", "spectrum"]
Kind = Literal["simulation", "training", "teacher", "computation"]

TYPES: dict[str, tuple[type, ...]] = {
    "float": (int, float), "int": (int,), "bool": (bool,), "str": (str,), "any": (bool, int, float, str),
}  # fmt: skip
"""Types in JSON of the values of a column; None beside them, where there is no value."""
ENDS = {"low": "lower end", "high": "upper end"}
_PART = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Column:
    """A column, or a family of columns whose names differ in parts.

    Attributes:
        name: its name; `{setting}` in it stands for any text, a part that `parts` lists for one of these.
        type: of its values.
        unit: of its values; "" for pure numbers and texts.
        meaning: one line.
        source: who fills it.
        kinds: in rows of which kinds of cells it may be.
        table: in which table it is.
        interval: whether NAME_low and NAME_high beside it are the ends of its 95 % interval over replicas.
        place: of theory, section of docs/theory.md with the formula.
        heading: in printed tables; "" for its name.
        parts: of a family, the values of each part in braces that are allowed; any for a part that is not listed.
        always: whether each row of its kinds has it, be it as None.
        since: 1, or 2 of a column that is newer than the first rows, which lack it and are whole: a new one has 2.
    """

    name: str
    type: Type
    unit: str
    meaning: str
    source: Source
    kinds: tuple[Kind, ...] = ("simulation",)
    table: Table = "rows"
    interval: bool = False
    place: str = ""
    heading: str = ""
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    always: bool = False
    since: int = 1

    def __post_init__(self) -> None:
        require(self.type in TYPES, f"type of column {self.name}", self.type, f"one of {', '.join(TYPES)}")
        one_line = isinstance(self.meaning, str) and self.meaning and "\n" not in self.meaning
        require(bool(one_line), f"meaning of column {self.name}", self.meaning, "one line of text")

    @property
    def is_family(self) -> bool:
        """Whether it stands for several columns."""
        return "{" in self.name

    def matches(self, name: str) -> bool:
        """Whether a column of that name is this one, or one of the family."""
        if not self.is_family:
            return name == self.name
        allowed = dict(self.parts)
        pieces = _PART.split(self.name)  # texts at even places, names of parts at odd ones
        texts = [
            f"(?:{'|'.join(map(re.escape, allowed[piece]))})" if number % 2 and piece in allowed
            else ".+" if number % 2 else re.escape(piece)
            for number, piece in enumerate(pieces)
        ]  # fmt: skip
        return re.fullmatch("".join(texts), name) is not None

    def encoded(self) -> dict[str, Any]:
        """What a stored row says of a column that the schema may not have."""
        return {"type": self.type, "unit": self.unit, "meaning": self.meaning, "interval": self.interval}


def columns() -> tuple[Column, ...]:
    """All of kdsim's columns, in the order of a row."""
    from kdsim.results.columns import COLUMNS

    return COLUMNS


def find(name: str, kind: Kind | None = None, table: Table = "rows", own: Iterable[Column] = ()) -> Column | None:
    """The column of that name, of a family under its own name, an end of an interval too; None if there is none.

    Args:
        kind: of the cell; None for whichever comes first.
        own: a computation's own columns, which come before kdsim's.
    """
    if (found := next((each for each in own if each.matches(name)), None)) is not None:
        return found
    if _known[0] is not columns():
        _known[:] = columns(), {}
    known = _known[1]
    if (name, kind, table) not in known:
        known[name, kind, table] = _find(name, kind, table)
    if (found := known[name, kind, table]) is not None:
        return found
    return _end(name, lambda base: find(base, kind, table, own)) if own else None


def _find(name: str, kind: Kind | None, table: Table) -> Column | None:
    candidates = (each for each in columns() if each.table == table and (kind is None or kind in each.kinds))
    for each in sorted(candidates, key=lambda column: column.is_family):  # a column of its own comes before families
        if each.matches(name):
            return replace(each, name=name, parts=()) if each.is_family else each
    return _end(name, lambda base: _find(base, kind, table))


def _end(name: str, of: Callable[[str], Column | None]) -> Column | None:
    """The column of one end of an interval."""
    base, _, end = name.rpartition("_")
    if end not in ENDS or (whole := of(base)) is None or not whole.interval:
        return None
    meaning = f"{ENDS[end]} of the 95 % interval over replicas of {base}"
    return replace(whole, name=name, meaning=meaning, interval=False, heading="")


_known: list[Any] = [None, {}]
"""The columns among which `find` has found columns, and those."""


def heading(name: str, kind: Kind | None = None) -> str:
    """Of a column in printed tables."""
    found = find(name, kind)
    return found.heading or name if found is not None else name


def required(kind: Kind, *, first: bool = False) -> list[str]:
    """Columns, ends of intervals included, that each row of that kind has, in their order.

    Args:
        first: only those that the first rows had (`Column.since`).
    """
    always = (each for each in columns() if each.always and kind in each.kinds and (each.since == 1 or not first))
    return [name for each in always for name in names_of(each)]


def names_of(column: Column) -> tuple[str, ...]:
    """Its name, and those of the ends of its interval."""
    ends = tuple(f"{column.name}_{end}" for end in ENDS) if column.interval else ()
    return (column.name, *ends)


def is_float(name: str, kinds: Iterable[Kind]) -> bool:
    """Whether a column has numbers that need not be whole, in rows of all of these kinds that have it."""
    found = [column.type for kind in kinds if (column := find(name, kind)) is not None]
    return bool(found) and set(found) == {"float"}


def undeclared(row: Mapping[str, Any], kind: Kind, table: Table = "rows", own: Iterable[Column] = ()) -> list[str]:
    """Columns of a row, or of a table, that nobody has declared."""
    own = tuple(own)
    return [name for name in row if find(name, kind, table, own) is None]


def require_declared(row: Mapping[str, Any], kind: Kind, own: Iterable[Column] = ()) -> None:
    """Refuse a row with a column that nobody has declared, or a value of another type than its column's.

    Raises:
        ConfigError: there is one.
    """
    own = tuple(own)
    if missing := undeclared(row, kind, own=own):
        raise ConfigError(f"columns of a {kind} that no schema declares: {', '.join(missing)}")
    for name, value in row.items():
        found = find(name, kind, own=own)
        assert found is not None, name  # it is not among those that are missing
        require(is_value(value, found.type), f"{name} of a {kind}", value, found.type)


def is_value(value: Any, type_: Type) -> bool:
    """Whether it may stand in a column of that type; None may in any."""
    return value is None or type(value) in TYPES[type_]


def matching(text: str) -> list[Column]:
    """The columns, in whichever table, that a text names: by its name, by a part of it, or by an example of a family.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    found = [each for each in columns() if each.name == text or each.matches(text)]
    ends = [column for table in ("rows", "curves", "replicas", "spectrum") if (column := find(text, None, table))]
    found = found or ends or [each for each in columns() if text and text.lower() in each.name.lower()]
    if not found:
        names = list(dict.fromkeys(each.name for each in columns()))
        nearest = difflib.get_close_matches(text[:100], names, n=1, cutoff=0.4)
        hint = f" (nearest: {nearest[0]})" if nearest else ""
        raise ConfigError(f"unknown column {text[:100]!r}{hint}; kdsim columns lists all")
    return found
