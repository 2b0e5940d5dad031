"""A student without closed forms: constants of a region, and the numbers that a study states beside its measurements.

All are estimates: extrema over finitely many points, or numbers at one minimiser. None makes a bound valid.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor

from kdsim.config import ConfigError, require_between, require_count, require_positive
from kdsim.population import Population
from kdsim.students import FactoredLeastSquares, NetworkStudent
from kdsim.supervision.base import Supervision
from kdsim.supervision.checks import require_nu
from kdsim.theory.estimators import (
    LARGEST_DENSE,
    Estimate,
    NoMinimiser,
    gradient_moments,
    minimise,
    network_gradient_noise,
    pool_eigenvectors,
    sample_smoothness,
    smoothness,
)
from kdsim.theory.prediction import Prediction

NO_CLOSED_FORM = "no closed form: constants are estimates"
INTERPOLATES = 1e-9
"""Largest excess risk at the centre of a region that is taken for a minimiser which is exactly p."""
MINIMISER_TOLERANCE = 1e-4
"""Gradient norm at the minimiser from which the numbers of a study are taken; relu's kinks allow no 1e-8."""


@dataclass(frozen=True)
class Region:
    """Second moments of the sample gradient at points around a minimiser theta* that is exactly p.

    Attributes:
        distance: |theta - theta*|, (n,).
        excess: f - f*, (n,): the divergence from p, for any unbiased supervision.
        gradient_sq: |grad f|^2, (n,).
        exact_second: E|g|^2 under exact BCP, (n,).
        label: label part of E|g|^2 under the supervision, E tr(J N J'), (n,).
        noise: sigma*^2, the label part at theta*.
    """

    distance: Tensor
    excess: Tensor
    gradient_sq: Tensor
    exact_second: Tensor
    label: Tensor
    noise: float

    def smoothness(self, slack: float = 1.0) -> float:
        """Smallest constant with E|g|^2 <= 2 c (f - f*) + (1 + slack) sigma*^2 at every point: an estimate from below.

        For alpha <= mu / (L c) the neighbourhood of a mu-PL objective is then L alpha (1 + slack) sigma*^2 / (2 mu), as
        long as SGD stays in the region. The points do not look along the set of minimisers, where f = f* and the label
        part may exceed (1 + slack) sigma*^2, so that no constant serves: see docs/theory.md.

        With slack 1 it is T2's condition, E|g|^2 <= 4 Lc (f - f*) + 2 sigma*^2 with c = 2 Lc. Slack 0 is T1'-like: for
        students that are linear in their parameters c = L_max serves every slack, since the label part of the
        gradient does not depend on theta. Where the Jacobian of the outputs varies, label - sigma*^2 is of first
        order in the distance and f - f* of second: with slack 0 the constant grows without limit near theta*.
        """
        require_between("slack", slack, 0, float("inf"), "[)")
        excess = self.exact_second + self.label - (1 + slack) * self.noise
        return (excess / (2 * self.excess)).max().clamp(min=0).item()

    @property
    def exact_smoothness(self) -> float:
        """Smallest c with E|g|^2 <= 2 c (f - f*) under exact BCP: an estimate from below."""
        return (self.exact_second / (2 * self.excess)).max().item()

    @property
    def pl(self) -> float:
        """Largest mu with |grad f|^2 >= 2 mu (f - f*) at every point: an estimate from above."""
        return (self.gradient_sq / (2 * self.excess)).min().item()


def region(
    student: NetworkStudent,
    population: Population,
    supervision: Supervision,
    centre: Tensor,
    radius: float,
    *,
    points: int = 64,
    seed: int = 0,
) -> Region:
    """Gradient moments at points around theta*, at distances log-uniform from radius/100 to radius.

    Directions: uniform ones, and every eigenvector of the Hessian at theta* that is not flat (eigenvalue above 1e-9 of
    the largest), where the extrema of a quadratic lie. Exact sums over the pool at each point; what is estimated is
    the extremum over the region by that over the points.

    Args:
        centre: theta*, (P,): a minimiser that is exactly p, such as `FactoredLeastSquares.solution`.
        radius: of the ball in parameter space.
        points: number of uniform directions.

    Raises:
        ConfigError: a biased supervision, a ridge, or a centre that is not exactly p.
    """
    require_positive("radius", radius)
    require_count("points", points)
    if not supervision.unbiased:
        raise ConfigError(f"supervision = {supervision.name!r} is not allowed: must be unbiased")
    if student.ridge:
        raise ConfigError(f"ridge = {student.ridge!r} is not allowed: must be 0, which keeps the minimiser at the BCP")
    if (at_centre := _excess_risk(student, population, centre)) > INTERPOLATES:
        raise ConfigError(f"excess risk at the centre = {at_centre:.3g} is not allowed: must be <= {INTERPOLATES:g}")
    generator = torch.Generator().manual_seed(seed)
    values, vectors = pool_eigenvectors(student, population, centre)
    uniform = torch.randn(points, len(centre), generator=generator, dtype=torch.float64)
    directions = torch.cat([uniform, vectors.T[values > 1e-9 * values[-1]]])
    distance = radius * 100 ** (torch.rand(len(directions), generator=generator, dtype=torch.float64) - 1)
    excess, gradient_sq, exact_second, label = [], [], [], []
    for direction, length in zip(directions, distance, strict=True):
        at = centre + length * direction / direction.norm()
        label_part, second, mean = gradient_moments(student, population, supervision, at)
        excess.append(_excess_risk(student, population, at))
        gradient_sq.append(mean.square().sum().item())
        exact_second.append(second)
        label.append(label_part)
    noise = gradient_moments(student, population, supervision, centre)[0]
    return Region(
        distance, _column(excess), _column(gradient_sq), _column(exact_second), _column(label), noise=noise
    )  # fmt: skip


ESTIMATES = (
    "L_estimate",
    "L_estimate_error",
    "L_max_estimate",
    "L_max_estimate_error",
    "sigma_star_sq_estimate",
    "minimiser_excess_risk",
    "constant_excess_risk",
)
"""Columns of `estimates`."""


def estimates(
    student: NetworkStudent, population: Population, supervision: Supervision, batch_size: int, seed: int
) -> dict[str, float | None]:
    """Numbers at one minimiser, under names that say so; no bound is made of them.

    The minimiser: the balanced factors of a factored student, else the one that trust-region Newton reaches from the
    start of replica 0. L_max is taken over the targets that the supervision can give: its mean if it has no noise,
    otherwise the vertices of the simplex; None for targets off the simplex, where it does not exist.
    `constant_excess_risk` is that of the best constant prediction: what a student that has died still gets.
    """
    point = local_minimiser(student, population, seed)
    pool, largest = _smoothness(student, population, point, not supervision.noiseless)
    if supervision.noiseless and not supervision.unbiased:
        largest = sample_smoothness(student, population, point, supervision.mean(population.p))
    allowed = supervision.on_simplex
    values = (
        pool.value,
        pool.error,
        largest.value if allowed else None,
        largest.error if allowed else None,
        network_gradient_noise(student, population, supervision, point, batch_size).total,
        _excess_risk(student, population, point),
        constant_excess_risk(student, population),
    )
    return dict(zip(ESTIMATES, values, strict=True))


def open_prediction(
    student: NetworkStudent, population: Population, supervision: Supervision, batch_size: int, seed: int
) -> dict[str, float | bool | str | None]:
    """The row of a prediction where there is no closed form: its columns empty, no bound valid; then `estimates`.

    Those are empty too above `LARGEST_DENSE` parameters, where a minimiser takes hours, and where none is found: the
    conditions then say so.
    """
    row: dict[str, float | bool | str | None] = {}
    for field in fields(Prediction):
        valid, condition = field.name.endswith("_valid"), field.name.endswith("_condition")
        row[field.name] = False if valid else NO_CLOSED_FORM if condition else None
    row |= {"nu": require_nu(supervision, population), "entropy": population.mean_entropy}
    if student.size(population.features, population.classes) > LARGEST_DENSE:
        return row | dict.fromkeys(ESTIMATES)
    try:
        return row | estimates(student, population, supervision, batch_size, seed)
    except NoMinimiser as error:  # huge inputs or a huge start; the students are trained all the same
        why = f"{NO_CLOSED_FORM}, and there are none: {error}"
        return row | {name: why for name in row if name.endswith("_condition")} | dict.fromkeys(ESTIMATES)


@lru_cache(maxsize=8)
def local_minimiser(student: NetworkStudent, population: Population, seed: int) -> Tensor:
    """The minimiser from which `estimates` are taken, (P,)."""
    if isinstance(student, FactoredLeastSquares) and not student.ridge and population.optimum is not None:
        return student.solution(population)
    key = torch.tensor([[seed]]), torch.tensor([[0]])
    start = student.initial(population.features, population.classes, *key)[0]
    return minimise(student, population, start, tolerance=MINIMISER_TOLERANCE)


@lru_cache(maxsize=8)
def _smoothness(
    student: NetworkStudent, population: Population, point: Tensor, vertices: bool
) -> tuple[Estimate, Estimate]:
    largest = sample_smoothness(student, population, point, vertices=vertices)
    return smoothness(student, population, point), largest


def constant_excess_risk(student: NetworkStudent, population: Population) -> float:
    """Excess risk of the best prediction that does not look at x: E p, under either loss."""
    mean = population.p.mean(0, keepdim=True)
    best = student.best_outputs(population.p)
    return student.head.compare(student.best_outputs(mean) - best, best)[0].mean().item()


def _column(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _excess_risk(student: NetworkStudent, population: Population, parameters: Tensor) -> float:
    """E of the divergence of the prediction from p."""
    best = student.best_outputs(population.p)
    return student.head.compare(student.outputs(parameters, population.x) - best, best)[0].mean().item()
