"""The tables of cells: curves over steps, one row a replica, and one row a recorded direction."""

from __future__ import annotations

from kdsim.conventions import DEVIATION_GROUPS, GROUPS, QUANTILES
from kdsim.results.schema import Column, Kind, Table, Type

_SIMULATED: tuple[Kind, ...] = ("simulation",)
_TRAINED: tuple[Kind, ...] = ("training",)
_BOTH: tuple[Kind, ...] = ("simulation", "training")
_ALL: tuple[Kind, ...] = ("simulation", "training", "teacher", "computation")
_DIST = "|theta|^2"
_METRICS = ("dist_sq", "excess_risk", "accuracy", "bcp_l2", "loss", "label_accuracy", "ece", "top5", "brier", "bcp_kl")
_BY_GROUP = (
    *(f"accuracy_{group}" for group in GROUPS),
    *(f"bcp_kl_{part}" for part in (*GROUPS, "between", "within")),
)
_METRIC = (("metric", (*_METRICS, "train_loss", *_BY_GROUP)),)
_DECILE = (("decile", tuple(map(str, range(1, DEVIATION_GROUPS + 1)))),)


def _columns(table: Table, *items: tuple[str, Type, str, str, tuple[Kind, ...], tuple]) -> tuple[Column, ...]:
    return tuple(
        Column(name, type_, unit, meaning, "measurement", kinds, table, parts=parts)
        for name, type_, unit, meaning, kinds, parts in items
    )


def _theory(table: Table, name: str, unit: str, meaning: str, place: str) -> Column:
    return Column(name, "float", unit, meaning, "theory", _SIMULATED, table, place=place)


COLUMNS = (
    Column("cell", "str", "", "digest of the cell that the row is of", "provenance", _ALL, "curves"),
    *_columns(
        "curves",
        ("step", "int", "steps", "steps done at the checkpoint or evaluation", _ALL, ()),
        ("{metric}_mean", "float", "", "mean over replicas", _BOTH, _METRIC),
        ("{metric}_se", "float", "", "standard error of that mean", _BOTH, _METRIC),
        (
            "{metric}_q{percent}",
            "float",
            "",
            "quantile over replicas, in percent; diverged ones count as the worst",
            _BOTH,
            (*_METRIC, ("percent", tuple(f"{percent:02d}" for percent in QUANTILES))),
        ),
    ),
    _theory("curves", "bound", _DIST, "T1 at that step", "Bounds"),
    _theory(
        "curves", "linearised", _DIST, "E|theta - theta*|^2 of the linearised dynamics", "Sharper floors and step sizes"
    ),
    _theory("curves", "exact_excess_risk", "nats", "exact excess risk of least squares", "Floors"),
    _theory("curves", "risk_bound", "nats", "T2 at that step", "Bounds"),
    _theory("curves", "sharp_risk_bound", "nats", "T2' at that step", "Bounds"),
    Column("cell", "str", "", "digest of the cell that the row is of", "provenance", _ALL, "replicas"),
    *_columns(
        "replicas",
        ("replica", "int", "", "number of the replica, from 0", _ALL, ()),
        ("floor", "float", _DIST, "its tail average of |theta - theta*|^2; of a training, of KL(p, q)", _BOTH, ()),
        (
            "floor_{part}",
            "float",
            "nats",
            "likewise by group of classes",
            _TRAINED,
            (("part", (*GROUPS, "between", "within", "drift")),),
        ),
        ("fluctuation", "float", _DIST, "standard deviation of its |theta - theta*|^2 within the tail", _SIMULATED, ()),
        ("diverged_at", "int", "steps", "step at which it was found to have diverged; -1: it did not", _BOTH, ()),
        ("best_step", "int", "steps", "its evaluation that was best on validation images", _TRAINED, ()),
        ("seconds", "float", "s", "time that it took, all its sessions together", _TRAINED, ()),
        ("final_{metric}", "float", "", "its metric at the last step", _BOTH, _METRIC),
        ("test_{metric}", "float", "", "its score on test images at the last step", ("training", "teacher"), _METRIC),
        ("best_test_{metric}", "float", "", "likewise at its best evaluation", _TRAINED, _METRIC),
        ("noise_accuracy", "float", "", "deviation of its accuracy about its own line in the window", _TRAINED, ()),
        ("noise_loss", "float", "nats", "deviation of its loss about its own line in the window", _TRAINED, ()),
        (
            "{metric}",
            "float",
            "",
            "score of a teacher on validation images",
            ("teacher",),
            (("metric", (*_METRICS, "adaptive_ece", "nu", "bias_sq", "gradient_noise")),),
        ),
        (
            "test_{quality}",
            "float",
            "",
            "quality of a teacher on test images",
            ("teacher",),
            (("quality", ("adaptive_ece", "nu", "bias_sq", "gradient_noise")),),
        ),
        (
            "deviation_{statistic}",
            "float",
            "",
            "how it deviates from its teacher, as in the rows",
            _TRAINED,
            (
                (
                    "statistic",
                    (
                        "slope",
                        "intercept",
                        "slope_axis",
                        "slope_upper",
                        "mean",
                        "below",
                        "below_q1",
                        "left_out",
                        "kl_change",
                        "towards",
                        "cosine",
                        "kl_left_out",
                    ),
                ),
            ),
        ),
        (
            "deviation_{what}{decile}",
            "float",
            "logit",
            "likewise in a tenth of the points, its standard error over points (se_q), and the teacher's logit there",
            _TRAINED,
            (("what", ("q", "se_q", "teacher_q")), *_DECILE),
        ),
    ),
    Column("cell", "str", "", "digest of the cell that the row is of", "provenance", _ALL, "spectrum"),
    *_columns(
        "spectrum",
        ("direction", "int", "", "number of the eigenvector of the Hessian at theta*, from 0", _SIMULATED, ()),
        ("lag", "int", "samples", "lag at which memory is taken", _SIMULATED, ()),
    ),
    Column("variance", "float", _DIST, "variance along the direction", "measurement", table="spectrum", interval=True),
    Column("memory", "float", "", "autocorrelation at the lag", "measurement", table="spectrum", interval=True),
    Column("time", "float", "steps", "autocorrelation time", "measurement", table="spectrum", interval=True),
    _theory("spectrum", "curvature", "", "eigenvalue of the Hessian", "Sharper floors and step sizes"),
    _theory("spectrum", "variance_theory", _DIST, "first-order variance along the direction", "Floors"),
    _theory("spectrum", "time_theory", "steps", "1 / (step size * curvature)", "Floors"),
)
