"""Modules, names and files that the documentation and the docstrings mention exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ELSEWHERE = {"studies": ROOT / "studies", "figures": ROOT / "figures"}
"""Packages that lie beside kdsim."""
TEXTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/**/*.ipynb"), *ROOT.glob("benchmarks/**/*.py")]
    + [path for folder in ("kdsim", *ELSEWHERE) for path in (ROOT / folder).rglob("*.py")]
    + [ROOT / "setup.cfg", ROOT / "Makefile"]
)
PLACES = ("kdsim", "benchmarks", "docs", "figures", "studies", "tests")
TO_BE_WRITTEN = {"kdsim/supervision/lapse.py"} | {
    f"benchmarks/results/{name}.json" for name in ("gpu", "networks-DEVICE", "oracle")
}
"""Files that an example or a benchmark makes."""
MOVED = re.compile(r"^\| (.*?) \|")
"""The first column of the table of old imports."""


def lines(path: Path) -> Iterator[str]:
    """The lines of a text; of the table of imports that have moved only where they are now."""
    text = path.read_text(encoding="utf-8")
    text, _, moved = text.partition("## Imports that have moved")
    yield from text.splitlines()
    yield from (MOVED.sub("", line) for line in moved.splitlines())


def exists(name: str) -> bool:
    """Whether `kdsim.a.b` is a module, or a name that its module, or its package, mentions."""
    _, *parts = name.split(".")
    place = ROOT / "kdsim"
    for number, part in enumerate(parts):
        if number == 0 and part in ELSEWHERE:
            place = ELSEWHERE[part]
        elif (place / part).is_dir():
            place /= part
        elif (file := place / f"{part}.py").is_file():
            rest = parts[number + 1 :]
            return not rest or _mentions(file, rest[0])
        else:
            return any(_mentions(place / f"__init__.{ending}", part) for ending in ("py", "pyi"))
    return True


def _mentions(file: Path, word: str) -> bool:
    return file.is_file() and re.search(rf"\b{word}\b", file.read_text(encoding="utf-8")) is not None


def missing(text: str) -> list[str]:
    """What a line mentions and is not there."""
    names = (match.group() for match in re.finditer(r"\bkdsim(\.[a-zA-Z_]\w*)+", text))
    files = re.findall(rf"(?<![\w/.-])(?:{'|'.join(PLACES)})/[\w/.-]+\.(?:py|md|ipynb|json)\b", text)
    return [name for name in names if not exists(name)] + [
        file for file in files if not (ROOT / file).exists() and file not in TO_BE_WRITTEN
    ]


def test_what_is_named_exists() -> None:
    found = {str(path.relative_to(ROOT)): [name for line in lines(path) for name in missing(line)] for path in TEXTS}
    assert {path: names for path, names in found.items() if names} == {}


def test_what_is_gone_is_found() -> None:
    assert missing("`kdsim.study.store`, kdsim/cli_run.py and `kdsim.config.no_such`") == [
        "kdsim.study.store", "kdsim.config.no_such", "kdsim/cli_run.py"
    ]  # fmt: skip
    assert missing("`kdsim.results.store.Store`, `kdsim.run`, kdsim.studies.NoiseSweep, docs/api.md") == []
