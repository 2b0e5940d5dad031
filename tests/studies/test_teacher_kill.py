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
    "kinds": "deterministic,laplace",
    "recipes": "crd",
    "epochs": "2",
    "teacher_epochs": "2",
    "samples": "2",
    "replicas": "2",
    "evaluations": "4",
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


def finished(out: Path) -> int:
    """Number of stored cells; those under way have hidden names."""
    return sum(not folder.name.startswith(".") for folder in (out / "cells").glob("*"))


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """Killed within half a second after its first, third and fifth cell: while it fits, trains or writes."""
    generator = random.Random(5)
    for cells in (1, 3, 5):
        process = start(tmp_path / "killed")
        while finished(tmp_path / "killed") < cells:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(generator.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    for out in ("killed", "undisturbed"):
        assert start(tmp_path / out).wait(300) == 0
    expected, found = stored(tmp_path / "undisturbed"), stored(tmp_path / "killed")
    assert found.keys() == expected.keys() and len(found) == 6
    for digest, (measurement, *tables) in expected.items():
        assert found[digest][0] == measurement
        for table, other in zip(tables, found[digest][1:], strict=True):
            pd.testing.assert_frame_equal(table, other, check_exact=True)
    teachers = sorted(path.name for path in (tmp_path / "killed" / "teachers").glob("*"))
    assert teachers == sorted(path.name for path in (tmp_path / "undisturbed" / "teachers").glob("*"))
