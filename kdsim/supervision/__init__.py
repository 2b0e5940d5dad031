"""Supervisions: what a student is taught at each visit. Every one is a noise model on the Bayes class probabilities."""

from kdsim.supervision.annotators import Annotators
from kdsim.supervision.base import Batch, Supervision, Target, require_feasible
from kdsim.supervision.confusion import Confusion
from kdsim.supervision.dirichlet import Dirichlet
from kdsim.supervision.exact import Exact
from kdsim.supervision.independent import Independent
from kdsim.supervision.logit_gaussian import LogitGaussian
from kdsim.supervision.one_hot import OneHot
from kdsim.supervision.smoothing import LabelSmoothing
from kdsim.supervision.temperature import Temperature
from kdsim.supervision.two_point import TwoPoint

SUPERVISIONS = (
    Exact,
    OneHot,
    Dirichlet,
    Annotators,
    TwoPoint,
    Independent,
    Temperature,
    LabelSmoothing,
    LogitGaussian,
    Confusion,
)
"""Every supervision, in the order in which `--help` lists them."""

__all__ = [
    "SUPERVISIONS",
    "Annotators",
    "Batch",
    "Confusion",
    "Dirichlet",
    "Exact",
    "Independent",
    "LabelSmoothing",
    "LogitGaussian",
    "OneHot",
    "Supervision",
    "Target",
    "Temperature",
    "TwoPoint",
    "require_feasible",
]
