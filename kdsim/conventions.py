"""Numbers that measurement and theory go by, and that tables and the schema of results state."""

from __future__ import annotations

CONFIDENCE = 0.95
"""Of the intervals over replicas."""
FEWEST_REPLICAS = 6
"""With fewer the test of stationarity has no power: Student's quantile is 17 standard errors at 5 replicas, 126 at 3,
10,050 at 2, and runs that are a fifth of a relaxation time old pass it. Then it is not known whether a floor is
stationary."""
NEGLIGIBLE = 1e-11
"""A floor below this fraction of the initial squared distance is zero to rounding."""
LARGEST_CHANGE = 1 / 3
"""Largest relative change from first to second order, 1 - first / second, at which second order is stated for a loss
that is not quadratic. The series in the step size is nearly geometric: so large is its next term, relatively."""
GROUPS = ("head", "medium", "tail")
"""Groups of classes, from many to few training images: a third of the classes each (`kdsim.losses.ltkd`)."""
QUANTILES = (5, 25, 50, 75, 95)
"""Over replicas, in percent, of learning curves."""
DEVIATION_GROUPS = 10
"""Groups of equally many points, by the teacher's logit; 1 has the points at which the teacher is least sure."""
