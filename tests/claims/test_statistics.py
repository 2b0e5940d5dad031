"""What the ledger computes itself: exponents with their jackknife, ratios, and the exact statements."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdsim.claims.exact import STUDENTS, GradientNoise, Propositions, cases
from kdsim.claims.noise import _ratio, exponent
from kdsim.claims.verdicts import from_estimate
from kdsim.students import SoftmaxRegression
from kdsim.supervision import Independent, OneHot
from kdsim.theory.gradient_noise import gradient_noise

NU = torch.tensor([0.01, 0.03, 0.1, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponent_of_an_exact_power(power: float) -> None:
    values = (3 * NU**power)[:, None] * torch.tensor([0.9, 1.0, 1.1], dtype=torch.float64)
    slope, se = exponent(NU, values)
    assert slope == pytest.approx(power)
    assert se == pytest.approx(0, abs=1e-12)  # replicas that differ by a factor alone do not bend it


def test_jackknife_covers() -> None:
    """95 % intervals cover the exponent in 95 % of 600 samples, within z = 4 and the jackknife's bias."""
    generator = torch.Generator().manual_seed(3)
    covered, trials = 0, 600
    for _ in range(trials):
        noise = 0.2 * torch.randn(4, 24, dtype=torch.float64, generator=generator)
        noise += 0.3 * torch.randn(1, 24, dtype=torch.float64, generator=generator)  # paired: shared by the levels
        slope, se = exponent(NU, NU[:, None] * noise.exp())
        part = from_estimate("c", "q", slope, se, 24, above=0.0)
        covered += part.low <= 1 <= part.high
    assert abs(covered / trials - 0.95) <= 4 * (0.95 * 0.05 / trials) ** 0.5


def test_ratio_of_paired_means_covers() -> None:
    generator = torch.Generator().manual_seed(4)
    covered, trials = 0, 600
    for _ in range(trials):
        shared = torch.randn(24, dtype=torch.float64, generator=generator)
        first, second = (5 + shared + 0.5 * torch.randn(24, dtype=torch.float64, generator=generator) for _ in "ab")
        part = from_estimate("c", "q", *_ratio(2 * first, second), 24, above=0.0)
        covered += part.low <= 2 <= part.high
    assert abs(covered / trials - 0.95) <= 4 * (0.95 * 0.05 / trials) ** 0.5


def test_exponents_have_the_jackknifes_standard_error() -> None:
    """sqrt((R - 1) / R sum of squares) of the exponents without one replica each."""
    values = NU[:, None] * torch.rand(len(NU), 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slope, se = exponent(NU, values)
    left_out = []
    for replica in range(5):
        kept = values[:, [number for number in range(5) if number != replica]].mean(1)
        left_out.append(np.polyfit(NU.log().numpy(), kept.log().numpy(), 1)[0])
    assert slope == pytest.approx(np.polyfit(NU.log().numpy(), values.mean(1).log().numpy(), 1)[0])
    assert se == pytest.approx((4 / 5 * np.square(np.array(left_out) - np.mean(left_out)).sum()) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("student", STUDENTS)
def test_propositions_on_generated_cases(student: str) -> None:
    found = Propositions(student, 8, 1).compute()
    values = found.measurement
    zero = ("risk_difference", "minimum_difference", "gradient", "sample_gradient")
    assert all(abs(values[name]) < 1e-12 for name in zero)
    assert values["below_minimum"] < 1e-12
    assert values["control_gradient"] > 1e-4
    assert values["control_sample_gradient"] > 1e-4
    assert len(found.replicas) == 8
    assert Propositions(student, 8, 1).compute().measurement == values
    assert Propositions(student, 8, 2).compute().measurement != values


@pytest.mark.slow
@pytest.mark.parametrize("student", STUDENTS)
def test_noise_formulas_on_generated_cases(student: str) -> None:
    for supervision in ("one-hot", "independent"):
        found = GradientNoise(student, supervision, count=6, visits=400, seed=1).compute().measurement
        assert found["enumeration_error"] < 1e-12
        assert ("hessian_error" in found) == (supervision == "one-hot")
        assert found.get("hessian_error", 0) < 1e-10
        assert found["ratio_low"] < found["ratio"] < found["ratio_high"]
        assert found["ratio"] == pytest.approx(1, abs=0.3)


@pytest.mark.slow
def test_formula_is_that_of_the_theory() -> None:
    """For softmax regression the formula of the ledger, from Jacobians, is kdsim's sigma*^2, from moments."""
    for supervision, kind in ((OneHot(), "one-hot"), (Independent(0.05), "independent")):
        table = GradientNoise("softmax-regression", kind, 0.05, 5, 10, 2).compute().replicas
        for case, formula in zip(cases("softmax-regression", 5, 2), table["formula"], strict=True):
            theta = case.theta.view(case.population.classes, -1)
            expected = gradient_noise(SoftmaxRegression(), case.population, supervision, theta)
            assert formula == pytest.approx(expected, rel=1e-9)
