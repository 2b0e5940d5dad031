"""What setup.cfg allows is what is tested: its lowest versions, and those of constraints.txt. One version of kdsim."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import kdsim

ROOT = Path(__file__).parent.parent
NOT_LOWEST = {"torch"}
"""Its builds depend on the machine: it is the user's."""
TOOLS = "dev"
"""The extra whose tools look at the source and run none of it: only the versions of constraints.txt are used."""


def allowed(*without: str) -> dict[str, Version]:
    """The lowest version of each requirement and extra in setup.cfg, but for some extras."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    extras = parser["options.extras_require"]
    lists = [parser["options"]["install_requires"], *(text for name, text in extras.items() if name not in without)]
    lowest: dict[str, Version] = {}
    for line in (line for text in lists for line in text.split("\n") if line.strip()):
        requirement = Requirement(line)
        (bound,) = requirement.specifier
        assert bound.operator == ">=", line
        name = canonicalize_name(requirement.name)
        assert lowest.setdefault(name, Version(bound.version)) == Version(bound.version), f"{name} has two bounds"
    return lowest


def pinned(file: str) -> dict[str, Version]:
    """The versions of a file of constraints."""
    lines = [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_the_lowest_versions_are_those_that_setup_allows() -> None:
    assert pinned("constraints-lowest.txt") == {k: v for k, v in allowed(TOOLS).items() if k not in NOT_LOWEST}


def test_the_tested_versions_are_allowed() -> None:
    tested = pinned("constraints.txt")
    assert {name: str(bound) for name, bound in allowed().items() if not tested.get(name, Version("0")) >= bound} == {}


def test_version_changelog_and_citation_agree() -> None:
    (released, *_) = re.findall(
        r"^## \[(\d\S*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    (cited,) = re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert released == cited == kdsim.__version__
