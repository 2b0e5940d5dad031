"""Losses: plain functions of the student's outputs and the target."""

from kdsim.losses.cross_entropy import cross_entropy, cross_entropy_gradient, cross_entropy_hessian
from kdsim.losses.squared_error import squared_error, squared_error_gradient, squared_error_hessian

__all__ = [
    "cross_entropy",
    "cross_entropy_gradient",
    "cross_entropy_hessian",
    "squared_error",
    "squared_error_gradient",
    "squared_error_hessian",
]
