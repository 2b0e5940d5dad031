"""Every claim is whole: what it says, where, how it is tested, and studies that exist at both sizes."""

from __future__ import annotations

import re

import pytest

from kdsim import config
from kdsim.claims import CLAIMS, NOT_COVERED, Claim
from kdsim.claims.base import PAPERS
from kdsim.claims.ledger import studies_of
from kdsim.config import by_name
from kdsim.figures import FIGURES
from kdsim.study.packs import cells_of


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_entry_is_complete(claim: Claim) -> None:
    texts = {key: getattr(claim, key) for key in ("name", "source", "statement", "statistic", "rule")}
    for key, text in texts.items():
        assert text.strip() == text
        assert len(text) >= (2 if key == "name" else 12), key
        assert not re.search(r"\s\s|[{}]|\bTODO\b", text), (key, text)
    letter = re.match(r"\[(\w)\]", claim.source)
    assert letter and letter[1] in PAPERS, claim.source
    assert re.fullmatch(r"[a-z0-9-]+", claim.name)


def test_names_and_statements_are_unique() -> None:
    assert len(by_name(CLAIMS)) == len({claim.statement for claim in CLAIMS}) == len(CLAIMS)


def test_no_section_is_invented() -> None:
    """Only numbers that docs/theory.md gives."""
    numbered = {claim.source for claim in CLAIMS if re.search(r"(section|proposition|theorem) \d", claim.source)}
    known = ("[M] proposition 1", "[M] proposition 2", "[M] theorem 1", "[M] theorem 2", "[N] section 4")
    assert all(source.startswith(known) for source in numbered), numbered


@pytest.mark.slow
@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_studies_can_be_stored(quick: bool) -> None:
    for study in studies_of(CLAIMS, quick):
        assert config.encode(study)
        assert type(study)() is not None  # its defaults are what the report compares with
        figure = type(study).figure
        assert figure is None or figure in FIGURES
        assert len({config.digest(cell) for cell in cells_of(study)}) >= 1


def test_claims_share_studies() -> None:
    """So that the ledger runs each once."""
    every = [config.digest(study) for claim in CLAIMS for study in claim.studies(True)]
    assert len(list(studies_of(CLAIMS, True))) == len(set(every)) < len(every)


def test_two_claims_at_most_need_real_data() -> None:
    assert sum(claim.data is not None for claim in CLAIMS) <= 2


def test_what_is_not_covered_is_said() -> None:
    said = " ".join(each.what for each in NOT_COVERED)
    assert all(word in said for word in ("TinyImageNet", "ImageNet-LT", "language"))
    assert all(each.source.strip("[]") in PAPERS and each.why for each in NOT_COVERED)


def test_what_theory_knows_of_a_claim_is_said() -> None:
    """That a constant of noise belongs to its pool, and what the ratio at 1/L_max can be."""
    entries = by_name(CLAIMS)
    assert "property of the pool" in entries["noise-proportional"].statistic
    assert "attained at every condition number" in entries["double-step-special"].rule
