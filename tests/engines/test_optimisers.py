"""Optimisers against torch.optim: the same paths in float64, each replica with its own step size."""

from __future__ import annotations

import pytest
import torch

from kdsim import config
from kdsim.config import ConfigError
from kdsim.engines import OPTIMISERS, SGD, Adam, Cosine, GradientDescent, StepDecay

CASES = [
    (GradientDescent(), torch.optim.SGD, {}),
    (GradientDescent(weight_decay=0.1), torch.optim.SGD, {"weight_decay": 0.1}),
    (GradientDescent(0.9), torch.optim.SGD, {"momentum": 0.9}),
    (GradientDescent(0.8, True), torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
    (
        GradientDescent(0.8, True, weight_decay=0.2),
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.2},
    ),
    (Adam(), torch.optim.Adam, {}),
    (
        Adam(0.5, 0.9, 1e-3, weight_decay=0.2),
        torch.optim.Adam,
        {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.2},
    ),
    (Adam(0.0, 0.0), torch.optim.Adam, {"betas": (0.0, 0.0)}),
    (Adam(weight_decay=0.2, decoupled=True), torch.optim.AdamW, {"weight_decay": 0.2}),
]
STEP_SIZES = torch.tensor([0.02, 0.1, 0.3], dtype=torch.float64)
START = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CURVATURE = torch.linspace(0.1, 1.5, 7, dtype=torch.float64)


def gradient_at(theta: torch.Tensor, step: int) -> torch.Tensor:
    """Of a quartic with a force that changes from step to step."""
    return CURVATURE * theta + 0.1 * theta**3 + torch.sin(torch.arange(7.0, dtype=torch.float64) + step)


def torch_path(cls: type, arguments: dict, steps: int) -> torch.Tensor:
    final = []
    for start, step_size in zip(START, STEP_SIZES, strict=True):
        theta = torch.nn.Parameter(start.clone())
        optimiser = cls([theta], lr=step_size.item(), **arguments)
        for step in range(steps):
            theta.grad = gradient_at(theta.detach(), step)
            optimiser.step()
        final.append(theta.detach())
    return torch.stack(final)


@pytest.mark.parametrize("origin", [None, torch.linspace(-1, 1, 7, dtype=torch.float64)])
@pytest.mark.parametrize(("optimiser", "cls", "arguments"), CASES)
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_walks_the_path_of_torch(optimiser, cls, arguments, steps, origin):
    """Also where parameters are measured from an origin: then weight decay still pulls theta."""
    shift = 0 if origin is None else origin
    parameters = START - shift
    buffers = optimiser.buffers(parameters)
    for step in range(steps):
        gradient = gradient_at(parameters + shift, step)
        optimiser.update(parameters, gradient, buffers, STEP_SIZES[:, None], step, origin)
    torch.testing.assert_close(parameters + shift, torch_path(cls, arguments, steps), atol=1e-12, rtol=1e-12)
    assert all(buffer.shape == START.shape for buffer in buffers.values())


@pytest.mark.parametrize("optimiser", [case[0] for case in CASES])
def test_buffers_carry_everything(optimiser):
    """A walk that goes on from copies of parameters and buffers is bit for bit the undisturbed one."""

    def walk(parameters, buffers, first, last):
        for step in range(first, last):
            optimiser.update(parameters, gradient_at(parameters, step), buffers, STEP_SIZES[:, None], step)
        return parameters, buffers

    whole, _ = walk(START.clone(), optimiser.buffers(START), 0, 20)
    parameters, buffers = walk(START.clone(), optimiser.buffers(START), 0, 7)
    resumed, _ = walk(parameters.clone(), {name: buffer.clone() for name, buffer in buffers.items()}, 7, 20)
    assert torch.equal(resumed, whole)


def test_what_is_plain():
    assert SGD().plain and SGD(optimiser=GradientDescent()).plain
    for optimiser in (GradientDescent(0.1), GradientDescent(weight_decay=0.1), Adam()):
        assert not SGD(optimiser=optimiser).plain
    for schedule in (Cosine(), StepDecay()):
        assert not SGD(schedule=schedule).plain


@pytest.mark.parametrize("optimiser", [case[0] for case in CASES])
def test_an_optimiser_is_its_config(optimiser):
    sgd = SGD(optimiser=optimiser, schedule=StepDecay((0.5,)))
    assert config.decode(config.encode(sgd), [SGD, *OPTIMISERS, StepDecay]) == sgd
    assert (config.digest(sgd) == config.digest(SGD(schedule=StepDecay((0.5,))))) == (optimiser == GradientDescent())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientDescent(1.0), r"momentum = 1.0 .* in \[0, 1\)"),
        (lambda: GradientDescent(-0.1), "momentum = -0.1"),
        (lambda: GradientDescent(nesterov=True), "nesterov = True .* False without momentum"),
        (lambda: GradientDescent(0.5, 1), "nesterov = 1 .* True or False"),
        (lambda: GradientDescent(weight_decay=float("nan")), "weight_decay = nan"),
        (lambda: Adam(beta1=1.0), "beta1 = 1.0"),
        (lambda: Adam(beta2=-1), "beta2 = -1"),
        (lambda: Adam(epsilon=0), "epsilon = 0"),
        (lambda: Adam(decoupled="yes"), "decoupled = 'yes'"),
        (lambda: Adam(weight_decay=-1), "weight_decay = -1"),
        (lambda: SGD(optimiser="adam"), "optimiser = 'adam' .* an Optimiser"),
        (lambda: SGD(schedule=Adam()), "schedule = Adam.* a Schedule"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
