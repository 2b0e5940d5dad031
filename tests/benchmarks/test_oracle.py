"""The oracle: every planted difference is found, nothing else is, every study has a case, and a tree imports itself."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from benchmarks.oracle import __main__ as oracle
from benchmarks.oracle import running, trees
from benchmarks.oracle.cases import CASES, Case, chosen
from benchmarks.oracle.compare import LEVEL, OF_START, RELATIVE, compare, lines
from kdsim.studies import STUDIES

Rows = list[dict[str, Any]]


def simulations() -> Rows:
    """Three rows of a linear student that starts 4 from its optimum, in squared distance: 2 x 3 / 1.5."""
    first = {
        "study": "noise-sweep", "cell": "a", "problem": "digits", "student": "softmax-regression", "step_size": 0.01,
        "dtype": "float32", "replicas": 16, "seed": 0, "engine": "torch", "initial_excess": 3.0, "L": 1.5,
        "bound_condition": "step size 0.01 <= 1/L_max = 0.03", "source": "1", "problem.samples": 512,
    }  # fmt: skip
    floors = {"exact": 2e-14, "one-hot": 0.3, "dirichlet": 0.1}
    return [
        first
        | {"supervision": name, "level": None, "floor": floor, "floor_low": 0.9 * floor, "floor_high": 1.1 * floor}
        | {"cross_term": 1e-20, "drift_z": 1.5, "ratio": 1.1, "stationary": True, "exact_floor": None, "diverged": 0}
        for name, floor in floors.items()
    ]


def trainings() -> Rows:
    """A teacher and its student, three replicas: the standard errors of both means are 0.0232."""
    first = {
        "study": "train", "kind": "training", "student": "resnet8", "supervision": "one-hot", "teacher_cell": None,
        "replicas": 3, "nu": 0.03, "test_loss": 2.3, "test_loss_low": 2.2, "test_loss_high": 2.4, "best_step": 6.0,
        "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "test_variance": 0.1, "test_variance_low": None,
        "test_variance_high": None, "images_per_replica_second": 130.0, "label": "one-hot", "seed": 0,
    }  # fmt: skip
    teacher = first | {"cell": "t", "kind": "teacher", "supervision": "laplace", "teacher_cell": "t", "nu": 0.0}
    return [first | {"cell": "a"}, teacher, first | {"cell": "b", "supervision": "laplace", "teacher_cell": "t"}]


def changed(rows: Rows, number: int = 1, **values: Any) -> Rows:
    return [dict(row) | (values if i == number else {}) for i, row in enumerate(rows)]


# Simulations --------------------------------------------------------------------------------------


def test_the_same_is_identical() -> None:
    for rows in (simulations(), trainings()):
        found = compare(rows, deepcopy(rows))
        assert found.verdict == "identical" and found.rows == 3 and not list(lines(found))
        assert found.columns == len({key for row in rows for key in row} - {"study", "cell", "source"}) - (
            "images_per_replica_second" in rows[0]
        )


def test_digests_sources_and_times_are_not_compared() -> None:
    other = [row | {"cell": f"x{row['cell']}", "source": "2"} for row in simulations()]
    assert compare(simulations(), other).identical
    other = [row | {"cell": f"x{row['cell']}", "images_per_replica_second": 1.0} for row in trainings()]
    for row in other:
        row["teacher_cell"] = row["teacher_cell"] and f"x{row['teacher_cell']}"
    assert compare(trainings(), other).identical


def test_rows_in_another_order_are_the_same() -> None:
    assert compare(simulations(), simulations()[::-1]).identical
    assert compare(trainings(), trainings()[::-1]).identical


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("floor", 0.3 * (1 + 3 * RELATIVE)),
        ("floor_high", 0.34),  # another quantile
        ("floor", None),
        ("floor", math.nan),
        ("exact_floor", 0.3),
        ("stationary", False),
        ("stationary", None),
        ("stationary", 1),
        ("diverged", 1),
        ("drift_z", -1.5),
        ("L", 2.1),
    ],
)
def test_a_moved_value_is_found(column: str, value: Any) -> None:
    found = compare(simulations(), changed(simulations(), **{column: value}))
    assert [(each.column, each.after) for each in found.differences] == [(column, pytest.approx(value, nan_ok=True))]
    assert found.verdict == "DIFFERS in 1"
    text = "\n".join(lines(found))
    assert "one-hot" in text and column in text and f"{simulations()[1][column]}"[:6] in text


def test_a_number_within_the_tolerance_agrees() -> None:
    found = compare(simulations(), changed(simulations(), floor=0.3 * (1 + RELATIVE / 2)))
    assert found.verdict == "agrees" and not found.identical
    assert found.largest == pytest.approx(RELATIVE / 2, rel=1e-3)


def test_rounding_of_an_exact_floor_is_accepted_and_no_more() -> None:
    rounding = {"floor": 5e-14, "floor_low": -1e-14, "floor_high": 9e-14, "cross_term": -1e-20, "drift_z": -2.0}
    assert compare(simulations(), changed(simulations(), 0, **rounding, ratio=9.0)).verdict == "agrees"
    start = 2 * 3.0 / 1.5
    assert compare(simulations(), changed(simulations(), 0, floor=0.9 * OF_START * start)).verdict == "agrees"
    found = compare(simulations(), changed(simulations(), 0, floor=1.1 * OF_START * start))
    assert [each.column for each in found.differences] == ["floor"]
    assert compare(simulations(), changed(simulations(), 0, floor=None)).differences
    assert compare(simulations(), changed(simulations(), 0, nu=1e-20), {}).only_after == ["nu"]


def test_without_a_start_rounding_is_judged_relatively() -> None:
    unknown = [row | {"initial_excess": None} for row in simulations()]
    unknown = [row | {"dtype": "float64"} for row in unknown]
    assert compare(unknown, changed(unknown, 0, floor=5e-14)).differences


def test_a_lost_row_is_named_alone() -> None:
    found = compare(simulations(), simulations()[:1] + simulations()[2:])
    assert [(each.column, each.why) for each in found.differences] == [("row", "row lost")]
    assert "one-hot" in str(found.differences[0]) and found.rows == 2
    found = compare(simulations()[:2], simulations())
    assert [each.why for each in found.differences] == ["row new"] and "dirichlet" in str(found.differences[0])
    assert compare(simulations(), []).differences and compare([], simulations()).differences


def test_another_step_size_is_shown_as_one_number() -> None:
    found = compare(simulations(), changed(simulations(), step_size=0.0101, floor=0.31))
    assert [(each.column, each.before, each.after) for each in found.differences] == [("step_size", 0.01, 0.0101)]
    assert compare(simulations(), changed(simulations(), step_size=0.01 * (1 + 1e-9))).rows == 3
    found = compare(simulations(), changed(simulations(), engine="autograd", floor=0.31))  # a text: compared further
    assert [each.column for each in found.differences] == ["engine", "floor"]


def test_a_lost_column_differs_and_a_new_one_is_listed() -> None:
    less = [{key: value for key, value in row.items() if key != "ratio"} for row in simulations()]
    found = compare(simulations(), less)
    assert [(each.column, each.why) for each in found.differences] == [("ratio", "column lost")]
    assert compare(simulations(), less, {"ratio": None}).identical
    found = compare(less, simulations())
    assert found.only_after == ["ratio"] and not found.differences
    assert list(lines(found)) == ["columns only in AFTER: ratio"]


def test_a_renamed_column_is_compared() -> None:
    other = [{"exactness" if key == "ratio" else key: value for key, value in row.items()} for row in simulations()]
    assert compare(simulations(), other).differences
    assert compare(simulations(), other, {"ratio": "exactness"}).identical
    found = compare(simulations(), changed(other, exactness=2.0), {"ratio": "exactness"})
    assert [each.column for each in found.differences] == ["exactness"]


def test_another_wording_is_counted() -> None:
    found = compare(simulations(), changed(simulations(), bound_condition="alpha <= 1/L_max"))
    assert found.verdict == "agrees" and list(lines(found)) == ["bound_condition: worded otherwise in 1 rows"]
    assert compare(simulations(), changed(simulations(), bound_condition=None)).differences


# Trainings ----------------------------------------------------------------------------------------


def test_a_training_that_chance_moved_agrees() -> None:
    moved = {"test_loss": 2.32, "test_loss_low": 2.2, "test_loss_high": 2.44, "best_step": 5.0, "test_variance": 0.2}
    found = compare(trainings(), changed(trainings(), **moved))
    assert found.verdict.startswith("agrees, |z| <= 0.") and found.tests == 2
    assert found.notes == [
        "best_step: not judged, there is no interval, in 1 rows",
        "test_variance: not judged, there is no interval, in 1 rows",
    ]


def test_a_training_that_chance_does_not_explain_differs() -> None:
    far = {"test_loss": 3.3, "test_loss_low": 3.2, "test_loss_high": 3.4}
    found = compare(trainings(), changed(trainings(), **far))
    assert [each.column for each in found.differences] == ["test_loss"]
    assert "the limit of 2 comparisons" in str(found.differences[0])


def test_tolerances_are_those_that_are_promised() -> None:
    """They are stated again: nobody widens them without a look at this test."""
    assert (RELATIVE, OF_START, LEVEL) == (1e-6, 1e-9, 0.01)


def test_the_start_is_taken_at_its_least() -> None:
    """Distances from the larger smoothness, and excess risks from the excess risk itself."""
    distance, excess = OF_START * 2 * 3.0 / 3.0, OF_START * 3.0
    for column, limit in (("floor", distance), ("excess_risk_floor", excess)):
        before = changed(simulations(), 0, L=3.0, **{column: 0.0})
        for share, differs in ((0.9, []), (1.1, [column])):
            found = compare(before, changed(before, 0, L=1.5, **{column: share * limit}))
            assert [each.column for each in found.differences if each.column != "L"] == differs


def test_trainings_are_tested_as_scipy_does() -> None:
    other = {"test_loss": 2.45, "test_loss_low": 2.4, "test_loss_high": 2.5}
    found = compare(trainings(), changed(trainings(), **other))
    errors = [half / stats.t.ppf(0.975, 2) * 3**0.5 for half in (0.1, 0.05)]
    p = stats.ttest_ind_from_stats(2.3, errors[0], 3, 2.45, errors[1], 3, equal_var=False).pvalue
    assert found.z == pytest.approx(stats.norm.isf(p / 2))


def test_trainings_are_held_to_the_limit_of_the_whole_table() -> None:
    """Of two comparisons, one with a p-value between the limit of the table and that of a comparison alone agrees."""
    near = {"test_loss": 2.464, "test_loss_low": 2.364, "test_loss_high": 2.564}
    found = compare(trainings(), changed(trainings(), **near))
    assert stats.norm.isf(0.01 / 2) < found.z < stats.norm.isf(0.005 / 2) == pytest.approx(found.z_limit)
    assert not found.differences and found.tests == 2


def test_of_a_training_what_is_no_chance_is_exact() -> None:
    assert [each.column for each in compare(trainings(), changed(trainings(), nu=0.001)).differences] == ["nu"]
    moved = {"test_loss": 2.32, "test_loss_low": 2.2, "test_loss_high": 2.44}
    found = compare(trainings(), changed(trainings(), 0, **moved, nu=0.031))
    assert [each.column for each in found.differences] == ["nu"]
    found = compare(trainings(), changed(trainings(), accuracy_high=0.7))  # the mean is the same, its interval is not
    assert [each.column for each in found.differences] == ["accuracy_high"]


def test_replicas_that_agree_exactly_leave_nothing_to_chance() -> None:
    certain = {"accuracy_low": 0.5, "accuracy_high": 0.5}
    rows = changed(trainings(), **certain)
    other = changed(trainings(), accuracy=0.6, accuracy_low=0.6, accuracy_high=0.6)
    assert [each.column for each in compare(rows, other).differences] == ["accuracy"]


def test_a_student_of_another_teacher_is_another_row() -> None:
    rows = [*trainings(), trainings()[1] | {"cell": "u", "teacher_cell": "u", "supervision": "ivon"}]
    found = compare(rows, changed(rows, 2, teacher_cell="u"))
    assert [each.column for each in found.differences] == ["teacher_cell"]


def test_a_perceptron_in_float32_is_left_to_chance_and_in_float64_not() -> None:
    moved = {"floor": 0.301, "floor_low": 0.271, "floor_high": 0.331, "drift_z": 1.4}
    for dtype, agrees in (("float32", True), ("float64", False)):
        rows = [row | {"initial_excess": None, "dtype": dtype} for row in simulations()]
        assert bool(compare(rows, changed(rows, **moved)).differences) is not agrees


# Cases --------------------------------------------------------------------------------------------


def test_every_study_has_a_case() -> None:
    lacking = {study.name for study in STUDIES} - {case.study for case in CASES if case.command[0] != "predict"}
    assert not lacking, f"give {lacking} a case of a few seconds in benchmarks/oracle/cases.py"
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_settings_are_those_of_the_study(case: Case) -> None:
    """The keys exist and their values are allowed; nothing runs."""
    from kdsim.config import by_name
    from kdsim.study.loading import load
    from kdsim.study.settings import parse_settings

    options = dict(zip(case.command, case.command[1:], strict=False))
    short = [f"{key}={options[f'--{key}']}" for key in ("data", "loss") if f"--{key}" in options]
    load(case.study, by_name(STUDIES), parse_settings([*short, *(f"{key}={value}" for key, value in case.settings)]))
    assert "--quick" not in case.arguments() and case.arguments()[-1] == "--json"


def test_only() -> None:
    assert {case.study for case in chosen(["pl-sweep"])} == {"pl-sweep"} and chosen(None) == CASES
    with pytest.raises(ValueError, match=r"^--only nothing: must be one of noise-sweep, "):
        chosen(["nothing"])


# Trees --------------------------------------------------------------------------------------------

COMMAND = """
import json, sys
import kdsim.studies
arguments = sys.argv[1:]
if arguments == ["list-studies"]:
    print("study   what it shows\\n---------------------\\ntrain   a network")
elif kdsim.studies.FLOOR is None:
    sys.exit("error: no floor\\n")
else:
    print(json.dumps({"rows": [{"study": "train", "cell": "a", "floor": kdsim.studies.FLOOR, "problem": "p"}]}))
"""


def made_tree(root: Path, floor: float | None) -> Path:
    """A tree with the layout of setup.cfg and a command line that prints one row."""
    for folder in ("kdsim", "elsewhere", "figures"):
        (root / folder).mkdir(parents=True)
        (root / folder / "__init__.py").write_text("")
    (root / "elsewhere" / "__init__.py").write_text(f"FLOOR = {floor}\n")
    (root / "kdsim" / "front.py").write_text("def go():\n" + "".join(f"    {line}\n" for line in COMMAND.splitlines()))
    (root / "setup.cfg").write_text(
        "[options]\npackage_dir =\n    kdsim.studies = elsewhere\n    kdsim.figures = figures\n"
        "[options.entry_points]\nconsole_scripts =\n    kdsim = kdsim.front:go\n"
    )
    return root


@pytest.fixture
def run_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr(oracle, "RESULT", tmp_path / "oracle.json")
    return lambda *given: oracle.main(["--out", str(tmp_path / "out"), "--jobs", "2", *map(str, given)])


@pytest.mark.slow
def test_two_trees_are_run_each_by_itself(
    tmp_path: Path, run_oracle: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    before, other = made_tree(tmp_path / "before", 0.25), made_tree(tmp_path / "other", 0.26)
    assert run_oracle(before, before, "--only", "train") == 0
    assert "identical" in capsys.readouterr().out
    assert run_oracle(before, other, "--only", "train") == 1
    assert "floor: 0.25 before, 0.26 after  in problem p" in capsys.readouterr().out
    kept = json.loads((tmp_path / "out" / "oracle.json").read_text())
    assert not kept["agree"] and kept["tables"]["train"]["differences"][0]["after"] == 0.26
    assert not (tmp_path / "oracle.json").exists()  # of whole runs alone
    assert run_oracle(before, made_tree(tmp_path / "failing", None), "--only", "train") == 1
    assert "AFTER: train: exit code 1: error: no floor" in capsys.readouterr().out
    assert run_oracle(before, other, "--only", "pl-sweep") == 1
    assert "NOT IN BOTH" in capsys.readouterr().out


@pytest.mark.slow
def test_what_was_run_is_not_run_again_and_an_edit_is(tmp_path: Path) -> None:
    root, out = made_tree(tmp_path / "tree", 0.25), tmp_path / "out"
    out.mkdir()
    (case,) = chosen(["train"])
    first = trees.snapshot(str(root), out)
    assert running.run_case(first, case, out)["tables"]["train"][0]["floor"] == 0.25
    kept = next((out / "runs" / first.key).glob("*.json"))
    kept.write_text(kept.read_text().replace("0.25", "0.75"))
    assert running.run_case(first, case, out)["tables"]["train"][0]["floor"] == 0.75  # read, not run
    (root / "elsewhere" / "__init__.py").write_text("FLOOR = 0.5\n")
    second = trees.snapshot(str(root), out)
    assert second.key != first.key
    assert running.run_case(second, case, out)["tables"]["train"][0]["floor"] == 0.5


@pytest.mark.parametrize("given", ["no-such-commit", "/no/such/folder", "EMPTY"])
def test_what_is_no_tree_is_refused(
    given: str, tmp_path: Path, run_oracle: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_oracle(str(tmp_path) if given == "EMPTY" else given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "kdsim" in line


def test_a_number_of_processes_that_is_none_is_refused(
    run_oracle: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_oracle("HEAD", "--jobs", "0") == 2
    assert capsys.readouterr().err == "error: --jobs 0: must be at least 1\n"


def test_packages_and_the_entry_point_are_those_of_setup_cfg(tmp_path: Path) -> None:
    root = made_tree(tmp_path / "tree", 1.0)
    assert {name: path.name for name, path in trees.packages(root).items()} == {
        "kdsim": "kdsim", "kdsim.studies": "elsewhere", "kdsim.figures": "figures",
    }  # fmt: skip
    assert trees.entry_point(root) == "kdsim.front:go" and trees.entry_point(tmp_path) == "kdsim.cli:main"
    assert trees.packages(trees.ROOT)["kdsim.studies"] == trees.ROOT / "studies"


def test_cells_of_csv_have_the_types_of_json() -> None:
    found = running._csv("t", "a,b,c,d\n1,,true,exact\n2.5,1e-9,False,\n")["t"]
    assert found == [
        {"a": 1.0, "b": None, "c": True, "d": "exact"},
        {"a": 2.5, "b": 1e-9, "c": False, "d": None},
    ]


def test_an_interrupted_or_failed_process_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = chosen(["train"])
    tree = trees.Tree("t", "key", tmp_path, "kdsim.cli:main")
    done = subprocess.CompletedProcess([], 130, "", "interrupted\noracle: 1.5\n")
    monkeypatch.setattr(running, "_process", lambda *_: done)
    with pytest.raises(running.Interrupted, match="train of t"):
        running.run_case(tree, case, tmp_path)
    assert not list((tmp_path / "runs").rglob("*.json"))
    done.returncode = 1
    assert running.run_case(tree, case, tmp_path)["failure"] == "train: exit code 1: interrupted"
    assert not list((tmp_path / "runs").rglob("*.json"))  # tried again by the same command
    assert running._last_line(done) == "interrupted" and running._seconds(done) == 1.5


def test_a_whole_number_in_a_text_is_the_same_as_int_and_float() -> None:
    row = {"study": "s", "optimiser_settings": "ivon(ess=50000, beta1=0.9)", "floor": 0.25}
    same, other = ({**row, "optimiser_settings": f"ivon(ess={ess}, beta1=0.9)"} for ess in ("50000.0", "50000.5"))
    assert not compare([row], [same]).differences
    assert compare([row], [other]).differences
