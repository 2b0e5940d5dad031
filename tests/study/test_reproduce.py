"""Stored cells run again: identical here, equal to rounding elsewhere, and every altered number is found."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import tiny_study
from stored_results import contents, digests, rewrite
from tiny_study import Tiny

from kdsim import config
from kdsim.cli import main
from kdsim.problems import SoftmaxLinear
from kdsim.results.store import Store, read_study
from kdsim.results.unfinished import Plan
from kdsim.study import runner
from kdsim.study.agreement import LEVEL, Figure
from kdsim.study.base import Computation, Computed, Study
from kdsim.study.reproduce import promised
from kdsim.study.reproduce_plan import choose

TINY_FILE = str(Path(tiny_study.__file__))
SWEEP = ["noise-sweep", "--quick", "--set", "problem=softmax-linear", "--set", "problem.samples=64", "--replicas", "4"]
SWEEP += ["--set", "problem.dimension=3", "--set", "families=dirichlet", "--set", "levels=2", "--set", "steps=200"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with four cells of one pack."""
    out = tmp_path_factory.mktemp("sweep") / "results"
    assert main(["run-study", *SWEEP, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a study file."""
    out = tmp_path_factory.mktemp("tiny") / "results"
    assert main(["run-study", TINY_FILE, "--out", str(out)]) == 0
    return out


@pytest.fixture
def copy(sweep: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sweep, tmp_path / "results"))


def reproduce(capsys: pytest.CaptureFixture[str], folder: Path, *options: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    found = main(["reproduce", str(folder), "--json", *options])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return json.loads(captured.out)


def verdicts(found: dict[str, Any]) -> list[str]:
    return [cell["verdict"] for cell in found["cells"]]


def elsewhere(info: dict[str, Any], tables: Any = None) -> None:
    """As if it had run on another processor: identity is not promised."""
    info["hardware"]["cpu"] = "another"


# What agrees ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_again_is_identical_and_writes_nothing(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(sweep)
    found = reproduce(capsys, sweep)
    assert verdicts(found) == ["identical"] * 4 and found["agrees"] and found["counts"] == {"identical": 4}
    assert all(cell["promised"] and cell["relative"] == 0 and cell["z"] is None for cell in found["cells"])
    assert found["differences"] == [] and contents(sweep) == before
    assert main(["reproduce", str(sweep)]) == 0
    assert "4 cells: 4 identical" in capsys.readouterr().out


@pytest.mark.slow
def test_one_cell_alone_runs_in_its_pack(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = digests(sweep)[2]
    found = reproduce(capsys, sweep, "--only", chosen[:6], "--keep", str(tmp_path / "kept"))
    assert [(cell["cell"], cell["verdict"]) for cell in found["cells"]] == [(chosen, "identical")]
    assert digests(tmp_path / "kept") == [chosen]
    for name in ("pack", "pack_position"):
        assert Store(tmp_path / "kept").read_info(chosen)[name] == Store(sweep).read_info(chosen)[name]
    assert list((tmp_path / "kept" / "partial").iterdir()) == []


@pytest.mark.slow
def test_one_run_of_a_study(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Tiny(problem=SoftmaxLinear(samples=32), supervisions=Tiny().supervisions[:2], steps=100)
    runner.run(other, copy)
    folder = Store(copy).latest("noise-sweep")
    assert len(reproduce(capsys, copy)["cells"]) == 6
    found = reproduce(capsys, folder)
    assert [cell["cell"] for cell in found["cells"]] == list(dict.fromkeys(read_study(folder).info["cells"]))
    assert verdicts(found) == ["identical"] * 4


@pytest.mark.slow
def test_a_sample_is_drawn_by_the_seed(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reproduce(capsys, sweep, "--cells", "2", "--seed", "3")
    assert found["sample"] == {"cells": 2, "seed": 3} and verdicts(found) == ["identical"] * 2
    names = [f"{number:04d}" for number in range(50)]
    samples = [choose(names, (), 5, seed) for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2] and all(len(sample) == 5 for sample in samples)
    assert choose(names, ("000", "0031"), None, 0) == [*names[:10], "0031"]


@pytest.mark.slow
def test_another_engine_agrees(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reproduce(capsys, sweep, "--engine", "torch")
    assert set(verdicts(found)) <= {"equal to rounding", "statistically equal"}
    assert all(0 < cell["relative"] < 1e-4 and not cell["promised"] for cell in found["cells"])
    assert found["comparisons"] > 100
    assert {"what": "engine: cpu_fused then, torch now", "cells": 4} in found["differences"]


def test_without_one_cell_of_its_pack_a_cell_runs_in_another(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copy / "cells" / digests(copy)[0])
    found = reproduce(capsys, copy)
    assert set(verdicts(found)) <= {"identical", "equal to rounding"} and len(found["cells"]) == 3
    assert {"what": "packing is another", "cells": 3} in found["differences"]
    assert not any(cell["promised"] for cell in found["cells"])


@pytest.mark.slow
def test_a_cell_in_blocks_of_replicas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Tiny(problem=SoftmaxLinear(samples=32), supervisions=Tiny().supervisions[:2], steps=100)
    runner.run(study, tmp_path, block_replicas=3)
    found = reproduce(capsys, tmp_path)
    assert verdicts(found) == ["identical"] * 2 and all(cell["promised"] for cell in found["cells"])


# What does not ----------------------------------------------------------------------------------


def scale_floor(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    info["measurement"]["floor"] *= 1 + 1e-9


def scale_curve(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    tables["curves"].loc[4, "excess_risk_mean"] *= 1 + 1e-9


def scale_quantile(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    tables["curves"].loc[4, "dist_sq_q25"] *= 1.5


def scale_replica(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    tables["replicas"].loc[1, "floor"] *= 1 + 1e-9


def scale_theory(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    info["prediction"]["sigma_star_sq"] += 1e-9


def turn_judgement(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    info["measurement"]["stationary"] = not info["measurement"]["stationary"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (scale_floor, "floor: stored"),
        (scale_curve, "excess_risk at step"),
        (scale_quantile, "curves dist_sq_q25, row 4"),
        (scale_replica, "mean of floor"),
        (scale_theory, "prediction sigma_star_sq"),
        (turn_judgement, "measurement stationary"),
    ],
)
def test_any_altered_number_is_found(copy: Path, change: Any, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Here, where identity is promised, in the last digit."""
    altered = digests(copy)[1]
    rewrite(copy, altered, change)
    found = reproduce(capsys, copy, code=1)
    for cell in found["cells"]:
        assert cell["verdict"] == ("differs" if cell["cell"] == altered else "identical")
    why = next(cell["why"] for cell in found["cells"] if cell["cell"] == altered)
    assert named in why and "stored" in why and "rerun" in why
    assert main(["reproduce", str(copy), "--only", altered]) == 1


@pytest.mark.slow
def test_elsewhere_an_altered_number_is_found_by_its_standard_error(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def far(info: dict[str, Any], tables: Any) -> None:
        elsewhere(info)
        info["measurement"]["floor"] += 100 * info["measurement"]["floor_se"]

    def near(info: dict[str, Any], tables: Any) -> None:
        elsewhere(info)
        info["measurement"]["floor"] += info["measurement"]["floor_se"]

    def rounding(info: dict[str, Any], tables: Any) -> None:
        elsewhere(info)
        info["measurement"]["floor"] *= 1 + 1e-6

    names = digests(copy)
    for digest, change in zip(names, (far, near, rounding), strict=False):
        rewrite(copy, digest, change)
    found = {cell["cell"]: cell for cell in reproduce(capsys, copy, code=1)["cells"]}
    assert [found[name]["verdict"] for name in names] == [
        "differs",
        "statistically equal",
        "equal to rounding",
        "identical",
    ]
    assert found[names[0]]["z"] == pytest.approx(100 / math.sqrt(2), rel=1e-6)  # both standard errors
    assert found[names[0]]["z"] > found[names[0]]["z_limit"] > 4 and "floor: stored" in found[names[0]]["why"]
    assert found[names[1]]["z"] == pytest.approx(1 / math.sqrt(2), rel=1e-6) and found[names[1]]["z_limit"] > 4
    assert found[names[2]]["relative"] == pytest.approx(1e-6, rel=1e-3)
    assert main(["reproduce", str(copy), "--only", names[1]]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "the same random numbers" in out and "Bonferroni" in out and "cpu: another then" in out


def drop_floor(info: dict[str, Any], tables: Any) -> None:
    info["measurement"]["floor"] = None


def text_floor(info: dict[str, Any], tables: Any) -> None:
    info["measurement"]["floor"] = "much"


def add_text_column(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    tables["curves"]["dist_sq_mean"] = "much"


def drop_row(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    tables["replicas"] = tables["replicas"].iloc[1:]


def add_spectrum(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    tables["spectrum"] = pd.DataFrame({"direction": [0]})


def other_theory(info: dict[str, Any], tables: Any) -> None:
    info["prediction"]["mu"] *= 1.001


def other_bound(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    tables["curves"]["linearised"] *= 1.001


def other_problem(info: dict[str, Any], tables: Any) -> None:
    info["summary"]["problem"] = "digits"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (drop_floor, "floor: stored nan"),
        (text_floor, "floor: stored nan"),
        (add_text_column, "table curves"),
        (drop_row, "table replicas"),
        (add_spectrum, "table spectrum"),
        (other_theory, "prediction mu"),
        (other_bound, "curves linearised"),
        (other_problem, "summary problem"),
    ],
)
def test_what_no_rounding_explains_differs_elsewhere_too(
    copy: Path, change: Any, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def both(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
        elsewhere(info)
        change(info, tables)

    altered = digests(copy)[0]
    rewrite(copy, altered, both)
    (cell,) = reproduce(capsys, copy, "--only", altered, code=1)["cells"]
    assert cell["verdict"] == "differs" and named in cell["why"] and not cell["promised"]


PLACE = {
    "versions": {"source_sha256": "a", "torch": "2", "platform": "p", "threads": 2},
    "hardware": {"cpu": "c", "cores": 2, "memory_gib": 4.0, "gpus": []},
    "device": "cpu", "engine": "torch", "pack": "d",
}  # fmt: skip
TRAINED = {key: value for key, value in PLACE.items() if key not in ("engine", "pack")}


@pytest.mark.parametrize(
    ("stored", "part", "changes", "identical"),
    [
        (PLACE, None, {}, True),
        (PLACE, "versions", {"platform": "q", "threads": 1}, True),  # paths do not depend on the number of threads
        (PLACE, "hardware", {"cores": 4, "memory_gib": 8.0}, True),
        (PLACE, "versions", {"torch": "3"}, False),
        (PLACE, "versions", {"source_sha256": "b"}, False),
        (PLACE, "hardware", {"cpu": "d"}, False),
        (PLACE, None, {"engine": "autograd"}, False),
        (PLACE, None, {"pack": "e"}, False),
        (TRAINED, None, {}, True),
        (TRAINED, "versions", {"threads": 1}, False),  # those of networks do
        (TRAINED, "hardware", {"cores": 4}, True),
        (TRAINED, None, {"provenance": {"images": "others"}}, False),
    ],
)
def test_what_is_promised_to_be_identical(stored: dict, part: str | None, changes: dict, identical: bool) -> None:
    rerun = stored | changes if part is None else stored | {part: stored[part] | changes}
    assert promised(stored, rerun) == promised(rerun, stored) == identical


def test_nothing_is_promised_on_a_gpu_or_of_an_unknown_source() -> None:
    unknown = PLACE | {"versions": {"torch": "2"}}
    assert not promised(unknown, unknown) and not promised(*[PLACE | {"device": "cuda"}] * 2)


def test_limits_hold_what_they_say() -> None:
    """Of so many comparisons of equal things one in 1 / LEVEL goes past the limit; 200,000 draws of means of 5."""
    generator = np.random.default_rng(1)
    comparisons, replicas = 4, 5
    draws = generator.standard_normal((2, 200_000, replicas))
    means, errors = draws.mean(-1), draws.std(-1, ddof=1) / math.sqrt(replicas)
    z = np.abs(means[0] - means[1]) / np.hypot(*errors)
    limit = Figure("x", 0.0, 1.0, 1.0, 1.0, freedom=2 * (replicas - 1)).limit(comparisons)
    share = (z.reshape(-1, comparisons) > limit).any(1).mean()
    assert LEVEL * 0.8 < share < LEVEL * 1.2


# What cannot be checked -------------------------------------------------------------------------


@pytest.mark.slow
def test_cells_of_a_study_file_need_the_file(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", str(tiny)]) == 2
    assert "defined in a study file" in (line := capsys.readouterr().err) and "--study" in line
    assert verdicts(reproduce(capsys, tiny, "--study", TINY_FILE)) == ["identical"] * 3
    edited = tmp_path / "edited.py"
    edited.write_text(Path(TINY_FILE).read_text() + "# another file\n")
    assert main(["reproduce", str(tiny), "--study", str(edited)]) == 2
    assert "none of those given by --study has this SHA-256" in capsys.readouterr().err


@pytest.mark.slow
def test_cells_with_and_without_a_study_file(tiny: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for digest in digests(tiny):
        shutil.copytree(tiny / "cells" / digest, copy / "cells" / digest)
    found = reproduce(capsys, copy)
    assert found["counts"] == {"identical": 4, "not checked": 3} and found["agrees"]
    assert main(["reproduce", str(copy)]) == 0
    assert "not checked, 3 cells: defined in a study file" in capsys.readouterr().out


@pytest.mark.slow
def test_a_damaged_cell_is_named_and_fails(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = digests(copy)
    (copy / "cells" / first / "cell.json").write_text("{")
    (copy / "cells" / second / "curves.parquet").write_bytes(b"PAR1")
    found = reproduce(capsys, copy, code=1)
    states = {cell["cell"]: cell for cell in found["cells"]}
    for digest in (first, second):
        assert states[digest]["verdict"] == "not checked" and states[digest]["failed"]
        assert digest in states[digest]["why"] and "damaged" in states[digest]["why"]
    assert len(states) == 4 and not found["agrees"]


@pytest.mark.slow
def test_a_configuration_that_is_another_is_not_run(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def other_seed(info: dict[str, Any], tables: Any) -> None:
        info["cell"]["seed"] = 7

    rewrite(copy, digests(copy)[0], other_seed)
    found = reproduce(capsys, copy)
    assert verdicts(found).count("not checked") == 1
    assert "has the digest" in next(cell["why"] for cell in found["cells"] if cell["verdict"] == "not checked")


def test_an_engine_that_refuses(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", str(sweep), "--engine", "gpu_fused"]) == 2
    assert "gpu_fused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "/nowhere' is no results folder"),
        (["RESULTS", "--only", "zzz"], "--only 'zzz': none of the 4 stored cells begins so"),
        (["RESULTS", "--cells", "0"], "--cells = 0 is not allowed"),
        (["RESULTS", "--engine", "tornch"], "nearest: torch"),
        (["RESULTS", "--device", "cuda:9"], "cuda:9"),
        (["RESULTS", "--study", "missing.py"], "/missing.py' cannot be read"),
        (["RESULTS", "--keep", "RESULTS"], "must lie outside of the results"),
        (["RESULTS", "--keep", "/"], "must be a new or empty folder"),
    ],
)
def test_bad_input_is_one_line(
    sweep: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *(str(sweep) if text == "RESULTS" else text for text in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


# Computations and trainings ---------------------------------------------------------------------


@dataclass(frozen=True)
class Sums(Computation):
    """Sums of powers."""

    power: float = 2.0
    name: ClassVar[str] = "sums"

    def compute(self) -> Computed:
        values = np.arange(5.0) ** self.power
        return Computed({"total": values.sum(), "seconds": np.random.default_rng().random()},
                        pd.DataFrame({"x": np.arange(5.0), "y": values}))  # fmt: skip


@dataclass(frozen=True)
class Powers(Study):
    """Two computations."""

    powers: tuple[float, ...] = (1.0, 2.0)
    name: ClassVar[str] = "powers"
    summary: ClassVar[str] = "sums of powers"
    figure: ClassVar[Any] = None
    other: Tiny | None = field(default=None)

    def cells(self) -> tuple[Computation, ...]:
        return tuple(map(Sums, self.powers))

    def quick(self) -> Powers:
        return self


@pytest.mark.slow
def test_computations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their class is found in a study file, here this one; a time that differs is no difference."""
    out, this = tmp_path / "results", ["--study", __file__]
    assert main(["run-study", __file__, "--out", str(out)]) == 0
    assert verdicts(reproduce(capsys, out, *this)) == ["identical"] * 2

    def other(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
        elsewhere(info)
        tables["curves"].loc[2, "y"] += 1e-3

    rewrite(out, digests(out)[0], other)
    found = reproduce(capsys, out, *this, code=1)
    assert sorted(verdicts(found)) == ["differs", "identical"]
    assert any("curves y, row 2" in cell["why"] for cell in found["cells"])


@pytest.mark.slow
def test_an_interrupted_pack_does_not_matter(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(copy)
    store.unfinished.write_plan(Plan("0123", ("4567",), 10, {}))
    before = contents(copy)
    assert verdicts(reproduce(capsys, copy)) == ["identical"] * 4 and contents(copy) == before


def test_an_interrupted_rerun(sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    from kdsim.study import session

    def interrupted(self: Any) -> None:
        raise session.Interrupted("interrupted at step 3 of 200")

    monkeypatch.setattr(session.Session, "run", interrupted)
    assert main(["reproduce", str(sweep)]) == 130
    assert "nothing was compared" in capsys.readouterr().err


@pytest.mark.slow
def test_noise_sweep_quick_as_a_user_runs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results"
    assert main(["run-study", "noise-sweep", "--quick", "--set", "levels=1", "--out", str(out)]) == 0
    found = reproduce(capsys, out)
    assert set(verdicts(found)) == {"identical"} and len(found["cells"]) == len(digests(out)) > 5
    found = reproduce(capsys, out, "--engine", "torch", "--cells", "4")
    assert set(verdicts(found)) <= {"equal to rounding", "statistically equal"}


def test_replacing_the_device_reaches_all_parts() -> None:
    from kdsim.study.stored_configs import on_device
    from kdsim.teachers import Deterministic
    from kdsim.trainer import StudentTrainer
    from kdsim.training import Recipe

    teacher = StudentTrainer(recipe=Recipe(precision="float32"))
    moved = on_device(replace(teacher, supervision=Deterministic(teacher)), "cuda:1")
    assert moved.device == moved.supervision.training.device == "cuda:1"
    assert config.digest(on_device(moved, "cpu")) == config.digest(replace(teacher, supervision=Deterministic(teacher)))


@pytest.mark.parametrize(
    ("content", "changed", "expected"),
    [
        ({"pack": [1]}, {"threads": 2}, True),
        ({"pack": [1]}, {"replica_threads": 2}, True),
        ({"kind": "training"}, {"threads": 2}, True),
        ({"kind": "training"}, {"replica_threads": 2}, False),
        ({"kind": "teacher"}, {"threads": 2}, True),
        ({"kind": "computation"}, {"threads": 2}, False),
        ({"kind": "training"}, {"torch": "0"}, False),
    ],
)
def test_which_numbers_of_threads_leave_a_result_identical(
    content: dict[str, object], changed: dict[str, object], expected: bool
) -> None:
    from kdsim.study.reproduce import promised

    versions = {"source_sha256": "x", "torch": "2", "threads": 1, "replica_threads": 1}
    stored = {**content, "versions": versions, "hardware": {}, "device": "cpu"}
    assert promised(stored, {**stored, "versions": versions | changed}) is expected
    old = {name: value for name, value in versions.items() if name != "replica_threads"}
    assert promised({**stored, "versions": old}, stored) is ("pack" in content)  # stored before it was known
