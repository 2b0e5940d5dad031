"""The Triton engine: random numbers bit for bit, paths against the torch engine, packing, resume, what it refuses.

On a machine with a GPU the kernels run there. Elsewhere Triton's interpreter runs them, slowly: sizes are tiny.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from kdsim.config import ConfigError
from kdsim.engines import SGD, Lane, Recording, State, TorchBatched, gpu_fused
from kdsim.engines.gpu_fused import FAMILIES, MOST_CLASSES, GpuFused, segments
from kdsim.engines.optimisers import GradientDescent
from kdsim.engines.recorder import Recorder
from kdsim.population import Population
from kdsim.problems import GaussianMixture, SimplexLinear
from kdsim.rng import Draws, Stream, feistel_sides, permuted_index
from kdsim.students import MLP, LeastSquares, SoftmaxRegression, minimiser
from kdsim.supervision import Annotators, Confusion, Dirichlet, Exact, Independent, OneHot, TwoPoint

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = {} if DEVICE == "cuda" else {"TRITON_INTERPRET": "1"}

os.environ.update(INTERPRETED)  # read where kernels are declared
try:
    # Before 3.7 the interpreter fails with numpy 2.4; the compiler does not mind.
    oldest = "3.7" if INTERPRETED else "3.4"
    triton = pytest.importorskip("triton", oldest, reason=f"triton {oldest} or later is not installed (extra gpu)")
    import triton.language as tl

    from kdsim.engines import triton_random, triton_targets
    from kdsim.engines.triton_random import permuted_index as triton_permuted_index
    from kdsim.engines.triton_random import words
    from kdsim.engines.triton_sgd import sgd_segment  # noqa: F401  declares the kernel

    LABEL, INDEX = tl.constexpr(int(Stream.LABEL)), tl.constexpr(int(Stream.INDEX))
    log1p = triton_targets._log1p

    @triton.jit
    def words_kernel(out_ptr, visit_ptr, slot_ptr, low, high, replica, V: tl.constexpr):
        place = tl.arange(0, V)
        visit, slot = tl.load(visit_ptr + place), tl.load(slot_ptr + place).to(tl.uint32)
        word = words(visit, slot, LABEL, low.to(tl.uint32), high.to(tl.uint32), replica.to(tl.uint32))
        tl.store(out_ptr + place, word.to(tl.int64))

    @triton.jit
    def permutation_kernel(
        out_ptr, visit_ptr, low, high, replica, V: tl.constexpr, SIZE: tl.constexpr, A: tl.constexpr, B: tl.constexpr
    ):
        visit = tl.load(visit_ptr + tl.arange(0, V))
        low, high, replica = low.to(tl.uint32), high.to(tl.uint32), replica.to(tl.uint32)
        point = triton_permuted_index(visit, SIZE, A, B, INDEX, low, high, replica)
        tl.store(out_ptr + tl.arange(0, V), point)

    @triton.jit
    def log1p_kernel(out_ptr, t_ptr, V: tl.constexpr):
        place = tl.arange(0, V)
        tl.store(out_ptr + place, log1p(tl.load(t_ptr + place)))

finally:
    for name in INTERPRETED:
        del os.environ[name]

# Where a GPU is silent numpy warns, in the interpreter: of x / 0 and log(-1) in places that are masked afterwards.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

ROOT = Path(__file__).parents[2]
ENGINE, REFERENCE = GpuFused(), TorchBatched()
POOL = GaussianMixture(classes=3, dimension=4, samples=50).population(1)
SIMPLEX = SimplexLinear(dimension=4, samples=50).population(1)
STUDENT = SoftmaxRegression(0.1, "centred")
SEED = (123 << 32) + 4_000_000_007  # both halves of the key matter, and the lower has its highest bit set
EVERY_FAMILY = [
    Lane(Exact(), 0.05, SEED, 1),
    Lane(OneHot(), 0.05, SEED, 1, first_replica=3),
    Lane(Annotators(2.5), 0.04, 5, 1, first_replica=2),
    Lane(Dirichlet(0.3), 0.1, SEED, 1, first_replica=1),
    Lane(Dirichlet(8.0), 0.05, 6, 1),
    Lane(TwoPoint(0.7), 0.05, SEED, 1),
    Lane(Independent(0.05), 0.05, SEED, 1),
]


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    for key, value in INTERPRETED.items():
        monkeypatch.setenv(key, value)


def run(engine, lanes, sgd, student=STUDENT, population=POOL, recording=None, **more):
    reference, anchor = minimiser(student, population), student.anchor(population)
    recording = recording or Recording(checkpoints=2, tail_fraction=0.5, tail_stride=2)
    device = DEVICE if engine is ENGINE else "cpu"
    return engine.run(
        student, population, lanes, sgd, recording, reference=reference, anchor=anchor, device=device, **more
    )


def assert_agree(ours, theirs, **tolerance):
    """Records and errors of the two engines."""
    torch.testing.assert_close(ours[1].error.cpu(), theirs[1].error, **tolerance)
    torch.testing.assert_close(ours[0].tail_mean, theirs[0].tail_mean, **tolerance)
    torch.testing.assert_close(ours[0].tail_std, theirs[0].tail_std, **tolerance)
    for name, curve in theirs[0].curves.items():
        torch.testing.assert_close(ours[0].curves[name], curve, **tolerance)
    assert torch.equal(ours[0].diverged_at, theirs[0].diverged_at)


def test_words_are_those_of_the_torch_generator():
    visit = torch.tensor([0, 1, 2, 3, 4, 1 << 31, (1 << 34) + 2, (1 << 42) - 1])  # blocks of more than 32 bits
    slot = torch.tensor([0, 1, 2, 3, 7, (1 << 24) + 1, 0, 5])
    seed, replica = torch.tensor([[SEED]]), torch.tensor([[70_001]])
    expected = torch.cat(
        [Draws(seed, replica, visit[None, i : i + 1], Stream.LABEL, torch.float64).words(slot[i].item())[0]
         for i in range(8)]
    )  # fmt: skip
    out = torch.empty(8, dtype=torch.int64, device=DEVICE)
    low, high = SEED & 0xFFFFFFFF, SEED >> 32
    words_kernel[(1,)](out, visit.to(DEVICE), slot.to(DEVICE), low, high, 70_001, V=8)
    assert torch.equal(out.cpu(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("size", [7, 50, 1009])
def test_permutations_are_those_of_the_torch_generator(size):
    """Small sizes walk through the domain several times; visits lie in many epochs."""
    visit = torch.cat([torch.arange(30), torch.tensor([5 * size, (1 << 41) + 3])])
    expected = permuted_index(torch.tensor([[SEED]]), torch.tensor([[4]]), visit[None], size)[0]
    out = torch.empty(32, dtype=torch.int64, device=DEVICE)
    low, high = SEED & 0xFFFFFFFF, SEED >> 32
    permutation_kernel[(1,)](
        out, visit.to(DEVICE), low, high, 4, V=32, SIZE=size, A=feistel_sides(size)[0], B=feistel_sides(size)[1]
    )
    assert torch.equal(out.cpu(), expected)


def test_log1p_is_accurate():
    tiny = torch.logspace(-300, -1, 500, dtype=torch.float64)
    t = torch.cat([tiny, -tiny, torch.linspace(-0.999, 40, 24, dtype=torch.float64)])
    out = torch.empty_like(t, device=DEVICE)
    log1p_kernel[(1,)](out, t.to(DEVICE), V=1024)
    torch.testing.assert_close(out.cpu(), t.log1p(), rtol=1e-15, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sgd", "lanes"),
    [
        (SGD(20), EVERY_FAMILY),
        (SGD(12, 3), EVERY_FAMILY),
        (SGD(20, index="permutation", targets="frozen"), EVERY_FAMILY[1:4]),
        (SGD(7, 3, targets="frozen", training_set=9), EVERY_FAMILY[3:6]),
        (SGD(6, 3, index="permutation", training_set=45), EVERY_FAMILY[:2]),
    ],
    ids=["one", "batch", "permutation, frozen", "frozen training set", "permuted training set"],
)
def test_float64_paths_are_those_of_the_torch_engine(sgd, lanes):
    """Families in one launch, each lane with its own step size, seed and replica number."""
    sgd = replace(sgd, dtype="float64")
    ours, theirs = run(ENGINE, lanes, sgd), run(REFERENCE, lanes, sgd)
    assert_agree(ours, theirs, atol=1e-12, rtol=1e-9)


@pytest.mark.slow
def test_long_float64_paths_are_those_of_the_torch_engine():
    """Every family; 2,000 steps on a GPU, 60 in the interpreter, which takes some 50 ms a step."""
    assert {type(lane.supervision) for lane in EVERY_FAMILY} == set(FAMILIES)
    sgd = SGD(2_000 if torch.cuda.is_available() else 60, dtype="float64")
    ours, theirs = (
        run(engine, EVERY_FAMILY, sgd, recording=Recording(tail_fraction=0.6)) for engine in (ENGINE, REFERENCE)
    )
    torch.testing.assert_close(ours[1].error.cpu(), theirs[1].error, atol=1e-9, rtol=0)
    assert_agree(ours, theirs, atol=1e-12, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "population"),
    [(SoftmaxRegression(), POOL), (SoftmaxRegression(0.1, "ordinary"), POOL), (LeastSquares(), SIMPLEX)],
    ids=["no ridge", "ordinary ridge", "least squares"],
)
def test_students(student, population):
    lanes, sgd = EVERY_FAMILY[3:], SGD(6, 2, dtype="float64")
    ours, theirs = (run(engine, lanes, sgd, student, population) for engine in (ENGINE, REFERENCE))
    assert_agree(ours, theirs, atol=1e-12, rtol=1e-9)


@pytest.mark.slow
def test_float32_paths_and_floors_agree():
    """The same words decide, so the two engines differ by rounding alone, and so do their floors."""
    sgd = SGD(20)
    ours, theirs = run(ENGINE, EVERY_FAMILY, sgd), run(REFERENCE, EVERY_FAMILY, sgd)
    torch.testing.assert_close(ours[1].error.cpu(), theirs[1].error, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(ours[0].tail_mean, theirs[0].tail_mean, atol=0, rtol=1e-5)


@pytest.mark.slow
def test_packing_does_not_change_a_path():
    """Alone and packed with others: the same path to rounding; a later block of replicas is one of a longer lane."""
    sgd = SGD(10, dtype="float64")
    lanes = [Lane(OneHot(), 0.05, 7, 2), Lane(Dirichlet(2.0), 0.05, 7, 1), Lane(Annotators(2.0), 0.02, 7, 1)]
    _, packed = run(ENGINE, lanes, sgd)
    _, alone = run(ENGINE, [lanes[1]], sgd)
    _, late = run(ENGINE, [Lane(OneHot(), 0.05, 7, 1, first_replica=1)], sgd)
    torch.testing.assert_close(packed.error[2:3], alone.error, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(packed.error[1:2], late.error, atol=1e-12, rtol=1e-10)


@pytest.mark.slow
def test_resume_is_bit_identical(monkeypatch):
    """Stopped after every launch and continued from the state; launches end among visits that are drawn together."""
    lanes = [Lane(OneHot(), 0.05, 7, 1), Lane(Dirichlet(2.0), 0.05, 7, 1)]
    sgd = SGD(21, 3)
    recording = Recording(checkpoints=2, tail_fraction=0.5, tail_stride=1)
    whole, end = run(ENGINE, lanes, sgd, recording=recording)
    monkeypatch.setattr(gpu_fused, "LAUNCH_VISITS", 5 * 2 * 3)  # 5 steps
    record, state, calls = None, None, 0
    while record is None:
        record, state = run(ENGINE, lanes, sgd, recording=recording, state=state, stop=lambda step: True)
        calls += 1
    assert calls > 3
    assert torch.equal(state.error, end.error)
    assert all(torch.equal(record.curves[name], curve) for name, curve in whole.curves.items())
    assert torch.equal(record.tail_mean, whole.tail_mean)
    assert torch.equal(record.tail_std, whole.tail_std)


def test_the_torch_engine_can_continue_a_state(monkeypatch):
    monkeypatch.setattr(gpu_fused, "LAUNCH_VISITS", 7)
    lanes, sgd = [Lane(OneHot(), 0.05, 7, 1)], SGD(12, dtype="float64")
    recording = Recording(checkpoints=2, tail_fraction=0.9, tail_stride=1)
    _, half = run(ENGINE, lanes, sgd, recording=recording, stop=lambda step: step >= 6)
    assert half.step == 7
    half = State(half.step, half.error.cpu(), {name: tensor.cpu() for name, tensor in half.recorder.items()})
    ours, theirs = (run(REFERENCE, lanes, sgd, recording=recording, state=state) for state in (half, None))
    assert_agree(ours, theirs, atol=1e-12, rtol=1e-9)


@pytest.mark.slow
def test_everything_recorded_in_the_tail():
    """Mean error and directions need the whole error at every sample."""
    directions = torch.linalg.qr(torch.randn(15, 2, dtype=torch.float64)).Q.T.reshape(2, 3, 5)
    recording = Recording(checkpoints=2, tail_fraction=0.5, tail_stride=2, mean_error=True, directions=2)
    lanes, sgd = [Lane(OneHot(), 0.05, 7, 2)], SGD(8, dtype="float64")
    ours, theirs = (run(e, lanes, sgd, recording=recording, directions=directions)[0] for e in (ENGINE, REFERENCE))
    torch.testing.assert_close(ours.mean_error, theirs.mean_error, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(ours.along, theirs.along, atol=1e-12, rtol=1e-9)


@pytest.mark.slow
def test_divergence_is_recorded_and_stays_with_its_replica():
    lanes = [Lane(OneHot(), 1e4, 7, 1), Lane(OneHot(), 0.05, 7, 1)]
    sgd, recording = SGD(24), Recording(checkpoints=2, tail_fraction=0.9, tail_stride=1)
    ours, theirs = (run(e, lanes, sgd, LeastSquares(), SIMPLEX, recording)[0] for e in (ENGINE, REFERENCE))
    assert 1 < ours.diverged_at[0] < 20  # seen between launches, from the distance alone
    assert torch.equal(ours.diverged_at, theirs.diverged_at)
    assert torch.isfinite(ours.tail_mean[:, 1]).all()


@pytest.mark.parametrize("start", [0, 5, 13])
@pytest.mark.parametrize("longest", [1, 7, 1000])
def test_segments_see_every_event_once(start, longest):
    recording, steps = Recording(checkpoints=9, tail_fraction=0.5, tail_stride=3), 60
    recorder = Recorder(recording, STUDENT, POOL, POOL.optimum, 1, steps, torch.float32, torch.device("cpu"))
    parts = segments(start, steps, recorder.sparse_events(), recorder.tail, longest)
    assert [part.start for part in parts] == [start, *(part.end for part in parts[:-1])]
    assert parts[-1].end == steps
    assert max(part.end - part.start for part in parts) <= longest
    assert all(set(part.samples) <= set(range(part.start + 1, part.end + 1)) for part in parts)
    seen = [step for part in parts for step in part.samples] + [part.end for part in parts if part.observed]
    assert sorted(seen) == sorted(step for step in recorder.events if step > start)


@dataclass(frozen=True)
class LaterSGD(SGD):
    """Settings of a later version, with a field that this engine does not know."""

    clip: float = 0.0


BIG = Population(torch.zeros(3, 200, dtype=torch.float64), torch.full((3, 64), 1 / 64, dtype=torch.float64))
MANY = Population(torch.zeros(3, 2, dtype=torch.float64), torch.full((3, 250), 1 / 250, dtype=torch.float64))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"student": MLP()}, "student 'mlp'"),
        ({"lanes": [Lane(Exact(), 0.1, 0, 1), Lane(Confusion(), 0.1, 0, 1)]}, "supervision 'confusion'"),
        ({"population": BIG}, "at most 8192"),
        ({"population": MANY}, f"at most {MOST_CLASSES}"),
        ({"sgd": SGD(10, optimiser=GradientDescent(momentum=0.9))}, "sgd.optimiser = GradientDescent"),
        ({"sgd": LaterSGD(10, clip=0.9)}, "sgd.clip = 0.9"),
        ({"sgd": SGD(10, training_set=51)}, "training_set = 51"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals_say_why(changed, words):
    setting = {"student": STUDENT, "population": POOL, "lanes": EVERY_FAMILY, "sgd": SGD(10), "device": DEVICE}
    setting = {**setting, "recording": Recording()}
    assert ENGINE.refusal(**setting) is None
    assert ENGINE.refusal(**{**setting, "sgd": LaterSGD(10)}) is None
    assert words in ENGINE.refusal(**{**setting, **changed})


def test_run_raises_what_it_refuses(monkeypatch):
    with pytest.raises(ConfigError, match=r"gpu_fused.*confusion"):
        run(ENGINE, [Lane(Confusion(), 0.1, 0, 1)], SGD(10))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    refused = ENGINE.refusal(STUDENT, POOL, EVERY_FAMILY, SGD(10), Recording(), "cpu")
    assert "device = 'cpu' is not a GPU" in refused
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "not installed" in ENGINE.refusal(STUDENT, POOL, EVERY_FAMILY, SGD(10), Recording(), DEVICE)


def test_constants_are_those_of_the_modules():
    """Codes and numbers that exist twice, in Python and for kernels."""
    codes = {Exact: "EXACT", OneHot: "ONE_HOT", Annotators: "ANNOTATORS", Dirichlet: "DIRICHLET",
             TwoPoint: "TWO_POINT", Independent: "INDEPENDENT"}  # fmt: skip
    assert {kind: getattr(triton_targets, name).value for kind, name in codes.items()} == FAMILIES
    assert triton_random.HALF_BITS.value == 2.0**-23


COMPILE = """
import sys
import kdsim.engines.gpu_fused
assert "triton" not in sys.modules, "importing kdsim must not import triton"
from benchmarks.gpu_code import compiled
from kdsim.engines import SGD
assert compiled(5, 31, SGD(3, 16, "permutation", "frozen", "float64", training_set=99)).asm["cubin"]
"""


@pytest.mark.slow
def test_compiles_to_gpu_machine_code(tmp_path):
    """Every family and every way of visiting in one kernel, for compute capability 9.0: this needs no GPU."""
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env |= {"TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
