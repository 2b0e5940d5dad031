"""Modules as students walk the path of torch's own training loop; what cannot be a student is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from kdsim import config
from kdsim.config import ConfigError
from kdsim.engines import SGD, Adam, Cosine, GradientDescent, Lane, Recording, StepDecay
from kdsim.engines.autograd import Autograd
from kdsim.engines.samples import Samples
from kdsim.problems import GaussianMixture
from kdsim.students import LeastSquares, ModuleStudent, NetworkStudent, SoftmaxRegression
from kdsim.supervision import Dirichlet, OneHot

POOL = GaussianMixture(classes=3, dimension=4, samples=50).population(1)  # x (50, 5): a constant among the features
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Perceptron(ModuleStudent):
    """Linear, LayerNorm, tanh, Linear; a fixed scale as a buffer, and a layer that is not trained."""

    width: int = 4

    name: ClassVar[str] = "perceptron"

    def module(self, features: int, classes: int) -> nn.Module:
        fixed = nn.Linear(self.width, self.width)
        fixed.requires_grad_(False)
        layers = [nn.Linear(features, self.width), nn.LayerNorm(self.width), nn.Tanh(), fixed]
        net = nn.Sequential(*layers, nn.Linear(self.width, classes))
        net.register_buffer("scale", torch.rand(self.width))
        return net


@dataclass(frozen=True)
class Convolution(ModuleStudent):
    """A convolution along the features, and squared error."""

    name: ClassVar[str] = "convolution"
    head: ClassVar = LeastSquares()

    def module(self, features: int, classes: int) -> nn.Module:
        layers = nn.Unflatten(1, (1, features)), nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(3 * (features - 1), classes))


@dataclass(frozen=True)
class Any(ModuleStudent):
    """A module of which only the kind is told."""

    kind: str = "linear"

    name: ClassVar[str] = "any"

    def module(self, features: int, classes: int) -> nn.Module:
        last = nn.Linear(features, classes)
        return {
            "linear": lambda: last,
            "batch-norm": lambda: nn.Sequential(nn.BatchNorm1d(features), last),
            "batch-statistics": lambda: nn.Sequential(nn.BatchNorm1d(features, track_running_stats=False), last),
            "dropout": lambda: nn.Sequential(nn.Dropout(1e-6), last),
            "noise": lambda: nn.Sequential(_Noise(), last),
            "embedding": lambda: nn.Sequential(_Scale(), last),
            "wrong-shape": lambda: nn.Linear(features, classes + 1),
            "fixed-classes": lambda: nn.Linear(features, 3),
            "square": lambda: nn.Sequential(nn.Linear(features, classes**2), nn.Linear(classes**2, classes)),
            "fails": lambda: nn.Linear(features + 1, classes),
            "no-module": lambda: "a text",
            "raises": lambda: {}["nothing"],
        }[self.kind]()


class _Noise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


class _Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def run(student: NetworkStudent, lanes: list[Lane], sgd: SGD, **more):
    reference = student.reference(POOL)
    recording = Recording(checkpoints=6)
    return Autograd().run(student, POOL, lanes, sgd, recording, reference=reference, anchor=reference, **more)


def torch_loop(student: ModuleStudent, lane: Lane, sgd: SGD, make, schedule) -> torch.Tensor:
    """Train each replica with torch's modules, optimisers and schedulers alone; final parameters (R, P)."""
    index, q = Samples(POOL, [lane], sgd, torch.float64, CPU).chunk(0, sgd.steps)
    final = []
    for row in range(lane.replicas):
        torch.manual_seed(0)
        module = student.module(POOL.features, POOL.classes).double()
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        key = torch.tensor([[lane.seed]]), torch.tensor([[lane.first_replica + row]])
        start = student.initial(POOL.features, POOL.classes, *key)[0]
        nn.utils.vector_to_parameters(start, trained)
        optimiser = make(trained, lane.step_size)
        scheduler = schedule(optimiser)
        for step in range(sgd.steps):
            visits = slice(step * sgd.batch_size, (step + 1) * sgd.batch_size)
            outputs = module(POOL.x[index[row, visits]])
            if isinstance(student.head, SoftmaxRegression):
                loss = nn.functional.cross_entropy(outputs, q[row, visits])
            else:
                loss = (outputs - q[row, visits]).square().sum(-1).mean() / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            scheduler.step()
        final.append(nn.utils.parameters_to_vector(trained).detach())
    return torch.stack(final)


CONSTANT = (lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda _: 1.0)), {}
DECAYED = (lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [20, 30], 0.3)), {"schedule": StepDecay((0.5, 0.75), 0.3)}
COSINE = (lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40, 0.01)), {"schedule": Cosine(final=0.1)}
CASES = [
    (Perceptron(), lambda p, lr: torch.optim.SGD(p, lr), GradientDescent(), CONSTANT, 1),
    (Perceptron(), lambda p, lr: torch.optim.SGD(p, lr, 0.9, nesterov=True), GradientDescent(0.9, True), DECAYED, 3),
    (
        Convolution(),
        lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=0.1),
        Adam(weight_decay=0.1, decoupled=True),
        COSINE,
        2,
    ),
]


@pytest.mark.parametrize(("student", "make", "optimiser", "scheduled", "batch_size"), CASES)
def test_torchs_own_loop_walks_the_same_path(student, make, optimiser, scheduled, batch_size):
    schedule, setting = scheduled
    sgd = SGD(40, batch_size, dtype="float64", optimiser=optimiser, **setting)
    lane = Lane(OneHot(), 0.1, seed=5, replicas=3, first_replica=2)
    _, state = run(student, [lane], sgd)
    expected = torch_loop(student, lane, sgd, make, schedule)
    torch.testing.assert_close(state.error, expected, atol=1e-10, rtol=0)
    start = student.initial(POOL.features, POOL.classes, torch.full((3, 1), 5), torch.arange(2, 5)[:, None])
    assert ((state.error - start).abs().amax(1) > 0.05).all()  # it did walk


def test_metrics_and_ridge():
    """The record's last checkpoint from the module itself; the ridge is torch's weight decay."""
    student, lane = Perceptron(ridge=0.05), Lane(Dirichlet(2.0), 0.1, 5, 2)
    sgd = SGD(30, dtype="float64")
    record, state = run(student, [lane], sgd)
    decayed, _ = CONSTANT
    make = lambda p, lr: torch.optim.SGD(p, lr, weight_decay=0.05)  # noqa: E731
    torch.testing.assert_close(state.error, torch_loop(student, lane, sgd, make, decayed), atol=1e-10, rtol=0)
    phi = torch.softmax(student.outputs(state.error[0], POOL.x), -1)
    torch.testing.assert_close(record.curves["bcp_l2"][-1, 0], (phi - POOL.p).norm(dim=-1).mean())
    torch.testing.assert_close(record.curves["excess_risk"][-1, 0], (POOL.p * (POOL.p / phi).log()).sum(-1).mean())


@pytest.mark.parametrize("student", [Perceptron(), Convolution()])
def test_starts(student):
    """Within PyTorch's own bounds, over their whole range, from (seed, replica) alone; the generator is left alone."""
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    replica = torch.arange(400)[:, None]
    start = student.initial(POOL.features, POOL.classes, torch.full((400, 1), 7), replica)
    assert torch.equal(torch.rand(3), expected)
    later = student.initial(POOL.features, POOL.classes, torch.full((2, 1), 7), torch.tensor([[5], [399]]))
    assert torch.equal(later, start[[5, 399]])
    blocks = student.shapes(POOL.features, POOL.classes)
    position, fan_in = 0, 0
    for shape, deviation in blocks:
        block = start[:, position : position + torch.Size(shape).numel()]
        position += block.shape[1]
        if deviation:
            fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else fan_in  # a bias follows its weight
            assert block.abs().max() <= fan_in**-0.5 and block.abs().max() > 0.97 * fan_in**-0.5
            assert block.std() == pytest.approx(deviation, rel=0.06)
    assert position == start.shape[1]
    if isinstance(student, Perceptron):
        assert torch.equal(start[:, 24:28], torch.ones(400, 4)) and not start[:, 28:32].any()  # LayerNorm


@dataclass(frozen=True)
class Scaled(Any):
    """A parameter of its own kind, with starts of its own."""

    kind: str = "embedding"
    low: float = 2.0
    high: float = 3.0

    def interval(self, owner: nn.Module, name: str, parameter: torch.Tensor) -> tuple[float, float]:
        return (self.low, self.high) if isinstance(owner, _Scale) else super().interval(owner, name, parameter)


def test_starts_of_ones_own():
    start = Scaled().initial(4, 3, torch.zeros(200, 1, dtype=torch.int64), torch.arange(200)[:, None])
    assert 2 < start[:, 0].min() < 2.05 and 2.95 < start[:, 0].max() < 3
    assert start[:, 1:].abs().max() <= 0.5
    for low, high in ((1.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ConfigError, match=r"interval of 0.scale = \("):
            Scaled(low=low, high=high).size(4, 3)


@pytest.mark.slow
def test_threads_have_modules_of_their_own(monkeypatch):
    """Blocks walk at the same time; `functional_call` exchanges a module's tensors while it runs."""
    monkeypatch.setattr("kdsim.engines.autograd.BLOCK_REPLICAS", (2, 2))
    lanes, sgd = [Lane(OneHot(), 0.1, 5, 8)], SGD(200, dtype="float64")
    _, one = run(Perceptron(), lanes, sgd)
    torch.set_num_threads(4)
    try:
        _, four = run(Perceptron(), lanes, sgd)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one.error, four.error)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("batch-norm", r"buffers that training updates \(0.running_mean, 0.running_var, .*GroupNorm"),
        ("batch-statistics", "depend on the rest of the batch"),
        ("dropout", "is random"),
        ("noise", "is random"),
        ("embedding", r"no start is known for 'scale' of _Scale; override Any.interval"),
        ("wrong-shape", r"to \(8, 4\): must be \(8, 3\)"),
        ("fixed-classes", "18 parameters for 2 classes and 18 for 3"),
        ("fails", r"fails on inputs of shape \(8, 5\): RuntimeError"),
        ("no-module", "must return an nn.Module, it returned 'a text'"),
        ("raises", "module: KeyError: 'nothing'"),
    ],
)
def test_what_cannot_be_a_student_is_refused(kind, message):
    refusal = Autograd().refusal(Any(kind), POOL, [Lane(OneHot(), 0.1, 5, 2)], SGD(10), Recording())
    assert "\n" not in refusal
    with pytest.raises(ConfigError, match=message) as caught:
        run(Any(kind), [Lane(OneHot(), 0.1, 5, 2)], SGD(10))
    assert str(caught.value) == refusal


def test_the_number_of_classes_must_be_told_by_the_number_of_parameters():
    with pytest.raises(ConfigError, match="for no number of classes"):
        Any("square").size(5, 4)


def test_a_module_student_is_its_config():
    """Its fields, and the digest of the file that defines it."""
    form = config.encode(Perceptron(3))
    assert form == {"class": "perceptron", "ridge": 0.0, "width": 3, "source_sha256": config.source_digest(Perceptron)}
    assert config.decode(form, [Perceptron]) == Perceptron(3)
    assert config.digest(Perceptron(3)) != config.digest(Perceptron())


def test_the_student_of_the_guide(tmp_path, monkeypatch):
    """The code block of docs/extending.md, saved to a file, is a student."""
    section = (Path(__file__).parents[2] / "docs" / "extending.md").read_text().split("## A student of your own")[1]
    (tmp_path / "guide_student.py").write_text(section.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    student = __import__("guide_student").Normed(width=3)
    _, state = run(student, [Lane(OneHot(), 0.1, 5, 2)], SGD(10))
    assert state.error.shape == (2, student.size(POOL.features, POOL.classes)) and state.error.isfinite().all()
