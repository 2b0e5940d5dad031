"""Theory: what each configuration should do. It never sees a measurement."""

from kdsim.theory.bounds import Bound, Setting, t1, t1_sharp, t2, t2_sharp
from kdsim.theory.constants import Constants, constants, with_pl_estimate
from kdsim.theory.frozen import Frozen, frozen
from kdsim.theory.gradient_noise import gradient_covariance, gradient_noise
from kdsim.theory.least_squares import SecondMoments
from kdsim.theory.prediction import Prediction, predict
from kdsim.theory.second_order import Adjoint, LinearisedMoments, linearised_moments, second_order
from kdsim.theory.stationary import (
    Curvature,
    Stationary,
    curvature,
    effective_dimension,
    lyapunov_covariance,
    stationary,
)

__all__ = [
    "Adjoint",
    "Bound",
    "Constants",
    "Curvature",
    "Frozen",
    "LinearisedMoments",
    "Prediction",
    "SecondMoments",
    "Setting",
    "Stationary",
    "constants",
    "curvature",
    "effective_dimension",
    "frozen",
    "gradient_covariance",
    "gradient_noise",
    "linearised_moments",
    "lyapunov_covariance",
    "predict",
    "second_order",
    "stationary",
    "t1",
    "t1_sharp",
    "t2",
    "t2_sharp",
    "with_pl_estimate",
]
