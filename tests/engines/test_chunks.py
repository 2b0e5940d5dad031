"""Where a run is cut into chunks changes nothing that is measured: no sample of the tail counts twice."""

from __future__ import annotations

import pytest
import torch

from kdsim.engines import ENGINES, SGD, Recording
from kdsim.engines import cpu_fused as cpu
from kdsim.engines.base import Lane
from kdsim.engines.recorder import Record
from kdsim.problems import SoftmaxLinear
from kdsim.students import SoftmaxRegression, minimiser
from kdsim.supervision import OneHot

POPULATION = SoftmaxLinear(classes=3, dimension=3, samples=64).population(0)
STUDENT = SoftmaxRegression(0.1, "centred")
STEPS = 1280


def record(engine: str) -> Record:
    """Of 16 replicas in float64; a tail of 320 steps, seen at every fourth."""
    reference = minimiser(STUDENT, POPULATION)
    recording = Recording(checkpoints=8, tail_stride=4)
    anchor = STUDENT.anchor(POPULATION)
    lanes, sgd = [Lane(OneHot(), 0.05, 0, 16)], SGD(STEPS, dtype="float64")
    found, _ = ENGINES[engine].run(STUDENT, POPULATION, lanes, sgd, recording, reference=reference, anchor=anchor)
    return found


@pytest.mark.parametrize("visits", [1, 16 * 4, 16 * 12, 16 * 64, 16 * 100])
def test_chunks_of_the_fused_engine(monkeypatch: pytest.MonkeyPatch, visits: int) -> None:
    """They end at samples, between them and at checkpoints. An end that is a sample counted twice once."""
    whole = record("cpu_fused")
    monkeypatch.setattr(cpu, "CHUNK_VISITS", visits)
    cut = record("cpu_fused")
    for name in ("tail_mean", "tail_std"):
        assert torch.equal(getattr(cut, name), getattr(whole, name)), name
    assert torch.equal(cut.curves["dist_sq"], whole.curves["dist_sq"])


def test_tails_are_those_of_the_torch_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CHUNK_VISITS", 16 * 64)
    fused, plain = record("cpu_fused"), record("torch")
    for name in ("tail_mean", "tail_std"):
        torch.testing.assert_close(getattr(fused, name), getattr(plain, name), rtol=1e-9, atol=0)
