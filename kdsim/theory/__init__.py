"""Theory: what each configuration should do. It never sees a measurement."""

from kdsim.theory.bounds import Bound, Setting, t1, t1_sharp
from kdsim.theory.constants import Constants, constants
from kdsim.theory.gradient_noise import gradient_covariance, gradient_noise
from kdsim.theory.least_squares import SecondMoments
from kdsim.theory.prediction import Prediction, predict
from kdsim.theory.stationary import (
    Curvature,
    Stationary,
    curvature,
    effective_dimension,
    lyapunov_covariance,
    stationary,
)

__all__ = [
    "Bound",
    "Constants",
    "Curvature",
    "Prediction",
    "SecondMoments",
    "Setting",
    "Stationary",
    "constants",
    "curvature",
    "effective_dimension",
    "gradient_covariance",
    "gradient_noise",
    "lyapunov_covariance",
    "predict",
    "stationary",
    "t1",
    "t1_sharp",
]
