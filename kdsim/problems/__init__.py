"""Problems: populations with exact Bayes class probabilities."""

from kdsim.problems.base import Problem
from kdsim.problems.digits import Digits
from kdsim.problems.gaussian_mixture import GaussianMixture
from kdsim.problems.images import Images
from kdsim.problems.long_tail import LongTail, exponential_prior, under_prior
from kdsim.problems.simplex_linear import SimplexLinear
from kdsim.problems.softmax_linear import SoftmaxLinear

PROBLEMS = (GaussianMixture, SoftmaxLinear, SimplexLinear, Digits, LongTail)
"""All implementations: what a stored config may name, `--help` lists and the contract tests run over."""

IMAGE_PROBLEMS = (Images,)
"""Problems whose x are images (N, 3, H, W), uint8: not for the linear students, which every one of PROBLEMS suits."""

__all__ = [
    "IMAGE_PROBLEMS",
    "PROBLEMS",
    "Digits",
    "GaussianMixture",
    "Images",
    "LongTail",
    "Problem",
    "SimplexLinear",
    "SoftmaxLinear",
    "exponential_prior",
    "under_prior",
]
