"""Claims on fabricated results: one that is false must be reported as failing, whichever part of it is false."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np
import pytest
from fabricated import results, spread

from kdsim.claims import CLAIMS
from kdsim.claims.base import Claim
from kdsim.claims.verdicts import CONDITIONS, FAILS, HOLDS, OPEN, REFUTED, SHOWN, Decided, decide, verdict
from kdsim.config import ConfigError, by_name
from kdsim.results.store import StudyResults

CLAIM = {claim.name: claim for claim in CLAIMS}


def judged(name: str, *found: StudyResults) -> tuple[str, dict[str, Decided]]:
    """Verdict, and decisions by condition."""
    claim: Claim = CLAIM[name]
    decided = decide(list(claim.parts(found)))
    return verdict(decided)[0], {each.part.condition: each for each in decided}


# Bounds ---------------------------------------------------------------------------------------------------

STEPS = np.array([0, 10, 100, 1_000])


def bounded(supervision: str, ratio: float, *, at: int = 2, final: float = 1e-15, **row: Any) -> StudyResults:
    """A cell whose mean is half its bound, but at one checkpoint, where it is `ratio` times it; likewise its floor."""
    bound = np.array([1.0, 0.9, 0.5, 0.1])
    mean = 0.5 * bound
    mean[at] = ratio * bound[at]
    record = {
        "cell": "a", "supervision": supervision, "nu": 0.1, "step_size": 0.01, "replicas": 12, "bound_valid": True,
        "bound_tail": 0.2, "risk_bound_valid": True, "risk_bound_tail": 0.2, "excess_risk_floor": 0.2 * ratio,
        "excess_risk_floor_high": 0.2 * ratio + 0.01, "problem.samples": 10, "problem.dimension": 20,
        "problem.rank": None, **row,
    }  # fmt: skip
    curve = {"step": STEPS}
    for metric, name in (("dist_sq", "bound"), ("excess_risk", "risk_bound")):
        curve |= {f"{metric}_mean": mean, f"{metric}_se": 0.01 * mean, name: bound}
    replicas = {"floor": spread(0.2 * ratio), "final_dist_sq": np.full(12, final)}
    return results([record], {"a": replicas}, {"a": curve})


def joined(*parts: StudyResults) -> StudyResults:
    """Cells of several results, renamed."""
    records, replicas, curves = [], {}, {}
    for number, part in enumerate(parts):
        cell = f"cell{number}"
        records.append(part.records[0] | {"cell": cell})
        replicas[cell] = {
            name: part.replicas[name].to_numpy() for name in part.replicas if name not in ("cell", "replica")
        }
        curves[cell] = {name: part.curves[name].to_numpy() for name in part.curves if name != "cell"}
    return results(records, replicas, curves)


NOISY = {"t1-one-hot": ("one-hot",), "t1-noisy": ("dirichlet", "annotators", "two-point", "independent")}


@pytest.mark.parametrize("name", ["t1-one-hot", "t1-noisy", "t2-one-hot", "t2-noisy"])
def test_bounds_that_are_kept_or_broken(name: str) -> None:
    families = NOISY.get(name, ("one-hot",) if name == "t2-one-hot" else ("dirichlet", "annotators"))
    kept = [bounded(family, 0.6) for family in families]
    assert judged(name, joined(*kept))[0] == HOLDS
    broken = joined(*kept[:-1], bounded(families[-1], 1.3))
    found, parts = judged(name, broken)
    assert found in (FAILS, CONDITIONS)
    assert REFUTED in {each.decision for each in parts.values()}
    if len(families) == 1:
        assert found == FAILS
    diverged = joined(*kept[:-1], bounded(families[-1], np.nan, excess_risk_floor=None, excess_risk_floor_high=None))
    assert REFUTED in {each.decision for each in judged(name, diverged)[1].values()}


def test_a_bound_that_is_touched_is_not_decided() -> None:
    found, parts = judged("t1-one-hot", bounded("one-hot", 1.0))
    assert found == FAILS
    assert {each.decision for each in parts.values()} == {OPEN}


@pytest.mark.parametrize("name", ["t1-one-hot", "t2-one-hot"])
def test_the_start_is_no_test_of_a_bound(name: str) -> None:
    """Before the first step nothing was walked: a bound without a neighbourhood is met there exactly."""
    found = bounded("one-hot", 0.6)
    found.curves.loc[found.curves["step"] == 0, ["dist_sq_mean", "excess_risk_mean"]] = 1.3
    assert judged(name, found)[0] == HOLDS


def test_cells_beyond_the_bounds_conditions_do_not_count() -> None:
    outside = joined(bounded("one-hot", 0.6), bounded("one-hot", 3.0, bound_valid=False))
    assert judged("t1-one-hot", outside)[0] == HOLDS
    with pytest.raises(ConfigError, match="nothing to test"):
        judged("t1-one-hot", bounded("one-hot", 0.6, bound_valid=False))


@pytest.mark.parametrize("final", [1e-3, np.nan, np.inf])
def test_exact_bcp_with_a_floor_fails(final: float) -> None:
    assert judged("t1-exact", bounded("exact", 0.6))[0] == HOLDS
    found, parts = judged("t1-exact", bounded("exact", 0.6, final=final))
    assert found == CONDITIONS  # the curve is below the bound all the same
    assert parts["no floor"].decision == REFUTED
    assert judged("t1-exact", bounded("exact", 1.4, final=final))[0] == FAILS
    assert judged("t2-exact", bounded("exact", 0.6))[0] == HOLDS
    assert judged("t2-exact", bounded("exact", 1.4))[0] == FAILS


def stepped(supervision: str, floor: float, limit: float = 0.5) -> StudyResults:
    """At alpha = 1, twice T1's limit for noisy supervision: T1's neighbourhood is 2."""
    found = bounded(supervision, 0.6, step_size=1.0, step_size_limit=limit, sigma_star_sq=1.0, mu=1.0)
    found.replicas["floor"] = spread(floor)
    return found


def borne(exact: int, one_hot: int, shift: int = 1) -> StudyResults:
    """Two students, five step sizes, of which replicas bear so many; every third one `shift` fewer."""
    records, replicas = [], {}
    for student in ("factored-least-squares", "mlp"):
        for name, count in (("exact", exact), ("one-hot", one_hot)):
            for number in range(5):
                cell = f"{student} {name} {number}"
                bears = number < np.where(np.arange(12) % 3 == 0, count - (name == "exact") * shift, count)
                records.append(
                    {"cell": cell, "student": student, "supervision": name, "step_size": 2.0**number,
                     "constant_excess_risk": 1.0, "replicas": 12}
                )  # fmt: skip
                replicas[cell] = {"diverged_at": np.where(bears, -1, 7), "final_excess_risk": np.full(12, 0.1)}
    return results(records, replicas)


def test_the_doubled_step_size() -> None:
    assert judged("double-step", stepped("exact", 0.0, limit=1.0))[0] == HOLDS
    linear = [stepped("exact", 0.0, limit=1.0), stepped("one-hot", 2.2), stepped("dirichlet", 2.2)]
    assert judged("double-step-special", joined(*linear), borne(4, 2))[0] == HOLDS
    # As it is measured: linear students keep the bound under every supervision, others do not.
    kept = [linear[0], stepped("one-hot", 1.8), stepped("dirichlet", 1.8)]
    found, parts = judged("double-step-special", joined(*kept), borne(4, 2))
    assert found == CONDITIONS
    assert [each.decision for each in parts.values()] == [REFUTED, REFUTED, SHOWN, SHOWN]
    assert judged("double-step-special", joined(*kept), borne(2, 4))[0] == FAILS
    same = judged("double-step-special", joined(*kept), borne(3, 3, shift=0))[1]
    assert [each.decision for each in same.values()] == [REFUTED, REFUTED, OPEN, OPEN]


# Noise ----------------------------------------------------------------------------------------------------


def families(power: float, constants: dict[str, float]) -> StudyResults:
    """floor = fluctuation = constant nu^power."""
    records, replicas = [], {}
    for family, constant in constants.items():
        for nu in (0.001, 0.01, 0.1):
            cell = f"{family} {nu}"
            records.append({"cell": cell, "supervision": family, "nu": nu, "replicas": 12})
            values = spread(constant * nu**power, seed=crc32(cell.encode()))
            replicas[cell] = {"floor": values, "fluctuation": values}
    return results(records, replicas)


def test_proportionality() -> None:
    alike = dict.fromkeys(NOISY["t1-noisy"], 3.0)
    assert judged("noise-proportional", families(1.0, alike))[0] == HOLDS
    found, parts = judged("noise-proportional", families(1.0, alike | {"independent": 6.0}))
    assert found == CONDITIONS
    assert [name for name, each in parts.items() if each.decision == REFUTED] == [
        "one constant for independent and dirichlet"
    ]
    square = judged("noise-proportional", families(2.0, alike))[1]
    assert {each.decision for name, each in square.items() if "within" in name} == {REFUTED}
    assert all(each.part.effect == pytest.approx(2, abs=0.05) for name, each in square.items() if "within" in name)


def data_sets(gap: float, accuracy: float) -> StudyResults:
    """With more noise the gap is larger by `gap`, and the accuracy by `accuracy`."""
    records, replicas = [], {}
    for size in (64, 256):
        for level, name in enumerate(("exact", "dirichlet", "one-hot")):
            cell = f"{name} {size}"
            records.append(
                {"cell": cell, "training_set": size, "supervision": name, "nu": level / 10, "replicas": 12,
                 "generalisation_gap": 0.3 + level * gap, "generalisation_gap_high": 0.3 + level * gap + 0.01}
            )  # fmt: skip
            replicas[cell] = {"final_accuracy": spread(0.6 + level * accuracy, seed=level)}
    return results(records, replicas)


def test_generalisation_and_accuracy() -> None:
    for name, true, false in (
        ("noise-generalisation", data_sets(0.1, 0.0), data_sets(-0.1, 0.0)),
        ("noise-accuracy", data_sets(0.0, -0.1), data_sets(0.0, 0.1)),
    ):
        assert judged(name, true)[0] == HOLDS
        assert judged(name, false)[0] == FAILS
    found, parts = judged("noise-accuracy", data_sets(0.1, 0.0))
    assert (found, {each.decision for each in parts.values()}) == (FAILS, {OPEN})


# Teachers -------------------------------------------------------------------------------------------------

BETTER = {"test_accuracy": 0.02, "noise_accuracy": -0.01, "test_bcp_kl": -0.05}


def taught(
    advantage: dict[tuple[int, float], dict[str, float]], name: str = "point-teachers", *, known: bool = True
) -> StudyResults:
    """Students of three kinds of teachers; Bayesian ones differ by `advantage` at each (size, temperature)."""
    records, replicas = [], {}
    for (size, temperature), gain in advantage.items():
        for kind in ("deterministic", "laplace", "variational"):
            cell = f"{kind} {size} {temperature}"
            records.append(
                {"cell": cell, "kind": "training", "supervision": kind, "train_size": size, "replicas": 12,
                 "loss_settings": f"bayesian-kd(alpha=1.0, teacher_temperature={temperature}, student_temperature=1.0)"}
            )  # fmt: skip
            own = {}
            for number, metric in enumerate(BETTER):
                shift = gain.get(metric, 0.0) if kind != "deterministic" else 0.0
                own[metric] = spread(0.5, seed=number) + shift + spread(0, 1.0, seed=crc32(cell.encode()) + number)
            if not known:
                own["test_bcp_kl"] = np.full(12, np.nan)
            replicas[cell] = own
    return results(records, replicas, name=name)


def test_bayesian_teachers() -> None:
    worse = {metric: -value for metric, value in BETTER.items()}
    points, images = taught({(200, 1.0): BETTER}), taught({(900, 1.0): BETTER}, "teacher-kinds")
    assert judged("bayesian-teachers", points, images)[0] == HOLDS
    assert judged("bayesian-teachers", taught({(200, 1.0): worse}), taught({(900, 1.0): worse}, "k"))[0] == FAILS
    assert judged("bayesian-teachers", taught({(200, 1.0): {}}), taught({(900, 1.0): {}}, "k"))[0] == FAILS
    found, parts = judged("bayesian-teachers", points, taught({(900, 1.0): worse}, "teacher-kinds"))
    assert found == CONDITIONS
    assert parts["images, laplace: accuracy"].decision == REFUTED
    assert parts["points, laplace: accuracy"].decision == SHOWN


def test_cifar_has_no_known_bcp() -> None:
    """There the divergence is no part; accuracy and noise are."""
    parts = judged("bayesian-teachers-cifar10", taught({(900, 1.0): BETTER}, "teacher-kinds", known=False))[1]
    assert len(parts) == 4
    assert not any("KL" in name for name in parts)


def test_few_shot() -> None:
    growing = {(100, 1.0): {"test_accuracy": 0.05}, (900, 1.0): {"test_accuracy": 0.01}}
    assert judged("few-shot", taught(growing), taught(growing, "few-shot"))[0] == HOLDS
    shrinking = {(100, 1.0): {"test_accuracy": -0.05}, (900, 1.0): {"test_accuracy": 0.01}}
    assert judged("few-shot", taught(shrinking), taught(shrinking, "few-shot"))[0] == FAILS
    constant = {(100, 1.0): {"test_accuracy": 0.05}, (900, 1.0): {"test_accuracy": 0.05}}
    found, parts = judged("few-shot", taught(constant), taught(constant, "few-shot"))
    assert (found, {each.decision for each in parts.values()}) == (FAILS, {OPEN})  # better, but not more so
    catching_up = {(100, 1.0): {"test_accuracy": -0.02}, (900, 1.0): {"test_accuracy": -0.1}}
    assert judged("few-shot", taught(catching_up), taught(catching_up, "few-shot"))[0] == FAILS


def test_temperature() -> None:
    for gain, expected in ((0.05, HOLDS), (-0.05, FAILS)):
        both = {(100, 1.0): {"test_accuracy": gain}, (100, 4.0): {"test_accuracy": gain}}
        assert judged("temperature", taught(both), taught(both, "temperature"))[0] == expected
    mixed = {(100, 1.0): {"test_accuracy": 0.05}, (100, 4.0): {"test_accuracy": -0.05}}
    found, parts = judged("temperature", taught(mixed), taught(mixed, "temperature"))
    assert found == CONDITIONS
    assert parts["points, laplace: better at T = 4"].decision == REFUTED


# Deviations -----------------------------------------------------------------------------------------------


def test_eigen_bias() -> None:
    def paths(violations: int, least: float) -> StudyResults:
        row = {"step_size": None, "comparisons": 100, "violations": violations, "ratio_min": least}
        return results([row, row | {"step_size": 0.5}])

    assert judged("exaggerated-eigen-bias", paths(0, 0.02))[0] == HOLDS
    assert judged("exaggerated-eigen-bias", paths(3, 1.2))[0] == FAILS
    assert judged("exaggerated-eigen-bias", paths(0, 1.0))[0] == CONDITIONS  # never violated, and nothing there


@pytest.mark.parametrize(
    ("slope", "upper", "lowest", "expected"),
    [
        (1.2, 1.4, -0.3, [SHOWN, SHOWN]),
        (0.8, 1.2, -0.3, [OPEN, SHOWN]),  # a slope below one alone shows nothing
        (0.6, 0.8, 0.3, [REFUTED, OPEN]),  # nor does a positive difference of hard points
        (1.0001, 1.0002, -3e-5, [REFUTED, OPEN]),  # less than a hundredth is none
    ],
)
def test_confidence(slope: float, upper: float, lowest: float, expected: list[str]) -> None:
    teacher = {
        "cell": "t", "kind": "teacher", "teacher.supervision": "exact", "teacher.epochs": 4.0, "teacher_cell": "t",
    }  # fmt: skip
    student = {"cell": "s", "kind": "training", "teacher_cell": "t", "teacher": "mlp", "student": "mlp", "replicas": 12}
    alone = {"cell": "a", "kind": "training", "teacher_cell": None}
    replicas = {
        "s": {
            "deviation_slope": spread(slope, 1e-4),
            "deviation_slope_upper": spread(upper, 1e-4, seed=1),
            "deviation_q1": spread(lowest, seed=2),
        }
    }
    found = results([alone, teacher, student], replicas)
    slopes, hard = (judged(name, found)[1].values() for name in ("exaggerated-confidence", "exaggerated-hard-points"))
    assert [each.decision for each in (*slopes, *hard)] == expected


# Long tails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ltkd-rebalance", "ltkd-equal-weights", "ltkd"])
def test_long_tail(name: str) -> None:
    """Only the correction that the claim is about has an effect; it decides."""
    about = {"ltkd-rebalance": (True, False), "ltkd-equal-weights": (False, True), "ltkd": (True, True)}[name]

    metrics = {"test_bcp_kl_between": -1, "test_bcp_kl_within": -1, "test_accuracy": 1, "test_accuracy_tail": 1}

    def students(gain: float) -> StudyResults:
        records, replicas = [], {}
        for corrections in ((False, False), (True, False), (False, True), (True, True)):
            kd = corrections == (False, False)
            settings = "rebalance={}, equal_groups={}".format(*corrections)
            records.append(
                {"cell": settings, "kind": "training", "data": "known-points", "imbalance": 50.0, "replicas": 12,
                 "supervision": "exact", "loss_kind": "kd" if kd else "ltkd", "loss_settings": f"ltkd({settings})"}
            )  # fmt: skip
            shift = gain * (corrections == about)
            replicas[settings] = {
                metric: spread(0.5, seed=number) + sign * shift + spread(0, 1.0, seed=number + 9 * sum(corrections))
                for number, (metric, sign) in enumerate(metrics.items())
            }
        return results(records, replicas)

    assert judged(name, students(0.1))[0] == HOLDS
    assert judged(name, students(-0.1))[0] == FAILS


# Exact statements -----------------------------------------------------------------------------------------


def exact(**changes: float) -> StudyResults:
    rows, replicas = [], {}
    small = dict.fromkeys(
        ("risk_difference", "minimum_difference", "gradient", "below_minimum", "sample_gradient"), 1e-15
    )
    for student in ("softmax-regression", "mlp"):
        rows.append(
            {"cell": f"p {student}", "computation": "propositions", "student": student, "cases": 9, **small,
             "control_gradient": 0.1, "control_sample_gradient": 0.1} | changes
        )  # fmt: skip
        for supervision in ("one-hot", "independent"):
            cell = f"{student} {supervision}"
            rows.append(
                {"cell": cell, "computation": "gradient-noise", "student": student, "supervision": supervision,
                 "cases": 9, "enumeration_error": 1e-15, "hessian_error": None if supervision != "one-hot" else 1e-15}
                | changes
            )  # fmt: skip
            replicas[cell] = {"ratio": spread(changes.get("ratio", 1.0))}
    return results(rows, replicas)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("p1", {"risk_difference": 0.1}),
        ("p1", {"minimum_difference": 0.1}),
        ("p1", {"gradient": 0.1}),
        ("p1", {"below_minimum": 0.1}),
        ("p1", {"control_gradient": 0.0}),
        ("p2", {"sample_gradient": 0.1}),
        ("p2", {"control_sample_gradient": 0.0}),
        ("noise-one-hot", {"enumeration_error": 0.1}),
        ("noise-one-hot", {"hessian_error": 0.1}),
        ("noise-one-hot", {"ratio": 1.3}),
        ("noise-independent", {"enumeration_error": 0.1}),
        ("noise-independent", {"ratio": 0.7}),
    ],
)
def test_exact_statements(name: str, changes: dict[str, float]) -> None:
    assert judged(name, exact())[0] == HOLDS
    found, parts = judged(name, exact(**changes))
    assert found != HOLDS
    assert REFUTED in {each.decision for each in parts.values()}


def test_every_claim_is_judged_here() -> None:
    """A new claim needs a test that it can fail."""
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    assert [name for name in CLAIM if f'"{name}"' not in text] == []
    assert by_name(CLAIMS).keys() == CLAIM.keys()


def test_students_that_diverged_decide_nothing() -> None:
    """Neither for nor against, and not left out silently."""
    points, images = taught({(200, 1.0): BETTER}), taught({(900, 1.0): BETTER}, "teacher-kinds")
    points.replicas.loc[points.replicas["cell"] == "laplace 200 1.0", "test_accuracy"] = np.nan
    found, parts = judged("bayesian-teachers", points, images)
    assert found == CONDITIONS
    (lost,) = (each for name, each in parts.items() if name.startswith("points, laplace: accuracy"))
    assert lost.decision == OPEN
    assert "no number" in lost.part.condition
    del points.replicas["noise_accuracy"]
    assert (
        "points, variational: convergence noise of the accuracy" not in judged("bayesian-teachers", points, images)[1]
    )
