"""kdsim data: what the commands print and return; the functions behind them are tested in tests/data."""

from __future__ import annotations

import numpy as np
import pytest

from kdsim.cli import main


def test_an_empty_folder_says_how_to_go_on(tmp_path, capsys):
    assert main(["data", "check", "--data-dir", str(tmp_path)]) == 0
    assert f"kdsim data fetch cifar10 --data-dir {tmp_path}" in capsys.readouterr().out


def test_what_is_there_is_listed_and_damage_told(tmp_path, capsys, monkeypatch):
    counts = np.ones((10_000, 10))
    np.savez(tmp_path / "cifar10h.npz", counts=counts, probs=counts / 10)
    monkeypatch.setenv("KDSIM_DATA", str(tmp_path))
    assert main(["data", "check"]) == 0
    assert "CIFAR-10H" in capsys.readouterr().out
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"not an archive")
    assert main(["data", "check"]) == 1
    assert "NOT USABLE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check"], "--data-dir (or the environment variable KDSIM_DATA) must name the data folder"),
        (["check", "--data-dir", "nowhere"], "data_dir = 'nowhere' is not allowed"),
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
