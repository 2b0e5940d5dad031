"""Schedules against torch's schedulers, step by step."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

from kdsim import config
from kdsim.config import ConfigError
from kdsim.engines import SCHEDULES, Constant, Cosine, StepDecay

BASE = 0.7


def torch_factors(make, steps: int) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = make(optimiser)
    factors = []
    for _ in range(steps):
        factors.append(optimiser.param_groups[0]["lr"] / BASE)
        optimiser.step()
        scheduler.step()
    return factors


def warm_cosine(rise: int, steps: int, final: float):
    def make(optimiser):
        return SequentialLR(
            optimiser,
            [
                LinearLR(optimiser, 1 / (rise + 1), total_iters=rise),
                CosineAnnealingLR(optimiser, steps - rise, final * BASE),
            ],
            [rise],
        )

    return make


@pytest.mark.parametrize(
    ("schedule", "steps", "make"),
    [
        (Constant(), 20, lambda o: MultiStepLR(o, [])),
        (StepDecay(), 40, lambda o: MultiStepLR(o, [20, 30])),
        (StepDecay((0.29, 0.6, 0.97), 0.3), 100, lambda o: MultiStepLR(o, [29, 60, 97], 0.3)),
        (StepDecay((0.5,), 2.0), 7, lambda o: MultiStepLR(o, [4], 2.0)),
        (Cosine(), 50, lambda o: CosineAnnealingLR(o, 50)),
        (Cosine(final=0.1), 50, lambda o: CosineAnnealingLR(o, 50, 0.1 * BASE)),
        (Cosine(0.1, 0.2), 50, warm_cosine(5, 50, 0.2)),
        (Cosine(0.5), 33, warm_cosine(16, 33, 0.0)),
    ],
)
def test_factors_are_those_of_torch(schedule, steps, make):
    factors = [schedule.factor(step, steps) for step in range(steps)]
    assert factors == pytest.approx(torch_factors(make, steps), abs=1e-13)


def test_shapes_of_the_curves():
    rise = [Cosine(0.2, 0.1).factor(step, 100) for step in range(100)]
    assert max(rise) == rise[20] == 1 and rise[:21] == sorted(rise[:21]) and rise[20:] == sorted(rise[20:])[::-1]
    assert 0.1 < rise[-1] < 0.101
    assert [StepDecay((0.01, 0.99)).factor(step, 1) for step in (0,)] == [pytest.approx(0.1)]  # 0.01 rounds to step 0
    assert Cosine(0.999).factor(9, 10) == pytest.approx(10 / 11)  # all of a short run is warm-up


@pytest.mark.parametrize("cls", SCHEDULES)
def test_a_schedule_is_its_config(cls):
    assert config.decode(config.encode(cls()), SCHEDULES) == cls()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepDecay(()), "milestones = .* at least one"),
        (lambda: StepDecay(0.5), "milestones = .* a tuple"),
        (lambda: StepDecay((0.5, 1.0)), r"milestones\[1\] = 1.0"),
        (lambda: StepDecay((0.5, 0.5)), "milestones = .* increasing"),
        (lambda: StepDecay((0.5,), 0), "decay = 0"),
        (lambda: Cosine(1.0), "warmup = 1.0"),
        (lambda: Cosine(final=1.5), "final = 1.5"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
