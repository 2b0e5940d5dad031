"""Packs larger than a block: the same results, nothing lost between blocks, and memory asked for beforehand."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tiny_study import Tiny

from kdsim.config import ConfigError
from kdsim.engines.recorder import join
from kdsim.results.store import Store, read_study
from kdsim.results.unfinished import PARTIAL, Plan
from kdsim.study import packs, runner, work
from kdsim.study.executors import Walk
from kdsim.supervision import Exact, OneHot


def _tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    stored = read_study(folder)
    return stored.rows, stored.curves, stored.replicas


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(packs, "BLOCK_REPLICAS", 7)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["cpu_fused", "torch"])
def test_blocks_change_nothing(tmp_path, monkeypatch, engine):
    study = Tiny(engine=engine, supervisions=(Exact(), OneHot()))
    whole = _tables(runner.run(study, tmp_path / "whole").folder)
    monkeypatch.setattr(packs, "BLOCK_REPLICAS", 7)
    blocks = packs.packs(study.cells())[0].blocks()
    assert len(blocks) > 1 and max(block.replicas for block in blocks) <= 7
    found = _tables(runner.run(study, tmp_path / "blocks").folder)
    for ours, theirs in zip(found, whole, strict=True):
        pd.testing.assert_frame_equal(ours, theirs, rtol=0 if engine == "cpu_fused" else 1e-4)
    assert list((tmp_path / "blocks" / PARTIAL).iterdir()) == []


@pytest.mark.slow
def test_finished_blocks_are_not_run_again(tmp_path, small_blocks, monkeypatch):
    """Interrupted in the third block: the first two are kept, and the tables are those of an undisturbed run."""
    study = Tiny(replicas=24, supervisions=(OneHot(),))
    undisturbed = _tables(runner.run(study, tmp_path / "whole").folder)
    calls: list[int] = []
    walk = Walk.run

    def watched(self, *arguments):
        calls.append(self.number)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return walk(self, *arguments)

    monkeypatch.setattr(Walk, "run", watched)
    with pytest.raises(runner.Interrupted):
        runner.run(study, tmp_path / "out")
    assert calls == [0, 1, 2] and len(list((tmp_path / "out" / PARTIAL).rglob("*.done.safetensors"))) >= 2
    result = runner.run(study, tmp_path / "out")
    assert result.replica_steps <= 12 * 400
    for ours, theirs in zip(_tables(result.folder), undisturbed, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.slow
def test_a_damaged_block_is_named(tmp_path, small_blocks):
    pack = packs.packs(Tiny().cells())[0]
    unfinished = Store(tmp_path).unfinished
    folder = unfinished.folder
    unfinished.write_plan(Plan(pack.digest, pack.digests, pack.block_replicas, pack.prepare().fingerprint))
    (folder / f"{pack.blocks()[1].key}.done.safetensors").write_bytes(b"nothing")
    result = runner.run(Tiny(), tmp_path)
    assert result.user_error and "done.safetensors is not a file of kdsim" in result.failures[0]


def test_what_does_not_fit_is_refused_before_it_starts(tmp_path, monkeypatch):
    class Memory:
        available = 1 << 20

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    with pytest.raises(ConfigError, match=r"10,000,000 replicas need about .* GiB of memory, and 0.00098 GiB are free"):
        runner.run(Tiny(replicas=10_000_000), tmp_path)


def test_a_million_replicas_need_less_than_two_gib():
    """The estimate at the size of noise-sweep's problem; benchmarks/results/million.json has the measured peak."""
    from kdsim.studies import NoiseSweep

    cell = NoiseSweep(replicas=1_000_000).cells()[0]
    pack = packs.packs([cell])[0]
    assert 0.5 < pack.memory(cell.problem.population(0)) / 2**30 < 2


@pytest.mark.parametrize("change", ["a curve less", "a block less", "other steps"])
def test_blocks_of_other_runs_are_not_joined(change: str) -> None:
    """Where one says nothing, the whole would have whatever lay in memory."""
    (pack,) = packs.packs(Tiny(steps=20).cells()[:1], 5)
    found = [work.walk(pack, number, None, None).record for number in range(len(pack.blocks()))]
    assert len(found) > 1 and join(iter(found), pack.replicas).diverged_at.numel() == pack.replicas
    if change == "a curve less":
        found[-1].curves.popitem()
    elif change == "a block less":
        found.pop()
    else:
        found[-1] = replace(found[-1], steps=found[-1].steps + 1)
    with pytest.raises(ConfigError, match="delete them to start over"):
        join(iter(found), pack.replicas)
