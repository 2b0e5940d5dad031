"""kdsim: SGD with Bayes class probabilities, simulated and held against its theory."""

__version__ = "0.1.0"
