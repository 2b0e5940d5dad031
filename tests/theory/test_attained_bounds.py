"""A pool on which the bounds are attained: what is measured on it may not be averaged over other steps than they are.

On x in {sqrt(m) e_i}, i = 1..m, G = E xx' = I and L_max = m. SGD on least squares at alpha = 1/m forgets all of theta
along a point that it visits, whatever m: E|theta_t - theta*|^2 = (1 - 1/m)^t |theta_0 - theta*|^2 + E tr C.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from kdsim.engines import SGD, Recording
from kdsim.population import Population
from kdsim.problems import Problem
from kdsim.students import LeastSquares
from kdsim.study.base import Cell
from kdsim.study.rows import prediction
from kdsim.supervision import Dirichlet, Exact, Independent, OneHot, TwoPoint
from kdsim.theory import SecondMoments, predict


@dataclass(frozen=True)
class ScaledAxes(Problem):
    """x in {sqrt(m) e_i}, each with p = (5/8, 3/8)."""

    name = "scaled-axes"

    points: int = 20

    def population(self, seed: int) -> Population:
        p = torch.tensor([[0.625, 0.375]], dtype=torch.float64).expand(self.points, 2)
        x = self.points**0.5 * torch.eye(self.points, dtype=torch.float64)
        return Population(x=x, p=p.contiguous(), optimum=p.T / self.points**0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "supervision", [OneHot(), Dirichlet(2.0), TwoPoint(0.7), Independent(0.3)], ids=lambda s: s.name
)
@pytest.mark.parametrize("points", [1, 4, 20, 60])
def test_t1_and_t2_sharp_are_attained_at_every_condition_number(points, supervision):
    """L_max / mu = m at alpha = 1 / L_max: T1' and T2' are the exact floors, so no factor can be saved."""
    population = ScaledAxes(points).population(0)
    row = predict(LeastSquares(), population, supervision, (1 - 1e-12) / points, 1, [1])
    assert row.L_max / row.mu == pytest.approx(points)
    assert row.sharp_bound_valid and row.sharp_risk_bound_valid
    assert row.exact_floor == pytest.approx(row.sharp_bound_floor, rel=1e-9)
    assert row.exact_excess_risk == pytest.approx(row.sharp_risk_bound_floor, rel=1e-9)


@pytest.mark.parametrize(
    ("steps", "recording", "risk"),
    [
        (60, Recording(tail_fraction=0.4), 0.0229),  # bounded by .0200 where averaged over the samples of the distance
        (100, Recording(tail_fraction=0.4), 0.00477),  # .00441
        (60, Recording(), None),  # a tail shorter than the stride: one sample, at its end
        (61, Recording(checkpoints=2), None),
        (500, Recording(tail_stride=7), None),
    ],
)
def test_bounds_are_averaged_over_the_steps_at_which_floors_are(steps, recording, risk):
    """Exact BCP at 1 / L_max, where T1 and T2 are the expectation at every step: means of it are not above theirs."""
    problem, step_size = ScaledAxes(), 1 / 20
    population = problem.population(0)
    cell = Cell(problem, LeastSquares(), Exact(), step_size, sgd=SGD(steps), recording=recording, replicas=2, seed=0)
    row = prediction(cell, population)
    moments, start = SecondMoments(population, 0.0, 1), -population.optimum
    schedule, first = recording.schedule(steps), recording.tail_start(steps)
    checkpoints = [step for step in schedule if step > first]
    measured = moments.risk_curve(Exact(), step_size, start, checkpoints).mean()
    assert row["risk_bound_valid"] and row["sharp_risk_bound_valid"]
    assert row["risk_bound_tail"] == pytest.approx(measured, rel=1e-12)
    assert row["sharp_risk_bound_tail"] == pytest.approx(measured, rel=1e-12)
    assert risk is None or measured == pytest.approx(risk, rel=2e-3)
    distance = np.mean(moments.curve(Exact(), step_size, start, recording.tail_steps(steps)))
    for name in ("bound", "sharp_bound", "aim_bound"):
        assert row[f"{name}_valid"] and row[f"{name}_tail"] == pytest.approx(distance, rel=1e-12)
