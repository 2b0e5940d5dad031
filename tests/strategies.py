"""Hypothesis strategies: rows of the simplex, supervisions and small populations."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from kdsim.population import Population
from kdsim.supervision import (
    SUPERVISIONS,
    Annotators,
    Confusion,
    Dirichlet,
    Exact,
    Independent,
    LabelSmoothing,
    LogitGaussian,
    OneHot,
    Supervision,
    Temperature,
    TwoPoint,
)

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def bcps(draw: st.DrawFn, classes: int | None = None, rows: int | None = None) -> Tensor:
    """Bayes class probabilities (N, K) float64: vertices, ties, uniform rows, p_k down to 1e-30, random rows."""
    classes = classes or draw(st.integers(2, 6))
    rows = rows or draw(st.integers(1, 6))
    return torch.stack([draw(_row(classes)) for _ in range(rows)])


@st.composite
def _row(draw: st.DrawFn, classes: int) -> Tensor:
    kind = draw(st.sampled_from(["vertex", "uniform", "tie", "tiny", "random"]))
    weights = np.zeros(classes)
    if kind == "vertex":
        weights[draw(st.integers(0, classes - 1))] = 1
    elif kind == "uniform":
        weights[:] = 1
    elif kind == "tie":  # at least two equal largest entries, the others possibly zero
        weights[:] = draw(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=classes, max_size=classes))
        first, second = draw(st.permutations(range(classes)))[:2]
        weights[[first, second]] = 1
    elif kind == "tiny":
        powers = draw(st.lists(st.sampled_from([-30, -20, -9, -3, 0]), min_size=classes, max_size=classes))
        weights[:] = 10.0 ** np.array(powers)
    else:
        generator = np.random.default_rng(draw(SEEDS))
        weights[:] = generator.dirichlet(np.full(classes, draw(st.sampled_from([0.05, 0.5, 1.0, 20.0]))))
    return torch.from_numpy(weights / weights.sum())


def _powers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda power: 10.0**power)


_FAMILIES: dict[type[Supervision], st.SearchStrategy[Supervision]] = {
    Exact: st.just(Exact()),
    OneHot: st.just(OneHot()),
    Dirichlet: st.builds(Dirichlet, st.sampled_from([1e-6, 1e6]) | _powers(-6, 6)),
    Annotators: st.builds(Annotators, st.integers(1, 50).map(float) | st.floats(1, 200)),
    TwoPoint: st.builds(TwoPoint, st.sampled_from([0.0, 1.0]) | st.floats(0, 1)),
    Independent: st.builds(Independent, st.just(0.0) | _powers(-9, 2)),
    Temperature: st.builds(Temperature, st.just(1.0) | _powers(-3, 3)),
    LabelSmoothing: st.builds(LabelSmoothing, st.sampled_from([0.0, 1.0]) | st.floats(0, 1)),
    LogitGaussian: st.builds(LogitGaussian, st.just(0.0) | _powers(-3, 2)),
    Confusion: st.builds(
        Confusion,
        st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
        st.sampled_from(["symmetric", "cyclic"]),
        st.booleans(),
    ),
}


def supervisions(unbiased: bool | None = None) -> st.SearchStrategy[Supervision]:
    """Every family with levels over its whole range; only (un)biased ones if `unbiased` is given."""
    missing = [cls.__name__ for cls in SUPERVISIONS if cls not in _FAMILIES]
    assert not missing, f"tests/strategies.py: add a strategy for {', '.join(missing)} to _FAMILIES"
    return st.one_of(*(_FAMILIES[cls] for cls in SUPERVISIONS if unbiased is None or cls.unbiased == unbiased))


@st.composite
def populations(draw: st.DrawFn, student: str | None = None) -> Population:
    """Small pools whose p is exactly the student's at `optimum`: N 1..20, K 2..6, d 1..5.

    Args:
        student: "softmax-regression" (p = softmax(theta x), theta centred) or "least-squares" (p = theta x);
            either if None.
    """
    student = student or draw(st.sampled_from(["softmax-regression", "least-squares"]))
    size, classes, features = draw(st.integers(1, 20)), draw(st.integers(2, 6)), draw(st.integers(1, 5))
    generator = np.random.default_rng(draw(SEEDS))
    if student == "softmax-regression":
        x = torch.from_numpy(generator.standard_normal((size, features)))
        theta = draw(st.sampled_from([0.1, 1.0, 3.0])) * generator.standard_normal((classes, features))
        optimum = torch.from_numpy(theta - theta.mean(0))
        return Population(x=x, p=torch.softmax(x @ optimum.T, -1), optimum=optimum)
    x = torch.from_numpy(generator.dirichlet(np.ones(features), size))
    optimum = torch.from_numpy(generator.dirichlet(np.ones(classes), features).T.copy())  # columns on the simplex
    return Population(x=x, p=x @ optimum.T, optimum=optimum)
