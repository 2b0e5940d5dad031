"""The command line: one JSON object or a table on standard output, one line and exit code 2 for bad input."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_study

from kdsim import __version__
from kdsim.cli import main, run, show, train
from kdsim.cli.run import How
from kdsim.config import ConfigError
from kdsim.files import signed
from kdsim.problems import PROBLEMS
from kdsim.results.cells import STORE_VERSION
from kdsim.supervision import SUPERVISIONS

TINY = str(Path(tiny_study.__file__))
SWEEP = ["noise-sweep", "--quick", "--set", "problem=softmax-linear", "--set", "problem.samples=64", "--replicas", "4"]
SWEEP += ["--set", "problem.dimension=3", "--set", "families=dirichlet", "--set", "levels=2", "--set", "steps=200"]
KDSIM = [sys.executable, "-m", "kdsim.cli"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny_run(here: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Folder of a stored run of the tiny study."""
    assert main(["run-study", TINY, "--json"]) == 0
    return Path(json.loads(capsys.readouterr().out)["results"])


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    code = main([*arguments, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


# What works -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_study_json(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What the process prints, by other libraries as well, is the JSON object alone."""
    got = run_json(capfd, "run-study", *SWEEP)
    keys = ["study", "settings", "rows", "replica_steps", "engine_seconds", "wall_seconds", "results", "figures"]
    assert list(got) == keys
    assert got["study"] == "noise-sweep" and got["settings"]["problem"]["class"] == "softmax-linear"
    assert [row["supervision"] for row in got["rows"]] == ["exact", "one-hot", "dirichlet", "dirichlet"]
    assert got["replica_steps"] == 4 * 4 * 200
    row = got["rows"][2]
    first = ["study", "cell", "problem", "student", "ridge", "ridge_kind", "supervision", "level", "step_size"]
    assert list(row)[: len(first)] == first
    assert {"nu", "mu", "floor", "floor_low", "ratio", "tail_relaxations", "steps", "seed", "engine"} <= row.keys()
    assert [Path(file).suffix for file in got["figures"]] == [".png", ".pdf"]
    assert all(Path(file).stat().st_size > 1000 for file in got["figures"])
    assert Path(got["results"]).parent == here / "results" / "noise-sweep"


def test_run_study_for_people(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("120", "80"):
        monkeypatch.setenv("COLUMNS", columns)
        assert main(["run-study", TINY]) == 0
        captured = capsys.readouterr()
        lines = captured.out.splitlines()
        assert captured.err == ""
        assert max(map(len, lines[:-4])) <= int(columns)
        header = next(line for line in lines if line.startswith("supervision"))
        assert {"nu", "floor", "theory", "ratio"} <= set(header.split())
        assert [line.split()[0] for line in lines if line.startswith(("exact", "one-hot", "halfway"))] == [
            "exact",
            "one-hot",
            "halfway",
        ]
        assert lines[-3].startswith("results  results/tiny/") and lines[-1].endswith("tiny.pdf")
    assert "nothing to simulate" in captured.out


@pytest.mark.slow
def test_results_by_name_file_and_folder(tiny_run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_file = run_json(capsys, "results", TINY)
    for target in ("tiny", str(tiny_run), str(tiny_run.parent)):
        assert run_json(capsys, "results", target)["rows"] == by_file["rows"]
    assert main(["results", str(tiny_run), "--csv"]) == 0
    captured = capsys.readouterr()
    assert [row["supervision"] for row in csv.DictReader(io.StringIO(captured.out))] == ["exact", "one-hot", "halfway"]
    assert "steps=400" in captured.err and captured.err.count("\n") == 1  # which run it is
    assert main(["results", TINY]) == 0
    assert "halfway" in capsys.readouterr().out


@pytest.mark.slow
def test_results_need_no_study_file(tiny_run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = here / "mine.py"
    source.write_text(Path(TINY).read_text().replace('"tiny"', '"mine"'))
    stored = run_json(capsys, "run-study", str(source))
    source.write_text(source.read_text() + "\n# edited\n")
    assert run_json(capsys, "results", stored["results"])["rows"] == stored["rows"]
    assert main(["figure", str(source), "--format", "svg"]) == 0
    assert (Path(stored["results"]) / "mine.svg").read_text().startswith("<?xml")
    capsys.readouterr()
    source.rename(here / "elsewhere.py")
    assert run_json(capsys, "results", stored["results"])["rows"] == stored["rows"]


@pytest.mark.slow
def test_a_study_file_runs_only_if_it_is_named(tiny_run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A results folder may come from somebody else, together with a Python file and its right digest."""
    source = here / "theirs.py"
    source.write_text(Path(TINY).read_text() + f"\nPath = __import__('pathlib').Path({str(here / 'ran')!r}).touch()\n")
    info = json.loads((tiny_run / "study.json").read_text())
    info["figure"] = {"file": str(source), "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
    (tiny_run / "study.json").write_text(json.dumps(signed(info)))
    for target in (str(tiny_run), "tiny"):
        assert main(["figure", target]) == 2
        error = capsys.readouterr().err
        assert "runs only if you name it" in error and str(source) in error and "--study FILE.py" in error
    assert not (here / "ran").exists()
    assert main(["figure", str(tiny_run), "--study", TINY, "--format", "png"]) == 0
    assert (tiny_run / "tiny.png").stat().st_size > 1000
    assert not (here / "ran").exists()
    other = here / "other.py"
    other.write_text(Path(TINY).read_text().replace('"tiny"', '"other"'))
    assert main(["figure", str(tiny_run), "--study", str(other)]) == 2
    assert "the study file defines 'other'" in capsys.readouterr().err


def test_figure_by_folder(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figure", str(tiny_run), "--study", TINY, "--format", "pdf, svg"]) == 0
    files = capsys.readouterr().out.split()
    assert files == [str(tiny_run / "tiny.pdf"), str(tiny_run / "tiny.svg")]


@pytest.mark.slow
def test_a_figure_that_fails_leaves_the_results(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = here / "mine.py"
    source.write_text(Path(TINY).read_text().replace("    figure = Figure()", "    raise OSError('no\\nink')"))
    assert main(["run-study", str(source), "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "warning: no figure, OSError: no" in captured.err
    got = json.loads(captured.out)
    assert got["figures"] == [] and len(got["rows"]) == 3


@pytest.mark.slow
def test_predict_agrees_with_what_run_study_stores(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predicted = run_json(capsys, "predict", TINY)
    stored = run_json(capsys, "results", TINY)
    assert predicted["study"] == "tiny"
    for theory, row in zip(predicted["rows"], stored["rows"], strict=True):
        assert theory.items() <= row.items()
    assert main(["predict", TINY, "--csv", "--set", "supervisions=one-hot"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 1 and float(rows[0]["sigma_star_sq"]) > 0
    assert main(["predict", TINY]) == 0
    assert "sigma*^2" in capsys.readouterr().out


def test_show_study(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show-study", TINY, "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "problem.samples" in out and "the pool." in out and "alpha." in out
    assert "3 cells in 1 engine call, 9,600 replica-steps" in out
    assert not (here / "results").exists()


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    for command, names in (
        ("list-studies", ["noise-sweep"]),
        ("list-problems", [cls.name for cls in PROBLEMS]),
        ("list-supervisions", [cls.name for cls in SUPERVISIONS]),
    ):
        assert main([command]) == 0
        out = capsys.readouterr().out
        assert all(name in out for name in names)
    assert "concentration" in out


@pytest.mark.parametrize("name", [cls.name for cls in PROBLEMS])
def test_export_problem(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    key = {"digits": None, "long-tail": "problem.samples"}.get(name, "samples")
    settings = ["--set", f"{key}=50"] if key else []
    assert main(["export-problem", name, "--out", "pool.npz", "--seed", "4", *settings]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    with np.load(here / "pool.npz") as pool:
        x, p, theta = pool["x"], pool["p"], pool["theta_star"]
        assert (x.dtype, p.dtype, theta.dtype, pool["y"].dtype) == (np.float64, np.float64, np.float64, np.int64)
        assert str(pool["name"]) == name and int(pool["seed"]) == 4
    outputs = x @ theta.T
    if name != "simplex-linear":
        outputs = np.exp(outputs - outputs.max(1, keepdims=True))
        outputs /= outputs.sum(1, keepdims=True)
    np.testing.assert_allclose(outputs, p, atol=1e-10)
    assert [path.name for path in here.iterdir()] == ["pool.npz"]


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"kdsim {__version__}\n"
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "kdsim run-study noise-sweep --quick" in text and "Bayes class probabilities" in text
    assert main([]) == 0
    assert capsys.readouterr().out == text


# What is refused ----------------------------------------------------------------------------------

BAD_INPUT = [
    (["run-study", "noise-swep"], ["noise-swep", "nearest: noise-sweep"]),
    (["run-study", "absent.py"], ["absent.py", "cannot be read"]),
    (["run-study", "noise-sweep", "--set", "stps=3"], ["stps", "nearest: steps", "allowed: problem"]),
    (["run-study", "noise-sweep", "--set", "problem.clases=3"], ["problem.clases", "nearest: problem.classes"]),
    (["run-study", "noise-sweep", "--set", "families=dirchlet"], ["dirchlet", "nearest: dirichlet", "two-point"]),
    (["run-study", "noise-sweep", "--set", "families=one-hot"], ["one-hot", "dirichlet"]),
    (["run-study", "noise-sweep", "--set", "problem=digit"], ["nearest: digits", "gaussian-mixture"]),
    (["run-study", "noise-sweep", "--set", "nu=0.9"], ["nu = 0.9", "dirichlet", "0.0"]),
    (["run-study", "noise-sweep", "--set", "nu=-1"], ["nu = -1", ">= 0"]),
    (["run-study", "noise-sweep", "--set", "nu=nan"], ["nu = 'nan'", "finite"]),
    (["run-study", "noise-sweep", "--set", "nu=1,,2"], ["nu = '1,,2'", "a value before each comma"]),
    (["run-study", "noise-sweep", "--seed", "1e-400"], ["seed = '1e-400'", "an integer"]),
    (["run-study", "noise-sweep", "--set", "steps"], ["--set 'steps'", "KEY=VALUE"]),
    (["run-study", "noise-sweep", "--set", "seed=1", "--seed", "2"], ["'seed' is set twice"]),
    (["run-study", TINY, "--set", "step_size=0"], ["step_size = 0", "> 0"]),
    (["run-study", TINY, "--set", "step_size=-0.1"], ["step_size = -0.1", "> 0"]),
    (["run-study", TINY, "--set", "step_size=nan"], ["step_size = 'nan'", "finite"]),
    (["run-study", TINY, "--set", "step_size=fast"], ["'fast'", "a number"]),
    (["run-study", "noise-sweep", "--set", "batch_size=0"], ["batch_size = 0", ">= 1"]),
    (["run-study", TINY, "--set", "batch_size=2"], ["batch_size", "allowed: problem"]),
    (["run-study", TINY, "--set", "supervisions="], ["no cells"]),
    (["run-study", TINY, "--replicas", "1"], ["replicas = 1", ">= 2"]),
    (["run-study", TINY, "--replicas", "many"], ["replicas = 'many'", "integer"]),
    (["run-study", TINY, "--seed", "-1"], ["seed = -1", ">= 0"]),
    (["run-study", TINY, "--device", "cuda:99"], ["cuda:99", "allowed: cpu"]),
    (["run-study", TINY, "--engine", "torhc"], ["torhc", "nearest: torch"]),
    (["run-study", TINY, "--out", "in-the-way"], ["in-the-way", "cannot be written"]),
    (["run-study", TINY, "--out", "in-the-way/deeper"], ["in-the-way", "cannot be written"]),
    (["run-study", "wrong.py"], ["wrong.py, line 2", "syntax error"]),
    (["show-study", "wrong.py"], ["wrong.py, line 2"]),
    (["predict", "noise-sweep", "--json", "--csv"], ["--json and --csv"]),
    (["predict", "wrong.py"], ["wrong.py, line 2"]),
    (["results", "noise-sweep"], ["no results of 'noise-sweep'", "nothing is stored"]),
    (["results", "noise-sweep", "--quick"], ["no results", "with these settings"]),
    (["results", "nose-sweep"], ["nearest: noise-sweep"]),
    (["results", "no/such/folder"], ["no/such/folder"]),
    (["results", "."], ["no study.json"]),
    (["figure", "noise-sweep", "--format", "gif"], ["gif", "png, pdf, svg"]),
    (["figure", "noise-sweep"], ["no results"]),
    (["export-problem", "digit", "--out", "x.npz"], ["nearest: digits"]),
    (["export-problem", "digits"], ["--out"]),
    (["export-problem", "digits", "--out", "no/x.npz"], ["no/x.npz", "cannot be written"]),
    (["export-problem", "softmax-linear", "--out", "x.npz", "--set", "classes=1"], ["classes = 1", ">= 2"]),
    (["export-problem", "softmax-linear", "--out", "x.npz", "--set", "size=1"], ["'size'", "classes"]),
    (["export-problem", "digits", "--out", "x.npz", "--seed", "x"], ["--seed"]),
    (["export-problem", "digits", "--out", "x.npz", "--seed", "-1"], ["--seed"]),
    (["run-stdy", "noise-sweep"], ["run-stdy", "run-study"]),
    (["run-study", "noise-sweep", "--quik"], ["--quik", "--quick"]),
    (["run-study"], ["NAME|FILE"]),
    (["run-study", "noise-sweep", "extra"], ["extra"]),
    (["run-study", "noise-sweep", "--set"], ["--set"]),
]


@pytest.mark.parametrize(("arguments", "words"), BAD_INPUT, ids=lambda value: " ".join(map(os.path.basename, value)))
def test_bad_input_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    (here / "in-the-way").write_text("a file\n")
    (here / "wrong.py").write_text("x = 1\nclass Study(:\n")
    code = main(arguments)
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.startswith("kdsim: error: ") and captured.err.count("\n") == 1, captured.err
    assert all(word in captured.err for word in words), captured.err
    assert sorted(path.name for path in here.iterdir()) == ["in-the-way", "wrong.py"]


@pytest.mark.slow
def test_another_schema_is_refused(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tiny_run / "study.json"
    file.write_text(file.read_text().replace(f'"schema": {STORE_VERSION}', '"schema": 0'))
    for command in (["results", "tiny"], ["results", str(tiny_run)], ["figure", TINY]):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and str(file) in err and "schema version 0" in err


@pytest.mark.slow
def test_a_damaged_cell_is_one_line(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = next(Path("results/cells").glob("*/cell.json"))
    damaged.write_text(damaged.read_text()[:100])
    for command in (["results", "tiny"], ["run-study", TINY]):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and str(damaged.parent) in err and "delete it" in err


@pytest.mark.slow
def test_a_pack_that_fails_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = here / "mine.py"
    source.write_text(Path(TINY).read_text().replace("        q = OneHot()", "        q = NoSuchName()"))
    assert main(["run-study", str(source), "--set", "supervisions=exact"]) == 0
    capsys.readouterr()
    assert main(["run-study", str(source)]) == 1
    captured = capsys.readouterr()
    assert (
        captured.err.count("\n") == 1 and "NameError: name 'NoSuchName'" in captured.err and "mine.py:" in captured.err
    )
    assert "exact" in captured.out  # what is stored is shown


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("    figure = Figure()", "    raise SystemExit(3)", 1, ["no figure, SystemExit: 3", "mine.py:"]),
        (
            "        q = OneHot().sample(batch, draws).q",
            "        raise SystemExit(0)",
            1,
            ["failed: SystemExit: 0", "mine.py:"],
        ),
        ("        first = Cell(", "        raise KeyError(3)\n        Cell(", 2, ["KeyError: 3", "mine.py:"]),
        ("class Halfway(", "class Halfway(NoSuch, ", 2, ["NameError", "mine.py"]),
    ],
)
def test_a_study_file_that_raises_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, code: int, words: list[str]
) -> None:
    source = here / "mine.py"
    source.write_text(Path(TINY).read_text().replace(old, new))
    assert main(["run-study", str(source), "--set", "steps=50"]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and all(word in err for word in words), err


def test_an_unexpected_error_is_one_line_unless_asked(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = here / "mine.py"
    source.write_text(Path(TINY).read_text().replace("    samples: int = 64", "    def population(self, seed): 1 / 0"))
    for command in ("predict", "run-study"):  # nothing has run: it is the study file's fault
        assert main([command, str(source)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert "population of " in captured.err and "ZeroDivisionError" in captured.err and "mine.py:" in captured.err
    monkeypatch.setenv("KDSIM_TRACEBACK", "1")
    with pytest.raises(ConfigError) as caught:
        main(["predict", str(source)])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_of_kdsim_itself_is_one_line_and_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code 2 says that the input was bad; this was not the user's doing."""

    def broken(*_: object) -> None:
        raise RuntimeError("a bug\nof kdsim")

    monkeypatch.setattr(show, "load_study", broken)
    assert main(["predict", TINY]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "RuntimeError: a bug (" in captured.err


@pytest.mark.slow
def test_a_study_without_figure_and_summary(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = here / "mine.py"
    lines = Path(TINY).read_text().splitlines(keepends=True)
    source.write_text("".join(line for line in lines if not line.startswith(("    figure: ", "    summary: "))))
    assert main(["show-study", str(source)]) == 0
    assert "tiny: Three supervisions." in capsys.readouterr().out
    assert main(["run-study", str(source), "--set", "steps=50"]) == 0
    capsys.readouterr()
    for target in (str(source), "tiny"):
        assert main(["figure", target]) == 2
        assert "study 'tiny' has no figure" in capsys.readouterr().err


@pytest.mark.slow
def test_the_study_of_the_guide_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
    (here / "my_study.py").write_text(guide.split("```python\n# my_study.py\n")[1].split("```")[0])
    got = run_json(capsys, "run-study", "my_study.py", "--quick", "--set", "steps=50")
    assert got["study"] == "batch-sizes" and len(got["rows"]) == 6 and got["figures"] == []


def test_predict_takes_seed_and_replicas(capsys: pytest.CaptureFixture[str]) -> None:
    rows = run_json(capsys, "predict", TINY, "--seed", "5", "--replicas", "7")["rows"]
    assert {(row["seed"], row["replicas"]) for row in rows} == {(5, 7)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting", ["tail_fraction=1e-9", "step_size=1e-30", "step_size=1e9", "steps=1", "ridge=1e-320"]
)
def test_extreme_settings_give_a_figure_without_warnings(
    here: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder, setting: str
) -> None:
    arguments = [item for item in SWEEP if not (setting.startswith("steps") and item == "steps=200")]
    if len(arguments) < len(SWEEP):
        del arguments[-1]
    got = run_json(capsys, "run-study", *arguments, "--set", setting)
    assert got["rows"] and len(got["figures"]) == 2
    assert [str(item.message) for item in recwarn if "log-scaled" in str(item.message)] == []
    if setting == "step_size=1e9":
        assert {(row["floor"], row["diverged"]) for row in got["rows"]} == {(None, 4)}


# What is passed on ----------------------------------------------------------------------------------


STARTING = (run, show, train)
"""Modules of the commands that load a study."""


class Heard(Exception):
    """What reached the code behind a command."""


def heard(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> tuple[str, dict[str, str], bool]:
    """Target, settings and whether the quick version is meant, as a command passes them on."""

    def load_study(target: str, settings: dict[str, str], quick: bool) -> None:
        raise Heard(target, settings, quick)

    def stored_run(target: str, known: object, store: object, settings: dict[str, str], *, quick: bool = False) -> None:
        raise Heard(target, settings, quick)

    monkeypatch.setenv("KDSIM_TRACEBACK", "1")
    for module in STARTING:
        monkeypatch.setattr(module, "load_study", load_study)
    monkeypatch.setattr("kdsim.study.loading.stored_run", stored_run)
    monkeypatch.setattr("kdsim.results.runs.run_folder", lambda *given: stored_run(*given, {}))
    with pytest.raises(Heard) as found:
        main(arguments)
    return found.value.args


STUDY_COMMANDS = {
    "run-study": ["replicas", "seed", "device", "engine"],
    "show-study": ["replicas", "seed", "device", "engine"],
    "predict": ["replicas", "seed"],
    "results": ["replicas", "seed"],
    "figure": ["replicas", "seed"],
}
"""Options of each command that stand for a key of --set."""


@pytest.mark.parametrize("command", STUDY_COMMANDS)
def test_options_reach_the_study(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    assert heard(monkeypatch, [command, "mine.py"]) == (str(Path.cwd() / "mine.py"), {}, False)
    assert heard(monkeypatch, [command, "mine.py", "--quick"]) == (str(Path.cwd() / "mine.py"), {}, True)
    assert heard(monkeypatch, [command, "a", "--set", "k=1", "--set", "l=2"]) == ("a", {"k": "1", "l": "2"}, False)
    for name in STUDY_COMMANDS[command]:
        assert heard(monkeypatch, [command, "a", f"--{name}", "5"]) == ("a", {name: "5"}, False)


NETWORK_OPTIONS = {
    "--data": "data", "--recipe": "recipe", "--epochs": "recipe.epochs", "--replicas": "replicas", "--seed": "seed",
    "--device": "device",
}  # fmt: skip
"""Options of `train` and `distill`, and the keys that they stand for."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "given", "more"),
    [
        ("train", {"network": "a"}, {"--supervision": "supervision"}),
        ("distill", {"teacher": "a", "student": "b"}, {"--loss": "loss", "--teacher-epochs": "teacher_recipe.epochs"}),
    ],
)
def test_options_reach_the_training(
    monkeypatch: pytest.MonkeyPatch, command: str, given: dict[str, str], more: dict[str, str]
) -> None:
    start = [command, *given.values()]
    assert heard(monkeypatch, start) == (command, given, False)
    assert heard(monkeypatch, [*start, "--quick", "--set", "k=1"]) == (command, given | {"k": "1"}, True)
    for option, key in (NETWORK_OPTIONS | more).items():
        assert heard(monkeypatch, [*start, option, "5"]) == (command, given | {key: "5"}, False)


def test_options_reach_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(run, "load_study", lambda *_: "study")
    monkeypatch.setattr(run, "run", lambda *given: seen.append(given) or 0)
    dask = [
        "--executor",
        "dask",
        "--scheduler",
        "tcp://a:1",
        "--workers",
        "3",
        "--block-replicas",
        "7",
        "--repair",
        "--rerun",
    ]
    assert main(["run-study", "a"]) == 0
    assert main(["run-study", "a", "--out", "there", "--json", *dask]) == 0
    here = [str(Path.cwd() / name) for name in ("results", "there")]
    how = How("dask", "tcp://a:1", 3, 7, True, True)
    assert seen == [("study", here[0], False, How()), ("study", here[1], True, how)]


@pytest.mark.parametrize("command", [["train", "resnet8"], ["distill", "resnet8", "resnet8"]])
def test_trainings_are_repaired_and_run_again(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(train, "load_study", lambda *_: "study")
    monkeypatch.setattr(train, "run", lambda *given: seen.append(given) or 0)
    assert main([*command, "--repair"]) == 0 == main([*command, "--rerun"])
    assert [given[3] for given in seen] == [How(repair=True), How(rerun=True)]


@pytest.mark.parametrize("command", ["run-study", "show-study", "train", "distill"])
def test_the_data_folder_is_where_the_option_says(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    def look(*_: object) -> None:
        raise Heard(os.environ["KDSIM_DATA"])

    monkeypatch.setenv("KDSIM_TRACEBACK", "1")
    monkeypatch.setenv("KDSIM_DATA", "elsewhere")
    for module in STARTING:
        monkeypatch.setattr(module, "load_study", lambda *_: "study")
    for module in (run, train):
        monkeypatch.setattr(module, "run", look)
    monkeypatch.setattr("kdsim.study.trainings.is_training", look)
    start = [command, "a", "b"][: 3 if command == "distill" else 2]
    for arguments, folder in (([], "elsewhere"), (["--data-dir", "here"], "here")):
        with pytest.raises(Heard, match=folder):
            main([*start, *arguments])
        assert os.environ["KDSIM_DATA"] == "elsewhere"  # the option holds for its command


# Processes ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_usage_errors_and_help_import_no_torch() -> None:
    process = subprocess.run([*KDSIM, "run-stdy"], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout, process.stderr.count("\n")) == (2, "", 1)
    code = "import sys; from kdsim.cli import main; code = main(['--help']); sys.exit(code or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_a_reader_that_goes_away(tiny_run: Path) -> None:
    process = subprocess.Popen(
        [*KDSIM, "results", "tiny", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    err = process.stderr.read()
    process.wait()
    assert "Traceback" not in err and "Exception" not in err
