"""What the ledger computes itself: exponents with their jackknife, ratios, and the exact statements."""

from __future__ import annotations

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


@pytest.mark.parametrize("student", STUDENTS)
def test_noise_formulas_on_generated_cases(student: str) -> None:
    for supervision in ("one-hot", "independent"):
        found = GradientNoise(student, supervision, count=6, visits=400, seed=1).compute().measurement
        assert found["enumeration_error"] < 1e-12
        assert ("hessian_error" in found) == (supervision == "one-hot")
        assert found.get("hessian_error", 0) < 1e-10
        assert found["ratio_low"] < found["ratio"] < found["ratio_high"]
        assert found["ratio"] == pytest.approx(1, abs=0.3)


def test_formula_is_that_of_the_theory() -> None:
    """For softmax regression the formula of the ledger, from Jacobians, is kdsim's sigma*^2, from moments."""
    for supervision, kind in ((OneHot(), "one-hot"), (Independent(0.05), "independent")):
        table = GradientNoise("softmax-regression", kind, 0.05, 5, 10, 2).compute().replicas
        for case, formula in zip(cases("softmax-regression", 5, 2), table["formula"], strict=True):
            theta = case.theta.view(case.population.classes, -1)
            expected = gradient_noise(SoftmaxRegression(), case.population, supervision, theta)
            assert formula == pytest.approx(expected, rel=1e-9)
