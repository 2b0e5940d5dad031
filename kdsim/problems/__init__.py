"""Problems: populations with exact Bayes class probabilities."""

from kdsim.problems.base import Problem
from kdsim.problems.digits import Digits
from kdsim.problems.gaussian_mixture import GaussianMixture
from kdsim.problems.simplex_linear import SimplexLinear
from kdsim.problems.softmax_linear import SoftmaxLinear

PROBLEMS = (GaussianMixture, SoftmaxLinear, SimplexLinear, Digits)
"""All implementations: what a stored config may name, `--help` lists and the contract tests run over."""

__all__ = ["PROBLEMS", "Digits", "GaussianMixture", "Problem", "SimplexLinear", "SoftmaxLinear"]
