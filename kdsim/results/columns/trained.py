"""What trainings of networks and their teachers showed, as means over replicas with 95 % t-intervals.

A score is on validation images at the last step, test_SCORE on test images; all are none where a replica diverged, and
one replica has no intervals.
"""

from __future__ import annotations

from kdsim.conventions import DEVIATION_GROUPS, GROUPS
from kdsim.results.schema import Column, Kind, Source, Type

_TRAINING: tuple[Kind, ...] = ("training",)
_TEACHER: tuple[Kind, ...] = ("teacher",)
_BOTH: tuple[Kind, ...] = ("training", "teacher")
_DECILES = tuple(map(str, range(1, DEVIATION_GROUPS + 1)))
_GROUPS = (("group", GROUPS),)
_PARTS = (("part", (*GROUPS, "between", "within")),)


def _mean(
    name: str, unit: str, meaning: str, kinds: tuple[Kind, ...] = _TRAINING, heading: str = "",
    parts: tuple[tuple[str, tuple[str, ...]], ...] = (), source: Source = "training",
) -> Column:  # fmt: skip
    source = "teacher" if kinds == _TEACHER else source
    return Column(name, "float", unit, meaning, source, kinds, interval=True, heading=heading, parts=parts)


def _plain(name: str, type_: Type, unit: str, meaning: str, kinds: tuple[Kind, ...] = _TRAINING) -> Column:
    return Column(name, type_, unit, meaning, "training", kinds)


def _scores() -> tuple[Column, ...]:
    """On validation images, and on test images."""
    found = []
    for prefix, where, heading in (("test_", "test images", "test "), ("", "validation images", "")):
        found += [
            _mean(
                f"{prefix}accuracy",
                "",
                f"share of the labels of the {where} that are the most probable class",
                _BOTH,
                f"{heading}acc.",
            ),
            _mean(f"{prefix}loss", "nats", f"-log q_y on the {where}", _BOTH, f"{heading}loss"),
            _mean(f"{prefix}top5", "", f"share of the labels of the {where} among the five most probable classes"),
            _mean(f"{prefix}brier", "", f"|q - e_y|^2 on the {where}", _BOTH),
            _mean(f"{prefix}ece", "", f"expected calibration error in 15 bins on the {where}", _BOTH, f"{heading}ece"),
            _mean(f"{prefix}bcp_kl", "nats", f"KL(p, q) on the {where}, where p is known", _BOTH),
            _mean(f"{prefix}bcp_l2", "", f"|q - p| on the {where}, where p is known", _BOTH),
            _mean(
                f"{prefix}accuracy_{{group}}",
                "",
                f"accuracy on {where} with labels in a group of classes",
                parts=_GROUPS,
            ),
            _mean(
                f"{prefix}bcp_kl_{{part}}",
                "nats",
                f"KL(p, q) on the {where} over a group of classes, or its part between or within groups",
                parts=_PARTS,
            ),
            _mean(f"{prefix}adaptive_ece", "", f"calibration error in bins of equally many of the {where}", _TEACHER),
            _mean(f"{prefix}nu", "", f"mean per-class variance of a sample's q on the {where}", _TEACHER),
            _mean(f"{prefix}bias_sq", "", f"E|m - p|^2 on the {where}, m the mean over samples", _TEACHER),
            _mean(f"{prefix}gradient_noise", "", f"E|q - p|^2 on the {where}, q that of one sample", _TEACHER),
        ]
    return tuple(found)


def _deviation(name: str, unit: str, meaning: str, parts: tuple[tuple[str, tuple[str, ...]], ...] = ()) -> Column:
    return _mean(f"deviation_{name}", unit, meaning, parts=parts)


COLUMNS = (
    *_scores(),
    _mean("best_test_accuracy", "", "accuracy on test images at the evaluation that was best on validation images"),
    _mean("train_loss", "nats", "mean loss of the steps since the last evaluation"),
    _mean("excess_risk", "nats", "risk above that of the best student, where that is not the truth"),
    _mean("floor", "nats", "mean of KL(p, q) over validation images and evaluations in the window", heading="KL to p"),
    _mean(
        "floor_{part}", "nats", "likewise over a group of classes, or its part between or within groups", parts=_PARTS
    ),
    _mean("floor_drift", "nats", "change of floor from the first to the second half of the window"),
    _mean(
        "noise_accuracy", "", "standard deviation of accuracy about its own line in the window", heading="noise acc."
    ),
    _mean(
        "noise_loss", "nats", "standard deviation of the loss about its own line in the window", heading="noise loss"
    ),
    _mean("fluctuation", "nats", "noise_loss"),
    _plain("stationary", "bool", "", "whether floor_drift is within what replicas explain; none if not known"),
    _plain("best_step", "float", "steps", "mean step of the evaluation that was best on validation images"),
    _plain("diverged", "int", "", "number of replicas that diverged", _BOTH),
    _plain("images_per_replica_second", "float", "images/s", "images that a replica trained on a second"),
    _mean("test_bias", "nats", "KL(p, qbar) on test images, qbar the normalised geometric mean over replicas"),
    _mean("test_variance", "nats", "mean of KL(qbar, q) over replicas on test images"),
    _mean(
        "test_bias_{part}",
        "nats",
        "test_bias over a group of classes, or its part between or within groups",
        parts=_PARTS,
    ),
    _mean("test_variance_{group}", "nats", "test_variance over the images of a group of classes", parts=_GROUPS),
    _mean("test_bias_removed", "", "1 - bias / bias of what teaches"),
    _deviation("slope", "", "of least squares of the student's logit on the teacher's, of the teacher's top class"),
    _deviation("intercept", "logit", "of the same line"),
    _deviation("slope_axis", "", "ratio of the standard deviations of the two logits"),
    _deviation("slope_upper", "", "of the inverse regression"),
    _deviation("mean", "logit", "mean of student's minus teacher's logit"),
    _deviation("below", "", "share of the points where the student's logit is the lower one"),
    _deviation("below_q1", "", "likewise in the tenth of the points with the teacher's lowest logits"),
    _deviation("left_out", "", "share of the points with an infinite logit"),
    _deviation(
        "q{decile}",
        "logit",
        "mean of student's minus teacher's logit in a tenth of the points by the teacher's",
        parts=(("decile", _DECILES),),
    ),
    _deviation(
        "teacher_q{decile}", "logit", "mean of the teacher's logit in that tenth", parts=(("decile", _DECILES),)
    ),
    _deviation("kl_change", "nats", "mean of KL(p, q_s) - KL(p, q_t); negative: the student is closer to the truth"),
    _deviation("towards", "", "<q_s - q_t, p - q_t> / |p - q_t|^2 summed over points: 1 is the whole way to the truth"),
    _deviation("cosine", "", "the same with both lengths divided out"),
    _deviation("kl_left_out", "", "share of the points at which a KL divergence is infinite"),
)
