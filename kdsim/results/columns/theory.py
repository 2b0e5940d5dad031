"""What theory says of a simulation, and the truth of a training before it starts."""

from __future__ import annotations

from kdsim.conventions import GROUPS, LARGEST_CHANGE
from kdsim.results.schema import Column, Kind, Type

_DIST = "|theta|^2"
_EXCESS = "a bound of the excess of the objective, ridge included, and so of the excess risk; not for an ordinary ridge"
_OPEN = "Students without closed forms"


def _known(name: str, unit: str, meaning: str, place: str, type_: Type = "float", heading: str = "") -> Column:
    """A field of `kdsim.theory.prediction.Prediction`."""
    return Column(name, type_, unit, meaning, "theory", place=place, heading=heading, always=True)


def _bound(name: str, title: str, unit: str, meaning: str, tail: str) -> tuple[Column, ...]:
    """The four columns of a bound; `tail` says over what its average is taken."""
    place = "Bounds"
    return (
        _known(f"{name}_valid", "", f"whether {title} applies", place, "bool"),
        _known(f"{name}_condition", "", f"the condition of {title} that fails, or that it applies", place, "str"),
        _known(f"{name}_floor", unit, f"neighbourhood of {title}, {meaning}; none unless it applies", place),
        _known(f"{name}_tail", unit, f"{title} averaged over {tail}, transient included", place),
    )


def _estimate(name: str, unit: str, meaning: str) -> Column:
    return Column(name, "float", unit, f"{meaning}; students without closed forms", "theory", place=_OPEN)


def _truth(name: str, unit: str, meaning: str, kinds: tuple[Kind, ...] = ("training",)) -> Column:
    return Column(name, "float", unit, meaning, "theory", kinds, place="Long tails" if "prior" in name else "Setting")


_SECOND = (
    f"none for biased supervision, beyond the stability limit, and where it changes first order by {LARGEST_CHANGE:.0%}"
)

COLUMNS = (
    Column(
        "nu",
        "float",
        "",
        "mean per-class variance of the targets",
        "theory",
        ("simulation", "training"),
        place="Setting",
        always=True,
    ),
    _known("entropy", "nats", "mean entropy of the BCP over the pool", "Setting"),
    _known(
        "sigma_star_sq",
        "|gradient|^2",
        "gradient noise of a batch at the point that SGD aims at",
        "Gradient noise",
        heading="sigma*^2",
    ),
    _known("mu", "", "strong convexity of the objective on the pool", "Constants"),
    _known("L", "", "smoothness of the objective on the pool", "Constants"),
    _known("L_max", "", "largest smoothness of a sample's objective", "Constants"),
    _known("step_size_limit", "", "largest step size that T1 admits", "Bounds"),
    *_bound("bound", "T1", _DIST, "a bound of E|theta - theta*|^2", "the tail of the run"),
    *_bound("sharp_bound", "T1'", _DIST, "a bound of E|theta - theta*|^2", "the tail of the run"),
    _known(
        "first_order_floor",
        _DIST,
        "bias_sq + cross_term + variance, first order in the step size; none where targets are not fresh, batches "
        "not drawn with replacement, noise acts where nothing pulls back, or the step size does not keep theta near "
        "(from the stability limit, or 2 / eigmax(H), on)",
        "Floors",
    ),
    _known("first_order_excess_risk", "nats", "excess risk to first order in the step size", "Floors"),
    _known("bias_sq", _DIST, "|theta_m - theta*|^2, theta_m the point that SGD aims at", "Floors"),
    _known("cross_term", _DIST, "2 <theta_m - theta*, E theta - theta_m> to first order", "Floors"),
    _known("variance", _DIST, "E|theta - theta_m|^2 to first order", "Floors"),
    _known(
        "predicted_mean_dist_sq", _DIST, "|E theta - theta*|^2 to first order: bias and drift of the mean", "Floors"
    ),
    _known("aim_bound_valid", "", "whether T1 about theta_m applies: T1 but for unbiasedness", "Bounds", "bool"),
    _known("aim_bound_floor", _DIST, "neighbourhood of T1 about theta_m, of E|theta - theta_m|^2", "Bounds"),
    _known("aim_bound_tail", _DIST, "the same averaged over the tail of the run, transient included", "Bounds"),
    _known(
        "second_order_floor",
        _DIST,
        f"floor of the dynamics linearised at the optimum, at this step size; {_SECOND}",
        "Sharper floors and step sizes",
        heading="2nd order",
    ),
    _known(
        "second_order_excess_risk",
        "nats",
        "excess risk of the linearised dynamics, under the same conditions",
        "Sharper floors and step sizes",
    ),
    _known(
        "frozen_dist_sq",
        _DIST,
        "of the minimiser of a data set of frozen targets, to first order in 1/N; all "
        "frozen_ are none unless targets are frozen, unbiased, sum to one and the student is realisable",
        "Frozen targets",
    ),
    _known("frozen_excess_risk", "nats", "excess risk of that minimiser", "Frozen targets"),
    _known("frozen_gap", "nats", "population minus training loss of that minimiser", "Frozen targets"),
    _known(
        "frozen_floor",
        _DIST,
        "of SGD on the data set: the minimiser's and SGD's first-order spread about it",
        "Frozen targets",
    ),
    _known("frozen_floor_excess_risk", "nats", "likewise for the excess risk", "Frozen targets"),
    _known(
        "frozen_expansion", "", "parameter of the expansion in 1/N; its numbers are stated up to 1", "Frozen targets"
    ),
    _known("exact_floor", _DIST, "exact floor of least squares", "Floors"),
    _known("exact_excess_risk", "nats", "exact excess risk of least squares, without the ridge", "Floors"),
    _known("mu_pl", "", "PL constant of the objective", "Polyak-Lojasiewicz students"),
    _known("mu_pl_kind", "", "exact or estimate", "Polyak-Lojasiewicz students", "str"),
    _known("risk_step_size_limit", "", "largest step size that T2 admits", "Bounds"),
    *_bound("risk_bound", "T2", "nats", _EXCESS, "the checkpoints in the tail"),
    *_bound("sharp_risk_bound", "T2'", "nats", _EXCESS, "the checkpoints in the tail"),
    _known("initial_excess", "nats", "f_0 - f* of the objective with its ridge, where T2 and T2' start", "Bounds"),
    _known("stability_limit", "", "step size above which the squared error grows", "Sharper floors and step sizes"),
    _known(
        "stability_kind",
        "",
        "exact (least squares) or linearised (at the optimum)",
        "Sharper floors and step sizes",
        "str",
    ),
    _estimate("L_estimate", "", "smoothness at one minimiser"),
    _estimate("L_estimate_error", "", "numerical error of L_estimate"),
    _estimate(
        "L_max_estimate", "", "largest smoothness of a sample at one minimiser; none for targets off the simplex"
    ),
    _estimate("L_max_estimate_error", "", "numerical error of L_max_estimate"),
    _estimate("sigma_star_sq_estimate", "|gradient|^2", "gradient noise of a batch at one minimiser"),
    _estimate("minimiser_excess_risk", "nats", "excess risk at that minimiser"),
    _estimate("constant_excess_risk", "nats", "excess risk of the best prediction that does not look at x"),
    _truth(
        "bayes_loss", "nats", "loss of the truth itself on the labels of the validation set", ("simulation", "training")
    ),
    _truth("bayes_test_loss", "nats", "loss of the truth itself on the labels of the test images"),
    _truth("prior_bias", "nats", "KL on test images from the BCP under equal priors to that under those of training"),
    _truth("group_prior_bias", "nats", "likewise to the BCP when all groups are made equally frequent"),
    Column(
        "{prior}_{group}",
        "float",
        "nats",
        "the same over the images of a group of classes",
        "theory",
        ("training",),
        place="Long tails",
        parts=(("prior", ("prior_bias", "group_prior_bias")), ("group", GROUPS)),
    ),
    Column(
        "tail_relaxations",
        "float",
        "",
        "mu * step_size * tail_start: start of the tail in relaxation times",
        "theory",
        place="Measurement",
    ),
)
