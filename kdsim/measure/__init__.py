"""Measurement: floors, fluctuations and their uncertainty. It never feeds theory."""

from kdsim.measure.decomposition import Decomposition, decompose, squared_norm_of_mean
from kdsim.measure.floors import Interval, Measurement, interval, measure, tail_floor
from kdsim.measure.generalisation import Generalisation, empirical_minimisers, generalise

__all__ = [
    "Decomposition",
    "Generalisation",
    "Interval",
    "Measurement",
    "decompose",
    "empirical_minimisers",
    "generalise",
    "interval",
    "measure",
    "squared_norm_of_mean",
    "tail_floor",
]
