"""Generated configurations try to break the bounds and the first-order floors, by simulation.

Hypothesis draws softmax-regression problems (K 2..8, d 1..12, entropy from near 0 to near log K, conditioning to 1e4),
ridges, batch sizes and unbiased supervisions; each is run at four step sizes up to 1/L_max. The same checks must catch
planted faults in the theory.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from simulating import simulate
from strategies import supervisions

from kdsim.engines import SGD, Lane, Record, Recording
from kdsim.measure import interval, tail_floor
from kdsim.problems import SoftmaxLinear
from kdsim.students import SoftmaxRegression, minimiser
from kdsim.theory import Prediction, constants, predict

Z_LIMIT = 5.0
PROBLEMS, REPLICAS, MOST_STEPS = 90, 24, 3_000
FRACTIONS = (0.125, 0.25, 0.5, 1.0)  # of 1 / (expected smoothness); T1 admits the first three, T1' all four
SMALL = 0.25  # the step size at which first-order floors are checked: they are right to relative order alpha ...
FIRST_ORDER_ERROR = 0.08  # ... which there stays below this
NEGLIGIBLE = 1e-7  # of the initial squared distance: float32 rounding, and no floor


@dataclass(frozen=True)
class Outcome:
    """One configuration: what theory says of it, and what was seen."""

    step_size: float
    fraction: float
    batch_size: int
    conditioning: float
    prediction: Prediction
    record: Record


@st.composite
def configurations(draw: st.DrawFn) -> tuple[SoftmaxLinear, SoftmaxRegression, int, list, int]:
    classes, seed = draw(st.integers(2, 8)), draw(st.integers(0, 10_000))
    problem = SoftmaxLinear(
        classes=classes,
        dimension=draw(st.integers(1, 12)),
        conditioning=10 ** draw(st.floats(0, 4)),
        entropy=draw(st.floats(0.02, 0.98)) * math.log(classes),
        samples=150,
    )
    plain = constants(SoftmaxRegression(), problem.population(seed))
    ridge = 10 ** draw(st.floats(-0.8, 0)) * plain.smoothness
    student = SoftmaxRegression(ridge, draw(st.sampled_from(["centred", "centred", "ordinary"])))
    batch_size = draw(st.sampled_from([1, 1, 2, 5, 16]))
    drawn = [draw(supervisions(unbiased=True)) for _ in range(3)]
    return problem, student, batch_size, drawn, seed


def outcomes(problem, student, batch_size, drawn, seed) -> list[Outcome]:
    """Simulate one problem with three supervisions at four step sizes: twelve configurations in one run."""
    population = problem.population(seed)
    smoothness = constants(student, population).expected_smoothness(batch_size)
    relaxation = smoothness / (SMALL * student.ridge)
    sgd = SGD(min(math.ceil(30 * relaxation), MOST_STEPS), batch_size, dtype="float64")
    recording = Recording(checkpoints=18, tail_fraction=0.6)
    lanes = [Lane(s, f / smoothness, seed, REPLICAS) for s in drawn for f in FRACTIONS]
    record, _ = simulate(
        student, population, lanes, sgd, recording,
        reference=minimiser(student, population), anchor=student.anchor(population),
    )  # fmt: skip
    tail = recording.tail_steps(sgd.steps)
    return [
        Outcome(
            lane.step_size,
            lane.step_size * smoothness,
            batch_size,
            problem.conditioning,
            predict(student, population, lane.supervision, lane.step_size, batch_size, tail),
            record.replicas(slice(n * REPLICAS, (n + 1) * REPLICAS)),
        )
        for n, lane in enumerate(lanes)
    ]


def violations(outcome: Outcome) -> list[str]:
    """Bounds violated at a checkpoint, and a first-order floor that is off; beyond 5 standard errors."""
    record, theory, found = outcome.record, outcome.prediction, []
    curve = record.curves["dist_sq"]  # (C, R)
    initial = curve[0].mean()
    low = curve.mean(1) - Z_LIMIT * curve.std(1) / REPLICAS**0.5
    contraction = 1 - outcome.step_size * theory.mu
    for name, valid, floor in (
        ("T1", theory.bound_valid, theory.bound_floor),
        ("T1'", theory.sharp_bound_valid, theory.sharp_bound_floor),
    ):
        if valid:
            bound = contraction ** record.steps.double() * initial + floor
            if (low > bound * (1 + 1e-9) + NEGLIGIBLE * initial).any():
                found.append(name)
    relaxed = 2 * outcome.step_size * theory.mu * record.tail_start > 12
    first = theory.first_order_floor
    if outcome.fraction <= SMALL * 1.001 and outcome.conditioning <= 100 and relaxed and first > NEGLIGIBLE * initial:
        measured = interval(tail_floor(record))
        transient = math.exp(-2 * outcome.step_size * theory.mu * record.tail_start) * initial.item()
        if abs(measured.mean - first) > Z_LIMIT * measured.se + FIRST_ORDER_ERROR * first + transient:
            found.append("first order")
    return found


def _scaled(prediction: Prediction, factor: float) -> Prediction:
    """The prediction with both neighbourhoods multiplied by a factor."""
    floors = {
        key: None if getattr(prediction, key) is None else factor * getattr(prediction, key)
        for key in ("bound_floor", "sharp_bound_floor")
    }
    return dataclasses.replace(prediction, **floors)


FAULTS = {
    "sigma*^2 low by 10": lambda o: _scaled(o.prediction, 0.1),
    "noise divided by b twice": lambda o: _scaled(o.prediction, 1 / o.batch_size),
    "mu high by 100": lambda o: dataclasses.replace(_scaled(o.prediction, 0.01), mu=100 * o.prediction.mu),
    "first-order floor 20 % low": lambda o: dataclasses.replace(
        o.prediction, first_order_floor=0.8 * o.prediction.first_order_floor
    ),
    "first-order floor 20 % high": lambda o: dataclasses.replace(
        o.prediction, first_order_floor=1.2 * o.prediction.first_order_floor
    ),
}


@pytest.mark.slow
def test_no_bound_breaks_and_planted_faults_do():
    seen: list[Outcome] = []

    @settings(max_examples=PROBLEMS, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(configurations())
    def attack(configuration):
        for outcome in outcomes(*configuration):
            assert violations(outcome) == [], (configuration, outcome.step_size, outcome.prediction)
            seen.append(outcome)

    attack()
    assert len(seen) >= 1_000
    checked = [o for o in seen if o.prediction.bound_valid or o.prediction.sharp_bound_valid]
    assert len(checked) >= 900
    for name, planted in FAULTS.items():
        caught = sum(bool(violations(dataclasses.replace(o, prediction=planted(o)))) for o in seen)
        assert caught >= 5, f"planted fault not caught: {name}"
