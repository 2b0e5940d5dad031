"""Students: what maps an input to class probabilities."""

from kdsim.students.base import LinearStudent
from kdsim.students.least_squares import LeastSquares
from kdsim.students.optimum import minimiser
from kdsim.students.softmax_regression import SoftmaxRegression

STUDENTS = (SoftmaxRegression, LeastSquares)

__all__ = ["STUDENTS", "LeastSquares", "LinearStudent", "SoftmaxRegression", "minimiser"]
