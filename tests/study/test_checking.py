"""A results folder is read as a whole: what is damaged is named with what to do, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stored_results import contents, digests, rewrite
from tiny_study import Tiny

from kdsim import config
from kdsim.cli import main
from kdsim.data import KnownImages
from kdsim.files import temporary_beside
from kdsim.problems import Images, SoftmaxLinear
from kdsim.results.store import Store
from kdsim.study import runner
from kdsim.study.checking import BROKEN, NOTICE, Finding, check
from kdsim.study.provenance import stamp
from kdsim.study.runner import Interrupted, Progress
from kdsim.study.trainings import Training, fitted_teachers
from kdsim.supervision import Exact, OneHot
from kdsim.teachers import Deterministic
from kdsim.tensors import write_checked
from kdsim.trainer import ImageNetwork, StudentTrainer
from kdsim.training import Recipe, TrainedNetwork

STUDY = Tiny(problem=SoftmaxLinear(samples=32), supervisions=(Exact(), OneHot()), steps=100)


IMAGES = Images(classes=3, samples=48, validation_samples=20, test_samples=20, clutter=0, dimension=2)
TRAINING = StudentTrainer(
    ImageNetwork("resnet8"), KnownImages(IMAGES), recipe=Recipe(precision="float32", epochs=1, batch_size=16)
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated cells of a study, a training, and a teacher fitted to it."""
    out = tmp_path_factory.mktemp("checked") / "results"
    runner.run(STUDY, out)
    Training(TRAINING).run(Store(out), lambda done, total: None, lambda: False, stamp())
    fitted_teachers(Deterministic(TRAINING), Store(out))
    return out


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "results"))


def findings(out: Path, kind: str | None = None) -> list[Finding]:
    return [finding for finding in check(out).findings if kind is None or finding.kind == kind]


def simulated(out: Path) -> str:
    return next(digest for digest in digests(out) if "pack" in Store(out).read_info(digest))


def trained(out: Path) -> str:
    return config.digest(TRAINING)


def test_what_is_whole(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(stored)
    assert check(stored).findings == []
    assert check(stored).counts == {"cells": 3, "teachers": 1, "unfinished": 0, "studies": 1}
    assert main(["check-results", "--out", str(stored)]) == 0
    assert "read 3 cells, 1 teachers, 0 unfinished, 1 studies; nothing is damaged" in capsys.readouterr().out
    assert main(["check-results", "--out", str(stored), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["intact"] and found["findings"] == [] and contents(stored) == before


@pytest.mark.slow
def test_every_flipped_byte_is_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In every file but the table for people and what figures were drawn."""
    files = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.suffix != ".csv"]
    assert {file.suffix for file in files} == {".json", ".parquet", ".safetensors"}
    for file in files:
        before = file.read_bytes()
        for place in (len(before) // 3, len(before) // 2, len(before) - 2):
            file.write_bytes(before[:place] + bytes([before[place] ^ 4]) + before[place + 1 :])
            (broken,) = findings(copy, BROKEN)
            assert broken.path in str(file.relative_to(copy)) or file.is_relative_to(copy / broken.path)
            assert "run-study" in broken.advice and broken.what
        file.write_bytes(before)
    assert findings(copy) == []


def missing_table(out: Path) -> None:
    (out / "cells" / simulated(out) / "curves.parquet").unlink()


def cut_table(out: Path) -> None:
    file = out / "cells" / simulated(out) / "replicas.parquet"
    file.write_bytes(file.read_bytes()[:-10])


def missing_cell_file(out: Path) -> None:
    (out / "cells" / simulated(out) / "cell.json").unlink()


def missing_weights(out: Path) -> None:
    (out / "cells" / trained(out) / "weights-000.safetensors").unlink()


def more_weights(out: Path) -> None:
    folder = out / "cells" / trained(out)
    replace(TrainedNetwork.load(folder / "weights-000.safetensors"), replica=1).save(folder / "weights-001.safetensors")


def other_weights(out: Path) -> None:
    folder = out / "cells" / trained(out)
    network = replace(TrainedNetwork.load(folder / "weights-000.safetensors"), replica=1)
    network.save(folder / "weights-000.safetensors")


def exchanged_cells(out: Path) -> None:
    first, second = (digest for digest in digests(out) if digest != trained(out))
    shutil.rmtree(out / "cells" / first)
    shutil.copytree(out / "cells" / second, out / "cells" / first)


def row_lacks(out: Path) -> None:
    rewrite(out, simulated(out), lambda info, tables: info["summary"].pop("steps"))


def cut_teacher(out: Path) -> None:
    (file,) = (out / "teachers").iterdir()
    file.write_bytes(file.read_bytes()[:-10])


def no_teacher(out: Path) -> None:
    write_checked(out / "teachers" / "0123-000.safetensors", {"x": torch.zeros(2)})


def missing_cell(out: Path) -> None:
    shutil.rmtree(out / "cells" / simulated(out))


def missing_csv(out: Path) -> None:
    (Store(out).latest("tiny") / "table.csv").unlink()


def renamed_study(out: Path) -> None:
    folder = Store(out).latest("tiny")
    folder.rename(folder.with_name("0123"))


def other_schema(out: Path) -> None:
    rewrite(out, simulated(out), lambda info, tables: info.update(schema=99))


def plan(out: Path, text: str = "{}") -> None:
    (out / "partial" / "0123.plan.json").write_text(text)


def state(out: Path) -> None:
    (out / "partial" / "0123.safetensors").write_bytes(b"kdsim 1 sha256 nothing")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "place", "what"),
    [
        (missing_table, "cells/", "curves.parquet"),
        (cut_table, "cells/", "replicas.parquet: its SHA-256"),
        (missing_cell_file, "cells/", "cell.json"),
        (missing_weights, "cells/", "0 files of weights, it should be 1"),
        (more_weights, "cells/", "2 files of weights, it should be 1"),
        (other_weights, "cells/", "weights-000.safetensors is replica 1"),
        (exchanged_cells, "cells/", "cell.json is of"),
        (row_lacks, "cells/", "summary has no steps"),
        (other_schema, "cells/", "schema version 99"),
        (cut_teacher, "teachers/", "truncated or altered"),
        (no_teacher, "teachers/", "is not a teacher"),
        (missing_cell, "tiny/", "1 of 2 cells are missing"),
        (missing_csv, "tiny/", "table.csv is missing"),
        (renamed_study, "tiny/0123", "study.json is that of tiny/"),
        (plan, "partial/0123.plan.json", "truncated or altered"),
        (state, "partial/0123.safetensors", "not a file of kdsim"),
    ],
)
def test_what_is_damaged_is_named(
    copy: Path, harm: Callable[[Path], None], place: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(copy)
    before = contents(copy)
    (broken,) = findings(copy, BROKEN)
    assert broken.path.startswith(place) and what in broken.what and "run-study" in broken.advice
    assert main(["check-results", "--out", str(copy)]) == 1
    assert "1 damaged" in capsys.readouterr().out
    assert main(["check-results", "--out", str(copy), "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["intact"] and contents(copy) == before


def test_two_damages_are_two_findings(copy: Path) -> None:
    cut_table(copy), cut_teacher(copy), plan(copy), missing_csv(copy)
    assert len(findings(copy, BROKEN)) == 4


# What needs nothing to be done --------------------------------------------------------------------


@pytest.mark.slow
def test_an_interrupted_pack(copy: Path) -> None:
    study = Tiny(problem=SoftmaxLinear(samples=32), supervisions=(Exact(), OneHot()), steps=3000, replicas=64)

    def stop(progress: Progress) -> None:
        if progress.step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="at step"):
        runner.run(study, copy, progress=stop, slice_seconds=0)
    (finding,) = findings(copy)
    assert finding.kind == NOTICE and finding.path.endswith(".plan.json")
    assert finding.what.startswith("interrupted pack of 2 cells, at step ") and "goes on" in finding.advice
    assert main(["check-results", "--out", str(copy)]) == 0


def set_aside(out: Path) -> None:
    (out / "damaged" / "0123.0").mkdir(parents=True)


def temporary(out: Path) -> None:
    with temporary_beside(out / "cells" / "0123") as folder:
        name = folder
    name.mkdir()


def temporary_in_study(out: Path) -> None:
    with temporary_beside(Store(out).latest("tiny") / "table.csv") as file:
        name = file
    name.write_text("half")


def unsigned(out: Path) -> None:
    digest = simulated(out)
    file = out / "cells" / digest / "cell.json"
    info = json.loads(file.read_text())
    for key in ("sha256", "files", "weights"):
        del info[key]
    file.write_text(json.dumps({**info, "schema": 2}))


def lock(out: Path) -> None:
    (out / "partial" / "0123.lock").touch()


def orphan(out: Path) -> None:
    write_checked(out / "partial" / "0123.safetensors", {"x": 1})


def checkpoint(out: Path) -> None:
    write_checked(out / "partial" / "0123-r002.safetensors", {"x": 1})


def foreign(out: Path) -> None:
    (out / "cells" / simulated(out) / "notes.txt").write_text("mine")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "place", "what"),
    [
        (set_aside, "damaged/0123.0", "set aside"),
        (temporary, "cells/.0123.", "being written"),
        (temporary_in_study, "tiny/", "being written"),
        (unsigned, "cells/", "of version 2, without checksums"),
        (lock, "partial/0123.lock", "a process runs this"),
        (orphan, "partial/0123.safetensors", "belongs to no plan"),
        (checkpoint, "partial/0123-r002.safetensors", "interrupted training 0123, replica 002"),
        (foreign, "cells/", "holds notes.txt"),
    ],
)
def test_notices(
    copy: Path, change: Callable[[Path], None], place: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(copy)
    before = contents(copy)
    (finding,) = findings(copy)
    assert finding.kind == NOTICE and finding.path.startswith(place) and what in finding.what and finding.advice
    assert main(["check-results", "--out", str(copy)]) == 0
    assert "nothing is damaged" in capsys.readouterr().out and contents(copy) == before


@pytest.mark.parametrize("make", [None, "empty", "file"])
def test_no_results_folder(tmp_path: Path, make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "here"
    if make == "empty":
        place.mkdir()
    elif make == "file":
        place.write_text("")
    assert main(["check-results", "--out", str(place)]) == 2
    error = capsys.readouterr().err
    assert "is no results folder" in error and error.count("\n") == 1
