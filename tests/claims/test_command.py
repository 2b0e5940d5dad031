"""kdsim verify-claims: from the command line, with what is stored, without data, and with bad input."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_network import TINY

from kdsim import claims as ledger_of_claims
from kdsim.claims import Claim, convex, propositions, teachers
from kdsim.claims.propositions import ExactStatements
from kdsim.cli import main
from kdsim.data import Cifar10
from kdsim.studies import NoiseSweep, TeacherKinds
from kdsim.study.base import Study

sys.path.append(str(Path(__file__).parent.parent / "data"))
import tiny_cifar

ROW = ("name", "source", "statement", "verdict", "effect", "interval", "replicas", "seconds", "rule", "studies")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KDSIM_DATA", raising=False)


def smaller(monkeypatch: pytest.MonkeyPatch, *claims: Claim) -> None:
    """These claims alone."""
    monkeypatch.setattr(ledger_of_claims, "CLAIMS", claims)


def claim(name: str, *studies: Study) -> Claim:
    """The claim of that name on other studies."""
    (found,) = (each for each in ledger_of_claims.CLAIMS if each.name == name)
    return replace(found, studies=lambda quick: studies)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> tuple[Claim, ...]:
    """Exact statements on three cases, and T1 on a small pool."""
    exact = ExactStatements(count=3, visits=20)
    sweep = NoiseSweep(families=("dirichlet",), levels=2, steps=400, replicas=4, engine="torch")
    sweep = replace(sweep, problem=replace(sweep.problem, dimension=4, samples=64))
    chosen = (claim("p1", exact), claim("p2", exact), claim("t1-one-hot", sweep))
    smaller(monkeypatch, *chosen)
    return chosen


@pytest.mark.slow
def test_writes_its_report_and_reuses_what_is_stored(
    tiny: tuple[Claim, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify-claims", "--quick"]) == 0
    first = capsys.readouterr()
    assert all(each.name in first.out for each in tiny)
    assert "study 1 of 2" in first.err
    folder = Path("results/claims")
    written = json.loads((folder / "claims.json").read_text())
    assert [entry["name"] for entry in written["claims"]] == [each.name for each in tiny]
    for entry in written["claims"]:
        assert set(ROW) <= entry.keys()
        assert entry["verdict"] == "holds"
        assert entry["seconds"] > 0
        (study,) = entry["studies"]
        assert study["versions"][0]["kdsim"]
        assert study["seeds"] == [0]
        assert (Path("results") / study["study"] / study["settings_digest"] / "study.json").exists()
    page = (folder / "claims.html").read_text()
    assert page.count("data:image/png;base64,") == 1  # noise-sweep has a figure, the exact statements have none
    assert "http" not in page.replace("arXiv", "")
    assert "## t1-one-hot: holds" in (folder / "claims.md").read_text()

    cells = {cell: cell.stat().st_mtime_ns for cell in Path("results/cells").iterdir()}
    assert main(["verify-claims", "--quick", "--json", "--only", "p2", "t1-one-hot"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in again["claims"]] == ["p2", "t1-one-hot"]
    assert again["claims"][1]["effect"] == written["claims"][2]["effect"]
    assert again["claims"][1]["seconds"] == written["claims"][2]["seconds"]  # what it cost when it ran
    assert {cell: cell.stat().st_mtime_ns for cell in Path("results/cells").iterdir()} == cells

    # another kdsim, as far as results tell
    for module in ("results.provenance", "results.store", "study.provenance", "study.reuse"):
        monkeypatch.setattr(f"kdsim.{module}.kdsim_digest", lambda: "f" * 64)
    assert main(["verify-claims", "--quick", "--rerun", "--only", "t1-one-hot"]) == 0
    assert "computed by another source of kdsim: run again" in capsys.readouterr().err


@pytest.mark.slow
def test_without_cifar_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    data = Cifar10(few_shot=0.03, validation=0.01)
    study = TeacherKinds(data=data, recipes=("crd",), pairs=("resnet8 to resnet8",), replicas=2)
    smaller(monkeypatch, claim("bayesian-teachers-cifar10", study))
    assert main(["verify-claims", "--quick", "--json"]) == 0
    out = capsys.readouterr()
    (entry,) = json.loads(out.out)["claims"]
    assert entry["verdict"] == "not tested"
    assert entry["reason"].startswith("no CIFAR-10 files: ")
    assert (entry["effect"], entry["interval"], entry["replicas"]) == (None, None, None)
    assert "Traceback" not in out.err
    assert main(["verify-claims", "--quick"]) == 0
    assert "not tested" in capsys.readouterr().out


@pytest.mark.slow
def test_with_cifar_it_is_judged_and_later_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a small archive in the official format; then without it, from what is stored."""
    monkeypatch.setattr(tiny_cifar, "SIZES", {**tiny_cifar.SIZES, "cifar10": (100, 40)})
    tiny_cifar.expect_small(monkeypatch)
    archive = tiny_cifar.write_archive(tmp_path, "cifar10", "python")
    tiny_cifar.expect_digest(monkeypatch, "cifar10", archive)
    study = TeacherKinds(data=Cifar10(), recipes=("crd",), pairs=(f"{TINY} to {TINY}",), replicas=2)
    smaller(monkeypatch, claim("bayesian-teachers-cifar10", replace(study, epochs=0.5, teacher_epochs=0.5)))
    entries = []
    for arguments in ([f"--data-dir={tmp_path}"], []):
        assert main(["verify-claims", "--quick", "--json", *arguments]) == 0
        entries += json.loads(capsys.readouterr().out)["claims"]
    assert entries[0] == entries[1]
    assert entries[0]["verdict"] != "not tested"
    assert entries[0]["replicas"] == 2
    assert not any("KL" in part["condition"] for part in entries[0]["parts"])


@pytest.mark.slow
def test_a_study_that_fails_is_no_missing_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The claim is not judged, the command says why, and exits with 1."""

    def broken(self: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(propositions.Propositions, "compute", broken)
    smaller(monkeypatch, claim("p1", ExactStatements(count=2, visits=10)))
    assert main(["verify-claims", "--quick"]) == 1
    out = capsys.readouterr()
    assert "not tested" in out.out
    assert "out of luck" in out.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--only", "t1-onehot"], ("t1-onehot", "nearest: t1-one-hot")), (["--only", ""], ("unknown claim ''",))],
)
def test_bad_input_is_one_line(
    arguments: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify-claims", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_a_results_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert main(["verify-claims", "--quick", "--only", "p1", "--out", "file"]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.slow
def test_three_claims_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    """As a user runs it: exact statements, T1's doubled step size, and the exact paths of eigendirections."""
    names = ("p2", "double-step", "exaggerated-eigen-bias")
    assert main(["verify-claims", "--quick", "--json", *(f"--only={name}" for name in names)]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["claims"]}
    assert {name: entry["verdict"] for name, entry in entries.items()} == dict.fromkeys(names, "holds")
    assert entries["double-step"]["studies"][0]["study"] == "step-size-sweep"
    assert entries["double-step"]["parts"][1]["interval"][1] < 1


@pytest.mark.slow
def test_quick_convex_studies_are_small() -> None:
    """Rows on convex students take seconds at some 3 million replica-steps a second."""
    for make in (convex.noise_sweep, convex.step_sizes):
        (study,) = make(True)
        assert sum(cell.replicas * cell.sgd.steps for cell in study.cells()) < 4e7
    assert len(teachers.BAYESIAN) == 2
