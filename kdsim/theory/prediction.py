"""All that theory says of one configuration, as one flat record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache

from torch import Tensor

from kdsim.population import Population
from kdsim.students.base import LinearStudent
from kdsim.students.optimum import minimiser
from kdsim.supervision.base import Supervision
from kdsim.theory import bounds
from kdsim.theory.constants import Constants, constants
from kdsim.theory.gradient_noise import gradient_noise
from kdsim.theory.least_squares import LARGEST_DIMENSION, SecondMoments
from kdsim.theory.stationary import Stationary, stationary


@dataclass(frozen=True)
class Prediction:
    """Theory of one configuration. None where a quantity does not exist or its assumptions fail.

    Attributes:
        nu: mean per-class variance of the target.
        entropy: mean entropy of the BCP over the pool, nats.
        sigma_star_sq: gradient noise of a batch at the point that SGD aims at.
        mu, L, L_max: constants of the objective on the pool.
        step_size_limit: largest step size that T1 admits.
        bound_valid, bound_condition, bound_floor: T1; its floor is None unless it is valid.
        bound_tail: T1's bound averaged over the tail of the run, transient included.
        sharp_bound_valid, sharp_bound_condition, sharp_bound_floor, sharp_bound_tail: T1'.
        first_order_floor: bias_sq + cross_term + variance, first order in the step size.
        first_order_excess_risk: in nats for cross-entropy.
        exact_floor, stability_limit: least squares only.
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
    exact_floor: float | None
    stability_limit: float | None

    def row(self) -> dict[str, float | bool | str | None]:
        """Field names to values."""
        return asdict(self)


@lru_cache(maxsize=16)
def _constants(student: LinearStudent, population: Population) -> Constants:
    return constants(student, population)


@lru_cache(maxsize=16)
def _second_moments(population: Population, ridge: float, batch_size: int) -> SecondMoments:
    return SecondMoments(population, ridge, batch_size)


@lru_cache(maxsize=16)
def _reference(student: LinearStudent, population: Population) -> Tensor:
    return minimiser(student, population)


def predict(
    student: LinearStudent,
    population: Population,
    supervision: Supervision,
    step_size: float,
    batch_size: int,
    tail_steps: list[int],
    *,
    fresh_with_replacement: bool = True,
) -> Prediction:
    """Theory of SGD started at zero.

    Args:
        tail_steps: the steps over which the measured floor is averaged.
        fresh_with_replacement: targets are fresh at each visit and batches drawn with replacement, which every
            formula here assumes; otherwise floors are None and no bound is valid.
    """
    reference = _reference(student, population)
    unbiased = supervision.unbiased
    aim = reference if unbiased else minimiser(student, population, supervision.mean(population.p))
    nu = supervision.nu(population.p)
    pool = _constants(student, population)
    realisable = population.optimum is not None and student.ridge_kind != "ordinary"
    quadratic = student.curvature == 1.0
    interpolation = supervision.noiseless and unbiased and realisable
    # Under interpolation every sample's gradient is zero at theta*, not merely zero to rounding.
    noise = 0.0 if interpolation else gradient_noise(student, population, supervision, aim, batch_size)
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
        smoothness_factor=1.0 if supervision.sums_to_one or quadratic else 1 + population.classes * nu,
        ridge=student.ridge,
    )
    t1, t1_sharp = bounds.t1(setting), bounds.t1_sharp(setting)
    initial = reference.square().sum().item()
    if interpolation:
        first = Stationary(variance=0.0, bias_sq=0.0, cross_term=0.0, excess_risk=0.0)
    else:
        first = stationary(student, population, supervision, step_size, batch_size, aim, reference)
    first_order = first if fresh_with_replacement else None
    exact_floor, stability_limit = _exact(student, population, supervision, step_size, batch_size, realisable)
    return Prediction(
        nu=nu,
        entropy=population.mean_entropy,
        sigma_star_sq=noise,
        mu=pool.mu,
        L=pool.smoothness,
        L_max=pool.sample_smoothness,
        step_size_limit=t1.step_size_limit,
        bound_valid=t1.valid,
        bound_condition=t1.condition,
        bound_floor=t1.neighbourhood if t1.valid else None,
        bound_tail=t1.tail_average(tail_steps, initial) if t1.valid else None,
        sharp_bound_valid=t1_sharp.valid,
        sharp_bound_condition=t1_sharp.condition,
        sharp_bound_floor=t1_sharp.neighbourhood if t1_sharp.valid else None,
        sharp_bound_tail=t1_sharp.tail_average(tail_steps, initial) if t1_sharp.valid else None,
        first_order_floor=first_order and first_order.floor,
        first_order_excess_risk=first_order and first_order.excess_risk,
        bias_sq=first_order and first_order.bias_sq,
        cross_term=first_order and first_order.cross_term,
        variance=first_order and first_order.variance,
        exact_floor=exact_floor if fresh_with_replacement else None,
        stability_limit=stability_limit,
    )


def _exact(
    student: LinearStudent,
    population: Population,
    supervision: Supervision,
    step_size: float,
    batch_size: int,
    realisable: bool,
) -> tuple[float | None, float | None]:
    """Exact floor and stability limit, where the recursion of `SecondMoments` applies."""
    if not (student.curvature == 1.0 and realisable and supervision.unbiased):
        return None, None
    if population.features > LARGEST_DIMENSION or constants(student, population).mu == 0:
        return None, None
    moments = _second_moments(population, student.ridge, batch_size)
    if step_size >= moments.stability_limit:
        return None, moments.stability_limit
    return float(moments.fixed_point(supervision, step_size).trace()), moments.stability_limit
