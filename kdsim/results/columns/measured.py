"""What the replicas of a simulation showed. Intervals are 95 % t-intervals over independent replicas."""

from __future__ import annotations

from kdsim.conventions import FEWEST_REPLICAS
from kdsim.results.schema import Column, Type

_DIST = "|theta|^2"


def _mean(name: str, unit: str, meaning: str, heading: str = "", *, always: bool = False) -> Column:
    """A mean over replicas; none if any diverged."""
    return Column(name, "float", unit, meaning, "measurement", interval=True, heading=heading, always=always)


def _plain(name: str, type_: Type, meaning: str, *, unit: str = "", always: bool = True) -> Column:
    return Column(name, type_, unit, meaning, "measurement", always=always)


COLUMNS = (
    _mean(
        "floor",
        _DIST,
        "mean over replicas of the tail average of |theta - theta*|^2; none if any diverged, since "
        "the survivors' mean says nothing of the expectation",
        always=True,
    ),
    _plain("floor_se", "float", "standard error of floor over replicas", unit=_DIST),
    _mean(
        "excess_risk_floor",
        "nats",
        "likewise for the excess risk, averaged over the checkpoints in the tail",
        "excess risk",
        always=True,
    ),
    _mean(
        "fluctuation",
        _DIST,
        "mean over replicas of the standard deviation within the tail, of |theta - theta*|^2, on "
        "a validation set of the loss; low where the tail is few relaxation times 1/(alpha mu) long",
        "fluct.",
        always=True,
    ),
    _mean(
        "accuracy",
        "",
        "share of the points whose most probable class is right, over the checkpoints in the tail; on "
        "a validation set against labels, at the last step",
        always=True,
    ),
    _mean(
        "bcp_l2",
        "",
        "E|phi - p| of the prediction phi, over the checkpoints in the tail; on a validation set at the last step",
        "|phi - p|",
        always=True,
    ),
    _plain(
        "stationary",
        "bool",
        "no drift between the halves of the tail, or a floor that is zero to rounding; none "
        f"where that is not known, as with fewer than {FEWEST_REPLICAS} replicas",
    ),
    _plain(
        "drift_z", "float", "change from the first to the second half of the tail, in standard errors over replicas"
    ),
    _plain("diverged", "int", "number of replicas that diverged"),
    _plain(
        "ratio", "float", "measured floor over the predicted one; none where either is missing or zero", always=False
    ),
    _mean("measured_cross_term", _DIST, "2 <s, E[theta - theta_m]>, s = theta_m - theta*, in the tail"),
    _mean("measured_variance", _DIST, "E|theta - theta_m|^2 in the tail, theta_m the point that SGD aims at"),
    _mean("mean_dist_sq", _DIST, "|E theta - theta*|^2 in the tail, unbiased; none with fewer than 3 replicas"),
    _mean("empirical_dist_sq", _DIST, "|theta_hat - theta*|^2, theta_hat the minimiser of a replica's own data set"),
    _mean("empirical_excess_risk", "nats", "BCP loss of theta_hat above that of theta*"),
    _mean("empirical_train_loss", "nats", "loss of theta_hat against the frozen targets, without the ridge"),
    _mean("empirical_gap", "nats", "population minus training loss of theta_hat"),
    _mean("empirical_accuracy", "", "accuracy of theta_hat"),
    _mean("train_loss", "nats", "loss at the end of SGD against the frozen targets, without the ridge"),
    _mean("population_loss", "nats", "loss at the end of SGD against fresh targets at fresh points of the pool"),
    _mean("generalisation_gap", "nats", "their difference, as that of the excesses over theta*"),
    _mean("final_loss", "nats", "cross-entropy against the labels of the validation set, at the last step", "loss"),
    _mean("excess_loss", "nats", "final_loss above that of the BCP on the same labels", "above the BCP's"),
    _mean("ece", "", "expected calibration error against the labels of the validation set, at the last step"),
)
