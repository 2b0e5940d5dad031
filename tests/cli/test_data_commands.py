"""kdsim data: what the commands print and return; the functions behind them are tested in tests/data."""

from __future__ import annotations

import numpy as np
import pytest

from kdsim.cli import main


def test_an_empty_folder_says_how_to_go_on(tmp_path, capsys):
    assert main(["data", "check", "--data-dir", str(tmp_path)]) == 0
    assert f"kdsim data fetch cifar10 --data-dir {tmp_path}" in capsys.readouterr().out


def test_what_is_there_is_listed_and_damage_told(tmp_path, capsys, monkeypatch):
    counts = np.ones((10_000, 10), dtype=np.int64)
    np.savez(tmp_path / "cifar10h.npz", counts=counts, probs=counts / 10)
    monkeypatch.setenv("KDSIM_DATA", str(tmp_path))
    assert main(["data", "check"]) == 0
    assert "CIFAR-10H" in capsys.readouterr().out
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"not an archive")
    assert main(["data", "check"]) == 2
    captured = capsys.readouterr()
    assert "NOT USABLE" in captured.out
    assert captured.err == f"kdsim: error: 1 of 2 data sets in {tmp_path} cannot be used\n"


@pytest.mark.parametrize(
    "file",
    [
        *("cifar10h.npz", "cifar10/cifar10n.npz", "cifar-10-binary.tar.gz", "cifar-100-python.tar.gz"),
        *("cifar-10-batches-py/data_batch_1", "cifar-10-batches-bin/test_batch.bin", "cifar-100-python/train"),
        "train-00000-of-00001.parquet",
    ],
)
def test_garbage_is_refused_wherever_it_lies(tmp_path, capsys, file):
    place = tmp_path / file
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"garbage" * 9)
    assert main(["data", "check", "--data-dir", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "NOT USABLE" in captured.out and captured.err.count("\n") == 1 and "cannot be used" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check"], "--data-dir (or the environment variable KDSIM_DATA) must name the data folder"),
        (["check", "--data-dir", "nowhere"], "/nowhere' is not allowed: must be a folder that exists"),
        (["fetch", "cifar11", "--data-dir", "."], "unknown data set 'cifar11'"),
        (["fetch", "cifar10", "--data-dir", ".", "--kind", "zip"], "zip"),
        (["chek"], "chek"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.delenv("KDSIM_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    found = capsys.readouterr()
    assert found.out == "" and found.err.count("\n") == 1 and words in found.err
