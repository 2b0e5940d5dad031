"""A study of teachers that is killed at random moments ends with the tables of an undisturbed one, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

SETTINGS = {
    "pairs": "resnet8 to resnet8",
    "kinds": "deterministic,laplace,swag",
    "recipes": "crd",
    "epochs": "3",
    "teacher_epochs": "3",
    "samples": "2",
    "replicas": "2",
    "evaluations": "6",
    "data.problem.samples": "200",
    "data.problem.validation_samples": "60",
    "data.problem.test_samples": "60",
}
TIMED = {"seconds", "images_per_replica_second"}


def start(out: Path) -> subprocess.Popen[bytes]:
    settings = [argument for key, value in SETTINGS.items() for argument in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "kdsim.cli", "run-study", "teacher-kinds", "--out", str(out), *settings]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def stored(out: Path) -> dict[str, tuple[dict, pd.DataFrame, pd.DataFrame]]:
    """Measurements, curves and replicas of every cell, without what is timed."""
    found = {}
    for folder in sorted((out / "cells").iterdir()):
        measurement = json.loads((folder / "cell.json").read_text())["measurement"]
        tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("curves", "replicas")]
        found[folder.name] = (
            {key: value for key, value in measurement.items() if key not in TIMED},
            *(table.drop(columns=list(TIMED & set(table.columns))) for table in tables),
        )
    return found


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    started = time.monotonic()
    assert start(tmp_path / "undisturbed").wait(300) == 0
    whole = time.monotonic() - started
    generator, kills = random.Random(5), 0
    while True:
        process = start(tmp_path / "killed")
        try:
            # The first half of a run is start-up and trainings; later ones must end some time.
            status = process.wait(generator.uniform(0.3, 0.9) * whole if kills < 5 else 300)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            kills += 1
            continue
        assert status == 0
        break
    assert kills >= 2
    expected, found = stored(tmp_path / "undisturbed"), stored(tmp_path / "killed")
    assert found.keys() == expected.keys() and len(found) >= 8
    for digest, (measurement, *tables) in expected.items():
        assert found[digest][0] == measurement
        for table, other in zip(tables, found[digest][1:], strict=True):
            pd.testing.assert_frame_equal(table, other, check_exact=True)
    teachers = sorted(path.name for path in (tmp_path / "killed" / "teachers").glob("*"))
    assert teachers == sorted(path.name for path in (tmp_path / "undisturbed" / "teachers").glob("*"))
