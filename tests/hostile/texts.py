"""Values and bytes that a program does not expect."""

from __future__ import annotations

from random import Random
from typing import Any

NO_NUMBERS = ("nan", "NaN", "-nan", "inf", "-inf", "Infinity", "1e400", "-1e400")
"""What float() takes and no setting means."""
NUMBERS = ("0", "-0", "-1", "1", "2", "0.5", "1e-320", "-1e-9", "3", "0x10", "1_0", "١٢", "\uff11", "2.5", "1e3")
HUGE = ("1e308", "1e30", str(2**31), str(2**63), str(2**64), "9" * 400, "9" * 5000, str(2**53 + 1), "1e18")
WORDS = (
    "", " ", "none", "None", "true", "null", "[]", "()", "[[", "((((1,2", "1,,2", ",", ",,,", "=", "a=b", "'", '"',
    "\\",
    "__import__('os').system('touch {marker}')", "exec(open('{marker}','w'))", "${{HOME}}", "`touch {marker}`",
    "../../../etc/passwd", "..", "/", "/dev/zero", "~", "a/../../b", "con", "softmax-linear", "one-hot", "dirichlet",
    "\x00", "\x1b[31mred", "\n", "a\nb", "\r", "\t", "\x7f", "é", "☃", "\U0001d54f", "\u202e", "\ud800", "a\udcffb",
    "\ufeff1",
    "%s%n", "{0}", "{0.__class__}", "$(id)", "cuda:99999999999999999999", "cuda:-1", "cpu:x", "meta", "mps", "-h",
    "--out",
)  # fmt: skip
JSON_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 1.5, -1e308, 1e308, 10**30, -(10**400), "", "x", "../../x", "\ud800", "\x1b[2J", [],
    {}, [[]], [None], [1, "2", None], {"a": 1}, {"class": "no-class"}, float("nan"), float("inf"), -float("inf"), "nan",
    "1e400", "/etc/passwd", "a" * 100_000,
)  # fmt: skip


def text(random: Random, marker: object) -> str:
    """A hostile text of a setting or an option."""
    kind = random.randrange(8)
    if kind == 0:
        return random.choice(NO_NUMBERS)
    if kind == 1:
        return random.choice(NUMBERS)
    if kind == 2:
        return random.choice(HUGE)
    if kind == 3:
        return "".join(
            chr(random.choice((random.randrange(1, 256), random.randrange(0x110000))))
            for _ in range(random.randrange(1, 30))
        )
    if kind == 4:
        return random.choice("[(,x1 -") * random.choice((10, 1000, 100_000))
    if kind == 5:
        return ",".join(random.choice((*NO_NUMBERS, *NUMBERS, *WORDS)) for _ in range(random.randrange(1, 6)))
    return random.choice(WORDS).replace("{marker}", str(marker))


def value(random: Random, depth: int = 3) -> Any:
    """Any JSON value."""
    kind = random.randrange(6)
    if depth and kind == 0:
        return [value(random, depth - 1) for _ in range(random.randrange(4))]
    if depth and kind == 1:
        return {str(random.choice(JSON_VALUES))[:50]: value(random, depth - 1) for _ in range(random.randrange(4))}
    return random.choice(JSON_VALUES)


def changed(random: Random, data: bytes) -> tuple[bytes, str]:
    """Bytes with something done to them, and what was done."""
    kind = random.randrange(6)
    where = random.randrange(max(1, len(data)))
    if kind == 0:
        return data[:where], f"cut at {where}"
    if kind == 1:
        return data + bytes(random.randrange(256) for _ in range(random.randrange(1, 50))), "something behind it"
    if kind == 2:
        return data[:where] + data[where + random.randrange(1, 100) :], f"bytes gone at {where}"
    if kind == 3:
        return data[:where] + data[: random.randrange(200)] + data[where:], f"bytes put in at {where}"
    found = bytearray(data)
    places = [random.randrange(max(1, len(data))) for _ in range(1 if kind == 4 else random.randrange(2, 20))]
    if random.randrange(2):  # headers and footers say more than pixels
        places = [place % 200 if random.randrange(2) else -1 - place % 200 for place in places]
    for place in places:
        if -len(found) <= place < len(found):
            found[place] = random.randrange(256)
    return bytes(found), f"bytes changed at {places}"
