"""Students: what maps an input to class probabilities."""

from kdsim.students.base import LinearStudent
from kdsim.students.factored import FactoredLeastSquares
from kdsim.students.least_squares import LeastSquares
from kdsim.students.mlp import MLP
from kdsim.students.module import ModuleStudent
from kdsim.students.network import NetworkStudent
from kdsim.students.optimum import minimiser
from kdsim.students.softmax_regression import SoftmaxRegression

STUDENTS = (SoftmaxRegression, LeastSquares)
NETWORK_STUDENTS = (FactoredLeastSquares, MLP)
"""Students that are not linear in their parameters: they have no closed forms, and run on the autograd engine."""

__all__ = [
    "MLP",
    "NETWORK_STUDENTS",
    "STUDENTS",
    "FactoredLeastSquares",
    "LeastSquares",
    "LinearStudent",
    "ModuleStudent",
    "NetworkStudent",
    "SoftmaxRegression",
    "minimiser",
]
