"""Measurement: floors, fluctuations and their uncertainty. It never feeds theory."""

from kdsim.measure.floors import Interval, Measurement, interval, measure, tail_floor

__all__ = ["Interval", "Measurement", "interval", "measure", "tail_floor"]
