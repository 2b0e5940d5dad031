"""Momentum, weight decay, Adam and schedules in the engine: torch's paths, resume with buffers, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kdsim.config import ConfigError
from kdsim.engines import ENGINES, SGD, Adam, Cosine, GradientDescent, Lane, Recording, StepDecay
from kdsim.engines.autograd import Autograd, initial_parameters
from kdsim.engines.samples import Samples
from kdsim.problems import GaussianMixture, SimplexLinear
from kdsim.students import MLP, FactoredLeastSquares, LeastSquares, SoftmaxRegression, minimiser
from kdsim.supervision import Dirichlet, OneHot

POOL = GaussianMixture(classes=3, dimension=4, samples=50).population(1)
SIMPLEX = SimplexLinear(dimension=4, samples=50).population(1)
CPU = torch.device("cpu")
STUDENTS = [
    (SoftmaxRegression(0.1, "centred"), POOL),
    (LeastSquares(), SIMPLEX),
    (MLP((5, 4), "relu", ridge=0.02), POOL),
    (FactoredLeastSquares(), SIMPLEX),
]
SETTINGS = [
    ({"optimiser": GradientDescent(0.9, weight_decay=0.05)}, "SGD", {"momentum": 0.9, "weight_decay": 0.05}),
    (
        {"optimiser": GradientDescent(0.8, True), "schedule": StepDecay((0.3, 0.6), 0.5)},
        "SGD",
        {"nesterov": True, "momentum": 0.8},
    ),
    ({"schedule": Cosine(0.1, 0.1)}, "SGD", {}),
    ({"optimiser": Adam(weight_decay=0.05), "schedule": Cosine()}, "Adam", {"weight_decay": 0.05}),
    ({"optimiser": Adam(weight_decay=0.05, decoupled=True)}, "AdamW", {"weight_decay": 0.05}),
]


def run(student, population, lanes, sgd, engine="autograd", **more):
    linear = isinstance(student, (SoftmaxRegression, LeastSquares))
    reference = minimiser(student, population) if linear else student.reference(population)
    anchor = student.anchor(population) if linear else torch.zeros_like(reference)
    return ENGINES[engine].run(
        student, population, lanes, sgd, Recording(checkpoints=6), reference=reference, anchor=anchor, **more
    )


def torch_path(student, population, lane: Lane, sgd: SGD, name: str, arguments: dict) -> torch.Tensor:
    """theta of each replica after training with torch.optim, its learning rate set by hand at each step."""
    index, q = Samples(population, [lane], sgd, torch.float64, CPU).chunk(0, sgd.steps)
    linear = isinstance(student, (SoftmaxRegression, LeastSquares))
    shape = lane.replicas, population.classes, population.features
    starts = torch.zeros(shape, dtype=torch.float64) if linear else initial_parameters(student, population, [lane], CPU)
    final = []
    for row, start in enumerate(starts):
        theta = torch.nn.Parameter(start.clone())
        optimiser = getattr(torch.optim, name)([theta], lr=lane.step_size, **arguments)
        for step in range(sgd.steps):
            visits = slice(step * sgd.batch_size, (step + 1) * sgd.batch_size)
            batch = population.x[index[row, visits]], q[row, visits]
            value = student.objective(theta, *batch, *([student.anchor(population)] if linear else []))
            optimiser.param_groups[0]["lr"] = lane.step_size * sgd.schedule.factor(step, sgd.steps)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
        final.append(theta.detach())
    return torch.stack(final)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "name", "arguments"), SETTINGS, ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize(("student", "population"), STUDENTS, ids=lambda value: getattr(value, "name", ""))
def test_walks_the_path_of_torch(student, population, settings, name, arguments):
    """Two lanes of different step sizes at once; weight decay pulls theta, not its distance from the reference."""
    sgd = SGD(40, 2, dtype="float64", **settings)
    lanes = [Lane(OneHot(), 0.1, 5, 2, first_replica=1), Lane(Dirichlet(2.0), 0.02, 6, 1)]
    _, state = run(student, population, lanes, sgd)
    linear = isinstance(student, (SoftmaxRegression, LeastSquares))
    theta = state.error + minimiser(student, population) if linear else state.error
    for lane, block in zip(lanes, (theta[:2], theta[2:]), strict=True):
        expected = torch_path(student, population, lane, sgd, name, arguments)
        torch.testing.assert_close(block, expected, atol=1e-10, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", [settings for settings, _, _ in SETTINGS])
@pytest.mark.parametrize(("student", "population"), STUDENTS[::2], ids=["linear", "network"])
def test_resume_is_bit_identical(student, population, settings, dtype, monkeypatch):
    """Stopped at every chunk and continued from a copied state, in blocks and on two threads."""
    monkeypatch.setattr("kdsim.engines.autograd.CHUNK_VISITS", {"cpu": 40})
    monkeypatch.setattr("kdsim.engines.autograd.BLOCK_REPLICAS", (1, 3))
    lanes = [Lane(OneHot(), 0.05, 7, 2), Lane(Dirichlet(2.0), 0.03, 7, 3)]
    sgd = SGD(60, dtype=dtype, **settings)
    whole, end = run(student, population, lanes, sgd)
    record, state, calls = None, None, 0
    torch.set_num_threads(2)
    try:
        while record is None:
            record, state = run(student, population, lanes, sgd, state=state, stop=lambda step: True)
            calls += 1
    finally:
        torch.set_num_threads(1)
    assert calls > 2
    assert torch.equal(state.error, end.error)
    assert state.buffers.keys() == end.buffers.keys()
    for name, buffer in end.buffers.items():
        assert torch.equal(state.buffers[name], buffer) and buffer.any()
    for name in ("excess_risk", "accuracy", "bcp_l2"):
        assert torch.equal(record.curves[name], whole.curves[name])


def test_held_out_points_are_never_trained_on():
    """What they are changes what is seen of them, and no step."""
    sgd = SGD(60, dtype="float64", held_out=10)
    other = replace(POOL, x=torch.cat([POOL.x[:-10], -3 * POOL.x[-10:]]), optimum=None)
    found = [run(MLP((5,)), pool, [Lane(OneHot(), 0.05, 7, 2)], sgd) for pool in (POOL, other)]
    assert torch.equal(found[0][1].error, found[1][1].error)
    assert not torch.equal(found[0][0].curves["loss"], found[1][0].curves["loss"])


def test_a_state_of_another_optimiser_is_refused():
    lanes, sgd = [Lane(OneHot(), 0.05, 7, 2)], SGD(60, optimiser=Adam())
    _, state = run(MLP((4,)), POOL, lanes, sgd)
    with pytest.raises(ConfigError, match=r"another run: its optimiser has buffers \['first_moment', .*, not none"):
        run(MLP((4,)), POOL, lanes, SGD(60), state=state)


LANES = [Lane(OneHot(), 0.05, 7, 2)]
REFUSED = [
    ("torch", MLP((4,)), SGD(10), {}, "must be autograd"),
    (
        "torch",
        LeastSquares(),
        SGD(10, optimiser=Adam()),
        {},
        r"engine = 'torch' is not allowed for Adam\(.*: must be autograd",
    ),
    ("torch", LeastSquares(), SGD(10, schedule=Cosine()), {}, r"not allowed for Cosine\("),
    ("torch", LeastSquares(), SGD(10, training_set=51), {}, "training_set = 51"),
    ("torch", LeastSquares(), SGD(2**40, 8), {}, r"steps \* batch_size = 8796093022208"),
    ("torch", LeastSquares(), SGD(10), {"device": "tpu"}, "allowed: cpu"),
    ("autograd", LeastSquares(), SGD(10), {"device": "tpu"}, "allowed: cpu"),
    ("autograd", MLP((4,)), SGD(2**40, 8), {}, r"steps \* batch_size"),
    ("autograd", MLP((4,)), SGD(10), {"recording": Recording(mean_error=True)}, "no unique optimum"),
    ("autograd", "mlp", SGD(10), {}, "student = 'mlp' .* a LinearStudent or a NetworkStudent"),
]


@pytest.mark.parametrize(("engine", "student", "sgd", "more", "message"), REFUSED)
def test_run_raises_what_refusal_says(engine, student, sgd, more, message):
    recording, device = more.get("recording", Recording()), more.get("device", "cpu")
    refusal = ENGINES[engine].refusal(student, SIMPLEX, LANES, sgd, recording, device)
    zero = torch.zeros(SIMPLEX.classes, SIMPLEX.features, dtype=torch.float64)
    with pytest.raises(ConfigError, match=message) as caught:
        ENGINES[engine].run(student, SIMPLEX, LANES, sgd, recording, reference=zero, anchor=zero, device=device)
    assert str(caught.value) == refusal and "\n" not in refusal


def test_what_can_be_run_is_not_refused():
    for settings, _, _ in SETTINGS:
        for student, population in STUDENTS:
            assert Autograd().refusal(student, population, LANES, SGD(10, **settings), Recording()) is None
    for student, population in STUDENTS[:2]:
        assert ENGINES["torch"].refusal(student, population, LANES, SGD(10), Recording()) is None


@pytest.mark.parametrize("settings", [settings for settings, _, _ in SETTINGS])
def test_no_other_engine_takes_what_it_would_ignore(settings):
    configuration = (LeastSquares(), SIMPLEX, LANES, SGD(10, **settings), Recording(), "cpu")
    refusals = {name: engine.refusal(*configuration) for name, engine in ENGINES.items()}
    assert [name for name, refused in refusals.items() if refused is None] == ["autograd"]
