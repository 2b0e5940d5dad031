"""All that theory says of one configuration, as one flat record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from kdsim import simplex
from kdsim.config import require_between
from kdsim.population import STEP_SIZES, Population
from kdsim.students.base import LinearStudent
from kdsim.students.optimum import minimiser
from kdsim.supervision.base import Supervision
from kdsim.supervision.checks import require_sound
from kdsim.theory import bounds
from kdsim.theory.constants import Constants, constants, input_range, with_pl_estimate
from kdsim.theory.frozen import frozen
from kdsim.theory.gradient_noise import gradient_noise, target_moments, target_sum_squares
from kdsim.theory.least_squares import LARGEST_DIMENSION, SecondMoments
from kdsim.theory.polyak_lojasiewicz import excess_objective
from kdsim.theory.second_order import linearised_moments, one_factor, second_order, solvable, within_second_order
from kdsim.theory.stationary import NoStationaryDistribution, Stationary, curvature, noise_at, repels, stationary


@dataclass(frozen=True)
class Prediction:
    """Theory of one configuration. None where a quantity does not exist or its assumptions fail.

    What each field is says the schema of results: `kdsim columns`, kdsim/results/columns/theory.py.
    """

    nu: float
    entropy: float
    sigma_star_sq: float
    mu: float
    L: float
    L_max: float
    step_size_limit: float
    bound_valid: bool
    bound_condition: str
    bound_floor: float | None
    bound_tail: float | None
    sharp_bound_valid: bool
    sharp_bound_condition: str
    sharp_bound_floor: float | None
    sharp_bound_tail: float | None
    first_order_floor: float | None
    first_order_excess_risk: float | None
    bias_sq: float | None
    cross_term: float | None
    variance: float | None
    predicted_mean_dist_sq: float | None
    aim_bound_valid: bool
    aim_bound_floor: float | None
    aim_bound_tail: float | None
    second_order_floor: float | None
    second_order_excess_risk: float | None
    frozen_dist_sq: float | None
    frozen_excess_risk: float | None
    frozen_gap: float | None
    frozen_floor: float | None
    frozen_floor_excess_risk: float | None
    frozen_expansion: float | None
    exact_floor: float | None
    exact_excess_risk: float | None
    mu_pl: float
    mu_pl_kind: str
    risk_step_size_limit: float
    risk_bound_valid: bool
    risk_bound_condition: str
    risk_bound_floor: float | None
    risk_bound_tail: float | None
    sharp_risk_bound_valid: bool
    sharp_risk_bound_condition: str
    sharp_risk_bound_floor: float | None
    sharp_risk_bound_tail: float | None
    initial_excess: float
    stability_limit: float | None
    stability_kind: str | None

    def row(self) -> dict[str, Any]:
        """Field names to values."""
        return asdict(self)


@lru_cache(maxsize=16)
def _constants(student: LinearStudent, population: Population) -> Constants:
    return with_pl_estimate(student, population, constants(student, population))


@lru_cache(maxsize=4)
def second_moments(population: Population, ridge: float, batch_size: int) -> SecondMoments:
    """`SecondMoments`, kept for the next call."""
    return SecondMoments(population, ridge, batch_size)


@lru_cache(maxsize=16)
def _reference(student: LinearStudent, population: Population) -> Tensor:
    return minimiser(student, population)


@lru_cache(maxsize=64)  # one point for each biased supervision: what is cached at it is found again
def _biased_aim(student: LinearStudent, population: Population, supervision: Supervision) -> Tensor:
    return minimiser(student, population, target_moments(supervision, population)[0], supervision.logit_scale)


def aim_of(student: LinearStudent, population: Population, supervision: Supervision) -> Tensor:
    """theta_m (K, d), the minimiser of the objective at the supervision's mean targets: where SGD goes."""
    return _reference(student, population) if supervision.unbiased else _biased_aim(student, population, supervision)


def predict(
    student: LinearStudent,
    population: Population,
    supervision: Supervision,
    step_size: float,
    batch_size: int,
    tail_steps: list[int],
    *,
    tail_checkpoints: list[int] | None = None,
    fresh_with_replacement: bool = True,
    data_set: int | None = None,
    with_replacement: bool = True,
    plain: bool = True,
) -> Prediction:
    """Theory of SGD started at zero.

    Args:
        tail_steps: the steps over which the measured floor of the squared distance is averaged.
        tail_checkpoints: the steps over which the measured excess risk is averaged; None: `tail_steps`.
        fresh_with_replacement: targets are fresh at each visit and batches drawn with replacement, which every
            formula here assumes; otherwise floors are None and no bound is valid.
        data_set: with frozen targets the number of points of each replica's data set; None: targets are fresh.
        with_replacement: batches are drawn with replacement, which the floor of SGD on a data set assumes.
        plain: no momentum, no weight decay, a constant step size; otherwise there are constants and sigma*^2 alone.

    Raises:
        ConfigError: a step size out of reach, or moments of the supervision that are none (`require_sound`).
    """
    require_between("step_size", step_size, *STEP_SIZES)
    require_sound(supervision, population)
    reference = _reference(student, population)
    unbiased = supervision.unbiased
    target_covariance = target_moments(supervision, population)[1]
    aim = aim_of(student, population, supervision)
    nu = simplex.mean_class_variance(target_covariance).item()
    pool = _constants(student, population)
    realisable = student.ridge_kind != "ordinary" and student.realisable_optimum(population) is not None
    quadratic = student.quadratic
    interpolation = supervision.noiseless and unbiased and realisable
    # Under interpolation every sample's gradient is zero at theta*, not merely zero to rounding.
    noise = 0.0 if interpolation else gradient_noise(student, population, supervision, aim, batch_size)
    sum_squares = target_sum_squares(student, population, supervision)
    setting = bounds.Setting(
        constants=pool,
        batch_size=batch_size,
        step_size=step_size,
        noise=noise,
        unbiased=unbiased,
        interpolation=interpolation,
        realisable=realisable,
        additive=supervision.sums_to_one or quadratic,
        theory_sampling=fresh_with_replacement,
        smoothness_factor=sum_squares.max().item(),
        ridge=student.ridge,
        risk_recorded=student.ridge_kind != "ordinary",
        plain=plain,
    )
    if not plain:  # what follows from here on is about plain SGD
        fresh_with_replacement, data_set = False, None
    initial = reference.square().sum().item()
    aim_columns = _bound_columns(  # theta_m is the optimum of the objective at the mean target
        "aim_bound", bounds.t1(replace(setting, unbiased=True)), tail_steps, aim.square().sum().item()
    )
    del aim_columns["aim_bound_condition"]
    first = _first_order(student, population, supervision, step_size, batch_size, aim, reference, interpolation)
    first_order = first if fresh_with_replacement else None
    exact: tuple[float | None, float | None] = (None, None)
    stability_limit: float | None = None
    if fresh_with_replacement:
        exact, stability_limit = _exact(student, population, supervision, step_size, batch_size, realisable)
    second: tuple[float | None, float | None] = (None, None)
    if fresh_with_replacement:
        second, limit = _second_order(student, population, supervision, step_size, batch_size, aim, first, sum_squares)
        stability_limit = limit if stability_limit is None else stability_limit
    if stability_limit is not None and step_size >= stability_limit:  # theta does not stay near the optimum
        first_order = None
    return Prediction(
        nu=nu,
        entropy=population.mean_entropy,
        sigma_star_sq=noise,
        mu=pool.mu,
        L=pool.smoothness,
        L_max=pool.sample_smoothness,
        step_size_limit=bounds.t1(setting).step_size_limit,
        **_bound_columns("bound", bounds.t1(setting), tail_steps, initial),
        **_bound_columns("sharp_bound", bounds.t1_sharp(setting), tail_steps, initial),
        first_order_floor=None if first_order is None else first_order.floor,
        first_order_excess_risk=None if first_order is None else first_order.excess_risk,
        bias_sq=None if first_order is None else first_order.bias_sq,
        cross_term=None if first_order is None else first_order.cross_term,
        variance=None if first_order is None else first_order.variance,
        predicted_mean_dist_sq=None if first_order is None else first_order.mean_dist_sq,
        **aim_columns,
        second_order_floor=second[0],
        second_order_excess_risk=second[1],
        **_frozen(student, population, supervision, reference, first, data_set, realisable, setting, with_replacement),
        exact_floor=exact[0],
        exact_excess_risk=exact[1],
        mu_pl=pool.mu_pl,
        mu_pl_kind=pool.mu_pl_kind,
        **_risk_bounds(setting, tail_checkpoints or tail_steps, _initial_excess(student, population)),
        stability_limit=stability_limit,
        stability_kind=None if stability_limit is None else "exact" if quadratic else "linearised",
    )


def _first_order(
    student: LinearStudent,
    population: Population,
    supervision: Supervision,
    step_size: float,
    batch_size: int,
    aim: Tensor,
    reference: Tensor,
    interpolation: bool,
) -> Stationary | None:
    """`stationary`; None where there is no such distribution, as the point that SGD aims at repels its mean."""
    if interpolation:
        steepest = constants(student, population).smoothness if student.quadratic else student.ridge
        nothing = Stationary(variance=0.0, bias_sq=0.0, cross_term=0.0, mean_dist_sq=0.0, excess_risk=0.0)
        return nothing if step_size * steepest < 2 else None
    if repels(curvature(student, population, aim), step_size):
        return None
    try:
        return stationary(student, population, supervision, step_size, batch_size, aim, reference)
    except NoStationaryDistribution:
        return None


def _frozen(
    student: LinearStudent,
    population: Population,
    supervision: Supervision,
    optimum: Tensor,
    first: Stationary | None,
    data_set: int | None,
    realisable: bool,
    setting: bounds.Setting,
    with_replacement: bool,
) -> dict[str, Any]:
    """The columns frozen_*, all None where the targets are fresh or an assumption of `frozen` fails."""
    found = dict.fromkeys(name for name in Prediction.__annotations__ if name.startswith("frozen_"))
    if data_set is None or not (supervision.unbiased and realisable and setting.additive):
        return found
    order = frozen(student, population, supervision, optimum, data_set)
    found["frozen_expansion"] = order.expansion
    if order.valid:
        found |= {"frozen_dist_sq": order.dist_sq, "frozen_excess_risk": order.excess_risk, "frozen_gap": order.gap}
        if with_replacement and first is not None:
            found["frozen_floor"] = order.dist_sq + first.variance
            assert first.excess_risk is not None  # unbiased and realisable: theta_m is theta*
            found["frozen_floor_excess_risk"] = order.excess_risk + first.excess_risk
    return found


@lru_cache(maxsize=16)
def _initial_excess(student: LinearStudent, population: Population) -> float:
    reference = _reference(student, population)
    excess = excess_objective(student, population, torch.zeros_like(reference), reference)
    return max(excess, 0.0)  # below zero by rounding, where the start is the optimum; NaN stays


def _risk_bounds(setting: bounds.Setting, tail_checkpoints: list[int], initial: float) -> dict[str, Any]:
    """The columns of T2 and T2'."""
    t2 = bounds.t2(setting)
    return {
        "initial_excess": initial,
        "risk_step_size_limit": t2.step_size_limit,
        **_bound_columns("risk_bound", t2, tail_checkpoints, initial),
        **_bound_columns("sharp_risk_bound", bounds.t2_sharp(setting), tail_checkpoints, initial),
    }


def _bound_columns(name: str, bound: bounds.Bound, tail_steps: list[int], initial: float) -> dict[str, Any]:
    """The columns of one bound: its floor and its tail are None where it is not valid."""
    bound = bound.started(initial)
    return {
        f"{name}_valid": bound.valid,
        f"{name}_condition": bound.condition,
        f"{name}_floor": bound.neighbourhood if bound.valid else None,
        f"{name}_tail": bound.tail_average(tail_steps, initial) if bound.valid else None,
    }


def _exact(
    student: LinearStudent,
    population: Population,
    supervision: Supervision,
    step_size: float,
    batch_size: int,
    realisable: bool,
) -> tuple[tuple[float | None, float | None], float | None]:
    """Exact floors of squared distance and excess risk, and the stability limit, where `SecondMoments` applies."""
    if not (student.quadratic and realisable and supervision.unbiased):
        return (None, None), None
    if min(population.features, population.size) > LARGEST_DIMENSION and _rank(population) > LARGEST_DIMENSION:
        return (None, None), None
    moments = second_moments(population, student.ridge, batch_size)
    if step_size >= moments.stability_limit:
        return (None, None), moments.stability_limit
    floor = float(moments.fixed_point(supervision, step_size).trace())
    return (floor, moments.excess_risk(supervision, step_size)), moments.stability_limit


@lru_cache(maxsize=16)
def _rank(population: Population) -> int:
    return len(input_range(population.x)[0])


def _second_order(
    student: LinearStudent,
    population: Population,
    supervision: Supervision,
    step_size: float,
    batch_size: int,
    aim: Tensor,
    first: Stationary | None,
    sum_squares: Tensor,
) -> tuple[tuple[float | None, float | None], float | None]:
    """(floor, excess risk) of `LinearisedMoments` at this step size, and its stability limit.

    For biased supervision of softmax regression they are None: the mean of theta, of which the floor is made there, is
    known to first order only. For least squares the mean is the point that SGD aims at, and the floor exact. And None
    where the sums of the targets vary from point to point: `LinearisedMoments` has one factor for all; and beyond
    second order.
    """
    quadratic = student.quadratic
    if not (supervision.unbiased or quadratic) or not one_factor(sum_squares) or not solvable(population):
        return (None, None), None
    moments = linearised_moments(student, population, aim, batch_size, sum_squares.max().item())
    if first is None or step_size >= moments.stability_limit:
        return (None, None), moments.stability_limit
    if first.variance == 0:
        return (first.floor, first.excess_risk), moments.stability_limit
    adjoint = second_order(moments, step_size)
    noise = noise_at(student, population, supervision, aim)
    variance = adjoint.variance(noise)
    risk = None if first.excess_risk is None else adjoint.excess_risk(noise)
    if not quadratic and not within_second_order(first.variance, variance):
        return (None, None), moments.stability_limit
    return (first.bias_sq + first.cross_term + variance, risk), moments.stability_limit
