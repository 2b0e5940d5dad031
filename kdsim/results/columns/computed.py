"""What computations have: their settings are their fields, and what they measure they declare themselves."""

from __future__ import annotations

from kdsim.results.schema import Column, Kind, Type

_KINDS: tuple[Kind, ...] = ("computation",)


def _found(name: str, unit: str, meaning: str, *, type_: Type = "float", interval: bool = False) -> Column:
    return Column(name, type_, unit, meaning, "computation", _KINDS, interval=interval)


CASES = _found("cases", "", "number of generated cases", type_="int")

EIGEN_PATHS = (
    _found("comparisons", "", "pairs of directions, times of the teacher and of the student", type_="int"),
    _found("violations", "", "comparisons whose ratio is above one", type_="int"),
    _found("ratio_min", "", "smallest ratio of the student's component to that of an early-stopped model of the truth"),
    _found("ratio_max", "", "largest such ratio"),
    _found("over_lower_bound_min", "", "smallest ratio over its lower bound, that of the rates"),
)
PROPOSITIONS = (
    CASES,
    _found("risk_difference", "nats", "largest |BCP risk - one-hot risk|, at theta* and random parameters"),
    _found("minimum_difference", "nats", "largest |one-hot risk at theta* - E H(p)|"),
    _found("gradient", "", "largest norm of the one-hot risk's gradient at theta*"),
    _found("below_minimum", "nats", "how far the one-hot risk is below that at theta* anywhere; negative if nowhere"),
    _found("sample_gradient", "", "largest norm of a sample's gradient at theta* under exact BCP"),
    _found("control_gradient", "", "under biased probabilities, smallest norm of the risk's gradient"),
    _found("control_sample_gradient", "", "under biased probabilities, smallest of the largest norms of a sample's"),
)
GRADIENT_NOISE = (
    CASES,
    _found("enumeration_error", "", "largest relative error of the formula against the sum over labels"),
    _found("hessian_error", "", "largest relative error of the formula against the Hessian's trace, one-hot only"),
    _found("ratio", "", "mean squared norm of drawn gradients over the formula", interval=True),
)

COLUMNS = (
    Column("computation", "str", "", "kind of the computation", "computation", _KINDS),
    Column("words", "str", "", "what its measurements are, in words", "computation", _KINDS),
    *EIGEN_PATHS,
    *PROPOSITIONS,
    *GRADIENT_NOISE[1:],
)
