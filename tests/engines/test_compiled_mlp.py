"""The compiled walk of an MLP with momentum: the path of the batched tensors, bit for bit the same in any packing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from kdsim.engines import SGD, Adam, Cosine, GradientDescent, Lane, Recording
from kdsim.engines.autograd import Autograd
from kdsim.engines.fused.compilation import announced
from kdsim.engines.fused.mlp import is_compiled
from kdsim.problems import GaussianMixture
from kdsim.students import MLP, FactoredLeastSquares
from kdsim.supervision import Dirichlet, Independent, OneHot

POOL = GaussianMixture(classes=3, dimension=4, samples=50).population(1)
CPU = torch.device("cpu")
MOMENTUM = SGD(300, dtype="float64", optimiser=GradientDescent(0.9))
LANES = [Lane(OneHot(), 0.01, 7, 5), Lane(Dirichlet(2.0), 0.02, 7, 4), Lane(Independent(0.1), 0.005, 8, 2)]


def run(student, sgd, lanes=LANES, recording=None, **more):
    reference = student.reference(POOL)
    recording = recording or Recording(checkpoints=6)
    anchor = torch.zeros_like(reference)
    return Autograd().run(student, POOL, lanes, sgd, recording, reference=reference, anchor=anchor, **more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "sgd"),
    [
        (MLP((6,), "relu"), MOMENTUM),
        (MLP((37, 20), "relu"), MOMENTUM),  # no multiples of a vector
        (MLP((5, 4, 7), "tanh", ridge=0.03), MOMENTUM),
        (MLP((6, 5), "relu", ridge=0.05), replace(MOMENTUM, optimiser=GradientDescent(0.5, weight_decay=0.1))),
        (MLP((6,), "tanh"), replace(MOMENTUM, schedule=Cosine(warmup=0.1))),
        (MLP((6,), "relu"), replace(MOMENTUM, index="permutation", targets="frozen", held_out=10)),
    ],
)
def test_walks_the_path_of_the_batched_tensors(student, sgd, monkeypatch):
    assert is_compiled(student, sgd, CPU)
    record, state = run(student, sgd)
    monkeypatch.setattr("kdsim.engines.fused.mlp.is_compiled", lambda *_: False)
    slow_record, slow = run(student, sgd)
    torch.testing.assert_close(state.error, slow.error, atol=1e-10, rtol=0)
    torch.testing.assert_close(state.buffers["velocity"], slow.buffers["velocity"], atol=1e-9, rtol=0)
    for name, values in slow_record.curves.items():
        torch.testing.assert_close(record.curves[name], values, atol=1e-9, rtol=0, equal_nan=True)
    assert not torch.equal(state.error, slow.error)  # they are two ways


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_threads_neighbours_and_recorded_steps_change_no_bit(dtype, monkeypatch):
    student, sgd = MLP((37, 20), "relu"), replace(MOMENTUM, dtype=dtype)
    record, whole = run(student, sgd)
    monkeypatch.setattr("kdsim.engines.fused.mlp.BLOCK_REPLICAS", 3)
    monkeypatch.setattr("kdsim.engines.autograd.CHUNK_VISITS", {"cpu": 400})
    torch.set_num_threads(3)
    try:
        blocks_record, blocks = run(student, sgd, recording=Recording(6, tail_stride=1))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(whole.error, blocks.error)
    assert torch.equal(record.curves["excess_risk"][-1], blocks_record.curves["excess_risk"][-1])
    _, alone = run(student, sgd, [Lane(Dirichlet(2.0), 0.02, 7, 1, first_replica=2)])
    assert torch.equal(alone.error[0], whole.error[7])


def test_a_diverging_replica_is_noted_and_leaves_the_others_alone():
    student = MLP((6,), "relu")
    lanes = [Lane(OneHot(), 0.01, 7, 2), Lane(Independent(1e6), 1e9, 7, 1)]
    record, state = run(student, replace(MOMENTUM, dtype="float32"), lanes)
    assert (record.diverged_at[:2] < 0).all() and record.diverged_at[2] > 0
    _, calm = run(student, replace(MOMENTUM, dtype="float32"), lanes[:1])
    assert torch.equal(state.error[:2], calm.error)


def test_where_nothing_can_be_compiled_batched_tensors_walk_and_one_line_says_so(monkeypatch):
    student, said = MLP((6,), "relu"), []
    _, compiled = run(student, MOMENTUM)
    monkeypatch.setattr("numba.core.config.DISABLE_JIT", 1)
    monkeypatch.setattr("kdsim.engines.fused.mlp.walk", None)
    with announced(said.append):
        _, batched = run(student, MOMENTUM)
    assert said == ["NUMBA_DISABLE_JIT is set: batched tensors walk the MLP, and are slower"]
    torch.testing.assert_close(compiled.error, batched.error, atol=1e-10, rtol=0)


@dataclass(frozen=True)
class Derived(MLP):
    """May have outputs of its own."""


@pytest.mark.parametrize(
    ("student", "changes", "device"),
    [
        (Derived((6,)), {}, "cpu"),
        (FactoredLeastSquares(), {}, "cpu"),
        (MLP((6,)), {"batch_size": 2}, "cpu"),
        (MLP((6,)), {"optimiser": GradientDescent()}, "cpu"),
        (MLP((6,)), {"optimiser": GradientDescent(0.9, True)}, "cpu"),
        (MLP((6,)), {"optimiser": Adam()}, "cpu"),
        (MLP((6,)), {}, "cuda"),
    ],
)
def test_what_it_does_not_do_is_left_to_the_batched_tensors(student, changes, device):
    assert not is_compiled(student, replace(MOMENTUM, **changes), torch.device(device))
